package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"sallyport/limits"
	"sallyport/names"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/routing"
	"sallyport/state"
)

// outlet is an outlet that serves.
type outlet struct {
	name   string
	portal *portal.Outlet
	guard  *guard
	target *target                     // what is known of the one target; nil where there are several
	stop   func(context.Context) error // ends what runs beside it
	cancel context.CancelFunc          // ends the looks at the target
}

func addOutlets(n *Node) {
	n.outlets = table.Add(n.set, table.Kind[resource.Outlet, *outlet]{
		Name: resource.KindOutlet, Noun: "outlet", Path: admin.PathOutlets, After: []string{resource.KindPolicy},
		Key: func(r *resource.Outlet) *string { return &r.Name },
		Check: func(_ context.Context, r *resource.Outlet, _ func(string) bool) error {
			if r.Name == "" {
				r.Name = routing.DefaultOutlet
				for n.router.HasNamed(r.Name) {
					r.Name = state.RandomName()
				}
			}
			if path, ok := unixPath(r.To); ok {
				if err := checkUnix("--to", path); err != nil {
					return err
				}
				if r.TLS {
					return fmt.Errorf("%w: --tls needs --to HOST:PORT: a Unix socket has no name to verify", admin.ErrInvalid)
				}
			} else if _, _, err := net.SplitHostPort(r.To); err != nil {
				return fmt.Errorf("%w: --to %q must be host:port", admin.ErrInvalid, r.To)
			}
			if len(r.ALPN) > 0 && !r.TLS {
				return fmt.Errorf("%w: --alpn needs --tls: without it there is no handshake to agree in", admin.ErrInvalid)
			}
			if err := checkProtocols(r.ALPN); err != nil {
				return err
			}
			if err := checkTargetCheck(r); err != nil {
				return err
			}
			if err := checkPlaces(r.MaxConnections, r.MaxConnectionsPerMember); err != nil {
				return err
			}
			if _, err := rateOf(r.Rate); err != nil {
				return err
			}
			if err := checkProxyProtocol(r.ProxyProtocol); err != nil {
				return err
			}
			return checkAllow(r.Allow)
		},
		Open:    n.openOutlet,
		InPlace: []string{"allow", "check", "check-interval", "max-connections", "max-connections-per-member", "rate"},
		Update: func(_ context.Context, o *outlet, _, to *resource.Outlet) error {
			o.target.setCheck(to)
			o.portal.SetMaxConnections(to.MaxConnections, to.MaxConnectionsPerMember)
			rate, err := rateOf(to.Rate)
			if err != nil {
				return err
			}
			o.portal.SetRate(rate)
			if to.InfluxDB != nil {
				n.setPolicyOf(policy.Own(resource.KindOutlet, to.Name+leaseSuffix), to.Allow)
			}
			n.setPolicyOf(policy.Own(resource.KindOutlet, to.Name), to.Allow)
			return nil
		},
		Close: func(ctx context.Context, o *outlet) error {
			err := o.close(ctx)
			n.dropPolicyOf(policy.Own(resource.KindOutlet, o.name))
			return err
		},
		Status: func(o *outlet) resource.Status {
			if o.target == nil {
				return resource.Status{State: resource.Up}
			}
			return o.target.status()
		},
		Describe: func(i table.Item[resource.Outlet, *outlet]) any { return outletOf(i) },
		Creating: func(ctx context.Context, r *resource.Outlet) error {
			return n.overrulePolicy(ctx, resource.KindOutlet, r.Name, r.Allow)
		},
	})
	n.policed = append(n.policed, policed(resource.KindOutlet, n.outlets, func(r *resource.Outlet, name string) *string {
		if name == r.Name {
			return &r.Allow
		}
		return nil
	}))
}

// checkPlaces refuses what can be no number of an outlet's connections, all or of one member.
func checkPlaces(all, perMember int) error {
	return errors.Join(checkNumber("--max-connections", all, portal.MostConnections), checkNumber("--max-connections-per-member", perMember, portal.MostConnections))
}

// checkNumber refuses what can be no number of connections or flows; 0 is what nobody has set.
func checkNumber(flag string, v, most int) error {
	if v < 0 || v > most {
		return fmt.Errorf("%w: %s %d must be from 1 to %d", admin.ErrInvalid, flag, v, most)
	}
	return nil
}

// rateOf reads a portal's --rate, in bytes a second; empty is 0, no limit.
func rateOf(text string) (int64, error) {
	v, err := limits.ParseRate(text)
	if err != nil {
		err = fmt.Errorf("%w: --rate: %w", admin.ErrInvalid, err)
	}
	return v, err
}

// openOutlet opens an outlet for those whom its policy admits.
func (n *Node) openOutlet(ctx context.Context, o *table.Opening[resource.Outlet]) (*outlet, error) {
	r := o.Request
	g, err := n.portalGuard(policy.Own(resource.KindOutlet, r.Name), policy.TCPOutlet, n.authority(), r.Allow)
	if err != nil {
		return nil, err
	}
	out, err := n.startOutlet(ctx, r, g, n.outletFlows()...)
	if err != nil {
		g.close()
		return nil, err
	}
	n.log.Info("outlet created", "outlet", r.Name, "target", r.To)
	return out, nil
}

