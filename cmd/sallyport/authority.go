//go:build !small

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/crypto/identity"
	"sallyport/state"
)

func init() { nouns = append(nouns, authorityNoun) }

func authorityNoun(a *app) *cobra.Command {
	return noun(groupStory, "authority", "Authorities: they decide who is a member", nil, authorityCreate(a), authorityAudit(a), authorityMigrate(a))
}

// parseTrusted reads {"I…": {"attribute": "value"}}.
func parseTrusted(raw json.RawMessage) (map[identity.Identifier]map[string]string, error) {
	var byText map[string]map[string]string
	if err := json.Unmarshal(raw, &byText); err != nil {
		return nil, usageError(`--trusted-identities must be an object such as {"I…": {"ockam-role": "enroller"}}: %v`, err)
	}
	if byText == nil {
		return nil, nil
	}
	out := map[identity.Identifier]map[string]string{}
	for text, attributes := range byText {
		id, err := identity.ParseIdentifier(text)
		if err != nil {
			return nil, usageError("--trusted-identities: %v", err)
		}
		out[id] = attributes
	}
	return out, nil
}

func authorityFlags(cmd *cobra.Command, o *state.NodeOptions, auth *state.AuthorityOptions, trusted *string) {
	f := cmd.Flags()
	f.StringVarP(&o.TCPListenerAddress, "tcp-listener-address", "t", "127.0.0.1:4000", "where members connect, `HOST:PORT`")
	f.StringVar(&auth.ProjectIdentifier, "project-identifier", "", "the `ID` of the project, any text")
	f.StringVar(trusted, "trusted-identities", "", "the first members, `JSON`: {\"I…\": {\"ockam-role\": \"enroller\"}}")
	f.StringVar(&o.Identity, "identity", "", "the `NAME` of the authority's identity")
	f.BoolVar(&auth.NoDirectAuthentication, "no-direct-authentication", false, "members cannot be managed over the network")
	f.BoolVar(&auth.NoTokenEnrollment, "no-token-enrollment", false, "no tickets")
	f.BoolVar(&auth.DisableTrustContextID, "disable-trust-context-id", false, "leave trust_context_id out of credentials")
	f.BoolVar(&auth.New, "new", false, "begin with no members where the store has gone")
	f.StringVar(&auth.CredentialTTL, "credential-ttl", "", "`DURATION` of credentials, kept for later starts (default 1h)")
	f.StringVar(&auth.AccountAuthority, "account-authority", "", "`HISTORY` of who says who administers projects, hex")
	f.BoolVar(&auth.EnforceAdminChecks, "enforce-admin-checks", false, "with it: only those make enrollers, not enrollers")
	oidcFlags(f, &auth.OIDC)
	storeFlag(f, &auth.Store)
	f.StringVar(&auth.ProjectAccessRoute, "project-access-route", "", "")
	f.String("project-identity-identifier-file", "", "")
	f.StringVar(&auth.TenantBaseURL, "tenant-base-url", "", "")
	f.StringVar(&auth.Certificate, "certificate", "", "")
	f.StringArrayVar(&auth.Attributes, "attributes", nil, "")
	f.StringVar(&o.StatusEndpoint, "status-endpoint", "", "`HOST:PORT` of status and metrics (default: 23345 or free)")
	networkFlags(cmd, o)
	limitFlags(cmd, o)
	logFlags(cmd, o)
	hide(cmd, "project-access-route", "project-identity-identifier-file", "tenant-base-url", "certificate", "attributes",
		"account-authority", "enforce-admin-checks", "disable-trust-context-id") // seldom used: help fits a screen
}

// oidcFlags are the flags that say which provider of OpenID Connect an authority believes.
func oidcFlags(f *pflag.FlagSet, o *state.OIDCOptions) {
	f.StringVar(&o.Issuer, "oidc-issuer", "", "`URL` of an OpenID Connect provider: its people join")
	f.StringVar(&o.ClientID, "oidc-client-id", "", "what the provider knows the authority as, an `ID`")
	f.StringVar(&o.SecretFile, "oidc-client-secret-file", "", "a `FILE` with the client's secret")
	f.StringArrayVar(&o.Scopes, "oidc-scope", nil, "a `SCOPE` to ask for beside openid")
	f.StringArrayVar(&o.Claims, "oidc-claim", nil, "a claim that is an attribute, `CLAIM=ATTRIBUTE`")
	f.StringArrayVar(&o.Require, "oidc-require", nil, "a claim that a member must have, `CLAIM=VALUE`")
	f.StringVar(&o.Lifetime, "oidc-lifetime", "", "`DURATION` of a membership until the next sign-in (12h)")
}

