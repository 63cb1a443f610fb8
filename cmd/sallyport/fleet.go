//go:build !small

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/crypto/identity"
	"sallyport/fleet"
	"sallyport/node/admin"
	"sallyport/project"
	"sallyport/state"
)

func init() { nouns = append(nouns, relayNodeNoun, authorityNodeNoun) }

func relayNodeNoun(a *app) *cobra.Command {
	return noun(groupStory, "relay-node", "More machines that are a project's relay", nil, relayNodeCreate(a))
}

func authorityNodeNoun(a *app) *cobra.Command {
	return noun(groupStory, "authority-node", "More machines that are a project's authority", nil, authorityNodeCreate(a))
}

// fleetCommands are what the keeper of a project's identity does for nodes that act as that identity.
func fleetCommands(a *app, kind fleet.Kind) *cobra.Command {
	name := string(kind) + "-node"
	return noun("", name, "Machines that are the project's "+string(kind)+" too", nil, fleetTicket(a, kind), fleetList(a, kind), fleetDelete(a, kind))
}

// keeperHere is the node here that has the primary key of a project's relay or authority.
type keeperHere struct {
	*admin.Client
	project *project.Project
	node    state.Node
}

// keeperOf returns the node here that has the primary key of a project's relay or authority.
func (a *app) keeperOf(kind fleet.Kind, projectName string) (*keeperHere, error) {
	p, err := a.findProject(argsOf(projectName))
	if err != nil {
		return nil, err
	}
	identifier := p.Identity
	if kind == fleet.Authority {
		identifier = p.AuthorityIdentifier()
	}
	nodes, unread := a.dirOnce.Nodes()
	for _, n := range nodes {
		if n.Identifier != identifier || identifier == "" || n.IsAuthority != (kind == fleet.Authority) {
			continue
		}
		if n.Status() != state.Running {
			return nil, withHint(fmt.Errorf("the node %s, which has the key of the project's %s, is not running", n.Name, kind), "start it: sallyport node start %s", n.Name)
		}
		return &keeperHere{admin.NewClient(n.AdminSocket), p, n}, nil
	}
	if unread != nil { // it may be one of them
		return nil, unread
	}
	return nil, withHint(fmt.Errorf("no node here has the primary key of the project's %s, %s", kind, identifier), "type it where `sallyport project create` made that %s", kind)
}

func fleetTicket(a *app, kind fleet.Kind) *cobra.Command {
	var projectName string
	var expires, lifetime time.Duration
	var uses int
	cmd := &cobra.Command{Use: "ticket [flags]", Short: "Make a ticket for one more machine", Example: fmt.Sprintf(`  sallyport project %[1]s-node ticket > two.ticket
  sallyport project %[1]s-node ticket --expires-in 1h --lifetime 12h`, kind), Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.keeperOf(kind, projectName)
			if err != nil {
				return err
			}
			p := c.project
			if o := c.node.Options.Authority; o != nil && o.Store == "" {
				return withHint(errors.New("this authority has its members in a file of its own, which others cannot share"), "it has to have them in a database: sallyport authority create --store postgres://…")
			}
			t := &fleet.Ticket{Kind: kind, Keeper: p.AccessRoute, Project: p}
			history := p.ChangeHistory
			if kind == fleet.Authority {
				t.Keeper, history = p.AuthorityAccessRoute, p.AuthorityChangeHistory
			}
			if t.Identity, err = identity.ImportHex(history, nil); err != nil {
				return fmt.Errorf("project %s: %w", p.Name, err)
			}
			var made admin.FleetTicket
			r := admin.FleetTicketRequest{LifetimeMS: lifetime.Milliseconds(), ExpiresMS: expires.Milliseconds(), Uses: uses}
			if err := c.Do(cmd.Context(), "POST", admin.PathFleetTickets, r, &made); err != nil {
				return err
			}
			if t.Code, err = project.ParseCode(made.Code); err != nil {
				return err
			}
			text, err := t.Text()
			if err != nil {
				return err
			}
			a.done("Made a ticket for %s, good for %s", plural(uses, "machine"), expires)
			a.note("%s Who has the ticket can be the project's %s: send it as you would send a key", a.color("33", "!"), kind)
			a.hint("on the other machine: sallyport %s-node create TICKET --host NAME", kind)
			return a.print(result{human: text, machine: text, json: map[string]string{"ticket": text, "reference": made.Reference}})
		}}
	f := cmd.Flags()
	f.StringVar(&projectName, "project", "", "the `PROJECT` (default: the default project)")
	durationVar(f, &expires, "expires-in", 10*time.Minute, "how long it can be used")
	durationVar(f, &lifetime, "lifetime", fleet.DefaultLifetime, "how long its keys are attested at a time")
	f.IntVar(&uses, "usage-count", 1, "by how many machines")
	return cmd
}