// outletFlows are the flows from which an outlet can be reached. Without an authority that is so without a channel too, as in the
// reference (docs/protocol/03 §2.1); here also from what this node began, such as its connection to a relay.
func (n *Node) outletFlows() []*routing.Flow {
	flows := []*routing.Flow{n.api.Flow}
	if n.authority() == nil {
		flows = append(append(flows, n.listenerFlows()...), n.router.Begun())
	}
	return flows
}

// startOutlet starts an outlet that flows can reach. Its guard, which may be nil, ends with it.
func (n *Node) startOutlet(ctx context.Context, r resource.Outlet, g *guard, flows ...*routing.Flow) (*outlet, error) {
	return n.startOutletTo(ctx, r, nil, g, flows...)
}

// startOutletTo is startOutlet with several targets, of which the first that answers is taken; nil is the one of r.
func (n *Node) startOutletTo(
	ctx context.Context, r resource.Outlet, targets func() []string, g *guard, flows ...*routing.Flow,
) (*outlet, error) {
	hold, err := holdOf(r.Hold)
	if err != nil {
		return nil, err
	}
	rate, err := rateOf(r.Rate)
	if err != nil {
		return nil, err
	}
	o := portal.OutletOptions{Name: r.Name, Target: r.To, Rate: rate, Resolve: names.Lookup, Flows: flows, SkipHandshake: r.SkipHandshake, Hold: hold,
		MaxConnections: r.MaxConnections, MaxConnectionsPerMember: r.MaxConnectionsPerMember}
	if g != nil {
		o.Guard = g
	}
	begin, err := n.greetingOf(r.ProxyProtocol)
	if err != nil {
		return nil, err
	}
	o.Preface = begin
	path, isUnix := unixPath(r.To)
	switch {
	case isUnix && targets == nil:
		o.Dial = unixDialer(path, begin)
	case r.TLS && targets != nil:
		o.Dial = func(ctx context.Context, from portal.Origin) (portal.Piped, error) {
			return dialFirst(ctx, targets(), func(target string) func(context.Context) (portal.Piped, error) {
				return func(ctx context.Context) (portal.Piped, error) { return tlsDialer(target, begin)(ctx, from) }
			})
		}
	case r.TLS && len(r.ALPN) > 0:
		o.Dial = tlsDialer(r.To, begin, r.ALPN...)
	case r.TLS:
		log := n.log.With("portal", r.Name)
		o.Dial = tlsPasser(r.To, begin, func(err error) { log.Warn("portal target not reached", "target", r.To, "err", err) })
	case targets != nil:
		o.ResolveAlways = true
		o.Resolve = func(ctx context.Context, _ string) ([]netip.AddrPort, error) { return lookupAll(ctx, targets()) }
	}
	stop, err := n.influxOutlet(ctx, r, &o)
	if err != nil {
		return nil, err
	}
	out := &outlet{name: r.Name, guard: g, stop: stop}
	running, cancel := context.WithCancel(n.ctx)
	if targets == nil {
		out.target = newTarget(running, &r, begin, o.Dial)
		o.Tried, o.Down = out.target.tried, out.target.unreachable
	}
	out.cancel = cancel
	o.Carried = n.carriedOutlet(r.Name)
	if out.portal, err = portal.NewOutlet(ctx, n.portals, n.router, o); err != nil {
		cancel()
		return nil, existsError(errors.Join(err, stop(ctx)))
	}
	return out, nil
}

// close stops an outlet; its open connections stay.
func (o *outlet) close(ctx context.Context) error {
	o.cancel()
	o.guard.close()
	return errors.Join(o.portal.Close(ctx), o.stop(ctx))
}

func outletOf(i table.Item[resource.Outlet, *outlet]) admin.Outlet {
	r := i.Request
	return admin.Outlet{
		To: r.To, Worker: admin.Address(r.Name), MaxConnections: r.MaxConnections, MaxConnectionsPerMember: r.MaxConnectionsPerMember, State: i.Status,
	}
}

// CreateOutlet starts a TCP outlet.
func (n *Node) CreateOutlet(ctx context.Context, r resource.Outlet) (admin.Outlet, error) {
	i, err := n.outlets.Create(ctx, r)
	return outletOf(i), err
}

// DeleteOutlet stops an outlet; its open connections stay.
func (n *Node) DeleteOutlet(ctx context.Context, name string) error {
	return n.outlets.Delete(ctx, name)
}

// Outlets lists the outlets by name.
func (n *Node) Outlets() []admin.Outlet { return each(n.outlets.List(), outletOf) }

// each returns what f makes of every element; the result is never nil.
func each[From, To any](list []From, f func(From) To) []To {
	out := make([]To, 0, len(list))
	for _, v := range list {
		out = append(out, f(v))
	}
	return out
}
