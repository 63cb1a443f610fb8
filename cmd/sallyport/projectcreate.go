//go:build !small

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/crypto/identity"
	"sallyport/project"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// projectPlan is what `project create` is asked for.
type projectPlan struct {
	name, host, admin        string
	authorityPort, relayPort int
	authorityOnly, relayOnly bool
	// Of an authority that is elsewhere: its history and the route to it.
	authority, authorityRoute string
	// What members connect to where that is not host and port, URLs; and where the parts listen besides, with certificate and key.
	authorityAddress, relayAddress   string
	authorityListener, relayListener string
	network                          state.NodeOptions
	// Where status and metrics of the parts are, host:port, or empty.
	authorityStatus, relayStatus string
	oidc                         state.OIDCOptions
	registry                     string // of the relay, empty for none
	store                        string // of the authority, empty for the embedded one
}

// projectCreate makes a whole project on this machine, or one of its two parts.
func projectCreate(a *app) *cobra.Command {
	var p projectPlan
	cmd := &cobra.Command{Use: "create [NAME] [flags]", Short: "Create a project here: an authority, a relay, or both",
		Example: `  sallyport project create partners
  sallyport project create partners --authority-only --host authority.example.com > authority.txt
  sallyport project create partners --relay-only --host relay.example.com \
    --authority-identity "$(cat authority.txt)" \
    --authority-route /dnsaddr/authority.example.com/tcp/4000/service/api > partners.json`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.name = "default"
			if len(args) == 1 {
				p.name = args[0]
			}
			switch {
			case p.authorityOnly && p.relayOnly:
				return usageError("the argument '--authority-only' cannot be used with '--relay-only'")
			case p.relayOnly && (p.authority == "" || p.authorityRoute == ""):
				return usageError("--relay-only needs --authority-identity and --authority-route, which --authority-only printed on the authority's machine")
			case !p.relayOnly && (p.authority != "" || p.authorityRoute != ""):
				return usageError("--authority-identity and --authority-route are for --relay-only")
			case p.relayOnly && p.oidc.Issuer != "":
				return usageError("the argument '--oidc-issuer' cannot be used with '--relay-only': it is for the authority")
			}
			if err := checkOIDC(&p.oidc); err != nil {
				return err
			}
			if err := checkStore(&p.store); err != nil {
				return err
			}
			for _, l := range []string{p.authorityListener, p.relayListener} {
				if l != "" {
					p.network.Listeners = append(p.network.Listeners, l)
				}
			}
			if err := a.checkNetwork(&p.network); err != nil {
				return err
			}
			for flag, text := range map[string]string{"--authority-address": p.authorityAddress, "--relay-address": p.relayAddress} {
				if text == "" {
					continue
				}
				if _, err := multiaddr.ParseStream(text); err != nil {
					return usageError("invalid value for '%s': %v", flag, err)
				}
			}
			return a.createProject(cmd.Context(), p)
		}}
	f := cmd.Flags()
	f.StringVar(&p.host, "host", "127.0.0.1", "`NAME` or address of this machine")
	f.StringVar(&p.admin, "identity", "admin", "the administrator, created if need be")
	f.IntVar(&p.authorityPort, "authority-port", 4000, "the authority's `PORT`")
	f.IntVar(&p.relayPort, "relay-port", 4001, "the relay's `PORT`")
	f.StringVar(&p.authorityAddress, "authority-address", "", "where members find it, a `URL` such as wss://HOST/PATH")
	f.StringVar(&p.relayAddress, "relay-address", "", "where members find it, a `URL` such as wss://HOST/PATH")
	f.StringVar(&p.authorityListener, "authority-listener", "", "where it listens for that, a `URL` with ws, wss or tls")
	f.StringVar(&p.relayListener, "relay-listener", "", "where it listens for that, a `URL` with ws, wss or tls")
	f.StringVar(&p.network.TLSCertificate, "tls-certificate", "", "the certificate for wss and tls, a PEM `FILE`")
	f.StringVar(&p.network.TLSKey, "tls-key", "", "its private key, a PEM `FILE`")
	f.Var(acmeValue{&p.network.ACME}, "acme", "or by ACME: `JSON` or a file with it (docs/networks.md)")
	proxiedFlags(f, &p.network.AcceptProxyProtocol, &p.network.TrustedProxies)
	f.StringVar(&p.authorityStatus, "authority-status", "", "its status and metrics, `HOST:PORT`")
	f.StringVar(&p.relayStatus, "relay-status", "", "its status and metrics, `HOST:PORT`")
	f.BoolVar(&p.authorityOnly, "authority-only", false, "create the authority; the relay is on another machine")
	f.BoolVar(&p.relayOnly, "relay-only", false, "create the relay; the authority is on another machine")
	f.StringVar(&p.authority, "authority-identity", "", "the `HISTORY` of the authority that is elsewhere, hex")
	f.StringVar(&p.authorityRoute, "authority-route", "", "the `ROUTE` to the authority that is elsewhere")
	oidcFlags(f, &p.oidc)
	storeFlag(f, &p.store)
	registryFlag(f, &p.registry)
	return cmd
}