func authorityCreate(a *app) *cobra.Command {
	var o state.NodeOptions
	var auth state.AuthorityOptions
	var trusted, name string
	var foreground bool
	var r runOptions
	cmd := &cobra.Command{Use: "create [flags]", Short: "Create an authority and start it", Example: `  sallyport authority create --project-identifier p1 --trusted-identities '{}'
  sallyport authority create -t 0.0.0.0:4000 --project-identifier p2 \
    --trusted-identities "{\"$IDENTIFIER\": {\"ockam-role\": \"enroller\"}}"`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if auth.ProjectIdentifier == "" {
				return usageError("the following required arguments were not provided: --project-identifier <ID>")
			}
			if trusted == "" {
				return usageError("the following required arguments were not provided: --trusted-identities <JSON>")
			}
			if auth.TenantBaseURL != "" {
				return withHint(errors.New("signing in with Okta is not supported"), "name the administrators with --trusted-identities")
			}
			if auth.AccountAuthority = unfolded(auth.AccountAuthority); auth.AccountAuthority != "" {
				if _, err := identity.ImportHex(auth.AccountAuthority, nil); err != nil {
					return usageError("invalid value for '--account-authority': it must be the change history of an identity in hex, as identity show --full --encoding hex prints it: %v", err)
				}
			}
			auth.TrustedIdentities = json.RawMessage(trusted)
			if _, err := parseTrusted(auth.TrustedIdentities); err != nil {
				return err
			}
			if err := checkOIDC(&auth.OIDC); err != nil {
				return err
			}
			if err := checkStore(&auth.Store); err != nil {
				return err
			}
			if err := checkLog(cmd, &o); err != nil {
				return err
			}
			if err := a.checkNetwork(&o); err != nil {
				return err
			}
			if auth.CredentialTTL == "" {
				auth.CredentialTTL = os.Getenv("CREDENTIAL_TTL_SECS") // for the next start too
			}
			if name == "" {
				name = "authority-" + auth.ProjectIdentifier
			}
			if o.Identity == "" {
				var err error
				if o.Identity, err = a.authorityIdentity(ctx, name); err != nil {
					return err
				}
			} else if _, err := a.dir(); err != nil {
				return err
			} else if _, _, err := a.identityNamed(ctx, o.Identity, "", identity.CreateOptions{}); err != nil {
				return err
			}
			o.NoStatusEndpoint = false
			o.Authority = &auth
			if foreground || r.child {
				return a.runNode(ctx, name, o, r)
			}
			if err := a.createBackground(ctx, name, o); err != nil {
				return err
			}
			a.done("Created the authority %s, listening at %s", name, o.TCPListenerAddress)
			return nil
		}}
	authorityFlags(cmd, &o, &auth, &trusted)
	f := cmd.Flags()
	f.BoolVarP(&foreground, "foreground", "f", false, "run here until interrupted")
	f.BoolVarP(&r.skipRunning, "skip-is-running-check", "s", false, "start even if a node of this name runs")
	f.BoolVar(&r.child, "child-process", false, "")
	f.StringVar(&name, "node-name", "", "")
	f.IntVar(&r.carried, "carried", 0, "")
	f.Uint16Var(&r.callback, "tcp-callback-port", 0, "")
	hide(cmd, "child-process", "node-name", "carried", "tcp-callback-port")
	return cmd
}

// authorityIdentity chooses the identity of an authority for which none was named (docs/protocol/02 §5.6).
func (a *app) authorityIdentity(ctx context.Context, name string) (string, error) {
	d, err := a.dir()
	if err != nil {
		return "", err
	}
	if _, err := d.NamedIdentity(name); err == nil {
		return name, nil
	}
	if _, err := d.NamedIdentity("authority"); err == nil {
		return name, d.RenameIdentity(ctx, "authority", name)
	}
	_, _, err = a.identityNamed(ctx, name, "", identity.CreateOptions{})
	return name, err
}
