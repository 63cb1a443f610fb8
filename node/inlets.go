package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sort"
	"sync"
	"time"

	"sallyport/crypto/identity"
	"sallyport/names"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/portal/httpheader"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// inlet is an inlet with the session that keeps its path.
type inlet struct {
	request resource.Inlet
	parts   inletParts
	to      multiaddr.Addr
	portal  *portal.Inlet
	port    port       // portal, or the inlet for UDP that this one keeps the path of
	asks    control.Op // what its outlet is asked for
	session *session
	direct  *session           // of the path through a puncture; nil without --udp
	guard   *guard             // its own, nil for part of something larger
	cancel  context.CancelFunc // ends what runs for the inlet besides its sessions
	influx  *influxInlet       // nil for an ordinary inlet

	answer *answer     // what the outlet's node says of the outlet
	lanes  *inletLanes // nil without

	mu        sync.Mutex
	main, udp routing.Route   // the paths there are
	beside    []routing.Route // and those for transfers beside main
	lanesCome bool            // more of those come
}

// port is where clients come to, as far as the keeping of a path knows it.
type port interface {
	SetPath(route routing.Route)
	Refuse(reason string)
	Gone(peer [32]byte, route routing.Route)
	Silent(route routing.Route, since time.Time)
	Restart(route routing.Route)
	Lost(route routing.Route)
}

// leaseSuffix is behind an InfluxDB outlet's name in that of the service that leases tokens (docs/protocol/03 §5, end).
const leaseSuffix = "_lease_manager"

// influxInlet is what an inlet to InfluxDB needs besides an ordinary one's.
type influxInlet struct {
	tokens influxTokens  // nil where the outlet has the token
	suffix routing.Route // behind the outlet's route
}

// influxTokens are the tokens that an inlet leases one after the other.
type influxTokens interface {
	// Fields returns what goes into each request.
	Fields() []httpheader.Field
	// Run leases until ctx ends, and First waits for the first token.
	Run(ctx context.Context)
	First(ctx context.Context)
}

func tokenRewriter(fields func() []httpheader.Field) func() portal.Rewriter {
	o := httpheader.Options{Fields: fields, NoUpgrade: true} // InfluxDB has none
	return func() portal.Rewriter { return httpheader.New(o) }
}

// inletParts are what an inlet has beyond its request when it is part of something larger.
type inletParts struct {
	guard  *guard        // the owner's, which may be nil
	prefix routing.Route // interceptors of this node
	suffix routing.Route // what is behind the route of the request
}

func addInlets(n *Node) {
	n.inlets = table.Add(n.set, table.Kind[resource.Inlet, *inlet]{
		Name: resource.KindInlet, Noun: "inlet", Path: admin.PathInlets, Ends: true,
		After: []string{resource.KindPolicy, resource.KindOutlet, resource.KindRelay, resource.KindCertificate},
		Key:   func(r *resource.Inlet) *string { return &r.Alias },
		Check: n.checkInlet,
		Open: func(ctx context.Context, o *table.Opening[resource.Inlet]) (*inlet, error) {
			return n.openInlet(ctx, o, nil)
		},
		InPlace: []string{"allow", "max-connections", "rate"},
		Update: func(_ context.Context, in *inlet, _, to *resource.Inlet) error {
			rate, err := rateOf(to.Rate)
			if err != nil {
				return err
			}
			in.portal.SetRate(rate)
			in.portal.SetMaxConnections(to.MaxConnections)
			n.setPolicyOf(policy.Own(resource.KindInlet, to.Alias), to.Allow)
			return nil
		},
		Close:    n.closeInlet,
		Status:   (*inlet).status,
		Describe: func(i table.Item[resource.Inlet, *inlet]) any { return inletOf(i) },
		Creating: func(ctx context.Context, r *resource.Inlet) error {
			return n.overrulePolicy(ctx, resource.KindInlet, r.Alias, r.Allow)
		},
		Created: func(ctx context.Context, i table.Item[resource.Inlet, *inlet]) error {
			return i.Value.wait(ctx, i.Request)
		},
	})
	n.policed = append(n.policed, policed(resource.KindInlet, n.inlets, func(r *resource.Inlet, name string) *string {
		if name == r.Alias {
			return &r.Allow
		}
		return nil
	}))
}

