package tcp

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/routing"
)

// Connection is one connection to another node. Its exported fields do not change; Close and Done are for any goroutine.
type Connection struct {
	// Sender is the address to send to in order to reach the peer.
	Sender routing.WireAddress
	// Receiver is the address that messages from the peer come from; nothing can be sent to it.
	Receiver routing.WireAddress
	// Flow is what workers consume to be reachable from this connection alone.
	Flow *routing.Flow
	// Outgoing tells whether this node opened it.
	Outgoing bool
	// Layer is what lies between TCP and the messages.
	Layer Layer
	// Local and Remote are the socket's addresses; Remote is a proxy's where there is one.
	Local, Remote netip.AddrPort

	client atomic.Pointer[netip.AddrPort] // whom a proxy in front names; nil: nobody

	t        *Transport
	shard    *routing.Shard
	framed   *dataplane.Framed
	producer routing.Producer
	throttle *routing.Throttle
	backlog  *routing.Backlog
	mark     mark
	search   search
	markGate *routing.Gate
	pings    pings
	written  uint64 // bytes
	routing.Watchers
	place    *place // nil if this node opened it
	reserved int    // bytes of the body of the frame begun with ReserveFrame
	closed   bool
	severed  atomic.Bool
	done     chan struct{}
}

// start makes the workers of a new connection, on its shard.
func (t *Transport) start(s *routing.Shard, conn *dataplane.Conn, layer Layer, spawner *routing.Flow, framing dataplane.Framing, early []byte) *Connection {
	c := &Connection{
		Flow: routing.NewFlow(), Outgoing: spawner == nil, Layer: layer, Local: conn.LocalAddr(), Remote: conn.RemoteAddr(),
		t: t, shard: s, done: make(chan struct{}),
	}
	c.producer = routing.Producer{Own: c.Flow, Spawner: spawner}
	c.throttle = routing.NewSharedThrottle(s, c)
	c.backlog = routing.NewSharedBacklog(s, (*draining)(c), t.opts.HighWater, t.opts.Patience)
	c.mark, c.markGate = newMark(t.opts.HighWater), routing.NewGate(s)
	c.Sender, c.Receiver = s.Start(c), s.NewAddress()
	c.framed = dataplane.NewFramed(conn, framing, c, early)
	c.framed.Expect(t.opts.Deadlines)
	c.startPings(framing)
	t.router.RegisterFlow(c.Flow)
	t.mu.Lock()
	t.conns[c] = struct{}{}
	t.mu.Unlock()
	return c
}

// Peer returns where the other node is: what a trusted proxy in front says, else Remote. Its port is 0 where the proxy says none. Any goroutine.
func (c *Connection) Peer() netip.AddrPort {
	if client := c.client.Load(); client != nil {
		return *client
	}
	return c.Remote
}

// named hears whom the proxy in front brings, and reports whether there is a place for one more of there. On the shard.
func (c *Connection) named(client netip.AddrPort) bool {
	if !c.t.admission.move(c.place, client.Addr()) {
		c.t.full(client)
		return false
	}
	c.client.Store(&client)
	if !c.t.admission.belongs(c.place, c.displaced) {
		c.displaced()
	}
	return true
}

// PeerText is Peer as people read it: without a port that is not known.
func (c *Connection) PeerText() string { return endpoint(c.Peer()) }

