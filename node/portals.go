package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sort"
	"sync"
	"time"

	"sallyport/crypto/identity"
	"sallyport/names"
	"sallyport/node/admin"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/portal/httpheader"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// outlet is an outlet with what it was made from.
type outlet struct {
	owner   string // the Kafka outlet it belongs to, which creates it again
	request admin.OutletRequest
	portal  *portal.Outlet
	guard   *guard
	stop    func(context.Context) error // ends what runs beside it
}

// inlet is an inlet with the session that keeps its path.
type inlet struct {
	owner   string // the Kafka inlet it belongs to, which creates it again
	parts   inletParts
	request admin.InletRequest
	to      multiaddr.Addr
	portal  *portal.Inlet
	session *session
	direct  *session // of the path through a puncture; nil without --udp
	guard   *guard
	cancel  context.CancelFunc // ends what runs for the inlet besides its sessions
	influx  *influxInlet       // nil for an ordinary inlet

	mu        sync.Mutex
	main, udp routing.Route // the paths there are
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
		in.portal.SetPath(in.udp)
	case in.request.NoTCPFallback:
		in.portal.SetPath(routing.Route{})
	default:
		in.portal.SetPath(in.main)
	}
}

// CreateOutlet starts a TCP outlet.
func (n *Node) CreateOutlet(ctx context.Context, r admin.OutletRequest) (admin.Outlet, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r.Name == "" {
		r.Name = routing.DefaultOutlet
		for n.router.HasNamed(r.Name) {
			r.Name = state.RandomName()
		}
	}
	if _, _, err := net.SplitHostPort(r.To); err != nil {
		return admin.Outlet{}, fmt.Errorf("%w: --to %q must be host:port", admin.ErrInvalid, r.To)
	}
	if n.router.HasNamed(r.Name) {
		return admin.Outlet{}, fmt.Errorf("%w: an outlet or service at the address %q", admin.ErrExists, r.Name)
	}
	g, err := n.guardFor(r.Name, policy.TCPOutlet, n.authority(), r.Allow)
	if err != nil {
		return admin.Outlet{}, err
	}
	flows := []*routing.Flow{n.api.Flow}
	if n.authority() == nil {
		// Without an authority an outlet can also be reached without a channel, as in the reference (docs/protocol/03 §2.1); here also
		// from what this node began, such as its connection to a relay.
		flows = append(append(flows, n.listenerFlows()...), n.router.Begun())
	}
	out, err := n.openOutlet(ctx, r, "", g, flows...)
	if err != nil {
		g.close()
		return admin.Outlet{}, err
	}
	out.guard = g
	n.log.Info("outlet created", "outlet", r.Name, "target", r.To)
	return out.describe(), n.save()
}

// openOutlet starts an outlet that flows can reach. owner is the Kafka outlet that it belongs to, if it does; g stays the caller's. n.mu is held.
func (n *Node) openOutlet(ctx context.Context, r admin.OutletRequest, owner string, g *guard, flows ...*routing.Flow) (*outlet, error) {
	o := portal.OutletOptions{Name: r.Name, Target: r.To, Resolve: names.Lookup, Flows: flows, SkipHandshake: r.SkipHandshake}
	if g != nil {
		o.Guard = g
	}
	if r.TLS {
		o.Dial = tlsDialer(r.To)
	}
	stop, err := n.influxOutlet(ctx, r, &o)
	if err != nil {
		return nil, err
	}
	p, err := portal.NewOutlet(ctx, n.portals, n.router, o)
	if err != nil {
		return nil, errors.Join(err, stop(ctx))
	}
	out := &outlet{owner: owner, request: r, portal: p, stop: stop}
	n.outlets[r.Name] = out
	return out, nil
}

func (o *outlet) describe() admin.Outlet {
	return admin.Outlet{To: o.request.To, Worker: admin.Address(o.request.Name)}
}

// DeleteOutlet stops an outlet; its open connections stay.
func (n *Node) DeleteOutlet(ctx context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.outlets[name]
	if o == nil && n.lost.forgetOutlet(name) {
		return n.save()
	}
	if o == nil {
		return fmt.Errorf("%w: no outlet %q", admin.ErrNotFound, name)
	}
	delete(n.outlets, name)
	o.guard.close()
	return errors.Join(o.portal.Close(ctx), o.stop(ctx), n.save())
}

// Outlets lists the outlets by name.
func (n *Node) Outlets() []admin.Outlet {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]admin.Outlet, 0, len(n.outlets))
	for _, name := range sortedKeys(n.outlets) {
		list = append(list, n.outlets[name].describe())
	}
	return list
}