// checkInlet refuses what can never be an inlet of this node, and gives it a name.
func (n *Node) checkInlet(_ context.Context, r *resource.Inlet, taken func(string) bool) error {
	given := r.Alias
	for r.Alias == "" || (r.Alias != given && taken(r.Alias)) {
		r.Alias = state.RandomName()
	}
	to, err := multiaddr.Parse(r.To)
	if err != nil {
		return fmt.Errorf("%w: --to: %w", admin.ErrInvalid, err)
	}
	if u, err := unixSocket(r); err != nil {
		return err
	} else if _, _, err := net.SplitHostPort(r.From); err != nil && u == nil {
		return fmt.Errorf("%w: --from %q must be host:port", admin.ErrInvalid, r.From)
	}
	if _, err := headerRewriter(r.HTTPHeaders); err != nil {
		return fmt.Errorf("%w: --http-header: %w", admin.ErrInvalid, err)
	}
	if _, err := trustedNetworks("--accept-proxy-protocol", r.AcceptProxyProtocol); err != nil {
		return err
	}
	if err := checkNumber("--max-connections", r.MaxConnections, portal.MostConnections); err != nil {
		return err
	}
	if _, err := rateOf(r.Rate); err != nil {
		return err
	}
	if err := checkProtocols(r.ALPN); err != nil {
		return err
	}
	if len(r.ALPN) > 0 && r.TLSProvider == "" {
		return fmt.Errorf("%w: --alpn needs --tls: without it there is no handshake to agree in", admin.ErrInvalid)
	}
	if r.TLSProvider != "" {
		if _, err := multiaddr.Parse(r.TLSProvider); err != nil {
			return fmt.Errorf("%w: --tls-certificate-provider: %w", admin.ErrInvalid, err)
		}
	}
	if _, err := authorizedOf(r.Authorized); err != nil {
		return err
	}
	if _, err := n.influxInlet(r, to, connectOptions{}); err != nil {
		return err
	}
	return checkAllow(r.Allow)
}

// checkUDP refuses an inlet that asks for a direct path from a node that can have none.
func (n *Node) checkUDP() error {
	if n.mainUDP == nil {
		return fmt.Errorf("%w: --udp: the node has no UDP; create it with `node create --udp`", admin.ErrInvalid)
	}
	return nil
}