// projectIdentity returns an identity by name, which is made if there is none.
func (a *app) projectIdentity(ctx context.Context, name string) (*self, string, error) {
	if _, err := a.dir(); err != nil {
		return nil, "", err
	}
	if _, _, err := a.identityNamed(ctx, name, "", identity.CreateOptions{}); err != nil {
		return nil, "", err
	}
	s, err := a.identityOf(ctx, name)
	if err != nil {
		return nil, "", err
	}
	i, err := s.manager.Identity(ctx, s.id)
	if err != nil {
		return nil, "", err
	}
	return s, i.Hex(), nil
}

// listen is the address that a part of the project listens at: all of them, unless members are on this machine alone, or come another way.
func (p *projectPlan) listen(port int, listener string) string {
	host := "127.0.0.1"
	if listener != "" {
		return net.JoinHostPort(host, fmt.Sprint(port))
	}
	switch ip := net.ParseIP(p.host); {
	case ip != nil && ip.IsLoopback():
		host = p.host // there are others
	case p.host != "localhost":
		host = "0.0.0.0"
	}
	return net.JoinHostPort(host, fmt.Sprint(port))
}

// options adds to a part's options where it listens besides, and who is in front.
func (p *projectPlan) options(o state.NodeOptions, listener string) state.NodeOptions {
	if listener != "" || len(p.network.Listeners) == 0 {
		o.AcceptProxyProtocol, o.TrustedProxies = p.network.AcceptProxyProtocol, p.network.TrustedProxies
	}
	if listener == "" {
		return o
	}
	o.Listeners = []string{listener}
	if s, err := multiaddr.ParseStream(listener); err == nil && s.Layer != "ws" {
		o.TLSCertificate, o.TLSKey, o.ACME = p.network.TLSCertificate, p.network.TLSKey, p.network.ACME
	}
	return o
}

// route is how members reach a part of the project: at an address, or else at its port.
func (p *projectPlan) route(address string, port int) string {
	if s, err := multiaddr.ParseStream(address); err == nil {
		if a, err := s.Addr(); err == nil {
			return a.String() + "/service/api"
		}
	}
	prefix := "/dnsaddr/" + p.host
	if ip := net.ParseIP(p.host); ip != nil {
		prefix = "/ip4/" + p.host
		if strings.Contains(p.host, ":") {
			prefix = "/ip6/" + p.host
		}
	}
	return fmt.Sprintf("%s/tcp/%d/service/api", prefix, port)
}

