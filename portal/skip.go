package portal

import (
	"sallyport/routing"
)

// Without the handshake (docs/protocol/03 §1.8) nobody waits for a Pong: the inlet sends its data right after the Ping, all to the outlet's
// own address, and the outlet tells connections apart by who sends and where answers go.

// source is where messages of one inlet's connection come from: the peer, and the last address of the return route.
type source struct {
	peer    [32]byte
	hasPeer bool
	address string
}

// skipping is the outlet on one shard, with the connections whose messages it passes on.
type skipping struct {
	outlet *Outlet
	conns  map[source]*conn
}

// HandleMessage gives m to the connection it belongs to; a Ping begins one.
func (k *skipping) HandleMessage(s *routing.Shard, m *routing.Message) {
	if m.Return.Len() == 0 {
		k.outlet.env.Stats.Malformed.Add(1)
		return
	}
	from := source{address: m.Return.Last().Value}
	if m.Peer != nil {
		from.peer, from.hasPeer = m.Peer.ID, true
	}
	if c := k.conns[from]; c != nil {
		c.HandleMessage(s, m)
		return
	}
	msg, err := parse(m.Payload())
	switch {
	case err == nil && msg.kind == kindPayload:
		// Of a connection that has ended: without its beginning it must not reach the target.
		m.SetPayloadBytes([]byte{kindDisconnect})
		m.Reply(s, routing.LocalAddress(k.outlet.opts.Name).Wire())
	case err == nil && msg.kind == kindDisconnect:
	default:
		if c := k.outlet.begin(s, m, true); c != nil {
			k.conns[from] = c
			leave := c.onEnd
			c.onEnd = func() {
				delete(k.conns, from)
				leave()
			}
		}
	}
}

// early is what an inlet sent before the target was connected.
type early struct {
	data  []byte
	ended bool          // no more will come
	back  routing.Route // to the inlet
}

// keepEarly keeps what an inlet sends while the target is not connected yet. It is bounded like what
// waits for a target that is connected.
func (c *conn) keepEarly(m *routing.Message, msg message) {
	switch msg.kind {
	case kindPayload:
		data := m.Payload()[msg.from:msg.to]
		if c.early.ended || (msg.counted && c.gap(msg.counter)) {
			return
		}
		if msg.counted {
			c.expect++
		}
		c.early.data = append(c.early.data, data...)
		if len(c.early.data) > c.env.Limits.HighWater {
			c.over(len(c.early.data), m.From)
		}
	case kindDisconnect:
		// The client has sent all and gone; the target gets what it sent.
		c.early.ended = true
	}
}

// takeEarly hands what was kept to the target, now that it is connected.
func (c *conn) takeEarly() {
	kept := c.early
	c.early = nil
	c.window.received += uint64(len(kept.data))
	c.write(kept.data, nil)
	if c.state == open && c.backlog != nil {
		c.sock.WantDrain(c.env.Limits.HighWater / 4)
	}
	if kept.ended && c.state == open {
		c.finish(ReasonNone)
	}
}
