package udp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"sallyport/dataplane"
	"sallyport/routing"
)

// maxPunctures bounds those that others began at a node, each of them a socket.
const maxPunctures = 512

// ErrNotOpen reports that both sides know each other's public address, but nothing gets through.
var ErrNotOpen = errors.New("udp: nothing gets through between the two public addresses")

// anyAddress is what a puncture's socket is bound to: one of IPv6, which reaches IPv4 too, where that is spoken on the way.
func anyAddress(six bool) netip.AddrPort {
	if six {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}

// Public finds the address from which the datagrams of a socket come to others; it may ask the system's resolver, and other nodes.
type Public func(context.Context, *Bind) (netip.AddrPort, error)

// peerAddress reads a public address that a peer says it has. Nothing is sent to several at once.
func peerAddress(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	if ip := a.Addr().Unmap(); err != nil || a.Port() == 0 || ip.Zone() != "" || ip.IsMulticast() || ip.IsUnspecified() ||
		ip == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.AddrPort{}, fmt.Errorf("%w: %q is not the address and port of one host", errMessage, text)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// Listener answers negotiations at NegotiationService (docs/protocol/01 §3.5).
type Listener struct {
	// Flow is the spawner flow: its consumers can be reached through every puncture begun by others.
	Flow *routing.Flow
	// Allow decides whether the sender of a message may begin a puncture; nil allows everybody who can reach the listener.
	Allow routing.Access
	// Plain offers no Link, as the reference does.
	Plain bool

	newest uint64 // version of the Link
	t      *Transport
	public Public
	open   atomic.Int64
	ctx    context.Context
}

// NewListener makes a listener, which the caller starts as a worker on every shard. Negotiations end with ctx.
func (t *Transport) NewListener(ctx context.Context, public Public) *Listener {
	return &Listener{Flow: routing.NewFlow(), newest: linkVersion, t: t, public: public, ctx: ctx}
}

// HandleMessage begins a puncture with whoever sent m.
func (l *Listener) HandleMessage(s *routing.Shard, m *routing.Message) {
	o, err := parseOffer(m.Payload())
	var peer netip.AddrPort
	if err == nil {
		peer, err = peerAddress(o.address)
	}
	if err != nil || m.Return.Len() == 0 {
		s.Drops.Malformed.Add(1)
		return
	}
	if l.Allow != nil && !l.Allow(m) {
		l.t.router.Log().Info("puncture refused", "peer", peer.String())
		return
	}
	if l.open.Add(1) > maxPunctures {
		l.open.Add(-1)
		l.t.router.Log().Warn("puncture refused", "peer", peer.String(), "reason", "too many")
		return
	}
	if o.link = min(o.link, l.newest); l.Plain {
		o.link = 0
	}
	back := m.Return.Clone()
	go func() {
		err := dataplane.ErrFault
		s.Loop().Guard("the negotiation of a puncture", func() { err = l.respond(s, o, peer, back) })
		if err != nil {
			l.open.Add(-1)
			l.t.router.Log().Warn("no puncture", "peer", peer.String(), "reason", err.Error())
		}
	}()
}

// respond opens a socket, learns its public address, begins the puncture and answers.
func (l *Listener) respond(s *routing.Shard, o offer, peer netip.AddrPort, back routing.Route) error {
	ctx, cancel := context.WithTimeout(l.ctx, l.t.opts.times.answer)
	defer cancel()
	b, public, err := l.t.publicSocket(ctx, s, !peer.Addr().Is4(), l.public)
	if err != nil {
		return err
	}
	if !s.Loop().Post(dataplane.TaskFunc(func() {
		ours := s.NewAddress()
		p := startPuncture(b, ours, peer, o, true, l.Flow)
		p.onEnd = func() { l.open.Add(-1) }
		m := s.NewMessage()
		m.Onward, m.Return = back, routing.LocalRoute(NegotiationService)
		m.SetPayloadBytes(appendOffer(nil, offer{address: public.String(), remote: []byte(ours.Text()), link: o.link}))
		s.Deliver(m)
		s.Free(m)
	})) {
		return dataplane.ErrLoopClosed
	}
	return nil
}

// publicSocket opens a socket and learns its public address.
func (t *Transport) publicSocket(ctx context.Context, s *routing.Shard, six bool, find Public) (*Bind, netip.AddrPort, error) {
	b, err := t.Bind(ctx, s, anyAddress(six), netip.AddrPort{})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	public, err := find(ctx, b)
	if err != nil {
		b.Close()
		return nil, netip.AddrPort{}, err
	}
	return b, public, nil
}

// Negotiation says how Negotiate makes a puncture.
type Negotiation struct {
	// Shard is where it lives: that of the channel which is to use it.
	Shard *routing.Shard
	// Route leads to the other node's NegotiationService.
	Route routing.Route
	// Public finds the address that the other node is told.
	Public Public
	// Plain offers no Link, as the reference does.
	Plain bool
	// Six tells that the way to the other node is of IPv6.
	Six bool
}

// Negotiate makes a puncture with another node and waits until it is open. Not on a shard.
func (t *Transport) Negotiate(ctx context.Context, n Negotiation) (*Puncture, error) {
	b, public, err := t.publicSocket(ctx, n.Shard, n.Six, n.Public)
	if err != nil {
		return nil, err
	}
	p, err := t.initiate(ctx, n, b, public)
	if err != nil {
		b.Close()
		return nil, err
	}
	select {
	case <-p.Opened():
		return p, nil
	case <-p.Done():
		return nil, fmt.Errorf("%w: %s and %s", ErrNotOpen, public, p.Peer)
	case <-ctx.Done():
		p.Close()
		return nil, fmt.Errorf("%w: %s and %s: %w", ErrNotOpen, public, p.Peer, ctx.Err())
	}
}

// initiate tells the other node where it can reach us, and begins when it answers.
func (t *Transport) initiate(ctx context.Context, n Negotiation, b *Bind, public netip.AddrPort) (*Puncture, error) {
	ctx, cancel := context.WithTimeout(ctx, t.opts.times.answer)
	defer cancel()
	var ours routing.WireAddress
	if err := n.Shard.Do(ctx, func() { ours = n.Shard.NewAddress() }); err != nil {
		return nil, err
	}
	mine := offer{address: public.String(), remote: []byte(ours.Text()), link: linkVersion}
	if n.Plain {
		mine.link = 0
	}
	reply, err := t.router.Request(ctx, n.Route, appendOffer(nil, mine))
	if err != nil {
		return nil, fmt.Errorf("the other node does not negotiate a puncture (was it started with --udp, and does it reach a rendezvous server?): %w", err)
	}
	o, err := parseOffer(reply.Payload)
	if err != nil {
		return nil, fmt.Errorf("answer to the negotiation of a puncture: %w", err)
	}
	peer, err := peerAddress(o.address)
	if err != nil {
		return nil, fmt.Errorf("answer to the negotiation of a puncture: %w", err)
	}
	o.link = min(o.link, mine.link)
	var p *Puncture
	if err := n.Shard.Do(ctx, func() { p = startPuncture(b, ours, peer, o, false, nil) }); err != nil {
		return nil, err
	}
	return p, nil
}
