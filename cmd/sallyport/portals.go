package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/limits"
	"sallyport/node"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/portal"
	"sallyport/portal/httpheader"
	"sallyport/routing/multiaddr"
)

func init() { nouns = append(nouns, outletCommand, inletCommand, relayCommand, policyCommand) }

// hostPort completes `host:port` or a bare port, which means this machine.
func hostPort(flag, text string) (string, error) {
	refused := func(why string) (string, error) {
		return "", usageError("invalid value '%s' for '%s': %s", text, flag, why)
	}
	if _, err := strconv.ParseUint(text, 10, 16); err == nil {
		return net.JoinHostPort("127.0.0.1", text), nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return refused("it must be host:port, or a port of this machine")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return refused("the port must be a number from 0 to 65535")
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if !isHost(host) {
		return refused("'" + host + "' is neither an address nor a host's name")
	}
	return net.JoinHostPort(host, port), nil
}

// isHost reports whether text is an IP address or could be a name in the DNS (docs/protocol/03 §7.2).
func isHost(text string) bool {
	if _, err := netip.ParseAddr(text); err == nil {
		return true
	}
	text = strings.TrimSuffix(text, ".") // says that the name is complete
	if len(text) > 253 || strings.Trim(text, "-") != text {
		return false
	}
	for _, label := range strings.Split(text, ".") {
		ok := func(r rune) bool {
			return r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		}
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return !ok(r) }) {
			return false
		}
	}
	return true
}

// schemePort is hostPort for `[scheme://]host:port`; the scheme is tcp, tls or udp. A Unix socket is unix:PATH.
func schemePort(flag, text string) (scheme, address string, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if strings.HasPrefix(path, "///") { // unix:///PATH
			path = path[2:]
		}
		return "unix", "unix:" + path, nil
	}
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		scheme, rest = "tcp", text
	}
	if !slices.Contains([]string{"tcp", "tls", "udp"}, scheme) {
		return "", "", usageError("invalid value '%s' for '%s': the scheme must be tcp, tls or udp", text, flag)
	}
	address, err = hostPort(flag, rest)
	return scheme, address, err
}

func outletCommand(a *app) *cobra.Command {
	return noun(groupStory, "tcp-outlet", "Portals' ends beside servers", []string{"outlet"}, outletCreate(a),
		listCommand(a, "List a node's outlets", `  sallyport tcp-outlet list
  sallyport tcp-outlet list --at n1 --jq '.[].to'`, func(ctx context.Context, c *admin.Client, node string) (result, error) {
			list, err := admin.Get[[]admin.Outlet](ctx, c, admin.PathOutlets)
			type short struct {
				From string `json:"from"`
				To   string `json:"to"`
				admin.State
			}
			out, rows := []short{}, [][]string{}
			for _, o := range list {
				out = append(out, short{From: "/service/" + string(o.Worker), To: o.To, State: o.State})
				rows = append(rows, []string{"/service/" + string(o.Worker), o.To, string(o.State.State), o.Reason})
			}
			return result{human: tableOr("no outlets at "+node, []string{"OUTLET", "TARGET", "STATE", ""}, rows), json: out}, err
		}),
		showCommand(a, "Show an outlet", `  sallyport tcp-outlet show outlet
  sallyport tcp-outlet show db --at n1 --jq .to`, "tcp outlet", func(ctx context.Context, c *admin.Client, node, name string) (result, error) {
			o, err := admin.Get[admin.Outlet](ctx, c, admin.Item(admin.PathOutlets, name))
			return result{
				human: fields(slices.Concat([]string{"Outlet", "/service/" + name, "Node", node, "Target", o.To},
					placesFields(o.MaxConnections, o.MaxConnectionsPerMember), stateFields(o.State))...),
				json: struct {
					Node                    string `json:"node_name"`
					To                      string `json:"to"`
					Worker                  string `json:"worker_address"`
					MaxConnections          int    `json:"max_connections,omitempty"`
					MaxConnectionsPerMember int    `json:"max_connections_per_member,omitempty"`
					admin.State
				}{node, o.To, "/service/" + name, o.MaxConnections, o.MaxConnectionsPerMember, o.State},
			}, err
		}),
		deleteCommand(a, "Delete an outlet; its open connections stay", `  sallyport tcp-outlet delete outlet --yes
  sallyport tcp-outlet delete --all --at n1 --yes`, "tcp outlet", admin.PathOutlets,
			func(ctx context.Context, c *admin.Client) ([]string, error) {
				list, err := admin.Get[[]admin.Outlet](ctx, c, admin.PathOutlets)
				var names []string
				for _, o := range list {
					names = append(names, string(o.Worker))
				}
				return names, err
			},
			func(node, name string) result {
				return result{human: "deleted the outlet " + name, machine: name, json: map[string]string{"alias": name, "node": node}}
			}),
	)
}

