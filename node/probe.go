package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport/node/admin"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
)

// Bounds of probes.
const (
	probeTimeout = 10 * time.Second // of one hop
	tripTimeout  = 2 * time.Second
	maxTrips     = 1000
	maxBulk      = 30 * time.Second
	bulkSize     = 32 << 10
	bulkWindow   = 16 // messages under way
)

// prober goes a way hop by hop.
type prober struct {
	n     *Node
	c     *connection
	o     connectOptions
	trips int
	bulk  time.Duration
	out   *admin.Probe
}

// Probe goes the way of an inlet, or a route, anew, and says of each hop how long it took and how it is. An error is one of the request; what fails on
// the way is in the answer.
func (n *Node) Probe(ctx context.Context, r admin.ProbeRequest) (*admin.Probe, error) {
	p := &prober{n: n, trips: r.Count, bulk: time.Duration(r.BulkMS) * time.Millisecond, out: &admin.Probe{Hops: []admin.Hop{}}}
	if p.trips == 0 {
		p.trips = 3
	}
	if p.trips < 0 || p.trips > maxTrips || p.bulk < 0 || p.bulk > maxBulk {
		return nil, fmt.Errorf("%w: count must be from 1 to %d, bulk_ms at most %d", admin.ErrInvalid, maxTrips, maxBulk/time.Millisecond)
	}
	var to multiaddr.Addr
	if r.Inlet != "" {
		i, ok := n.inlets.Get(r.Inlet)
		if !ok {
			return nil, fmt.Errorf("%w: inlet %s", admin.ErrNotFound, r.Inlet)
		}
		var err error
		if to, err = multiaddr.Parse(i.Request.To); err != nil {
			return nil, err
		}
		if p.o, err = n.connectOptions(ctx, i.Request.Identity, i.Request.Authorized); err != nil {
			return nil, err
		}
	} else {
		var err error
		if to, err = multiaddr.Parse(r.To); err != nil {
			return nil, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
		}
		p.o.self = n.opts.Self
	}
	p.out.To = to.String()
	p.c = &connection{router: n.router, closed: make(chan struct{})}
	defer p.c.close()
	p.walk(ctx, to)
	return p.out, nil
}

// walk goes on until a hop fails.
func (p *prober) walk(ctx context.Context, to multiaddr.Addr) {
	last := len(to) - 1
	for last >= 0 && to[last].Protocol != multiaddr.Secure {
		last--
	}
	for i := 0; i < len(to); i++ {
		piece, ok := to[i], true
		switch piece.Protocol {
		case multiaddr.Project:
			ok = p.project(ctx, piece.Text)
		case multiaddr.IP4, multiaddr.IP6, multiaddr.DNSAddr:
			end := min(i+2, len(to))
			ok = p.open(ctx, transportKind(to[i:end]), to[i:end].String(), to[i:end], connectOptions{self: p.o.self})
			i = end - 1
		case multiaddr.Secure:
			o := p.o
			if i != last {
				o.authorized = nil
			}
			ok = p.open(ctx, "channel", "the node behind "+to[:i].String(), to[i:i+1], o)
		case multiaddr.Service:
			ok = p.service(ctx, piece.Text, i == len(to)-1)
		default:
			p.c.route = p.c.route.Concat(routing.LocalRoute(piece.Text))
		}
		if !ok {
			return
		}
	}
}

func transportKind(to multiaddr.Addr) string {
	if len(to) > 1 && to[1].Protocol == multiaddr.UDP {
		return "udp"
	}
	return "tcp"
}

// open opens a piece of the way and measures it.
func (p *prober) open(ctx context.Context, kind, name string, piece multiaddr.Addr, o connectOptions) bool {
	return p.hop(ctx, kind, name, func(ctx context.Context) error { return p.n.follow(ctx, p.c, piece, o) })
}

// hop does one step, and measures round trips to a node that has been reached.
func (p *prober) hop(ctx context.Context, kind, name string, step func(context.Context) error) bool {
	h := admin.Hop{Kind: kind, Name: name}
	limited, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	began, channels := time.Now(), len(p.c.channels)
	err := step(limited)
	h.TookMS = milliseconds(time.Since(began))
	if k := len(p.c.channels); err == nil && k > channels {
		h.Peer = p.c.channels[k-1].Identity.Identifier().String()
		if err = p.n.reachable(limited, p.c); err == nil {
			p.roundTrips(ctx, &h)
			p.throughput(ctx, &h)
		}
	}
	if err != nil {
		h.Error = err.Error()
	}
	p.out.Hops = append(p.out.Hops, h)
	return h.Error == ""
}