// guardFor saves a policy given with a portal and returns the portal's guard; nil means that everybody may use it. A portal that comes
// back keeps its guard, but what its policy says is restored with the policies: it may have been changed since.
func (n *Node) guardFor(name string, kind policy.ResourceType, authority *identity.Identifier, allow string) (*guard, error) {
	if err := n.setPolicyOf(name, allow); err != nil {
		return nil, err
	}
	g := n.access.guard(name, kind, authority, allow != "")
	if g == nil {
		n.log.Warn("portal is open to every peer that can reach it: the node has no authority and no policy was given", "portal", name)
	}
	return g, nil
}

// setPolicyOf saves a policy given with a portal.
func (n *Node) setPolicyOf(name, allow string) error {
	if allow == "" || n.restoring {
		return nil
	}
	expr, err := policy.Parse(allow)
	if err != nil {
		return fmt.Errorf("%w: --allow: %w", admin.ErrInvalid, err)
	}
	if err := n.policies.Set(policy.ByName(name), expr); err != nil {
		return fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	return nil
}

// CreateInlet opens a TCP inlet and starts to connect it. It waits for the first attempt as the request says; an outlet that
// cannot be reached yet is not an error.
func (n *Node) CreateInlet(ctx context.Context, r admin.InletRequest) (admin.Inlet, error) {
	in, err := n.startInlet(ctx, &r)
	if err != nil {
		return admin.Inlet{}, err
	}
	if !r.NoConnectionWait {
		wait := 15 * time.Second
		if r.ConnectionWaitMS > 0 {
			wait = time.Duration(r.ConnectionWaitMS) * time.Millisecond
		}
		waiting, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		in.session.first(waiting)
		if in.influx != nil && in.influx.refresher != nil {
			in.influx.refresher.First(waiting)
		}
		if in.direct != nil && r.NoTCPFallback {
			in.direct.first(waiting)
		}
	}
	return in.describe(), nil
}

func (n *Node) startInlet(ctx context.Context, r *admin.InletRequest) (*inlet, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.openInlet(ctx, r, inletParts{})
}

// inletParts are what an inlet has beyond its request when it is part of something larger.
type inletParts struct {
	owner  string
	env    *portal.Env   // nil: that of the node
	guard  *guard        // given: the owner's, which may be nil
	prefix routing.Route // interceptors of this node
	suffix routing.Route // what is behind the route of the request
}

// openInlet starts an inlet. n.mu is held.
func (n *Node) openInlet(ctx context.Context, r *admin.InletRequest, parts inletParts) (*inlet, error) {
	given := r.Alias
	for r.Alias == "" || (r.Alias != given && n.inlets[r.Alias] != nil) {
		r.Alias = state.RandomName()
	}
	if n.inlets[r.Alias] != nil {
		return nil, fmt.Errorf("%w: an inlet with the alias %q", admin.ErrExists, r.Alias)
	}
	to, err := multiaddr.Parse(r.To)
	if err != nil {
		return nil, fmt.Errorf("%w: --to: %w", admin.ErrInvalid, err)
	}
	bind, err := names.Listen(ctx, r.From)
	if err != nil {
		return nil, fmt.Errorf("%w: --from: %w", admin.ErrInvalid, err)
	}
	if r.UDP && n.mainUDP == nil && !n.restoring {
		return nil, fmt.Errorf("%w: --udp: the node has no UDP; create it with `node create --udp`", admin.ErrInvalid)
	}
	if r.UDP && n.opts.UDP.Rendezvous == "" && !n.restoring {
		return nil, fmt.Errorf("%w: --udp: %w, and start the node with it", admin.ErrInvalid, ErrNoRendezvous)
	}
	options, err := n.connectOptions(ctx, r.Identity, r.Authorized)
	if err != nil {
		return nil, err
	}
	rewrite, err := headerRewriter(r.HTTPHeaders)
	if err != nil {
		return nil, fmt.Errorf("%w: --http-header: %w", admin.ErrInvalid, err)
	}
	influx, err := n.influxInlet(r, to, options)
	if err != nil {
		return nil, err
	}
	if influx != nil && influx.refresher != nil {
		rewrite = tokenRewriter(influx.refresher.Fields)
	}
	var provider multiaddr.Addr
	if r.TLSProvider != "" {
		if provider, err = multiaddr.Parse(r.TLSProvider); err != nil {
			return nil, fmt.Errorf("%w: --tls-certificate-provider: %w", admin.ErrInvalid, err)
		}
	}
	env, g, own := n.portals, parts.guard, (*guard)(nil)
	if parts.owner != "" {
		env = parts.env
	} else {
		if g, err = n.guardFor(r.Alias, policy.TCPInlet, n.authorityOf(ctx, to), r.Allow); err != nil {
			return nil, err
		}
		own = g
	}
	o := portal.InletOptions{
		Name: r.Alias, Listen: bind, Nagle: r.Nagle, SkipHandshake: r.SkipHandshake, Rewrite: rewrite,
		Prefix: parts.prefix, Plain: parts.prefix.Len() > 0,
	}
	if g != nil {
		o.Guard = g
	}
	var certs *certificates
	if provider != nil {
		certs = newCertificates(n.log.With("inlet", r.Alias), func(ctx context.Context) (*tls.Certificate, error) { return n.fetchCertificate(ctx, provider) })
		o.Accept = tlsAcceptor(certs.get)
	}
	p, err := portal.NewInlet(ctx, env, n.router, o)
	if err != nil {
		own.close()
		return nil, err
	}
	running, cancel := context.WithCancel(n.ctx)
	if certs != nil {
		go certs.run(running)
	}
	if influx != nil && influx.refresher != nil {
		go influx.refresher.Run(running)
	}
	r.From = p.Bound().String() // a port chosen now is kept for the next start
	in := &inlet{owner: parts.owner, parts: parts, request: *r, to: to, portal: p, guard: own, cancel: cancel, influx: influx}
	in.session = &session{
		log: n.log.With("inlet", r.Alias), router: n.router, back: n.restoring,
		connect: func(ctx context.Context) (*connection, error) { return n.connect(ctx, to, options) },
		up: func(_ context.Context, c *connection) error {
			in.choose(func() { in.main = in.outletRoute(c) })
			return nil
		},
		down: func() { in.choose(func() { in.main = routing.Route{} }) },
	}
	n.inlets[r.Alias] = in
	in.session.start(n.ctx)
	if r.UDP {
		in.startDirect(n, options)
	}
	return in, n.save()
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

// startDirect begins to keep a path through a puncture. It is made over the main path, and outlives it.
func (in *inlet) startDirect(n *Node, o connectOptions) {
	in.direct = &session{
		log: n.log.With("inlet", in.request.Alias, "path", "udp"), router: n.router, slow: true,
		connect: func(ctx context.Context) (*connection, error) {
			for {
				up, main, _ := in.session.state()
				if up {
					return n.puncture(ctx, main, o)
				}
				select {
				case <-ctx.Done():
					return nil, errNoMainPath
				case <-time.After(50 * time.Millisecond):
				}
			}
		},
		up: func(_ context.Context, c *connection) error {
			in.choose(func() { in.udp = in.outletRoute(c) })
			return nil
		},
		down: func() { in.choose(func() { in.udp = routing.Route{} }) },
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

func (in *inlet) describe() admin.Inlet {
	up, c, _ := in.session.state()
	if in.direct != nil {
		if directUp, direct, _ := in.direct.state(); directUp || in.request.NoTCPFallback {
			up, c = directUp, direct
		}
	}
	d := admin.Inlet{Bind: in.portal.Bound().String(), Alias: in.request.Alias, Status: "Down", OutletAddr: in.to.String()}
	if up {
		route, worker := in.parts.prefix.Concat(in.outletRoute(c)).String(), in.request.Alias
		d.Status, d.OutletRoute, d.Worker = "Up", &route, &worker
	}
	return d
}

// DeleteInlet closes an inlet and its connections.
func (n *Node) DeleteInlet(ctx context.Context, alias string) error {
	n.mu.Lock()
	in := n.inlets[alias]
	delete(n.inlets, alias)
	if in == nil && n.lost.forgetInlet(alias) {
		defer n.mu.Unlock()
		return n.save()
	}
	n.mu.Unlock()
	if in == nil {
		return fmt.Errorf("%w: no inlet %q", admin.ErrNotFound, alias)
	}
	err := in.portal.Close(ctx)
	in.cancel()
	in.stop()
	in.guard.close()
	n.mu.Lock()
	defer n.mu.Unlock()
	return errors.Join(err, n.save())
}

// Inlets lists the inlets by alias.
func (n *Node) Inlets() []admin.Inlet {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make([]admin.Inlet, 0, len(n.inlets))
	for _, alias := range sortedKeys(n.inlets) {
		list = append(list, n.inlets[alias].describe())
	}
	return list
}

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