// What --hold of portals says.
const (
	holdDefault = time.Minute
	holdHelp    = "how long to outlive a lost path; 0 is off"
)

// outletFlags are the flags that all kinds of outlets have.
type outletFlags struct {
	at, to, from string
	privileged   bool
	address      bool // a script gets 0#NAME, as from the reference's influxdb-outlet
	hold         time.Duration
	request      admin.OutletRequest
}

func (o *outletFlags) add(cmd *cobra.Command) {
	f, r := cmd.Flags(), &o.request
	f.StringVar(&o.to, "to", "", "the server: `HOST:PORT`, a port here, or unix:PATH")
	f.StringVar(&o.from, "from", "", "the outlet's name (as NAME)")
	f.StringVar(&o.at, "at", "", "`NODE` to create it at (default: the default node)")
	durationVar(f, &o.hold, "hold", holdDefault, holdHelp)
	f.BoolVar(&r.TLS, "tls", false, "connect to the server with TLS")
	f.StringSliceVar(&r.ALPN, "alpn", nil, "with --tls: offer these `PROTOCOLS`, as h2,http/1.1")
	f.StringVar(&r.Allow, "allow", "", "who may use it, a policy `EXPRESSION`")
	f.StringVar(&r.Check, "check", "", "look whether it is up: `tcp`, pg, http or http:/PATH")
	f.StringVar(&r.CheckInterval, "check-interval", "", "`TIME` from one look to the next (default: 10s)")
	f.IntVar(&r.MaxConnections, "max-connections", 0, "`NUMBER` of connections at most (default: 1000)")
	f.IntVar(&r.MaxConnectionsPerMember, "max-connections-per-member", 0, perMemberHelp)
	f.StringVar(&r.Rate, "rate", "", rateHelp)
	f.StringVar(&r.ProxyProtocol, "proxy-protocol", "", "tell who the client is: PROXY protocol `v1` or v2")
	f.BoolVar(&o.privileged, "privileged", switchFrom("OCKAM_PRIVILEGED"), "")
	hide(cmd, "privileged")
	flagAliases(cmd, "expression", "allow")
}

const rateHelp = "at most so much each way, as `20mbit`"

// checkRate refuses what is no --rate.
func checkRate(text string) error {
	if _, err := limits.ParseRate(text); err != nil {
		return usageError("invalid value '%s' for '--rate': %v", text, limits.ErrRate)
	}
	return nil
}

const perMemberHelp = "`NUMBER` of them for one member (default: 4/5)"

// checkPlaces refuses numbers of connections or flows, by their flags, with which nobody could have one; leaving a flag out is the way to the default.
func checkPlaces(cmd *cobra.Command, most int, flags map[string]int) error {
	for flag, v := range flags {
		if cmd.Flags().Changed(flag) && (v < 1 || v > most) {
			return usageError("invalid value '%d' for '--%s': it must be from 1 to %d", v, flag, most)
		}
	}
	return nil
}

// placesFields say for a person how many connections there may be; nothing where that was left to the default.
func placesFields(most, perMember int) []string {
	var list []string
	for _, f := range []struct {
		name  string
		value int
	}{{"Connections at most", most}, {"Of one member", perMember}} {
		if f.value > 0 {
			list = append(list, f.name, strconv.Itoa(f.value))
		}
	}
	return list
}

