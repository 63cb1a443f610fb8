package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/member"
	"sallyport/project"
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
	cmd := &cobra.Command{Use: "issue [VAULT] --for IDENTIFIER [flags]", Short: "Issue a credential", Example: `  sallyport credential issue --for "$IDENTIFIER" --attribute company=acme
  sallyport credential issue --as admin --for "$IDENTIFIER" --ttl 1h --encoding hex > m.credential`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
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
			if len(args) == 1 {
				if s.manager, err = a.managerOf(ctx, args[0]); err != nil {
					return err
				}
			}
			raw, err := s.manager.IssueCredential(ctx, s.id, id, wanted, ttl)
			if err != nil {
				return err
			}
			c, err := member.VerifyAny(ctx, s.manager, raw, nil)
			if err != nil {
				return err
			}
			text := credentialText(c)
			if encoding == "hex" {
				text = hex.EncodeToString(raw)
			}
			return a.print(result{human: text, machine: text, json: credentialJSON(c, raw, "")["credential"]})
		}}
	f := cmd.Flags()
	f.StringVar(&as, "as", "", "the `NAME` of the issuing identity (default: the default identity)")
	f.StringVar(&subject, "for", "", "whom it is for, an `IDENTIFIER`")
	f.StringArrayVarP(&attributes, "attribute", "a", nil, "an attribute, `KEY=VALUE`")
	durationVar(f, &ttl, "ttl", 30*time.Minute, "how long it is valid")
	f.StringVar(&encoding, "encoding", "plain", "plain or hex")
	return cmd
}

// readCredential reads a credential given as hex or as a file with it.
func readCredential(ctx context.Context, text, path string) ([]byte, error) {
	if (text == "") == (path == "") {
		return nil, usageError("give the credential with --credential or with --credential-path")
	}
	if path != "" {
		var err error
		if text, err = readInput(ctx, path, project.MaxSize); err != nil {
			return nil, err
		}
	}
	raw, err := pastedHex(text)
	if err != nil {
		return nil, fmt.Errorf("the credential must be hex: %w", err)
	}
	return raw, nil
}

func credentialVerify(a *app) *cobra.Command {
	var issuer, text, path string
	cmd := &cobra.Command{Use: "verify --issuer IDENTIFIER --credential HEX", Short: "Verify a credential", Example: `  sallyport credential verify --issuer "$ISSUER" --credential "$CREDENTIAL"
  sallyport credential verify --issuer "$ISSUER" --credential-path m.credential`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			id, err := identity.ParseIdentifier(issuer)
			if err != nil {
				return usageError("invalid value '%s' for '--issuer': an identifier is I and 64 hex digits", issuer)
			}
			raw, err := readCredential(ctx, text, path)
			if m := (*misuse)(nil); errors.As(err, &m) {
				return err
			}
			a.note("Verifying the credential...")
			if err != nil { // what cannot be read is not valid, as in the reference
				a.note("Credential is not verified: %v", err)
				return a.print(validity(false))
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			// No key is needed to verify, so none is made.
			_, err = identity.New(identity.Options{Store: d.Store()}).VerifyCredential(ctx, raw, nil, []identity.Identifier{id})
			if err != nil {
				a.note("Credential is not verified: %v", err)
			}
			return a.print(validity(err == nil))
		}}
	f := cmd.Flags()
	f.StringVar(&issuer, "issuer", "", "who must have issued it, an `IDENTIFIER`")
	f.StringVar(&text, "credential", "", "the credential, `HEX`")
	f.StringVar(&path, "credential-path", "", "a `FILE` with it")
	return cmd
}

func validity(valid bool) result {
	return result{human: fmt.Sprint(valid), machine: fmt.Sprint(valid), json: map[string]bool{"is_valid": valid}}
}

