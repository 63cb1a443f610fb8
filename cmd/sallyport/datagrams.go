package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal/datagram"
)

func init() { nouns = append(nouns, udpOutletCommand, udpInletCommand) }

// What --idle and --max-flows of portals for UDP say.
const (
	idleHelp      = "end a flow after so long without a datagram"
	maxFlowsHelp  = "`NUMBER` of flows at most (default: 1000)"
	flowsOfClient = "A flow is a client: an address and a port.\n"
)

// flowFlags are the flags that both ends of portals for UDP have.
type flowFlags struct {
	idle     time.Duration
	maxFlows int
}

func (o *flowFlags) add(cmd *cobra.Command) {
	durationVar(cmd.Flags(), &o.idle, "idle", datagram.DefaultIdle, idleHelp)
	cmd.Flags().IntVar(&o.maxFlows, "max-flows", 0, maxFlowsHelp)
}

// request returns what they ask for, empty and 0 for what was not given.
func (o *flowFlags) request(cmd *cobra.Command) (idle string, maxFlows int, err error) {
	if cmd.Flags().Changed("idle") {
		if o.idle < time.Second {
			return "", 0, usageError("invalid value '%s' for '--idle': it must be at least 1s", o.idle)
		}
		idle = o.idle.String()
	}
	return idle, o.maxFlows, checkPlaces(cmd, datagram.MostFlows, map[string]int{"max-flows": o.maxFlows})
}

// udpAddress reads HOST:PORT or a port of this machine, also as udp://HOST:PORT.
func udpAddress(flag, text string) (string, error) {
	return hostPort(flag, strings.TrimPrefix(text, "udp://"))
}

func udpOutletCommand(a *app) *cobra.Command {
	return noun(groupStory, "udp-outlet", "Portals' ends beside servers, for datagrams", nil, udpOutletCreate(a),
		listCommand(a, "List a node's outlets for datagrams", `  sallyport udp-outlet list
  sallyport udp-outlet list --at n1 --jq '.[].to'`, func(ctx context.Context, c *admin.Client, node string) (result, error) {
			list, err := admin.Get[[]admin.UDPOutlet](ctx, c, admin.PathUDPOutlets)
			return result{human: tableOr("no UDP outlets at "+node, udpOutletHeader, udpOutletRows(list)), json: list}, err
		}),
		showCommand(a, "Show an outlet for datagrams", `  sallyport udp-outlet show dns
  sallyport udp-outlet show dns --at n1 --jq .flows`, "udp outlet", func(ctx context.Context, c *admin.Client, node, name string) (result, error) {
			o, err := admin.Get[admin.UDPOutlet](ctx, c, admin.Item(admin.PathUDPOutlets, name))
			about := []string{"Outlet", "/service/" + name, "Node", node, "Target", o.To, "Flows", strconv.FormatInt(o.Flows, 10)}
			return result{human: fields(append(about, stateFields(o.State)...)...), json: o}, err
		}),
		deleteCommand(a, "Delete an outlet for datagrams and end its flows", `  sallyport udp-outlet delete dns --yes
  sallyport udp-outlet delete --all --at n1 --yes`, "udp outlet", admin.PathUDPOutlets,
			func(ctx context.Context, c *admin.Client) (names []string, err error) {
				list, err := admin.Get[[]admin.UDPOutlet](ctx, c, admin.PathUDPOutlets)
				for _, o := range list {
					names = append(names, o.Name)
				}
				return names, err
			},
			func(node, name string) result {
				return result{human: "deleted the outlet " + name, machine: name, json: map[string]string{"name": name, "node": node}}
			}),
	)
}

var udpOutletHeader = []string{"UDP OUTLET", "TARGET", "FLOWS", "STATE", ""}

func udpOutletRows(list []admin.UDPOutlet) (rows [][]string) {
	for _, o := range list {
		rows = append(rows, []string{"/service/" + o.Name, o.To, strconv.FormatInt(o.Flows, 10), string(o.State.State), o.Reason})
	}
	return rows
}