// endpoint is an address as people read it, without a port that is not known.
func endpoint(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// Done is closed when the connection has ended.
func (c *Connection) Done() <-chan struct{} { return c.done }

// Shard returns the shard that owns the connection.
func (c *Connection) Shard() *routing.Shard { return c.shard }

// Line returns how many bytes were sent in all, and how many of them the peer's system has acknowledged. Not on a shard.
func (c *Connection) Line(ctx context.Context) (sent, taken uint64) {
	_ = c.shard.Do(ctx, func() {
		if !c.closed {
			waiting := uint64(c.framed.Pending() + c.framed.Unacknowledged())
			sent, taken = c.written, c.written-min(waiting, c.written)
		}
	})
	return sent, taken
}

// RoundTrip returns the round trip to the peer's system as TCP measures it, 0 where that is not known. Not on a shard.
func (c *Connection) RoundTrip(ctx context.Context) (d time.Duration) {
	_ = c.shard.Do(ctx, func() {
		if !c.closed {
			d = c.framed.RoundTrip()
		}
	})
	return d
}

// Losses returns how many segments to and from the peer's system were lost. Not on a shard.
func (c *Connection) Losses(ctx context.Context) (l dataplane.Losses) {
	_ = c.shard.Do(ctx, func() {
		if !c.closed {
			l = c.framed.Losses()
		}
	})
	return l
}

// Close ends the connection after what was sent to it has gone out.
func (c *Connection) Close() {
	c.shard.Loop().Post(dataplane.TaskFunc(c.end))
}

// end stops accepting messages and closes the socket gently.
func (c *Connection) end() {
	if !c.closed {
		c.stopWorkers()
		c.framed.Close()
	}
}

// Severed implements routing.Severed. It is right as soon as what runs on the connection is told that it has ended. Any goroutine.
func (c *Connection) Severed() bool { return c.severed.Load() }

// displaced ends the connection at once, to make room for others. Any goroutine.
func (c *Connection) displaced() {
	c.shard.Loop().Post(dataplane.TaskFunc(func() {
		if !c.closed {
			c.t.router.Log().Info("connection ended to make room for others", "peer", c.PeerText())
		}
		c.framed.Abort()
	}))
}

// Faulted implements dataplane.Faulted: what came over the connection showed a fault of this program. On its shard.
func (c *Connection) Faulted() { c.framed.Abort() }

// Vouch implements routing.Vouched: a secure channel runs over the connection. On its shard.
func (c *Connection) Vouch() {
	if c.place != nil {
		c.t.admission.vouch(c.place)
	}
}

func (c *Connection) stopWorkers() {
	c.closed = true
	c.shard.Stop(c.Sender)
	c.throttle.Close()
	c.backlog.Close()
	c.markGate.Open()
	c.Tell()
}

// TerminalPeer returns nil: a TCP connection authenticates nobody.
func (c *Connection) TerminalPeer() *routing.Peer { return nil }

// SourceName implements routing.Sourced.
func (c *Connection) SourceName() string { return routing.HostSource(c.Peer().Addr()) }

// TerminalProducer returns the producer of what arrives on the connection.
func (c *Connection) TerminalProducer() *routing.Producer { return &c.producer }

// PauseSource stops reading from the peer.
func (c *Connection) PauseSource() { c.framed.Pause() }

// ResumeSource goes on reading.
func (c *Connection) ResumeSource() { c.framed.Resume() }

// HandleMessage sends m to the peer: its first onward address, the connection's own, is removed and the return route
// is left alone (docs/protocol/01 §2.4).
func (c *Connection) HandleMessage(_ *routing.Shard, m *routing.Message) {
	m.PopOnward()
	payload := m.Payload()
	if dst := c.ReserveFrame(m.Onward, m.Return, len(payload), m.From); dst != nil {
		copy(dst, payload)
		c.CommitFrame(m.From)
	}
}

// ReserveFrame implements routing.FrameWriter.
func (c *Connection) ReserveFrame(onward, ret routing.Route, size int, from *routing.Throttle) []byte {
	if c.closed {
		return nil
	}
	body := routing.HeaderLen(onward, ret, size) + size
	if body > routing.MaxFrame {
		c.t.Stats.TooLarge.Add(1)
		c.t.router.Log().Warn("message too large for the transport, connection closed",
			"bytes", body, "limit", routing.MaxFrame, "peer", c.PeerText())
		c.end()
		return nil
	}
	if c.backlog.Refuses(4+body, from) {
		return nil
	}
	c.reserved = body
	frame := c.framed.ReserveFrame(body)
	head := routing.AppendHeader(frame[:0], onward, ret, size)
	return frame[len(head):body:body]
}

// CommitFrame implements routing.FrameWriter.
func (c *Connection) CommitFrame(from *routing.Throttle) {
	sent := c.framed.CommitFrame(c.reserved)
	c.t.Stats.MessagesOut.Add(1)
	c.t.Stats.BytesOut.Add(uint64(sent))
	c.written += uint64(sent)
	pending := c.framed.Pending()
	if c.framed.Blocked() {
		c.hold(pending, from)
	} else {
		c.mark.drained()
	}
	if pending > c.t.opts.HighWater {
		if !c.backlog.Full() {
			c.t.Stats.Stalled.Add(1)
		}
		c.backlog.Over(pending, from)
	}
}

// OnDrain implements dataplane.FrameHandler.
func (c *Connection) OnDrain() {
	c.backlog.Drained()
	c.openMark()
}

// draining is a Connection as the destination of its backlog.
type draining Connection

// Waiting implements routing.Draining.
func (d *draining) Waiting() (int, uint64) {
	pending := d.framed.Pending()
	return pending, d.written - uint64(pending)
}

// WantDrain implements routing.Draining.
func (d *draining) WantDrain(low int) { d.framed.WantDrain(low) }

// Refused implements routing.SharedDraining.
func (d *draining) Refused() {
	d.t.router.Log().Warn("somebody sends a node more than it takes, what more comes from there is dropped", "peer", (*Connection)(d).PeerText(), "bytes", d.framed.Pending())
}

// Stalled implements routing.Draining: a peer that takes nothing is cut off, since what is for it keeps memory that is for others.
func (d *draining) Stalled() {
	d.t.Stats.CutOff.Add(1)
	d.t.router.Log().Warn("connection to node cut off, it takes too little of what is sent to it", "peer", (*Connection)(d).PeerText(), "bytes", d.framed.Pending())
	c := (*Connection)(d)
	c.stopWorkers()
	c.shard.Loop().Post(dataplane.TaskFunc(c.framed.Abort)) // whoever wrote to it is not done with it
}

// OnFrame implements dataplane.FrameHandler: it parses one message and delivers it.
func (c *Connection) OnFrame(buf []byte, low, start, end int) error {
	if c.closed {
		return nil
	}
	p, err := c.shard.Parse(buf[start:end])
	if err != nil {
		c.t.Stats.Malformed.Add(1)
		return err
	}
	c.t.Stats.MessagesIn.Add(1)
	c.t.Stats.BytesIn.Add(uint64(end - low))
	m := c.shard.NewMessage()
	m.Onward, m.Return, m.From = p.Onward, p.Return, c.throttle
	m.PushReturn(c.Sender)
	m.SetPayload(buf, low, start+p.Start, start+p.End, end)
	m.SetProducer(&c.producer)
	c.shard.Deliver(m)
	c.shard.Free(m)
	return nil
}

// severs reports whether a connection that ended with err was broken by the other end or by the network.
func severs(err error) bool {
	return err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// OnClose implements dataplane.FrameHandler.
func (c *Connection) OnClose(err error) {
	if !c.closed {
		c.severed.Store(severs(err))
		c.stopWorkers()
	}
	c.pings.timer.Stop()
	if c.place != nil {
		c.t.admission.give(c.place)
	}
	c.t.Stats.Closed.Add(1)
	if errors.Is(err, dataplane.ErrFrameSize) {
		c.t.Stats.Oversize.Add(1)
	}
	if err != nil && err != dataplane.ErrConnClosed {
		c.t.router.Log().Info("connection to node lost", "peer", c.PeerText(), "err", err)
	}
	c.Flow.End()
	c.t.router.ForgetFlow(c.Flow)
	c.t.mu.Lock()
	delete(c.t.conns, c)
	c.t.mu.Unlock()
	close(c.done)
}