// openInlet opens an inlet and starts to keep its path.
func (n *Node) openInlet(ctx context.Context, o *table.Opening[resource.Inlet], parts *inletParts) (_ *inlet, err error) {
	r := &o.Request
	to, err := multiaddr.Parse(r.To)
	if err != nil {
		return nil, fmt.Errorf("%w: --to: %w", admin.ErrInvalid, err)
	}
	if r.UDP && !o.Again {
		if err := n.checkUDP(); err != nil {
			return nil, err
		}
	}
	options, err := n.connectOptions(ctx, r.Identity, r.Authorized)
	if err != nil {
		return nil, err
	}
	options.pin = n.pinOf(r, to)
	options.whole = parts != nil && parts.suffix.Len() > 0
	in := &inlet{to: to, answer: newAnswer()}
	g := (*guard)(nil)
	if parts != nil {
		in.parts, g = *parts, parts.guard
	} else {
		if g, err = n.portalGuard(policy.Own(resource.KindInlet, r.Alias), policy.TCPInlet, n.authorityOf(ctx, to), r.Allow); err != nil {
			return nil, err
		}
		in.guard = g
	}
	defer func() {
		if err != nil {
			in.guard.close()
		}
	}()
	if in.influx, err = n.influxInlet(r, to, options); err != nil {
		return nil, err
	}
	p := portal.InletOptions{
		Name: r.Alias, Nagle: r.Nagle, SkipHandshake: r.SkipHandshake, Prefix: in.parts.prefix, Plain: in.parts.prefix.Len() > 0,
		TellClient: r.TellClient || len(r.AcceptProxyProtocol) > 0, MaxConnections: r.MaxConnections,
	}
	trusted, err := trustedNetworks("--accept-proxy-protocol", r.AcceptProxyProtocol)
	if err != nil {
		return nil, err
	}
	_, isUnix := unixPath(r.From)
	p.Preface = headerReader(trusted, isUnix)
	if g != nil {
		p.Guard = g
	}
	if p.Rate, err = rateOf(r.Rate); err != nil {
		return nil, err
	}
	if p.Hold, err = holdOf(r.Hold); err != nil {
		return nil, err
	}
	if p.Rewrite, err = headerRewriter(r.HTTPHeaders); err != nil {
		return nil, fmt.Errorf("%w: --http-header: %w", admin.ErrInvalid, err)
	}
	running, cancel := context.WithCancel(n.ctx)
	defer func() {
		if err != nil {
			cancel()
		}
	}()
	in.cancel = cancel
	if in.influx != nil && in.influx.tokens != nil {
		p.Rewrite = tokenRewriter(in.influx.tokens.Fields)
		go in.influx.tokens.Run(running)
	}
	if r.TLSProvider != "" {
		provider, err := multiaddr.Parse(r.TLSProvider)
		if err != nil {
			return nil, fmt.Errorf("%w: --tls-certificate-provider: %w", admin.ErrInvalid, err)
		}
		fetch := func(ctx context.Context) (*tls.Certificate, error) { return n.fetchCertificate(ctx, provider) }
		certs := newCertificates(n.log.With("inlet", r.Alias), fetch)
		p.Accept = tlsAcceptor(certs.get, r.ALPN, p.Rewrite != nil)
		go certs.run(running)
	}
	if parts == nil {
		p.Carried = n.carriedInlet(r.Alias)
		in.lanes = n.lanesFor(in, options)
		p.WantLanes = in.lanes.want()
	}
	if in.portal, err = n.listenInlet(ctx, r, p); err != nil {
		n.putBack(p.Carried)
		return nil, err
	}
	in.request, in.port, in.asks = *r, in.portal, control.OpOutlet
	in.start(n, options, o.Again)
	return in, nil
}

// listenInlet opens an inlet's port. One that was left to the node is the port of last time, so that clients find it again, unless
// somebody else has that by now.
func (n *Node) listenInlet(ctx context.Context, r *resource.Inlet, o portal.InletOptions) (*portal.Inlet, error) {
	if r.From == program {
		o.Given = true
		return portal.NewInlet(ctx, n.portals, n.router, o)
	}
	u, err := unixSocket(r)
	if err != nil {
		return nil, err
	}
	if u != nil {
		o.Unix = u
		return portal.NewInlet(ctx, n.portals, n.router, o)
	}
	open := func(at string) (*portal.Inlet, error) {
		var err error
		if o.Listen, err = names.Listen(ctx, at); err != nil {
			return nil, fmt.Errorf("%w: --from: %w", admin.ErrInvalid, err)
		}
		return portal.NewInlet(ctx, n.portals, n.router, o)
	}
	return keepPort(n.log, r.Alias, r.From, &r.Bound, open)
}

// keepPort opens an inlet at from. A port that was left to the node is the one of last time, bound, unless somebody else has that by now; bound is
// then the new one.
func keepPort[P interface{ Bound() netip.AddrPort }](
	log *slog.Logger, name, from string, bound *string, open func(at string) (P, error),
) (P, error) {
	if portOf(from) != "0" {
		return open(from)
	}
	if *bound != "" {
		p, err := open(*bound)
		if err == nil {
			return p, nil
		}
		log.Warn("the inlet gets another port", "inlet", name, "before", *bound, "reason", err.Error())
	}
	p, err := open(from)
	if err == nil {
		*bound = p.Bound().String()
	}
	return p, err
}