func udpOutletCreate(a *app) *cobra.Command {
	var at string
	var r resource.UDPOutlet
	var flows flowFlags
	cmd := &cobra.Command{
		Use: "create [NAME] --to HOST:PORT [flags]", Short: "Create an outlet for datagrams: it sends what clients send to a server",
		Long: "Create an outlet for datagrams: it sends what clients send to a server, from a port for each flow.\n" + flowsOfClient,
		Example: `  sallyport udp-outlet create dns --to 127.0.0.1:53
  sallyport udp-outlet create syslog --to 514 --allow 'site=berlin' --idle 10m`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			if r.To == "" {
				return usageError("the following required arguments were not provided: --to <HOST:PORT>")
			}
			if r.To, err = udpAddress("--to", r.To); err != nil {
				return err
			}
			if len(args) == 1 {
				r.Name = plainName(args[0])
			}
			if err := checkAllow(cmd, r.Allow); err != nil {
				return err
			}
			if r.Idle, r.MaxFlows, err = flows.request(cmd); err != nil {
				return err
			}
			if err := checkPlaces(cmd, datagram.MostFlows, map[string]int{"max-flows-per-member": r.MaxFlowsPerMember}); err != nil {
				return err
			}
			if err := checkRate(r.Rate); err != nil {
				return err
			}
			if a.collect != nil {
				return a.collect(resource.KindUDPOutlet, &r.Name, &r)
			}
			c, node, err := a.firstClient(ctx, at)
			if err != nil {
				return err
			}
			out, err := admin.Post[admin.UDPOutlet](ctx, c, admin.PathUDPOutlets, r)
			if err != nil {
				return err
			}
			name := "/service/" + out.Name
			a.done("Created a UDP outlet at %s of node %s, to %s", name, node, out.To)
			a.hint("next: sallyport relay create NAME --to %s", node)
			return a.print(result{human: name, machine: name, json: out})
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.To, "to", "", "the server: `HOST:PORT`, or a port here")
	f.StringVar(&at, "at", "", "`NODE` to create it at (default: the default node)")
	f.StringVar(&r.Allow, "allow", "", "who may use it, a policy `EXPRESSION`")
	f.IntVar(&r.MaxFlowsPerMember, "max-flows-per-member", 0, perMemberHelp)
	f.StringVar(&r.Rate, "rate", "", rateHelp)
	flows.add(cmd)
	return cmd
}

func udpInletCommand(a *app) *cobra.Command {
	return noun(groupStory, "udp-inlet", "Portals' ends beside clients, for datagrams", nil, udpInletCreate(a),
		acceptCommand(a, "udp-inlet", "dns-in", admin.PathUDPInlets),
		listCommand(a, "List a node's inlets for datagrams", `  sallyport udp-inlet list
  sallyport udp-inlet list --jq '.[] | {name, state}'`, func(ctx context.Context, c *admin.Client, node string) (result, error) {
			list, err := admin.Get[[]admin.UDPInlet](ctx, c, admin.PathUDPInlets)
			return result{human: tableOr("no UDP inlets at "+node, udpInletHeader, udpInletRows(list)), json: list}, err
		}),
		showCommand(a, "Show an inlet for datagrams", `  sallyport udp-inlet show dns-in
  sallyport udp-inlet show dns-in --at n2 --jq .flows`, "udp inlet", func(ctx context.Context, c *admin.Client, node, name string) (result, error) {
			in, err := admin.Get[admin.UDPInlet](ctx, c, admin.Item(admin.PathUDPInlets, name))
			route := in.Route
			if route == "" {
				route = "-"
			}
			about := []string{"Inlet", in.Name, "Node", node, "Listens at", in.Bind, "Outlet", in.To, "Route", route, "Flows", strconv.FormatInt(in.Flows, 10)}
			return result{human: fields(append(about, stateFields(in.State)...)...), json: in}, err
		}),
		deleteCommand(a, "Delete an inlet for datagrams and end its flows", `  sallyport udp-inlet delete dns-in --yes
  sallyport udp-inlet delete --all --at n2 --yes`, "udp inlet", admin.PathUDPInlets,
			func(ctx context.Context, c *admin.Client) (names []string, err error) {
				list, err := admin.Get[[]admin.UDPInlet](ctx, c, admin.PathUDPInlets)
				for _, in := range list {
					names = append(names, in.Name)
				}
				return names, err
			},
			func(node, name string) result {
				return result{human: "deleted the inlet " + name, json: map[string]string{"name": name, "node": node}}
			}),
	)
}

var udpInletHeader = []string{"UDP INLET", "LISTENS AT", "FLOWS", "STATE", "OUTLET", ""}

func udpInletRows(list []admin.UDPInlet) (rows [][]string) {
	for _, in := range list {
		rows = append(rows, []string{in.Name, in.Bind, strconv.FormatInt(in.Flows, 10), string(in.State.State), in.To, in.Reason})
	}
	return rows
}