// create asks the node for the outlet that the flags and arguments describe.
func (o *outletFlags) create(cmd *cobra.Command, a *app, args []string) error {
	ctx, r := cmd.Context(), &o.request
	if o.to == "" {
		return usageError("the following required arguments were not provided: --to <HOST:PORT>")
	}
	scheme, target, err := schemePort("--to", o.to)
	if err != nil {
		return err
	}
	if scheme == "tls" && !r.TLS { // as in the reference, where a person has no way to notice
		a.note("%s tls:// does not turn on TLS with the server: add --tls", a.color("33", "!"))
	}
	if len(args) == 1 {
		if o.from != "" {
			return usageError("give the outlet's name once: NAME, or --from")
		}
		o.from = args[0]
	}
	if o.privileged {
		return errPrivileged
	}
	if cmd.Flags().Changed("hold") {
		r.Hold = o.hold.String()
	}
	r.Name, r.To = plainName(o.from), target
	if err := checkAllow(cmd, r.Allow); err != nil {
		return err
	}
	if err := checkPlaces(cmd, portal.MostConnections, map[string]int{"max-connections": r.MaxConnections, "max-connections-per-member": r.MaxConnectionsPerMember}); err != nil {
		return err
	}
	if err := checkRate(r.Rate); err != nil {
		return err
	}
	if v := r.ProxyProtocol; v != "" && v != "v1" && v != "v2" {
		return usageError("invalid value '%s' for '--proxy-protocol': it must be v1 or v2", v)
	}
	if a.collect != nil {
		return a.collect(resource.KindOutlet, &r.Name, r)
	}
	c, node, err := a.firstClient(ctx, o.at)
	if err != nil {
		return err
	}
	out, err := admin.Post[admin.Outlet](ctx, c, admin.PathOutlets, *r)
	if err != nil {
		return err
	}
	name := "/service/" + string(out.Worker)
	a.done("Created an outlet at %s of node %s, to %s", name, node, out.To)
	a.hint("next: sallyport relay create NAME --to %s", node)
	machine := name
	if o.address {
		machine = "0#" + string(out.Worker)
	}
	return a.print(result{human: name, machine: machine, json: out})
}

func outletCreate(a *app) *cobra.Command {
	var o outletFlags
	cmd := &cobra.Command{
		Use: "create [NAME] --to HOST:PORT [flags]", Short: "Create an outlet: it connects portal connections to a server",
		Example: `  sallyport tcp-outlet create --to 5432
  sallyport tcp-outlet create db --to 127.0.0.1:5432 --allow 'company=acme' --max-connections 90
  sallyport tcp-outlet create web --to 8080 --proxy-protocol v2`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.create(cmd, a, args) },
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&o.request.SkipHandshake, "skip-handshake", switchFrom("OCKAM_TCP_PORTAL_SKIP_HANDSHAKE"), skipHelp)
	noEffect(cmd, "enable-nagle") // in the reference neither
	return cmd
}

const skipHelp = "go without the portal's handshake, at both ends"

var errPrivileged = withHint(fmt.Errorf("privileged portals are not supported"), "an ordinary portal does the same without the privilege: leave --privileged out")

func inletCommand(a *app) *cobra.Command {
	return noun(groupStory, "tcp-inlet", "Portals' ends beside clients", []string{"inlet"}, inletCreate(a), acceptCommand(a, "tcp-inlet", "db-in", admin.PathInlets),
		listCommand(a, "List a node's inlets", `  sallyport tcp-inlet list
  sallyport tcp-inlet list --jq '.[] | {alias, status}'`, func(ctx context.Context, c *admin.Client, node string) (result, error) {
			list, err := admin.Get[[]admin.Inlet](ctx, c, admin.PathInlets)
			rows := [][]string{}
			for _, in := range list {
				rows = append(rows, []string{in.Alias, in.Bind, string(in.State.State), in.OutletAddr, in.Reason})
			}
			return result{human: tableOr("no inlets at "+node, []string{"INLET", "LISTENS AT", "STATE", "OUTLET", ""}, rows), json: list}, err
		}),
		showCommand(a, "Show an inlet", `  sallyport tcp-inlet show web
  sallyport tcp-inlet show web --at n2 --jq .status`, "tcp inlet", func(ctx context.Context, c *admin.Client, node, name string) (result, error) {
			in, err := admin.Get[admin.Inlet](ctx, c, admin.Item(admin.PathInlets, name))
			about := []string{"Inlet", in.Alias, "Node", node, "Listens at", in.Bind, "Outlet", in.OutletAddr, "Route", orDash(in.OutletRoute)}
			return result{human: fields(slices.Concat(about, placesFields(in.MaxConnections, 0), stateFields(in.State))...), json: in}, err
		}),
		deleteCommand(a, "Delete an inlet and end its connections", `  sallyport tcp-inlet delete web --yes
  sallyport tcp-inlet delete --all --at n2 --yes`, "tcp inlet", admin.PathInlets,
			func(ctx context.Context, c *admin.Client) ([]string, error) {
				list, err := admin.Get[[]admin.Inlet](ctx, c, admin.PathInlets)
				var names []string
				for _, in := range list {
					names = append(names, in.Alias)
				}
				return names, err
			},
			func(node, name string) result {
				return result{human: "deleted the inlet " + name, json: map[string]string{"alias": name, "node": node}}
			}),
	)
}