func fleetList(a *app, kind fleet.Kind) *cobra.Command {
	var projectName string
	cmd := &cobra.Command{Use: "list [flags]", Short: "List those machines", Example: fmt.Sprintf(`  sallyport project %[1]s-node list
  sallyport project %[1]s-node list --jq '.[].route'`, kind), Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.keeperOf(kind, projectName)
			if err != nil {
				return err
			}
			list := []admin.FleetNode{}
			if err := c.Do(cmd.Context(), "GET", admin.PathFleet, nil, &list); err != nil {
				return err
			}
			var rows [][]string
			for _, n := range list {
				deleted := ""
				if n.Deleted != 0 {
					deleted = "deleted"
				}
				rows = append(rows, []string{n.Name, n.Route, moment(n.Seen, "never"), moment(n.ValidUntil, "never"), deleted})
			}
			return a.print(result{human: tableOr("none but the first", []string{"NAME", "ROUTE", "SEEN", "ATTESTED UNTIL", ""}, rows), json: list})
		}}
	cmd.Flags().StringVar(&projectName, "project", "", "the `PROJECT` (default: the default project)")
	return cmd
}

func fleetDelete(a *app, kind fleet.Kind) *cobra.Command {
	var projectName string
	var yes bool
	cmd := &cobra.Command{Use: "delete NAME [flags]", Short: "Have a machine not be the project's " + string(kind) + " any more", Example: fmt.Sprintf(`  sallyport project %[1]s-node delete two
  sallyport project %[1]s-node delete two --yes`, kind),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.keeperOf(kind, projectName)
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "Delete the "+string(kind)+" node "+args[0]); err != nil {
				return err
			}
			var n admin.FleetNode
			if err := c.Do(cmd.Context(), "DELETE", admin.PathFleet+"/"+args[0], nil, &n); err != nil {
				if errors.Is(err, admin.ErrNotFound) {
					return withHint(fmt.Errorf("there is no %s node %s", kind, args[0]), "see: sallyport project %s-node list", kind)
				}
				return err
			}
			a.done("Deleted the %s node %s: it ends at once if it is honest and can be reached, else within a minute", kind, n.Name)
			if n.ValidUntil > time.Now().Unix() {
				a.note("%s If it is not, it can act as the project's %s until %s", a.color("33", "!"), kind, moment(n.ValidUntil, ""))
				a.hint("to end that at once: sallyport identity rotate, for the identity of the %s", kind)
			}
			return a.print(result{human: n.Name, machine: n.Name, json: n})
		}}
	cmd.Flags().StringVar(&projectName, "project", "", "the `PROJECT` (default: the default project)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// nodePlan is what a machine is to be that acts as a project's relay or authority.
type nodePlan struct {
	kind              fleet.Kind
	name              string
	place             projectPlan // host, network
	port              int
	address, listener string
	status            string
	store             string // of an authority
	oidc              state.OIDCOptions
}

func (p *nodePlan) flags(cmd *cobra.Command, port int) {
	f := cmd.Flags()
	f.StringVar(&p.name, "name", "", "a `NAME` of the machine for lists (default: the host's)")
	f.StringVar(&p.place.host, "host", "127.0.0.1", "`NAME` or address of this machine")
	f.IntVar(&p.port, "port", port, "the `PORT`")
	f.StringVar(&p.address, "address", "", "where members find it, a `URL` such as wss://HOST/PATH")
	f.StringVar(&p.listener, "listener", "", "where it listens for that, a `URL` with ws, wss or tls")
	f.StringVar(&p.place.network.TLSCertificate, "tls-certificate", "", "the certificate for wss and tls, a PEM `FILE`")
	f.StringVar(&p.place.network.TLSKey, "tls-key", "", "its private key, a PEM `FILE`")
	f.StringVar(&p.status, "status", "", "its status and metrics, `HOST:PORT`")
}

func relayNodeCreate(a *app) *cobra.Command {
	p := nodePlan{kind: fleet.Relay}
	cmd := &cobra.Command{Use: "create TICKET [flags]", Short: "Make this machine a relay of a project, and start it", Example: `  sallyport relay-node create two.ticket --host relay2.example.com
  sallyport relay-node create "$TICKET" --host relay2.example.com --port 443`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.createFleetNode(cmd.Context(), &p, args[0])
		}}
	p.flags(cmd, 4001)
	registryFlag(cmd.Flags(), &p.place.registry)
	return cmd
}