func udpInletCreate(a *app) *cobra.Command {
	var at, to, via string
	var wait, timeout time.Duration
	var r resource.UDPInlet
	var flows flowFlags
	cmd := &cobra.Command{
		Use: "create [NAME] [flags]", Short: "Create an inlet for datagrams: clients send to it as if it were the server",
		Long: "Create an inlet for datagrams: clients send to it as if it were the server.\n" + flowsOfClient,
		Example: `  sallyport udp-inlet create --from 127.0.0.53:53 --to dns --via blue
  sallyport udp-inlet create game --from 0.0.0.0:27015 --to game --via blue --max-flows 64`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			if r.From, err = udpAddress("--from", r.From); err != nil {
				return err
			}
			if len(args) == 1 {
				r.Name = plainName(args[0])
			}
			if strings.Contains(r.Name, ":") {
				return usageError("invalid value '%s' for '[NAME]': a name has no colon", r.Name)
			}
			if err := checkAllow(cmd, r.Allow); err != nil {
				return err
			}
			if err := checkIdentifiers("--authorized", r.Authorized); err != nil {
				return err
			}
			if r.Idle, r.MaxFlows, err = flows.request(cmd); err != nil {
				return err
			}
			if err := checkRate(r.Rate); err != nil {
				return err
			}
			addr, err := a.inletTo(ctx, to, via)
			if err != nil {
				return err
			}
			r.To, r.ConnectionWaitMS = addr.String(), wait.Milliseconds()
			if a.collect != nil {
				return a.collect(resource.KindUDPInlet, &r.Name, &r)
			}
			c, node, err := a.firstClient(ctx, at)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("timeout") {
				timeout = max(timeout, wait+5*time.Second)
			}
			waiting, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			in, err := admin.Post[admin.UDPInlet](waiting, c, admin.PathUDPInlets, r)
			if err != nil && waiting.Err() != nil && ctx.Err() == nil {
				err = fmt.Errorf("no answer from node %s within %s (--timeout)", node, timeout)
				return withHint(err, "the inlet may exist and keep trying: sallyport udp-inlet list --at %s", node)
			}
			if err != nil {
				return err
			}
			return a.udpInletMade(in, node, !r.NoConnectionWait)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.From, "from", "127.0.0.1:0", "`HOST:PORT` for clients, or a port here")
	f.StringVar(&to, "to", "", "the outlet: its `NAME` behind the relay, or a whole route")
	f.StringVar(&via, "via", "", "the `RELAY`'s name (default: default)")
	f.StringVar(&at, "at", "", "`NODE` to create it at (default: the default node)")
	f.StringVar(&r.Allow, "allow", "", "which outlets' nodes may be used, a policy `EXPRESSION`")
	f.Var(joined{&r.Authorized}, "authorized", "an `IDENTIFIER` that the outlet's node may have; repeatable")
	f.StringVar(&r.Identity, "identity", "", "the `NAME` of the identity to use")
	durationVar(f, &wait, "connection-wait", 5*time.Second, "how long to wait for the first connection")
	durationVar(f, &timeout, "timeout", 10*time.Second, "how long to wait for the node's answer")
	f.BoolVar(&r.NoConnectionWait, "no-connection-wait", false, "do not wait for the first connection")
	f.BoolVar(&r.UDP, "udp", false, "go directly to the outlet's node, over UDP, if that works")
	f.BoolVar(&r.NoTCPFallback, "no-tcp-fallback", false, "with --udp: nothing is carried while that does not work")
	f.StringVar(&r.Rate, "rate", "", rateHelp)
	flows.add(cmd)
	return cmd
}

// udpInletMade says what became of an inlet that was created; waited tells whether its first connection was waited for.
func (a *app) udpInletMade(in admin.UDPInlet, node string, waited bool) error {
	switch {
	case in.Denied: // scripts make such inlets before they are allowed
		a.warn("%s Created a UDP inlet at %s of node %s, but %s", a.color("33", "!"), in.Bind, node, in.Reason)
	case waited && isRefused(in.State): // whoever runs this has to know, a script too
		if err := a.print(result{human: in.Bind, machine: in.Bind, json: in}); err != nil {
			return err
		}
		return withHint(fmt.Errorf("the inlet %s was created, but %s", in.Name, in.Reason),
			"what clients send is dropped until the other side says yes; to take it back: sallyport udp-inlet delete %s --at %s", in.Name, node)
	case in.State.State == resource.Up:
		a.done("Created a UDP inlet at %s of node %s, to %s", in.Bind, node, in.To)
	default:
		a.warn("%s Created a UDP inlet at %s of node %s; the outlet cannot be reached yet, the node keeps trying", a.color("33", "!"), in.Bind, node)
	}
	a.hint("next: let your client send to %s", in.Bind)
	return a.print(result{human: in.Bind, machine: in.Bind, json: in})
}
