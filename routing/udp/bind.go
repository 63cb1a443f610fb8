package udp

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/routing"
)

// sweepInterval is how often a socket looks for incomplete messages and silent peers that it can forget.
const sweepInterval = 5 * time.Second

// pace is how many datagrams a millisecond a socket sends, about 65 Mbit/s: the receiver has room for some hundred (the kernel's usual
// buffer), does not say how many it could take, and what is lost ends streams. A Link knows better, and is not paced.
const pace = 16

// Bind is one UDP socket with the workers that make it a transport. Its exported fields do not change; Close and Done are for any
// goroutine, other methods for the Bind's shard.
type Bind struct {
	// Sender is the address to send to: with a fixed peer, for all that is to reach it; without, the next address of the route
	// must be `2#ip:port`.
	Sender routing.WireAddress
	// Receiver is the address that messages come from; nothing can be sent to it.
	Receiver routing.WireAddress
	// Flow is what workers consume to be reachable through this socket.
	Flow *routing.Flow
	// Local is the socket's address. Peer is the fixed peer, or the zero value.
	Local, Peer netip.AddrPort

	t        *Transport
	shard    *routing.Shard
	sock     *dataplane.UDPSocket
	producer routing.Producer
	throttle *routing.Throttle
	gate     *routing.Gate
	routing.Watchers
	parts  *reassembler
	sweep  *dataplane.Timer
	number uint16 // of the next message
	link   *link  // of the puncture that owns the socket, if both ends know it
	guard  *guard // nil: it sends wherever a route says
	closed bool
	done   chan struct{}

	// The message begun with ReserveFrame.
	frame []byte
	to    netip.AddrPort
}

