package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/crypto/identity"
)

func init() { nouns = append(nouns, credentialNoun) }

func credentialNoun(a *app) *cobra.Command {
	return noun(groupObjects, "credential", "Credentials: what an authority says of a member", nil,
		credentialIssue(a), credentialList(a), credentialStore(a), credentialVerify(a))
}

func credentialIssue(a *app) *cobra.Command {
	var as, subject, encoding string
	var attributes []string
	var ttl time.Duration
	cmd := &cobra.Command{Use: "issue --for IDENTIFIER [flags]", Short: "Issue a credential", Example: `  sallyport credential issue --for "$IDENTIFIER" --attribute k=v`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if subject == "" {
				return usageError("the following required arguments were not provided: --for <IDENTIFIER>")
			}
			id, err := identity.ParseIdentifier(subject)
			if err != nil {
				return usageError("invalid value '%s' for '--for': an identifier is I and 64 hex digits", subject)
			}
			if encoding != "plain" && encoding != "hex" {
				return usageError("invalid value '%s' for '--encoding': it must be plain or hex", encoding)
			}
			wanted := identity.Attributes{}
			for _, pair := range attributes {
				key, value, found := strings.Cut(pair, "=")
				if !found {
					return fmt.Errorf("the attribute %q must be KEY=VALUE (value expected)", pair)
				}
				wanted[key] = value
			}
			s, err := a.identityOf(ctx, as)
			if err != nil {
				return err
			}
			raw, err := s.manager.IssueCredential(ctx, s.id, id, wanted, ttl)
			if err != nil {
				return err
			}
			c, err := a.verifyAny(ctx, s.manager, raw, nil)
			if err != nil {
				return err
			}
			text := credentialText(c)
			if encoding == "hex" {
				text = hex.EncodeToString(raw)
			}
			return a.print(result{human: text, machine: hex.EncodeToString(raw), json: credentialJSON(c, raw, "")["credential"]})
		}}
	f := cmd.Flags()
	f.StringVar(&as, "as", "", "the `NAME` of the issuing identity (default: the default identity)")
	f.StringVar(&subject, "for", "", "whom it is for, an `IDENTIFIER`")
	f.StringArrayVarP(&attributes, "attribute", "a", nil, "an attribute, `KEY=VALUE`")
	durationVar(f, &ttl, "ttl", 30*time.Minute, "how long it is valid")
	f.StringVar(&encoding, "encoding", "plain", "plain or hex")
	f.String("vault", "", "")
	hide(cmd, "vault")
	return cmd
}

// readCredential reads a credential given as hex or as a file with it.
func readCredential(text, path string) ([]byte, error) {
	if (text == "") == (path == "") {
		return nil, usageError("give the credential with --credential or with --credential-path")
	}
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		text = string(b)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("the credential must be hex: %w", err)
	}
	return raw, nil
}

func credentialVerify(a *app) *cobra.Command {
	var issuer, text, path string
	cmd := &cobra.Command{Use: "verify --issuer IDENTIFIER --credential HEX", Short: "Verify a credential", Example: `  sallyport credential verify --issuer "$IDENTIFIER" --credential "$CREDENTIAL"`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			id, err := identity.ParseIdentifier(issuer)
			if err != nil {
				return usageError("invalid value '%s' for '--issuer': an identifier is I and 64 hex digits", issuer)
			}
			raw, err := readCredential(text, path)
			if err != nil {
				return err
			}
			s, err := a.identityOf(ctx, "")
			if err != nil {
				return err
			}
			_, err = s.manager.VerifyCredential(ctx, raw, nil, []identity.Identifier{id})
			if err != nil {
				a.note("not valid: %v", err)
			}
			valid := fmt.Sprint(err == nil)
			return a.print(result{human: valid, machine: valid, json: map[string]bool{"is_valid": err == nil}})
		}}
	f := cmd.Flags()
	f.StringVar(&issuer, "issuer", "", "who must have issued it, an `IDENTIFIER`")
	f.StringVar(&text, "credential", "", "the credential, `HEX`")
	f.StringVar(&path, "credential-path", "", "a `FILE` with it")
	return cmd
}

func credentialStore(a *app) *cobra.Command {
	var issuer, text, path, scope, at string
	cmd := &cobra.Command{Use: "store --issuer IDENTIFIER --credential HEX --scope SCOPE", Short: "Keep a credential for a node to present", Example: `  sallyport credential store --issuer "$IDENTIFIER" --credential "$CREDENTIAL" --scope s1`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			id, err := identity.ParseIdentifier(issuer)
			if err != nil {
				return usageError("invalid value '%s' for '--issuer': an identifier is I and 64 hex digits", issuer)
			}
			raw, err := readCredential(text, path)
			if err != nil {
				return err
			}
			s, err := a.identityOf(ctx, "")
			if err != nil {
				return err
			}
			c, err := s.manager.VerifyCredential(ctx, raw, nil, []identity.Identifier{id})
			if err != nil {
				return fmt.Errorf("the credential is not valid: %w", err)
			}
			if err := a.storeCredential(ctx, s.manager, raw, c.Subject, scope); err != nil {
				return err
			}
			encoded := hex.EncodeToString(raw)
			return a.print(result{human: encoded, machine: encoded, json: map[string]string{"credential": encoded}})
		}}
	f := cmd.Flags()
	f.StringVar(&issuer, "issuer", "", "who issued it, an `IDENTIFIER`")
	f.StringVar(&text, "credential", "", "the credential, `HEX`")
	f.StringVar(&path, "credential-path", "", "a `FILE` with it")
	f.StringVar(&scope, "scope", "", "the `SCOPE` to keep it under")
	f.StringVar(&at, "at", "", "`NODE`")
	return cmd
}

func credentialList(a *app) *cobra.Command {
	var at string
	cmd := &cobra.Command{Use: "list [flags]", Short: "List the credentials kept", Example: `  sallyport credential list`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			m, _, err := a.manager(ctx, "")
			if err != nil {
				return err
			}
			stored, err := a.dirOnce.Credentials()
			if err != nil {
				return err
			}
			out, rows := []any{}, [][]string{}
			for _, s := range stored {
				c, err := a.verifyAny(ctx, m, s.Raw, nil)
				if errors.Is(err, identity.ErrExpired) {
					continue
				}
				if err != nil {
					a.note("a stored credential does not verify: %v", err)
					continue
				}
				out = append(out, credentialJSON(c, s.Raw, s.Scope))
				rows = append(rows, []string{c.Subject.String(), s.Scope, time.Unix(int64(c.ExpiresAt), 0).UTC().Format(time.RFC3339), attributesText(authority.Attributes(c.Attributes))})
			}
			return a.print(result{human: tableOr("no credentials", []string{"SUBJECT", "SCOPE", "EXPIRES", "ATTRIBUTES"}, rows), json: out})
		}}
	cmd.Flags().StringVar(&at, "at", "", "`NODE`")
	return cmd
}