func (a *app) createProject(ctx context.Context, p projectPlan) error {
	if err := state.CheckName("project", p.name); err != nil {
		return usageError("%v", err)
	}
	if _, err := multiaddr.Parse(p.route("", p.relayPort)); err != nil {
		return usageError("invalid value '%s' for '--host': %v", p.host, err)
	}
	for flag, address := range map[string]string{"--authority-status": p.authorityStatus, "--relay-status": p.relayStatus} {
		if address == "" {
			continue
		}
		if _, err := hostPort(flag, address); err != nil {
			return err
		}
	}
	if !p.relayOnly {
		if err := a.createProjectAuthority(ctx, &p); err != nil {
			return err
		}
	}
	if p.authorityOnly {
		a.done("Created the authority of the project %s at port %d of %s", p.name, p.authorityPort, p.host)
		a.hint("next, on the relay's machine, which should not be run by who runs this one:")
		a.hint("  sallyport project create %s --relay-only --host RELAY --authority-route %s --authority-identity %s > %s.json",
			p.name, p.authorityRoute, p.authority, p.name)
		a.hint("then here, with what it printed: sallyport project import --project-file %s.json", p.name)
		return a.print(result{human: fields("Identity", p.authority, "Route", p.authorityRoute), machine: p.authority,
			json: map[string]string{"authority_identity": p.authority, "authority_route": p.authorityRoute}})
	}
	made, err := a.createProjectRelay(ctx, p)
	if err != nil {
		return err
	}
	if p.relayOnly {
		a.done("Created the relay of the project %s at port %d of %s", p.name, p.relayPort, p.host)
		a.hint("next, where the administrator is: sallyport project import --project-file FILE, with what `sallyport project information %s --output json` prints", p.name)
		return a.print(result{human: projectText(made), json: made})
	}
	a.done("Created the project %s: authority at port %d, relay at port %d of %s", p.name, p.authorityPort, p.relayPort, p.host)
	a.note("%s Whoever runs this machine runs authority and relay, so they can make members and put one in another's place: clients should know whom they expect "+
		"(project ticket --expects, tcp-inlet create --authorized), or the two be on machines of different hands (--authority-only, --relay-only)", a.color("33", "!"))
	a.hint("next: a ticket for each company, for example")
	a.hint("  sallyport project ticket --identity %s --relay blue      for the one with the server", p.admin)
	a.hint("  sallyport project ticket --identity %s                   for the one with the client", p.admin)
	return a.print(result{human: projectText(made), machine: p.name, json: made})
}

// createProjectAuthority starts the authority, and completes p with who and where it is.
func (a *app) createProjectAuthority(ctx context.Context, p *projectPlan) error {
	admin, _, err := a.projectIdentity(ctx, p.admin)
	if err != nil {
		return err
	}
	self, history, err := a.projectIdentity(ctx, "authority-"+p.name)
	if err != nil {
		return err
	}
	trusted, err := json.Marshal(map[string]map[string]string{admin.id.String(): {"ockam-role": "enroller"}})
	if err != nil {
		return err
	}
	o := p.options(state.NodeOptions{TCPListenerAddress: p.listen(p.authorityPort, p.authorityListener), Identity: self.named.Name, StatusEndpoint: p.authorityStatus,
		Authority: &state.AuthorityOptions{ProjectIdentifier: p.name, TrustedIdentities: trusted, CredentialTTL: os.Getenv("CREDENTIAL_TTL_SECS"), OIDC: p.oidc, Store: p.store}}, p.authorityListener)
	p.authority, p.authorityRoute = history, p.route(p.authorityAddress, p.authorityPort)
	return a.createBackground(ctx, "authority-"+p.name, o)
}

// createProjectRelay starts the relay and imports the description of the project.
func (a *app) createProjectRelay(ctx context.Context, p projectPlan) (*project.Project, error) {
	self, history, err := a.projectIdentity(ctx, "relay-"+p.name)
	if err != nil {
		return nil, err
	}
	// The relay believes the authority's credentials, and hears from it which were taken back.
	route := p.authorityRoute
	if !p.relayOnly {
		route = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/service/api", p.authorityPort)
	}
	o := p.options(state.NodeOptions{TCPListenerAddress: p.listen(p.relayPort, p.relayListener), Identity: self.named.Name, AuthorityIdentity: p.authority, AuthorityRoute: route,
		StatusEndpoint: p.relayStatus}, p.relayListener)
	o.Registry = p.registry
	if err := checkRegistry(&o, p.route(p.relayAddress, p.relayPort)); err != nil {
		return nil, err
	}
	if err := a.createBackground(ctx, "relay-"+p.name, o); err != nil {
		return nil, err
	}
	made := &project.Project{
		ID: p.name, Name: p.name, SpaceName: "self", SpaceID: "self", Users: []string{}, UserRoles: []project.UserRole{},
		AccessRoute: p.route(p.relayAddress, p.relayPort), Identity: self.id.String(), ChangeHistory: history,
		AuthorityAccessRoute: p.authorityRoute, AuthorityChangeHistory: p.authority,
	}
	if err := a.dirOnce.ImportProject(ctx, made); err != nil {
		return nil, err
	}
	return made, nil
}
