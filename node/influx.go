//go:build !small

package node

import (
	"context"
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

// sharedSuffix is, in the reference, behind the name of the outlet that is behind what sets the token (docs/protocol/03 §5, end).
const sharedSuffix = "_outlet"

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
	return &influxInlet{tokens: influxdb.NewRefresher(influxdb.Client{Call: ask}, n.log.With("inlet", r.Alias))}, nil
}

func (n *Node) askAt(ctx context.Context, to multiaddr.Addr, o connectOptions, req *rpc.Request) (*rpc.Response, error) {
	return n.askOver(ctx, to, o, req, func(*connection) {})
}
