package udp

import (
	"context"
	"net/netip"
	"time"

	"sallyport/routing"
)

// SeenService is the address of the worker that takes tokens (docs/protocol/05 §1): a node says through a secure channel from which address a
// datagram with a token came, so nobody else can say so.
const SeenService = "sallyport_seen"

// TokenSize is the size of a token in bytes. It is random, and known to who sends it and to who waits for it.
const TokenSize = 16

// showEvery is how often a token is sent until somebody has seen it.
const showEvery = 200 * time.Millisecond

// Seen is the worker for SeenService: it calls seen with each token and the address that it came from. It answers nothing.
func Seen(seen func(token [TokenSize]byte, from netip.AddrPort)) routing.Worker {
	return routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
		var token [TokenSize]byte
		payload := m.Payload()
		for rest := m.Return; rest.Len() > 0 && len(payload) == TokenSize; rest = rest.WithoutFirst() {
			a := rest.First()
			if a.Type != routing.UDP {
				continue
			}
			if from, err := netip.ParseAddrPort(a.Value); err == nil {
				copy(token[:], payload)
				seen(token, from)
				return
			}
			break
		}
		s.Drops.Malformed.Add(1)
	})
}

// Show sends token to the SeenService at a node's address again and again until ctx ends. Not on a shard.
func (b *Bind) Show(ctx context.Context, at netip.AddrPort, token [TokenSize]byte) error {
	box, err := b.t.router.OpenMailbox(ctx, routing.RouteOf(b.Sender))
	if err != nil {
		return err
	}
	defer box.Close()
	route := routing.RouteOf(b.Sender).Concat(routing.NewRoute(udpAddress(at)), routing.LocalRoute(SeenService))
	for {
		box.Send(route, token[:])
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(showEvery):
		}
	}
}