// Bind opens a socket on shard s. With a peer, datagrams of others are dropped; the zero value takes any. A socket is of IPv4 or
// IPv6 as its address is; one at [::] is of both.
// Not on a shard.
func (t *Transport) Bind(ctx context.Context, s *routing.Shard, at, fixed netip.AddrPort) (*Bind, error) {
	fd, bound, err := t.router.Group().ListenUDP(at)
	if err != nil {
		return nil, err
	}
	b := &Bind{
		Flow: routing.NewFlow(), Local: bound, Peer: fixed, t: t, shard: s, gate: routing.NewGate(s),
		parts: newReassembler(t.opts.Pending, &t.budget, &t.Stats), number: uint16(rand.Uint32()), done: make(chan struct{}),
	}
	b.producer.Own = b.Flow
	var adoptErr error
	if err := s.Do(ctx, func() {
		if b.sock, adoptErr = s.Loop().AdoptUDP(fd, b, &t.Stats.UDPStats); adoptErr == nil {
			if t.paused.Load() {
				b.sock.Pause()
			}
			b.sock.Pace(pace)
			b.throttle = routing.NewSharedThrottle(s, b)
			b.Sender, b.Receiver = s.Start(b), s.NewAddress()
		}
	}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if adoptErr != nil {
		return nil, adoptErr
	}
	t.router.RegisterFlow(b.Flow)
	t.mu.Lock()
	t.binds[b] = struct{}{}
	t.mu.Unlock()
	return b, nil
}

// Done is closed when the socket has been closed.
func (b *Bind) Done() <-chan struct{} { return b.done }

// Shard returns the shard that owns the socket. Any goroutine.
func (b *Bind) Shard() *routing.Shard { return b.shard }

// Close closes the socket.
func (b *Bind) Close() { b.shard.Loop().Post(dataplane.TaskFunc(b.end)) }

func (b *Bind) end() {
	if b.closed {
		return
	}
	b.closed = true
	b.shard.Stop(b.Sender)
	b.throttle.Close()
	b.gate.Open()
	b.sweep.Stop()
	b.parts.clear()
	b.sock.Close()
	b.t.router.ForgetFlow(b.Flow)
	b.t.mu.Lock()
	delete(b.t.binds, b)
	b.t.mu.Unlock()
	close(b.done)
	b.Tell()
}

// TerminalPeer returns nil: UDP authenticates nobody.
func (b *Bind) TerminalPeer() *routing.Peer { return nil }

// TerminalProducer returns the producer of what arrives.
func (b *Bind) TerminalProducer() *routing.Producer { return &b.producer }

// Lossy implements routing.Lossy.
func (b *Bind) Lossy(*routing.Shard) bool { return true }

// PauseSource does nothing: what UDP brings cannot be held up, and what nobody takes is dropped where it does not fit.
func (b *Bind) PauseSource() {}

// ResumeSource does nothing.
func (b *Bind) ResumeSource() {}

// HandleMessage sends m (docs/protocol/01 §3.1): the socket's own address is removed from the onward route and, without a fixed peer,
// the next one, which says where to.
func (b *Bind) HandleMessage(_ *routing.Shard, m *routing.Message) {
	m.PopOnward()
	payload := m.Payload()
	if dst := b.ReserveFrame(m.Onward, m.Return, len(payload), m.From); dst != nil {
		copy(dst, payload)
		b.CommitFrame(m.From)
	}
}

// ReserveFrame implements routing.FrameWriter.
func (b *Bind) ReserveFrame(onward, ret routing.Route, size int, _ *routing.Throttle) []byte {
	if b.closed {
		return nil
	}
	b.to = b.Peer
	if !b.Peer.IsValid() {
		if onward.Len() == 0 {
			b.t.Stats.Unroutable.Add(1)
			return nil
		}
		first := onward.First()
		to, err := netip.ParseAddrPort(first.Value)
		if first.Type != routing.UDP || err != nil || to.Port() == 0 || to.Addr().Unmap().Is6() && b.Local.Addr().Is4() {
			b.t.Stats.Unroutable.Add(1)
			return nil
		}
		b.to, onward = to, onward.WithoutFirst()
	}
	if b.guard != nil {
		var ok bool
		if ret, ok = b.admits(b.to, onward, ret, size); !ok {
			return nil
		}
	}
	body := routing.HeaderLen(onward, ret, size) + size
	if body > min(routing.MaxFrame, maxFragments*b.partSize()) {
		b.t.Stats.NoRoom.Add(1)
		b.t.router.Log().Warn("message too large for the transport", "bytes", body, "peer", b.to.String())
		return nil
	}
	if cap(b.frame) < body {
		b.frame = make([]byte, max(body, 4<<10))
	}
	b.frame = b.frame[:body]
	head := routing.AppendHeader(b.frame[:0], onward, ret, size)
	return b.frame[len(head):body:body]
}

// partSize is how many bytes of a message one datagram carries.
func (b *Bind) partSize() int { return b.t.opts.PacketSize - fragmentRoom }

// CommitFrame implements routing.FrameWriter: the message goes out in as many datagrams as it needs, or is dropped as a whole.
func (b *Bind) CommitFrame(from *routing.Throttle) {
	size, part := len(b.frame), b.partSize()
	total := (size + part - 1) / part
	number := b.number
	b.number++
	if b.sock.Room() < size+total*fragmentRoom {
		b.t.Stats.UDPStats.Overflow.Add(1)
	} else {
		for i := range total {
			body := b.frame[i*part : min((i+1)*part, size)]
			buf := b.sock.Reserve(fragmentRoom + len(body))
			head := appendFragmentHead(buf[:0], number, uint16(i), uint16(total), len(body))
			b.sock.Commit(len(head)+copy(buf[len(head):], body), b.to)
		}
		b.t.Stats.MessagesOut.Add(1)
	}
	if cap(b.frame) > 512<<10 {
		b.frame = nil
	}
	if b.sock.Pending() > b.t.opts.HighWater {
		b.sock.WantDrain()
		b.gate.Pause(from)
	}
}

// OnFlush implements dataplane.UDPHandler.
func (b *Bind) OnFlush() {
	if b.link != nil {
		b.link.flush()
	}
}

// OnDrain implements dataplane.UDPHandler.
func (b *Bind) OnDrain() { b.gate.Open() }

// OnRefused implements dataplane.UDPHandler: no socket of the transport is bound to its peer.
func (b *Bind) OnRefused() {}

// OnBatchEnd implements dataplane.UDPHandler.
func (b *Bind) OnBatchEnd() {
	if b.link != nil {
		b.link.batchEnd()
	}
}

// OnDatagram implements dataplane.UDPHandler: it delivers the message that a datagram completes.
func (b *Bind) OnDatagram(buf []byte, n int, from netip.AddrPort) {
	if b.t.opts.lose != nil && b.t.opts.lose(buf[:n]) {
		return
	}
	if b.Peer.IsValid() && from != b.Peer {
		b.t.Stats.Foreign.Add(1)
		return
	}
	if b.link != nil && isLinkPacket(buf[:n]) {
		b.link.receive(buf[:n], from)
		return
	}
	f, err := parseFragment(buf[:n])
	if err != nil {
		b.t.Stats.Malformed.Add(1)
		return
	}
	if b.sweep == nil {
		b.sweep = b.shard.Loop().After(sweepInterval, b.sweepParts)
	}
	m, whole := b.parts.add(buf, f, from, b.shard.Loop().Now())
	if b.guard != nil {
		if e := b.parts.peers[from]; e != nil {
			p := e.Value.(*peer)
			p.credit = min(p.credit+n, strangersBurst)
		}
	}
	if whole {
		b.deliver(m)
		b.parts.release(m)
	}
}

func (b *Bind) sweepParts() {
	b.sweep = nil
	if b.parts.sweep(b.shard.Loop().Now()) {
		b.sweep = b.shard.Loop().After(sweepInterval, b.sweepParts)
	}
}

// deliver hands a whole message to the worker at the front of its onward route, with the way back in front of its return route.
func (b *Bind) deliver(w message) {
	p, err := b.shard.Parse(w.buf[w.start:w.end])
	if err != nil {
		b.t.Stats.Malformed.Add(1)
		b.t.router.Log().Debug("message malformed", "peer", w.peer.addr.String(), "reason", err.Error())
		return
	}
	b.t.Stats.MessagesIn.Add(1)
	if b.guard != nil {
		p.Onward = b.guard.check(w.peer, p.Onward)
	}
	m := b.shard.NewMessage()
	m.Onward, m.Return, m.From = p.Onward, p.Return, b.throttle
	if !b.Peer.IsValid() {
		m.PushReturn(w.peer.source)
	}
	m.PushReturn(b.Sender)
	m.SetPayload(w.buf, 0, w.start+p.Start, w.start+p.End, len(w.buf))
	m.SetProducer(&b.producer)
	b.shard.Deliver(m)
	b.shard.Free(m)
}

// String names the socket in logs and errors.
func (b *Bind) String() string {
	if b.Peer.IsValid() {
		return fmt.Sprintf("udp %s to %s", b.Local, b.Peer)
	}
	return fmt.Sprintf("udp %s", b.Local)
}