// stateFields are a resource's state for a person.
func stateFields(s admin.State) []string {
	list := []string{"State", string(s.State)}
	if !s.Since.IsZero() {
		list = append(list, "Since", s.Since.Local().Format(time.DateTime))
	}
	if s.Reason != "" {
		list = append(list, "Reason", s.Reason)
	}
	if !s.NextTry.IsZero() {
		list = append(list, "Next try", s.NextTry.Local().Format(time.TimeOnly))
	}
	return list
}

func orDash(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// inletFlags are the flags that all kinds of inlets have.
type inletFlags struct {
	at, to, via, from, provider, alias string
	wait, retryWait, timeout, hold     time.Duration
	privileged, useTLS                 bool
	request                            admin.InletRequest
}

func (o *inletFlags) add(cmd *cobra.Command) {
	f, r := cmd.Flags(), &o.request
	f.StringVar(&o.from, "from", "127.0.0.1:0", "`HOST:PORT` or unix:PATH for clients")
	f.StringVar(&o.to, "to", "", "the outlet: its `NAME` behind the relay, or a whole route")
	f.StringVar(&o.via, "via", "", "the `RELAY`'s name (default: default)")
	f.StringVar(&o.at, "at", "", "`NODE` to create it at (default: the default node)")
	f.StringVar(&r.Allow, "allow", "", "which outlets' nodes may be used, a policy `EXPRESSION`")
	f.Var(joined{&r.Authorized}, "authorized", "an `IDENTIFIER` that the outlet's node may have; repeatable")
	f.StringVar(&r.Identity, "identity", "", "the `NAME` of the identity to use")
	durationVar(f, &o.wait, "connection-wait", 5*time.Second, "how long to wait for the first connection")
	durationVar(f, &o.retryWait, "retry-wait", 20*time.Second, "") // in the reference it has no effect either
	durationVar(f, &o.timeout, "timeout", 10*time.Second, "how long to wait for the node's answer")
	f.BoolVar(&r.NoConnectionWait, "no-connection-wait", false, "do not wait for the first connection")
	durationVar(f, &o.hold, "hold", holdDefault, holdHelp)
	f.IntVar(&r.MaxConnections, "max-connections", 0, "`NUMBER` of clients at most (default: any)")
	f.StringVar(&r.Rate, "rate", "", rateHelp)
	f.BoolVar(&r.UDP, "udp", false, "go directly to the outlet's node, over UDP, if that works")
	f.BoolVar(&r.NoTCPFallback, "no-tcp-fallback", false, "with --udp: clients wait while that does not work")
	f.BoolVar(&o.privileged, "privileged", switchFrom("OCKAM_PRIVILEGED"), "")
	f.StringVar(&o.alias, "alias", "", "") // the older form of NAME
	f.BoolVar(&o.useTLS, "tls", false, "clients speak TLS (also --from tls://HOST:PORT)")
	f.StringSliceVar(&r.ALPN, "alpn", nil, "with --tls: take these `PROTOCOLS`, as h2,http/1.1")
	f.StringVar(&r.SocketMode, "socket-mode", "", "permissions of unix:PATH, in `OCTAL` (default: 0600)")
	f.StringVar(&r.SocketOwner, "socket-owner", "", "`USER[:GROUP]` who owns unix:PATH")
	f.StringSliceVar(&r.AcceptProxyProtocol, "accept-proxy-protocol", nil, "take the PROXY protocol from clients in these `NETWORKS`")
	f.StringVar(&o.provider, "tls-certificate-provider", "", "`ROUTE` to who has the certificate (default: the project)")
	hide(cmd, "retry-wait", "privileged", "alias")
	flagAliases(cmd, "expression", "allow", "enable-udp-puncture", "udp", "disable-tcp-fallback", "no-tcp-fallback")
}

// create asks the node for the inlet that the flags and arguments describe.
func (o *inletFlags) create(cmd *cobra.Command, a *app, args []string) error {
	ctx, r := cmd.Context(), &o.request
	scheme, listen, err := schemePort("--from", o.from)
	if err != nil {
		return err
	}
	for flag, given := range map[string]bool{"--from udp://": scheme == "udp", "--privileged": o.privileged} {
		if given {
			return withHint(fmt.Errorf("%s is not supported", flag), "an ordinary inlet carries the same stream: leave %s out", flag)
		}
	}
	if r.Alias = o.alias; len(args) == 1 && o.alias == "" {
		r.Alias = args[0]
	}
	if o.alias != "" {
		a.note("--alias is the older form of NAME")
	}
	if strings.Contains(r.Alias, ":") {
		return usageError("invalid value '%s' for '[NAME]': a name has no colon", r.Alias)
	}
	r.Alias = plainName(r.Alias)
	for _, h := range r.HTTPHeaders {
		if _, err := httpheader.ParseField(h); err != nil {
			return usageError("invalid value '%s' for '--http-header': %v", h, err)
		}
	}
	if err := checkAllow(cmd, r.Allow); err != nil {
		return err
	}
	if err := checkIdentifiers("--authorized", r.Authorized); err != nil {
		return err
	}
	if err := checkPlaces(cmd, portal.MostConnections, map[string]int{"max-connections": r.MaxConnections}); err != nil {
		return err
	}
	if err := checkRate(r.Rate); err != nil {
		return err
	}
	if r.TLSProvider, err = a.certificateProvider(o.provider, o.useTLS || scheme == "tls"); err != nil {
		return err
	}
	addr, err := a.inletTo(ctx, o.to, o.via)
	if err != nil {
		return err
	}
	if cmd.Flags().Changed("hold") {
		r.Hold = o.hold.String()
	}
	r.From, r.To, r.ConnectionWaitMS = listen, addr.String(), o.wait.Milliseconds()
	if a.collect != nil {
		return a.collect(resource.KindInlet, &r.Alias, r)
	}
	c, node, err := a.firstClient(ctx, o.at)
	if err != nil {
		return err
	}
	timeout := o.timeout
	if !cmd.Flags().Changed("timeout") {
		timeout = max(timeout, o.wait+5*time.Second)
	}
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	in, err := admin.Post[admin.Inlet](waiting, c, admin.PathInlets, *r)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no answer from node %s within %s (--timeout)", node, timeout)
		return withHint(err, "the inlet may exist and keep trying: sallyport tcp-inlet list --at %s", node)
	}
	if err != nil {
		return err
	}
	if !r.NoConnectionWait && isRefused(in.State) && !in.Denied { // whoever runs this has to know, a script too
		if err := a.print(result{human: in.Bind, machine: in.Bind, json: in}); err != nil {
			return err
		}
		return withHint(fmt.Errorf("the inlet %s was created, but %s", in.Alias, in.Reason),
			"its clients are closed at once until the other side says yes; to take it back: sallyport tcp-inlet delete %s --at %s", in.Alias, node)
	}
	switch {
	case in.Denied: // scripts make such inlets before they are allowed
		a.warn("%s Created an inlet at %s of node %s, but %s", a.color("33", "!"), in.Bind, node, in.Reason)
	case in.Status == "Up":
		a.done("Created an inlet at %s of node %s, to %s", in.Bind, node, in.OutletAddr)
	default:
		a.warn("%s Created an inlet at %s of node %s; the outlet cannot be reached yet, the node keeps trying", a.color("33", "!"), in.Bind, node)
	}
	a.hint("next: connect your client to %s", in.Bind)
	return a.print(result{human: in.Bind, machine: in.Bind, json: in})
}