func credentialStore(a *app) *cobra.Command {
	var issuer, text, path, scope, at string
	cmd := &cobra.Command{Use: "store --issuer IDENTIFIER --credential HEX --scope SCOPE", Short: "Keep a credential for a node to present", Example: `  sallyport credential store --issuer "$ISSUER" --credential "$CREDENTIAL" --scope s1
  sallyport credential store --at n1 --issuer "$ISSUER" --credential-path m.credential --scope s2`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			id, err := identity.ParseIdentifier(issuer)
			if err != nil {
				return usageError("invalid value '%s' for '--issuer': an identifier is I and 64 hex digits", issuer)
			}
			raw, err := readCredential(ctx, text, path)
			if err != nil {
				return err
			}
			s, err := a.identityOf(ctx, "")
			if err != nil {
				return err
			}
			c, err := s.manager.VerifyCredential(ctx, raw, nil, []identity.Identifier{id})
			if err != nil {
				return fmt.Errorf("credential is not verified: %w", err)
			}
			_, node, err := a.firstClient(ctx, at)
			if err != nil {
				return err
			}
			if err := a.storeCredential(ctx, s.manager, raw, c.Subject, scope, node); err != nil {
				return err
			}
			a.note("%s Stored the credential of %s", a.color(green, "✔"), c.Subject)
			encoded := hex.EncodeToString(raw)
			return a.print(result{human: encoded, machine: encoded, json: map[string]string{"credential": encoded, "issuer": c.Issuer.String()}})
		}}
	f := cmd.Flags()
	f.StringVar(&issuer, "issuer", "", "who issued it, an `IDENTIFIER`")
	f.StringVar(&text, "credential", "", "the credential, `HEX`")
	f.StringVar(&path, "credential-path", "", "a `FILE` with it")
	f.StringVar(&scope, "scope", "", "the `SCOPE` to keep it under")
	f.StringVar(&at, "at", "", "the `NODE` to keep it for (default: the default node)")
	return cmd
}

func credentialList(a *app) *cobra.Command {
	var at, subject, issuer string
	cmd := &cobra.Command{Use: "list [flags]", Short: "List the credentials that a node can present", Example: `  sallyport credential list
  sallyport credential list --at n1 --output json`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if err := errors.Join(checkIdentifier("--subject", subject), checkIdentifier("--issuer", issuer)); err != nil {
				return err
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			m := identity.New(identity.Options{Store: d.Store()}) // no key is needed to verify
			if _, err := a.dirOnce.Node(plainName(at)); at != "" && notFound(err) {
				return a.print(result{human: "no credentials", json: []any{}}) // as in the reference: not an error
			}
			node, err := a.nodeRecord(at)
			if err != nil {
				return err
			}
			stored, err := a.dirOnce.Credentials()
			if err != nil {
				return err
			}
			out, rows := []any{}, [][]string{}
			for _, s := range stored {
				if s.Node != node.Name && (s.Node != "" || s.Subject != node.Identifier) {
					continue
				}
				c, err := member.VerifyAny(ctx, m, s.Raw, nil)
				if errors.Is(err, identity.ErrExpired) {
					continue
				}
				if err != nil {
					a.note("a stored credential does not verify: %v", err)
					continue
				}
				if subject != "" && c.Subject.String() != subject || issuer != "" && c.Issuer.String() != issuer {
					continue
				}
				entry := credentialJSON(c, s.Raw, s.Scope)
				entry["is_verified"] = true // what does not verify is left out
				out = append(out, entry)
				rows = append(rows, []string{c.Subject.String(), s.Scope, time.Unix(int64(c.ExpiresAt), 0).UTC().Format(time.RFC3339), attributesText(authority.Attributes(c.Attributes))})
			}
			return a.print(result{human: tableOr("no credentials at "+node.Name, []string{"SUBJECT", "SCOPE", "EXPIRES", "ATTRIBUTES"}, rows), json: out})
		}}
	f := cmd.Flags()
	f.StringVar(&at, "at", "", "the `NODE` that has them (default: the default node)")
	f.StringVar(&subject, "subject", "", "only those of an `IDENTIFIER`")
	f.StringVar(&issuer, "issuer", "", "only those issued by an `IDENTIFIER`")
	return cmd
}
