package udp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"sallyport/routing"
)

// RendezvousService is the address of the service that tells nodes their public address, NegotiationService that of the listener
// for punctures (docs/protocol/01 §5.4).
const (
	RendezvousService  = "rendezvous"
	NegotiationService = "udp"
)

// Rendezvous answers with the address that a message came from: the first of type 2 in its return route (docs/protocol/01 §3.4).
func Rendezvous() routing.Worker {
	self := routing.LocalAddress(RendezvousService).Wire()
	return routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
		kind, _, err := openKind(m.Payload())
		var answer []byte
		switch {
		case err == nil && kind == kindPing:
			answer = appendKind(nil, kindPing)
		case err == nil && kind == kindAddress:
			for rest := m.Return; rest.Len() > 0; rest = rest.WithoutFirst() {
				if a := rest.First(); a.Type == routing.UDP {
					answer = appendAddress(nil, a.Value)
					break
				}
			}
		default:
			s.Drops.Malformed.Add(1)
		}
		if answer != nil {
			m.SetPayloadBytes(answer)
			m.Reply(s, self)
		}
	})
}

// Times of a request to the rendezvous service. The reference asks once and waits for 3 s.
const (
	rendezvousTimeout = 3 * time.Second
	rendezvousAgain   = 500 * time.Millisecond
)

// PublicAddress asks a rendezvous service from which address the socket is seen there. Of several addresses of the service the first that
// answers is believed. Not on a shard.
func (b *Bind) PublicAddress(ctx context.Context, servers ...netip.AddrPort) (netip.AddrPort, error) {
	server, answer, err := b.ask(ctx, servers, kindAddress)
	if err != nil {
		return netip.AddrPort{}, err
	}
	text, err := parseAddress(answer)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("rendezvous server %s: %w", server, err)
	}
	public, err := ParsePublic(text)
	if err != nil {
		err = fmt.Errorf("rendezvous server %s: %w", server, err)
	}
	return public, err
}

// ParsePublic reads a public address as a server or node says it.
func ParsePublic(text string) (netip.AddrPort, error) {
	public, err := netip.ParseAddrPort(text)
	if err != nil || public.Port() == 0 || public.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%w: %q is no address and port", errMessage, text)
	}
	return netip.AddrPortFrom(public.Addr().Unmap(), public.Port()), nil
}

// PingRendezvous reports whether the rendezvous service at server answers. Not on a shard.
func (b *Bind) PingRendezvous(ctx context.Context, server netip.AddrPort) error {
	_, _, err := b.ask(ctx, []netip.AddrPort{server}, kindPing)
	return err
}

// ask sends a request until it is answered by one of the servers, which take turns. It returns which one that was.
func (b *Bind) ask(ctx context.Context, servers []netip.AddrPort, kind byte) (netip.AddrPort, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, rendezvousTimeout)
	defer cancel()
	box, err := b.t.router.OpenMailbox(ctx, routing.RouteOf(b.Sender))
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	defer box.Close()
	for i := 0; ; i++ {
		route := routing.RouteOf(b.Sender)
		if !b.Peer.IsValid() {
			route = route.Concat(routing.NewRoute(udpAddress(servers[i%len(servers)])))
		}
		box.Send(route.Concat(routing.LocalRoute(RendezvousService)), appendKind(nil, kind))
		again, stop := context.WithTimeout(ctx, rendezvousAgain)
		reply, err := box.Receive(again)
		stop()
		if ctx.Err() != nil {
			return netip.AddrPort{}, nil, fmt.Errorf("rendezvous server %v does not answer: %w", servers, ctx.Err())
		}
		if err != nil {
			continue // lost on its way, or nobody is there: ask again
		}
		if b.Peer.IsValid() {
			return b.Peer, reply.Payload, nil
		}
		for _, server := range servers {
			if reply.Return.Len() > 1 && reply.Return.WithoutFirst().First() == udpAddress(server) {
				return server, reply.Payload, nil
			}
		}
	}
}

func udpAddress(a netip.AddrPort) routing.Address {
	return routing.Address{Type: routing.UDP, Value: a.String()}
}