// start begins to keep the inlet's path, and the direct one if it is wanted.
func (in *inlet) start(n *Node, options connectOptions, back bool) {
	in.session = &session{
		log: n.log.With("inlet", in.request.Alias), router: n.router, back: back,
		connect: func(ctx context.Context) (*connection, error) { return n.connect(ctx, in.to, options) },
		up: func(_ context.Context, c *connection) error {
			if k := len(c.channels); options.pin != nil && k > 0 && len(c.expects) == 0 {
				// Only whom the inlet's policy allows is expected from now on: else anybody could be the first.
				if peer := c.channels[k-1].Peer.ID; in.admits(&peer) {
					options.pin.keep(peer)
					if c.name != "" {
						go n.askShare(c, options.pin, peer)
					}
				}
			}
			in.choose(func() { in.main = in.outletRoute(c) })
			go in.inquire(n, c)
			return nil
		},
		down: func() {
			in.choose(func() { in.main = routing.Route{} })
			in.answer.forget()
			in.port.Refuse("")
		},
		silent:  in.silent,
		restart: func(c *connection) { in.port.Restart(in.outletRoute(c)) },
		lost: func(c *connection) {
			if !c.owns() { // else they end with what c owns
				in.port.Lost(in.outletRoute(c))
			}
		},
		absent: func(reason string) { in.port.Refuse(reason) },
		gone: func(c *connection) {
			if k := len(c.channels); k > 0 {
				in.port.Gone(c.channels[k-1].Peer.ID, in.outletRoute(c))
			}
		},
		watched: n.watchGone,
	}
	in.session.start(n.ctx)
	if in.request.UDP {
		in.startDirect(n, options)
	}
	in.lanes.start(n.ctx)
}

// silent tells connections over a path since when nothing was heard there.
func (in *inlet) silent(c *connection, since time.Time) {
	in.port.Silent(in.outletRoute(c), since)
}

// admits reports whether the policy allows who is at the end of the path.
func (in *inlet) admits(peer *[32]byte) bool {
	g := in.guard
	if g == nil {
		g = in.parts.guard
	}
	return g == nil || g.Grant(peer).Allowed()
}

// closeInlet closes an inlet and its connections.
func (n *Node) closeInlet(ctx context.Context, in *inlet) error {
	err := in.portal.Close(ctx)
	in.cancel()
	in.stop()
	if in.guard != nil {
		in.guard.close()
		n.dropPolicyOf(in.guard.own)
	}
	return err
}