func authorityNodeCreate(a *app) *cobra.Command {
	p := nodePlan{kind: fleet.Authority}
	cmd := &cobra.Command{Use: "create TICKET [flags]", Short: "Make this machine an authority of a project, and start it", Example: `  sallyport authority-node create two.ticket --host authority2.example.com --store @store.url
  sallyport authority-node create "$TICKET" --host auth2.example.com --port 443 --store @store.url`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOIDC(&p.oidc); err != nil {
				return err
			}
			if err := checkStore(&p.store); err != nil {
				return err
			}
			if p.store == "" {
				return usageError("the following required arguments were not provided: --store <URL>")
			}
			return a.createFleetNode(cmd.Context(), &p, args[0])
		}}
	p.flags(cmd, 4000)
	storeFlag(cmd.Flags(), &p.store)
	oidcFlags(cmd.Flags(), &p.oidc)
	return cmd
}

// createFleetNode redeems a ticket and starts the node.
func (a *app) createFleetNode(ctx context.Context, p *nodePlan, arg string) error {
	text, err := readArgument(ctx, arg)
	if err != nil {
		return err
	}
	ticket, err := fleet.ParseTicket(text)
	if err == nil && ticket.Kind != p.kind {
		err = fmt.Errorf("it is for another kind of node: sallyport %s-node create", ticket.Kind)
	}
	if err != nil {
		return withHint(fmt.Errorf("the ticket: %w", err), "a ticket is what `sallyport project %s-node ticket` printed, or a file with it", p.kind)
	}
	if p.name == "" {
		p.name = machineName(p.place.host)
	}
	if p.listener != "" {
		p.place.network.Listeners = []string{p.listener}
	}
	if err := a.checkNetwork(&p.place.network); err != nil {
		return err
	}
	if p.status != "" {
		if _, err := hostPort("--status", p.status); err != nil {
			return err
		}
	}
	name := string(p.kind) + "-node-" + p.name
	if err := state.CheckName("node", name); err != nil {
		return usageError("invalid value '%s' for '--name': %v", p.name, err)
	}
	box, _, err := a.projectIdentity(ctx, name)
	if err != nil {
		return err
	}
	if n, err := a.dirOnce.Node(name); err == nil && n.Status() == state.Running {
		return withHint(fmt.Errorf("a node with name %s is already running", name), "stop it first: sallyport node stop %s", name)
	}
	if err := a.dirOnce.Store().PutIdentity(ctx, ticket.Identity); err != nil {
		return err
	}
	route := p.place.route(p.address, p.port)
	d := state.Delegate{Kind: string(p.kind), Identifier: ticket.Identity.Identifier().String(), Keeper: ticket.Keeper, Route: route}
	k, err := a.askKeeper(ctx, box, d)
	if err != nil {
		return err
	}
	life, err := k.client.Redeem(ctx, ticket.Code, p.name, route)
	k.node.Stop()
	if err != nil {
		return withHint(fmt.Errorf("the ticket was not redeemed: %w", err), "is it used up or too old? Make another where the project's %s is: sallyport project %s-node ticket", p.kind, p.kind)
	}
	if err := a.dirOnce.PutDelegate(name, d); err != nil {
		return err
	}
	o := state.NodeOptions{TCPListenerAddress: p.place.listen(p.port, p.listener), Identity: box.named.Name, StatusEndpoint: p.status}
	if p.kind == fleet.Authority {
		o.Authority = &state.AuthorityOptions{ProjectIdentifier: ticket.Project.ID, TrustedIdentities: json.RawMessage("null"), Store: p.store, OIDC: p.oidc}
	} else {
		o.AuthorityIdentity, o.AuthorityRoute = ticket.Project.AuthorityChangeHistory, ticket.Project.AuthorityAccessRoute
		o.Registry = p.place.registry
		if err := checkRegistry(&o, route); err != nil {
			return err
		}
	}
	if err := a.createBackground(ctx, name, p.place.options(o, p.listener)); err != nil {
		return err
	}
	a.done("This machine is a %s of the project %s, at %s", p.kind, ticket.Project.Name, route)
	a.note("Its keys are attested for %s at a time by the node at %s: it goes on for as long without that one", life, ticket.Keeper)
	a.hint("members learn of it by themselves; tickets that are made from now on name it once `sallyport project show` does")
	return a.print(result{human: fields("Node", name, "Route", route, "Identifier", box.id.String()), machine: name,
		json: map[string]string{"node": name, "route": route, "identifier": box.id.String()}})
}

// machineName is what a machine is called that was not given a name.
func machineName(host string) string {
	if net.ParseIP(host) != nil || host == "localhost" {
		if h, err := os.Hostname(); err == nil {
			host = h
		}
	}
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, host)
	return strings.Trim(name[:min(len(name), 40)], "-")
}
