package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/portal/httpheader"
	"sallyport/portal/influxdb"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/rpc"
)

// Names beside that of an InfluxDB outlet (docs/protocol/03 §5, end).
const (
	leaseSuffix  = "_lease_manager" // the service that leases tokens
	sharedSuffix = "_outlet"        // in the reference, the outlet behind what sets the token
)

// influxOutlet prepares an outlet to InfluxDB: it sets the one token, or has a lease manager beside it. stop ends that.
func (n *Node) influxOutlet(ctx context.Context, r resource.Outlet, o *portal.OutletOptions) (stop func(context.Context) error, err error) {
	stop = func(context.Context) error { return nil }
	if r.InfluxDB == nil {
		return stop, nil
	}
	if token := r.InfluxDB.FixedToken; token != "" {
		field, err := influxdb.TokenField(token)
		if err != nil {
			return nil, fmt.Errorf("%w: --fixed-token: it cannot be sent in a header", admin.ErrInvalid)
		}
		// An inlet of the reference sends to NAME and behind it NAME_outlet. Here both are the one outlet at NAME, so nobody gets
		// past what sets the token.
		fields := []httpheader.Field{field}
		o.Rewrite = tokenRewriter(func() []httpheader.Field { return fields })
		return stop, nil
	}
	scheme := "http"
	if r.TLS {
		scheme = "https"
	}
	name := r.Name + leaseSuffix
	m, err := influxdb.New(influxdb.Options{
		URL: scheme + "://" + r.To, OrgID: r.InfluxDB.OrgID, Token: r.InfluxDB.AllAccessToken, Permissions: r.InfluxDB.Permissions,
		TTL: time.Duration(r.InfluxDB.ExpiresInSeconds) * time.Second, Log: n.log.With("service", name),
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	own := policy.Own(resource.KindOutlet, name)
	g, err := n.portalGuard(own, policy.Lessor, n.authority(), r.Allow)
	if err != nil {
		return nil, err
	}
	server := &guardedServer{Server: m, guard: g}
	if err := n.router.StartNamed(ctx, name, func(*routing.Shard) routing.Worker { return n.rpcWorker(name, server) }, n.api.Flow); err != nil {
		g.close()
		return nil, existsError(err)
	}
	running, cancel := context.WithCancel(n.ctx)
	go m.Run(running)
	return func(ctx context.Context) error {
		cancel()
		g.close()
		n.dropPolicyOf(own)
		return n.router.StopNamed(ctx, name)
	}, nil
}

// guardedServer answers those whom a guard admits.
type guardedServer struct {
	rpc.Server
	guard *guard
}

func (s *guardedServer) Serve(ctx context.Context, caller *identity.Identifier, req *rpc.Request) *rpc.Response {
	if s.guard != nil && (caller == nil || !s.guard.Grant((*[32]byte)(caller)).Allowed()) {
		return nil
	}
	return s.Server.Serve(ctx, caller, req)
}

func tokenRewriter(fields func() []httpheader.Field) func() portal.Rewriter {
	o := httpheader.Options{Fields: fields, NoUpgrade: true} // InfluxDB has none
	return func() portal.Rewriter { return httpheader.New(o) }
}

// influxInlet is what an inlet to InfluxDB needs besides an ordinary one's.
type influxInlet struct {
	refresher *influxdb.Refresher
	suffix    routing.Route // behind the outlet's route
}

// influxInlet prepares an inlet to InfluxDB.
func (n *Node) influxInlet(r *resource.Inlet, to multiaddr.Addr, options connectOptions) (*influxInlet, error) {
	if r.InfluxDB == nil {
		return nil, nil
	}
	if len(to) == 0 || to[len(to)-1].Protocol != multiaddr.Service {
		return nil, fmt.Errorf("%w: --to %s must end in the outlet's /service/NAME", admin.ErrInvalid, to)
	}
	if len(r.HTTPHeaders) > 0 {
		return nil, fmt.Errorf("%w: --http-header is not for InfluxDB inlets", admin.ErrInvalid)
	}
	last := to[len(to)-1]
	if r.InfluxDB.Shared {
		if r.InfluxDB.LeaseManager != "" {
			return nil, fmt.Errorf("%w: --lease-manager-route requires --leased-token-strategy per-client", admin.ErrInvalid)
		}
		return &influxInlet{suffix: routing.LocalRoute(last.Text + sharedSuffix)}, nil
	}
	manager := append(append(multiaddr.Addr{}, to[:len(to)-1]...), last)
	manager[len(manager)-1].Text += leaseSuffix
	if route := r.InfluxDB.LeaseManager; route != "" {
		var err error
		if manager, err = multiaddr.Parse(route); err != nil {
			return nil, fmt.Errorf("%w: --lease-manager-route: %w", admin.ErrInvalid, err)
		}
	}
	ask := func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		return n.askAt(ctx, manager, options, req)
	}
	return &influxInlet{refresher: influxdb.NewRefresher(influxdb.Client{Call: ask}, n.log.With("inlet", r.Alias))}, nil
}

// AskAt connects to the service at a multiaddr as the node does for its inlets, sends it one request and returns its answer. Only those that are expected
// may be there; if nobody is, who answered first through a project is from then on, as for inlets.
func (n *Node) AskAt(ctx context.Context, to multiaddr.Addr, req *rpc.Request, expects ...identity.Identifier) (*rpc.Response, error) {
	o := connectOptions{self: n.opts.Self, authorized: expects}
	pin := n.pinOfCommands(to)
	if len(expects) == 0 {
		o.pin = pin
	}
	var peer *identity.Identifier
	resp, err := n.askOver(ctx, to, o, req, func(c *connection) {
		if k := len(c.channels); k > 0 && (len(c.expects) == 0 || len(expects) > 0) {
			id := identity.Identifier(c.channels[k-1].Peer.ID)
			peer = &id
		}
	})
	if err == nil && pin != nil && peer != nil {
		pin.note(*peer, len(expects) > 0)
	}
	return resp, err
}

func (n *Node) askAt(ctx context.Context, to multiaddr.Addr, o connectOptions, req *rpc.Request) (*rpc.Response, error) {
	return n.askOver(ctx, to, o, req, func(*connection) {})
}

// askOver is askAt that shows what it asked over.
func (n *Node) askOver(ctx context.Context, to multiaddr.Addr, o connectOptions, req *rpc.Request, over func(*connection)) (*rpc.Response, error) {
	c, err := n.connect(ctx, to, o)
	if err != nil {
		return nil, err
	}
	defer c.close()
	over(c)
	resp, err := n.call(ctx, c.route, req)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer from %s in time: is it there, and may this identity use it? (%w)", to, err)
	}
	return resp, err
}