// wait waits for the first attempt of a path, as the request says.
func (in *inlet) wait(ctx context.Context, r resource.Inlet) error {
	if r.NoConnectionWait {
		return nil
	}
	wait := 15 * time.Second
	if r.ConnectionWaitMS > 0 {
		wait = time.Duration(r.ConnectionWaitMS) * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	in.session.first(ctx)
	if up, _, _ := in.session.state(); up {
		select {
		case <-in.answer.first:
		case <-ctx.Done():
		}
	}
	if in.influx != nil && in.influx.tokens != nil {
		in.influx.tokens.First(ctx)
	}
	if in.direct != nil && r.NoTCPFallback {
		in.direct.first(ctx)
	}
	return nil
}

// path is the session whose path new clients get.
func (in *inlet) path() *session {
	if in.direct != nil {
		if up, _, _ := in.direct.state(); up || in.request.NoTCPFallback {
			return in.direct
		}
	}
	return in.session
}

// status is how the inlet is for its clients.
func (in *inlet) status() resource.Status {
	s := in.path().status()
	if s.State != resource.Up || in.path() != in.session {
		return s
	}
	if said, asked := in.answer.get(); asked {
		return said
	}
	s.State = resource.Opening // the path is there, the outlet has not been heard of
	return s
}

// outletRoute is where clients' connections go over c.
func (in *inlet) outletRoute(c *connection) routing.Route {
	if in.influx == nil {
		return c.route.Concat(in.parts.suffix)
	}
	return c.route.Concat(in.influx.suffix, in.parts.suffix)
}

// stop ends the sessions.
func (in *inlet) stop() {
	in.lanes.stop()
	if in.direct != nil {
		in.direct.stop()
	}
	in.session.stop()
}

// choose gives new clients the best path there is: the direct one, else the main one unless it must not be used.
func (in *inlet) choose(change func()) {
	in.mu.Lock()
	defer in.mu.Unlock()
	change()
	switch {
	case in.udp.Len() > 0:
		in.setLanes(false)
		in.port.SetPath(in.udp)
	case in.request.NoTCPFallback:
		in.setLanes(false)
		in.port.SetPath(routing.Route{})
	default:
		in.port.SetPath(in.main)
		in.setLanes(in.lanesCome, in.beside...)
	}
}

// setLanes gives the portal its lanes; an inlet for UDP has none.
func (in *inlet) setLanes(more bool, routes ...routing.Route) {
	if in.lanes != nil {
		in.portal.SetLanes(more, routes...)
	}
}

// headerRewriter returns what sets header fields, NAME:VALUE, in the requests of an inlet's clients; nil for none.
func headerRewriter(list []string) (func() portal.Rewriter, error) {
	if len(list) == 0 {
		return nil, nil
	}
	fields := make([]httpheader.Field, len(list))
	for i, text := range list {
		f, err := httpheader.ParseField(text)
		if err != nil {
			return nil, err
		}
		fields[i] = f
	}
	o := httpheader.Options{Fields: func() []httpheader.Field { return fields }}
	return func() portal.Rewriter { return httpheader.New(o) }, nil
}

// mainPath waits until the inlet's path is up, and returns it: what is made over it is made as soon as that is possible, without pauses that grow meanwhile.
func (in *inlet) mainPath(ctx context.Context) (*connection, error) {
	for {
		if up, main, _ := in.session.state(); up {
			return main, nil
		}
		select {
		case <-ctx.Done():
			return nil, errNoMainPath
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// startDirect begins to keep a path through a puncture. It is made over the main path, and outlives it.
func (in *inlet) startDirect(n *Node, o connectOptions) {
	in.direct = &session{
		log: n.log.With("inlet", in.request.Alias, "path", "udp"), router: n.router, slow: true,
		connect: func(ctx context.Context) (*connection, error) {
			main, err := in.mainPath(ctx)
			if err != nil {
				return nil, err
			}
			return n.puncture(ctx, main, o)
		},
		up: func(_ context.Context, c *connection) error {
			in.choose(func() { in.udp = in.outletRoute(c) })
			return nil
		},
		down:   func() { in.choose(func() { in.udp = routing.Route{} }) },
		silent: in.silent,
	}
	in.direct.start(n.ctx)
}

// authorityOf returns whose credentials count behind a route: a project's authority takes precedence (docs/protocol/02 §7.4).
func (n *Node) authorityOf(ctx context.Context, to multiaddr.Addr) *identity.Identifier {
	if len(to) > 0 && to[0].Protocol == multiaddr.Project {
		if p, err := n.project(ctx, to[0].Text); err == nil && p.Authority != nil {
			return p.Authority
		}
	}
	return n.authority()
}

// inletOf is what lists show of an inlet.
func inletOf(i table.Item[resource.Inlet, *inlet]) admin.Inlet {
	r := i.Request
	d := admin.Inlet{Bind: r.From, Alias: r.Alias, Status: "Down", OutletAddr: r.To, MaxConnections: r.MaxConnections, State: i.Status}
	if r.Bound != "" {
		d.Bind = r.Bound
	}
	if !i.IsOpen {
		return d
	}
	in := i.Value
	if b := in.portal.Bound(); b.IsValid() {
		d.Bind = b.String()
	}
	if up, c, _ := in.path().state(); up {
		route, worker := in.parts.prefix.Concat(in.outletRoute(c)).String(), r.Alias
		d.Status, d.OutletRoute, d.Worker = "Up", &route, &worker
	}
	return d
}

// CreateInlet opens a TCP inlet and starts to connect it. It waits for the first attempt as the request says; an outlet that cannot
// be reached yet is not an error.
func (n *Node) CreateInlet(ctx context.Context, r resource.Inlet) (admin.Inlet, error) {
	i, err := n.inlets.Create(ctx, r)
	if err != nil {
		return admin.Inlet{}, err
	}
	err = i.Value.wait(ctx, i.Request)
	i, _ = n.inlets.Get(i.Request.Alias)
	return inletOf(i), err
}

// DeleteInlet closes an inlet and its connections.
func (n *Node) DeleteInlet(ctx context.Context, alias string) error {
	return n.inlets.Delete(ctx, alias)
}

// Inlets lists the inlets by alias.
func (n *Node) Inlets() []admin.Inlet { return each(n.inlets.List(), inletOf) }

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// loopback is where services for the machine itself listen.
var loopback = netip.MustParseAddr("127.0.0.1")
