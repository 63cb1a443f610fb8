package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"sallyport/names"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/policy"
	"sallyport/portal/datagram"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// maxIdle bounds how long a flow of datagrams may be idle.
const maxIdle = 24 * time.Hour

// udpPins begins the names under which inlets for UDP keep whom they expect: they may have the names of others.
const udpPins = "udp:"

// idleOf reads a portal's --idle; text is empty for the default.
func idleOf(text string) (time.Duration, error) {
	d, err := boundedTime("--idle", text, datagram.DefaultIdle, maxIdle)
	if err == nil && d < time.Second {
		err = fmt.Errorf("%w: --idle %q must be a time from 1s to %v", admin.ErrInvalid, text, maxIdle)
	}
	return d, err
}

// checkMaxFlows refuses what can be no number of flows.
func checkMaxFlows(v int) error { return checkNumber("--max-flows", v, datagram.MostFlows) }

// udpOutlet is an outlet for UDP that serves.
type udpOutlet struct {
	name   string
	portal *datagram.Outlet
	guard  *guard
}

func addUDPOutlets(n *Node) {
	n.udpOutlets = table.Add(n.set, table.Kind[resource.UDPOutlet, *udpOutlet]{
		Name: resource.KindUDPOutlet, Noun: "UDP outlet", Path: admin.PathUDPOutlets, After: []string{resource.KindPolicy},
		Key: func(r *resource.UDPOutlet) *string { return &r.Name },
		Check: func(_ context.Context, r *resource.UDPOutlet, _ func(string) bool) error {
			if r.Name == "" {
				r.Name = routing.DefaultOutlet
				for n.router.HasNamed(r.Name) {
					r.Name = state.RandomName()
				}
			}
			if _, _, err := net.SplitHostPort(r.To); err != nil {
				return fmt.Errorf("%w: --to %q must be host:port", admin.ErrInvalid, r.To)
			}
			_, err := idleOf(r.Idle)
			_, rateErr := rateOf(r.Rate)
			return errors.Join(err, rateErr, checkMaxFlows(r.MaxFlows), checkNumber("--max-flows-per-member", r.MaxFlowsPerMember, datagram.MostFlows), checkAllow(r.Allow))
		},
		Open:    n.openUDPOutlet,
		InPlace: []string{"allow", "max-flows", "max-flows-per-member", "rate"},
		Update: func(_ context.Context, o *udpOutlet, _, to *resource.UDPOutlet) error {
			rate, err := rateOf(to.Rate)
			if err != nil {
				return err
			}
			o.portal.SetRate(rate)
			o.portal.SetMaxFlows(to.MaxFlows, to.MaxFlowsPerMember)
			n.setPolicyOf(policy.Own(resource.KindUDPOutlet, to.Name), to.Allow)
			return nil
		},
		Close: func(ctx context.Context, o *udpOutlet) error {
			err := o.portal.Close(ctx)
			o.guard.close()
			n.dropPolicyOf(policy.Own(resource.KindUDPOutlet, o.name))
			return err
		},
		Status: func(o *udpOutlet) resource.Status {
			if err := o.portal.Failure(); err != nil {
				return resource.Status{State: resource.Degraded, Reason: err.Error()}
			}
			return resource.Status{State: resource.Up}
		},
		Describe: func(i table.Item[resource.UDPOutlet, *udpOutlet]) any { return n.udpOutletOf(i) },
		Creating: func(ctx context.Context, r *resource.UDPOutlet) error {
			return n.overrulePolicy(ctx, resource.KindUDPOutlet, r.Name, r.Allow)
		},
	})
	n.policed = append(n.policed, policed(resource.KindUDPOutlet, n.udpOutlets, func(r *resource.UDPOutlet, name string) *string {
		if name == r.Name {
			return &r.Allow
		}
		return nil
	}))
}