// project goes to a project's node: the transport, then the channel.
func (p *prober) project(ctx context.Context, name string) bool {
	known, err := p.n.project(ctx, name)
	if err == nil && len(known.Route) == 0 {
		err = errors.New("the project has no access route")
	}
	if err != nil {
		p.out.Hops = append(p.out.Hops, admin.Hop{Kind: "channel", Name: "project " + name, Error: err.Error()})
		return false
	}
	way := known.Route[:len(known.Route)-1]
	if !p.open(ctx, transportKind(way), way.String(), way, connectOptions{self: p.o.self}) {
		return false
	}
	return p.hop(ctx, "channel", "the node of project "+name, func(ctx context.Context) error {
		p.c.authority, p.c.expects = known.Authority, known.Expects
		p.c.project = &known.Identifier
		p.n.projectNodes.Store(known.Identifier, struct{}{})
		return p.n.openChannel(ctx, p.c, known.Route[len(known.Route)-1].Text, connectOptions{self: p.o.self}, append(p.o.authorized[:0:0], known.Identifier))
	})
}

// service goes through a service: a relay's name, which is asked for, or an outlet at the end.
func (p *prober) service(ctx context.Context, name string, last bool) bool {
	h := admin.Hop{Kind: "service", Name: name}
	began := time.Now()
	ask := func(route routing.Route, op control.Op, f control.Fields) (control.Message, bool) {
		asking, cancel := context.WithTimeout(ctx, tripTimeout)
		defer cancel()
		m, err := control.Ask(asking, p.n.router, route, op, f)
		return m, err == nil
	}
	relayName, isRelay := strings.CutPrefix(name, routing.RelayPrefix)
	switch {
	case len(p.c.channels) == 0 || p.c.route.Len() != 1:
		// Nobody can be asked.
	case isRelay:
		h.Kind, h.Name = "relay", relayName
		if m, ok := ask(p.c.route, control.OpRelay, control.Fields{Name: relayName}); ok {
			switch control.Status(m.Code) {
			case control.StatusOK:
				h.State = fmt.Sprintf("registered by %d", m.Count)
			case control.StatusAbsent:
				h.Error = "nobody is registered under the name " + relayName + " at the relay: is the outlet's node running, and did it `relay create " + relayName + "`?"
			default:
				h.State = control.Status(m.Code).String()
			}
		} else {
			h.State = "the relay does not say who is registered"
		}
	case last:
		h.Kind = "outlet"
		if m, ok := ask(p.c.route, control.OpOutlet, control.Fields{Name: name}); ok {
			s := outletStatus(name, m)
			if h.State = string(s.State); s.State != "up" {
				h.Error = s.Reason
			}
		} else {
			h.State = unanswered
		}
	}
	h.TookMS = milliseconds(time.Since(began))
	p.out.Hops = append(p.out.Hops, h)
	p.c.route = p.c.route.Concat(routing.LocalRoute(name))
	return h.Error == ""
}

// roundTrips measures the way to the node that was reached and back.
func (p *prober) roundTrips(ctx context.Context, h *admin.Hop) {
	box, err := p.n.router.OpenMailbox(ctx, p.c.route)
	if err != nil {
		h.Error = err.Error()
		return
	}
	defer box.Close()
	to := p.c.pingRoute().Concat(routing.LocalRoute(routing.EchoService))
	for range p.trips {
		number, payload := newPing()
		began := time.Now()
		box.Send(to, payload)
		limited, cancel := context.WithTimeout(ctx, tripTimeout)
		for {
			reply, err := box.Receive(limited)
			if err != nil {
				h.Lost++
				break
			}
			if pingNumber(reply.Payload) == number {
				h.RoundTripsMS = append(h.RoundTripsMS, milliseconds(time.Since(began)))
				break
			}
		}
		cancel()
		if ctx.Err() != nil || h.Lost == 2 && len(h.RoundTripsMS) == 0 {
			break
		}
	}
	if len(h.RoundTripsMS) == 0 && h.Error == "" {
		h.State = "the node does not echo: its policy may forbid it"
	}
}

// throughput sends data to the node that was reached for a while, with some under way at any time, and counts what comes back.
func (p *prober) throughput(ctx context.Context, h *admin.Hop) {
	if p.bulk == 0 || len(h.RoundTripsMS) == 0 {
		return
	}
	box, err := p.n.router.OpenMailbox(ctx, p.c.route)
	if err != nil {
		return
	}
	defer box.Close()
	to, payload := p.c.pingRoute().Concat(routing.LocalRoute(routing.EchoService)), make([]byte, bulkSize)
	limited, cancel := context.WithTimeout(ctx, p.bulk)
	defer cancel()
	began, bytes := time.Now(), 0
	for range bulkWindow {
		box.Send(to, payload)
	}
	for {
		reply, err := box.Receive(limited)
		if err != nil {
			break
		}
		bytes += len(reply.Payload)
		box.Send(to, payload)
	}
	h.BytesPerSecond = float64(bytes) / time.Since(began).Seconds()
}