func inletCreate(a *app) *cobra.Command {
	var o inletFlags
	cmd := &cobra.Command{
		Use: "create [NAME] [flags]", Short: "Create an inlet: clients connect to it as if it were the server",
		Example: `  sallyport tcp-inlet create --from 15432 --to db --via blue
  sallyport tcp-inlet create web --from 127.0.0.1:8080 --to /node/n1/secure/api/service/outlet
  sallyport tcp-inlet create --to db --via blue --http-header 'Host: db.example'
  sallyport tcp-inlet create --from tls://127.0.0.1:8443 --to db --via blue \
    --tls-certificate-provider /service/tls_certificate_provider
  sallyport tcp-inlet create --from 0.0.0.0:8081 --to db --via blue \
    --accept-proxy-protocol 10.0.0.0/8`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.create(cmd, a, args) },
	}
	o.add(cmd)
	f, r := cmd.Flags(), &o.request
	f.BoolVar(&r.SkipHandshake, "skip-handshake", switchFrom("OCKAM_TCP_PORTAL_SKIP_HANDSHAKE"), skipHelp)
	f.BoolVar(&r.Nagle, "enable-nagle", switchFrom("OCKAM_TCP_PORTAL_ENABLE_NAGLE"), "leave Nagle's algorithm on for clients")
	f.BoolVar(&r.TellClient, "tell-client", false, "tell the outlet each client's address, for its records")
	f.StringArrayVar(&r.HTTPHeaders, "http-header", nil, "set `NAME:VALUE` in HTTP/1 requests; may be repeated")
	return cmd
}