// openUDPOutlet opens an outlet for those whom its policy admits.
func (n *Node) openUDPOutlet(ctx context.Context, o *table.Opening[resource.UDPOutlet]) (*udpOutlet, error) {
	r := o.Request
	idle, err := idleOf(r.Idle)
	if err != nil {
		return nil, err
	}
	rate, err := rateOf(r.Rate)
	if err != nil {
		return nil, err
	}
	g, err := n.portalGuard(policy.Own(resource.KindUDPOutlet, r.Name), policy.UDPOutlet, n.authority(), r.Allow)
	if err != nil {
		return nil, err
	}
	out, err := datagram.NewOutlet(ctx, n.datagram, n.router, datagram.OutletOptions{
		Name: r.Name, Target: r.To, Guard: g, Flows: n.outletFlows(), Idle: idle, MaxFlows: r.MaxFlows,
		MaxFlowsPerMember: r.MaxFlowsPerMember, Rate: rate, Resolve: names.Lookup,
	})
	if err != nil {
		g.close()
		return nil, existsError(err)
	}
	n.log.Info("UDP outlet created", "outlet", r.Name, "target", r.To)
	return &udpOutlet{name: r.Name, portal: out, guard: g}, nil
}

func (n *Node) udpOutletOf(i table.Item[resource.UDPOutlet, *udpOutlet]) admin.UDPOutlet {
	return admin.UDPOutlet{Name: i.Request.Name, To: i.Request.To, Flows: n.flowsOf(datagram.EndOutlet, i.Request.Name), State: i.Status}
}

// flowsOf returns how many flows a portal for UDP has.
func (n *Node) flowsOf(end, name string) int64 {
	for _, m := range n.datagram.Meters() {
		if m.End() == end && m.Name() == name {
			return m.Flows.Load()
		}
	}
	return 0
}

// UDPOutlets lists the outlets for UDP by name.
func (n *Node) UDPOutlets() []admin.UDPOutlet { return each(n.udpOutlets.List(), n.udpOutletOf) }

// udpInlet is an inlet for UDP. Its path is kept as one for TCP keeps its own.
type udpInlet struct {
	name   string
	portal *datagram.Inlet
	path   *inlet
}

// udpPort is an inlet for UDP as the port of what keeps its path.
type udpPort struct{ *datagram.Inlet }

// Refuse implements port.
func (p udpPort) Refuse(reason string) { p.Inlet.Refuse(reason != "") }

// Gone implements port. A flow has nothing that could be lost.
func (p udpPort) Gone([32]byte, routing.Route) {}

// Silent implements port.
func (p udpPort) Silent(routing.Route, time.Time) {}
func (p udpPort) Restart(routing.Route)           {}

// Lost implements port.
func (p udpPort) Lost(routing.Route) {}

func addUDPInlets(n *Node) {
	n.udpInlets = table.Add(n.set, table.Kind[resource.UDPInlet, *udpInlet]{
		Name: resource.KindUDPInlet, Noun: "UDP inlet", Path: admin.PathUDPInlets, Ends: true,
		After:   []string{resource.KindPolicy, resource.KindOutlet, resource.KindUDPOutlet, resource.KindRelay},
		Key:     func(r *resource.UDPInlet) *string { return &r.Name },
		Check:   checkUDPInlet,
		Open:    n.openUDPInlet,
		InPlace: []string{"allow", "max-flows", "rate"},
		Update: func(_ context.Context, in *udpInlet, _, to *resource.UDPInlet) error {
			rate, err := rateOf(to.Rate)
			if err != nil {
				return err
			}
			in.portal.SetRate(rate)
			in.portal.SetMaxFlows(to.MaxFlows)
			n.setPolicyOf(policy.Own(resource.KindUDPInlet, to.Name), to.Allow)
			return nil
		},
		Close:    n.closeUDPInlet,
		Status:   func(in *udpInlet) resource.Status { return in.path.status() },
		Describe: func(i table.Item[resource.UDPInlet, *udpInlet]) any { return n.udpInletOf(i) },
		Creating: func(ctx context.Context, r *resource.UDPInlet) error {
			return n.overrulePolicy(ctx, resource.KindUDPInlet, r.Name, r.Allow)
		},
		Created: func(ctx context.Context, i table.Item[resource.UDPInlet, *udpInlet]) error {
			return i.Value.path.wait(ctx, i.Value.path.request)
		},
	})
	n.policed = append(n.policed, policed(resource.KindUDPInlet, n.udpInlets, func(r *resource.UDPInlet, name string) *string {
		if name == r.Name {
			return &r.Allow
		}
		return nil
	}))
}

