package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/crypto/identity"
	"sallyport/project"
	"sallyport/state"
)

func init() { nouns = append(nouns, authorityNoun) }

func authorityNoun(a *app) *cobra.Command {
	return noun(groupStory, "authority", "Authorities: they decide who is a member", nil, authorityCreate(a))
}

// parseTrusted reads {"I…": {"attribute": "value"}}.
func parseTrusted(raw json.RawMessage) (map[identity.Identifier]map[string]string, error) {
	var byText map[string]map[string]string
	if err := json.Unmarshal(raw, &byText); err != nil {
		return nil, usageError(`--trusted-identities must be an object such as {"I…": {"ockam-role": "enroller"}}: %v`, err)
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
	f.StringVar(&auth.AccountAuthority, "account-authority", "", "")
	f.BoolVar(&auth.EnforceAdminChecks, "enforce-admin-checks", false, "")
	f.StringVar(&auth.ProjectAccessRoute, "project-access-route", "", "")
	f.String("project-identity-identifier-file", "", "")
	f.StringVar(&auth.TenantBaseURL, "tenant-base-url", "", "")
	f.StringVar(&auth.Certificate, "certificate", "", "")
	f.StringArrayVar(&auth.Attributes, "attributes", nil, "")
	limitFlags(cmd, o)
	hide(cmd, "account-authority", "enforce-admin-checks", "project-access-route", "project-identity-identifier-file", "tenant-base-url", "certificate", "attributes")
}

func authorityCreate(a *app) *cobra.Command {
	var o state.NodeOptions
	var auth state.AuthorityOptions
	var trusted string
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
			if auth.AccountAuthority != "" || auth.TenantBaseURL != "" {
				return withHint(errors.New("account authorities and Okta need the hosted service"), "name the administrators with --trusted-identities")
			}
			auth.TrustedIdentities = json.RawMessage(trusted)
			if _, err := parseTrusted(auth.TrustedIdentities); err != nil {
				return err
			}
			name := "authority-" + auth.ProjectIdentifier
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
	f.Uint16Var(&r.callback, "tcp-callback-port", 0, "")
	hide(cmd, "child-process", "tcp-callback-port")
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

// authorityArgs is the command line of the process that runs an authority.
func authorityArgs(o state.NodeOptions) []string {
	auth := o.Authority
	args := []string{"authority", "create", "--child-process", "--tcp-listener-address", o.TCPListenerAddress, "--identity", o.Identity,
		"--project-identifier", auth.ProjectIdentifier, "--trusted-identities", string(auth.TrustedIdentities)}
	for flag, given := range map[string]bool{"--no-direct-authentication": auth.NoDirectAuthentication, "--no-token-enrollment": auth.NoTokenEnrollment, "--disable-trust-context-id": auth.DisableTrustContextID} {
		if given {
			args = append(args, flag)
		}
	}
	return append(args, limitArgs(o)...)
}

// projectCreate makes a whole project on this machine: an authority, a relay node and their description.
func projectCreate(a *app) *cobra.Command {
	var host, admin string
	var authorityPort, relayPort int
	cmd := &cobra.Command{Use: "create [NAME] [flags]", Short: "Create a project here: an authority and a relay",
		Example: `  sallyport project create partners
  sallyport project create partners --host relay.example.com`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			name := "default"
			if len(args) == 1 {
				name = args[0]
			}
			return a.createProject(ctx, name, host, admin, authorityPort, relayPort)
		}}
	f := cmd.Flags()
	f.StringVar(&host, "host", "127.0.0.1", "`NAME` or address of this machine for members")
	f.StringVar(&admin, "identity", "admin", "the administrator's identity, created if need be")
	f.IntVar(&authorityPort, "authority-port", 4000, "the authority's `PORT`")
	f.IntVar(&relayPort, "relay-port", 4001, "the relay's `PORT`")
	return cmd
}

func (a *app) createProject(ctx context.Context, name, host, admin string, authorityPort, relayPort int) error {
	if err := state.CheckName("project", name); err != nil {
		return usageError("%v", err)
	}
	listen := "127.0.0.1"
	if ip := net.ParseIP(host); ip == nil && host != "localhost" || ip != nil && !ip.IsLoopback() {
		listen = "0.0.0.0"
	}
	ensure := func(identityName string) (*self, error) {
		if _, err := a.dir(); err != nil {
			return nil, err
		}
		if _, _, err := a.identityNamed(ctx, identityName, "", identity.CreateOptions{}); err != nil {
			return nil, err
		}
		return a.identityOf(ctx, identityName)
	}
	adminSelf, err := ensure(admin)
	if err != nil {
		return err
	}
	authoritySelf, err := ensure("authority-" + name)
	if err != nil {
		return err
	}
	relaySelf, err := ensure("relay-" + name)
	if err != nil {
		return err
	}
	history := func(s *self) string {
		i, err := s.manager.Identity(ctx, s.id)
		if err != nil {
			return ""
		}
		return i.Hex()
	}
	trusted, err := json.Marshal(map[string]map[string]string{adminSelf.id.String(): {"ockam-role": "enroller"}})
	if err != nil {
		return err
	}
	port := func(p int) string { return fmt.Sprint(p) }
	auth := state.NodeOptions{TCPListenerAddress: net.JoinHostPort(listen, port(authorityPort)), Identity: authoritySelf.named.Name,
		Authority: &state.AuthorityOptions{ProjectIdentifier: name, TrustedIdentities: trusted}}
	if err := a.createBackground(ctx, "authority-"+name, auth); err != nil {
		return err
	}
	relay := state.NodeOptions{TCPListenerAddress: net.JoinHostPort(listen, port(relayPort)), Identity: relaySelf.named.Name, AuthorityIdentity: history(authoritySelf)}
	if err := a.createBackground(ctx, "relay-"+name, relay); err != nil {
		return err
	}
	prefix := "/dnsaddr/" + host
	if ip := net.ParseIP(host); ip != nil {
		prefix = "/ip4/" + host
		if strings.Contains(host, ":") {
			prefix = "/ip6/" + host
		}
	}
	p := &project.Project{
		ID: name, Name: name, SpaceName: "self", SpaceID: "self", Users: []string{}, UserRoles: []project.UserRole{},
		AccessRoute: prefix + "/tcp/" + port(relayPort) + "/service/api", Identity: relaySelf.id.String(), ChangeHistory: history(relaySelf),
		AuthorityAccessRoute: prefix + "/tcp/" + port(authorityPort) + "/service/api", AuthorityChangeHistory: history(authoritySelf),
	}
	if err := a.dirOnce.ImportProject(ctx, p); err != nil {
		return err
	}
	a.done("Created the project %s: authority at port %d, relay at port %d of %s", name, authorityPort, relayPort, host)
	a.hint("next: a ticket for each company, for example")
	a.hint("  sallyport project ticket --identity %s --relay blue      for the one with the server", admin)
	a.hint("  sallyport project ticket --identity %s                   for the one with the client", admin)
	return a.print(result{human: projectText(p), machine: name, json: p})
}