// certificateProvider returns the route to the service that has an inlet's certificate, "" for no TLS.
func (a *app) certificateProvider(route string, useTLS bool) (string, error) {
	if route == "" {
		if !useTLS {
			return "", nil
		}
		p, err := a.defaultProject()
		if err != nil {
			return "", err
		}
		if p == "" {
			return "", withHint(errors.New("there is no default project to get a certificate from"), "name the service that has it: --tls-certificate-provider ROUTE")
		}
		route = "/project/" + p + "/service/" + node.CertificateService
	}
	addr, err := a.route("--tls-certificate-provider", route)
	return addr.String(), err
}

func relayCommand(a *app) *cobra.Command {
	return noun(groupStory, "relay", "Names under which a relay passes messages on to a node", nil, relayCreate(a),
		relayList(a),
		showCommand(a, "Show a relay", `  sallyport relay show blue
  sallyport relay show blue --at n1 --jq .connection_status`, "relay", func(ctx context.Context, c *admin.Client, node, name string) (result, error) {
			r, err := admin.Get[admin.Relay](ctx, c, admin.Item(admin.PathRelays, name))
			service := func(s *string) *string {
				if s == nil {
					return nil
				}
				text := "/service/" + strings.TrimPrefix(*s, "0#")
				return &text
			}
			lines := []string{"Relay", r.Name, "Node", node, "At", r.Destination, "Address there", orDash(service(r.RemoteAddress))}
			if r.Rule != "" || r.Share != "" {
				lines = append(lines, "Rule", cmp.Or(r.Rule, "failover"), "Shared with", cmp.Or(r.Share, "-"), "Priority", strconv.Itoa(r.Priority))
			}
			return result{
				machine: name,
				human:   fields(append(lines, stateFields(r.State)...)...) + membersTable(r.Members),
				json: struct {
					Status      string  `json:"connection_status"`
					Destination string  `json:"destination"`
					Name        string  `json:"name"`
					Route       *string `json:"relay_route"`
					Remote      *string `json:"remote_address"`
					Worker      *string `json:"worker_address"`
					Rule        string  `json:"rule,omitempty"`
					Share       string  `json:"share,omitempty"`
					Priority    int     `json:"priority,omitempty"`

					Members []admin.RelayMember `json:"members,omitempty"`
					admin.State
				}{
					r.ConnectionStatus, r.Destination, r.Name, r.ForwardingRoute, service(r.RemoteAddress), service(r.WorkerAddress), r.Rule, r.Share, r.Priority, r.Members, r.State,
				},
			}, err
		}),
		deleteCommand(a, "Give a relay up", `  sallyport relay delete blue --yes
  sallyport relay delete --all --at n1 --yes`, "relay", admin.PathRelays,
			func(ctx context.Context, c *admin.Client) ([]string, error) {
				list, err := admin.Get[[]admin.Relay](ctx, c, admin.PathRelays)
				var names []string
				for _, r := range list {
					names = append(names, r.Name)
				}
				return names, err
			},
			func(node, name string) result {
				return result{human: "  ✔ Relay with name " + name + " on Node " + node + " has been deleted"}
			}),
	)
}