// checkUDPInlet refuses what can never be an inlet for UDP, and gives it a name.
func checkUDPInlet(_ context.Context, r *resource.UDPInlet, taken func(string) bool) error {
	given := r.Name
	for r.Name == "" || (r.Name != given && taken(r.Name)) {
		r.Name = state.RandomName()
	}
	if _, err := multiaddr.Parse(r.To); err != nil {
		return fmt.Errorf("%w: --to: %w", admin.ErrInvalid, err)
	}
	if _, _, err := net.SplitHostPort(r.From); err != nil {
		return fmt.Errorf("%w: --from %q must be host:port", admin.ErrInvalid, r.From)
	}
	if _, err := authorizedOf(r.Authorized); err != nil {
		return err
	}
	_, err := idleOf(r.Idle)
	_, rateErr := rateOf(r.Rate)
	return errors.Join(err, rateErr, checkMaxFlows(r.MaxFlows), checkAllow(r.Allow))
}

// openUDPInlet opens an inlet's port and starts to keep its path.
func (n *Node) openUDPInlet(ctx context.Context, o *table.Opening[resource.UDPInlet]) (_ *udpInlet, err error) {
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
	idle, err := idleOf(r.Idle)
	if err != nil {
		return nil, err
	}
	rate, err := rateOf(r.Rate)
	if err != nil {
		return nil, err
	}
	options, err := n.connectOptions(ctx, r.Identity, r.Authorized)
	if err != nil {
		return nil, err
	}
	path := &inlet{to: to, answer: newAnswer(), asks: control.OpUDPOutlet, request: resource.Inlet{
		Alias: r.Name, To: r.To, Authorized: r.Authorized, ConnectionWaitMS: r.ConnectionWaitMS, NoConnectionWait: r.NoConnectionWait,
		UDP: r.UDP, NoTCPFallback: r.NoTCPFallback,
	}}
	if options.pin = n.pinOf(&path.request, to); options.pin != nil {
		options.pin.name, options.pin.accept = udpPins+options.pin.name, "sallyport udp-inlet accept "+r.Name
	}
	if path.guard, err = n.portalGuard(policy.Own(resource.KindUDPInlet, r.Name), policy.UDPInlet, n.authorityOf(ctx, to), r.Allow); err != nil {
		return nil, err
	}
	p := datagram.InletOptions{Name: r.Name, Guard: path.guard, Idle: idle, MaxFlows: r.MaxFlows, Rate: rate}
	in := &udpInlet{name: r.Name, path: path}
	if in.portal, err = n.listenUDPInlet(ctx, r, p); err != nil {
		path.guard.close()
		return nil, err
	}
	path.port = udpPort{in.portal}
	path.start(n, options, o.Again)
	return in, nil
}

// listenUDPInlet opens an inlet's port. One that was left to the node is the port of last time, unless somebody else has that by now.
func (n *Node) listenUDPInlet(ctx context.Context, r *resource.UDPInlet, o datagram.InletOptions) (*datagram.Inlet, error) {
	open := func(at string) (in *datagram.Inlet, err error) {
		if o.Listen, err = names.Listen(ctx, at); err != nil {
			return nil, fmt.Errorf("%w: --from: %w", admin.ErrInvalid, err)
		}
		return datagram.NewInlet(ctx, n.datagram, n.router, o)
	}
	return keepPort(n.log, r.Name, r.From, &r.Bound, open)
}

// closeUDPInlet closes an inlet and ends its flows.
func (n *Node) closeUDPInlet(ctx context.Context, in *udpInlet) error {
	err := in.portal.Close(ctx)
	in.path.stop()
	in.path.guard.close()
	n.dropPolicyOf(in.path.guard.own)
	return err
}

func (n *Node) udpInletOf(i table.Item[resource.UDPInlet, *udpInlet]) admin.UDPInlet {
	r := i.Request
	d := admin.UDPInlet{Name: r.Name, Bind: r.From, To: r.To, Flows: n.flowsOf(datagram.EndInlet, r.Name), State: i.Status}
	if r.Bound != "" {
		d.Bind = r.Bound
	}
	if i.IsOpen {
		if b := i.Value.portal.Bound(); b != (netip.AddrPort{}) {
			d.Bind = b.String()
		}
		if up, c, _ := i.Value.path.path().state(); up {
			d.Route = i.Value.path.outletRoute(c).String()
		}
	}
	return d
}

// UDPInlets lists the inlets for UDP by name.
func (n *Node) UDPInlets() []admin.UDPInlet { return each(n.udpInlets.List(), n.udpInletOf) }