// checkShare refuses what no relay name can be shared by.
func checkShare(cmd *cobra.Command, r *admin.RelayRequest) error {
	if r.Rule != "" && r.Rule != "failover" && r.Rule != "spread" {
		return usageError("invalid value '%s' for '--rule': it must be failover or spread", r.Rule)
	}
	if r.Priority < 0 || r.Priority > 1000 {
		return usageError("invalid value '%d' for '--priority': it must be from 0 to 1000", r.Priority)
	}
	if r.Share == "" && cmd.Flags().Changed("share") {
		return usageError("invalid value '' for '--share <EXPRESSION>': the expression is empty")
	}
	return checkPolicy("--share", r.Share)
}

// membersTable shows who shares a relay name; nothing where nobody does.
func membersTable(list []admin.RelayMember) string {
	if len(list) == 0 {
		return ""
	}
	rows := [][]string{}
	for _, m := range list {
		state := m.State
		if m.Chosen {
			state += ", chosen"
		}
		if m.Self {
			state += ", this node"
		}
		rows = append(rows, []string{m.Identifier, strconv.FormatUint(m.Priority, 10), state, strconv.FormatUint(m.Connections, 10), m.Relay})
	}
	return "\n\n" + tableOr("", []string{"MEMBER", "PRIORITY", "STATE", "CONNECTIONS", "RELAY"}, rows)
}

func relayCreate(a *app) *cobra.Command {
	var to, at string
	var r admin.RelayRequest
	var again retry
	var projectRelay bool
	cmd := &cobra.Command{
		Use: "create [NAME] [flags]", Short: "Register a node at a relay, so that others reach it without a listening port",
		Example: `  sallyport relay create blue
  sallyport relay create blue --at /node/n2/secure/api --to n1
  sallyport relay create db --share '(= subject.side "bank")' --priority 10`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			r.Name = "default"
			if len(args) == 1 {
				r.Name = args[0]
			}
			if err := checkIdentifier("--authorized", r.Authorized); err != nil {
				return err
			}
			if err := checkShare(cmd, &r); err != nil {
				return err
			}
			if projectRelay {
				a.note("--project-relay has no effect: the route says where the relay is")
			}
			addr, err := a.relayAt(ctx, at)
			if err != nil {
				return err
			}
			if r.Authorized != "" && len(addr) > 0 && addr[0].Protocol == multiaddr.Project {
				return errors.New("--authorized cannot be used with a project's route: the project says who its relay is")
			}
			r.At = addr.String()
			if a.collect != nil {
				return a.collect(resource.KindRelay, &r.Name, &r)
			}
			c, node, err := a.firstClient(ctx, to)
			if err != nil {
				return err
			}
			var rel admin.Relay
			if err := a.retrying(ctx, again, func() (err error) {
				rel, err = admin.Post[admin.Relay](ctx, c, admin.PathRelays, r)
				return err
			}); err != nil {
				return err
			}
			if r.NoConnectionWait {
				rel.LastFailure = nil // it has only begun, however quickly it may have been refused
			}
			if rel.ConnectionStatus != "Up" {
				a.warn("%s The relay %s is not up yet (%s); the node keeps trying", a.color("33", "!"), r.Name, orDash(rel.LastFailure))
				return a.print(result{json: rel})
			}
			route := "/service/" + *rel.RemoteAddress
			a.done("Node %s is reached at %s through %s", node, route, rel.Destination)
			a.hint("next: at the client's side, sallyport tcp-inlet create --from PORT --to OUTLET --via %s", r.Name)
			return a.print(result{human: route, machine: route, json: rel})
		},
	}
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "`NODE` that the relay passes messages to (default: the default node)")
	f.StringVar(&at, "at", "", "`ROUTE` to the relay's node (default: /project/DEFAULT)")
	f.StringVar(&r.Authorized, "authorized", "", "the `IDENTIFIER` that the relay's node must have")
	f.StringVar(&r.RelayAddress, "relay-address", "", "the `NAME` to register, if not the relay's")
	f.StringVar(&r.Share, "share", "", "who may have the name too, a policy `EXPRESSION`; see docs/portals.md")
	f.StringVar(&r.Rule, "rule", "", "who gets new connections where it is shared: `failover` or spread")
	f.IntVar(&r.Priority, "priority", 0, "`NUMBER` of this node with failover, the lower first")
	f.BoolVar(&r.NoConnectionWait, "no-connection-wait", false, "do not wait for the first connection")
	again.add(cmd)
	f.BoolVar(&projectRelay, "project-relay", false, "")
	hide(cmd, "project-relay")
	return cmd
}
