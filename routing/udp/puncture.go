package udp

import (
	"net/netip"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// times are those of a puncture (docs/protocol/01 §3.5).
type times struct {
	beat time.Duration
	// silence is how long an open puncture lives without a Pong, opening how long it may take to open; the reference's responder
	// tries for ever.
	silence, opening time.Duration
	// answer is how long a negotiation waits for one.
	answer time.Duration
}

var defaultTimes = times{beat: time.Second, silence: 10 * time.Second, opening: 12 * time.Second, answer: 10 * time.Second}

// Puncture is a way to another node through two NATs or firewalls: both sides send to each other's public address, so that each one's
// own lets the other's datagrams in. Whoever knows the random address of its worker can send to it; what is sent is a secure
// channel's. Opened, Done and Close are for any goroutine.
type Puncture struct {
	// Sender is the address to send to in order to reach the peer.
	Sender routing.WireAddress
	// Flow is what workers consume to be reachable through this puncture alone.
	Flow *routing.Flow
	// Peer is the peer's public address, as it was at first.
	Peer netip.AddrPort

	bind     *Bind
	at       netip.AddrPort // where it is sent to now
	shard    *routing.Shard
	ours     routing.WireAddress // of the worker here
	onward   routing.Route       // to the peer's worker, without the socket
	producer routing.Producer
	routing.Watchers
	responder bool
	pinged    bool // the peer's worker is there
	open      bool
	closed    bool
	began     time.Time
	heard     time.Time // when the last Pong came
	beat      *dataplane.Timer
	scratch   []byte // for the payload of what comes
	wrapped   []byte // and of what goes
	opened    chan struct{}
	done      chan struct{}
	onEnd     func()
}

// startPuncture makes the workers of a puncture, on the socket's shard. From now on the socket belongs to it. ours was made with
// NewAddress.
func startPuncture(b *Bind, ours routing.WireAddress, peer netip.AddrPort, o offer, responder bool, spawner *routing.Flow) *Puncture {
	s, now := b.shard, time.Now()
	p := &Puncture{
		Flow: routing.NewFlow(), Peer: peer, at: peer, bind: b, shard: s, ours: ours, responder: responder, began: now, heard: now,
		onward: routing.NewRoute(routing.Address{Type: routing.UDP, Value: peer.String()}, routing.LocalAddress(string(o.remote))),
		opened: make(chan struct{}), done: make(chan struct{}),
	}
	p.producer = routing.Producer{Own: p.Flow, Spawner: spawner}
	s.StartAs(ours, routing.WorkerFunc(p.fromPeer), b.Flow)
	if o.link > 0 {
		b.link = newLink(p, o.link)
		b.sock.Pace(0)
		b.sock.Whole()
		p.Sender = s.Start(&linkSender{punctureSender{p}})
	} else {
		p.Sender = s.Start(&punctureSender{p})
	}
	b.t.router.RegisterFlow(p.Flow)
	p.beats()
	return p
}

// Opened is closed when the peer can be reached.
func (p *Puncture) Opened() <-chan struct{} { return p.opened }

// Done is closed when the puncture has ended.
func (p *Puncture) Done() <-chan struct{} { return p.done }

// Shard returns the puncture's shard.
func (p *Puncture) Shard() *routing.Shard { return p.shard }

// Linked reports whether both ends know the Link: nothing is lost then.
func (p *Puncture) Linked() bool { return p.bind.link != nil }

// Close ends the puncture and closes its socket.
func (p *Puncture) Close() { p.shard.Loop().Post(dataplane.TaskFunc(p.end)) }

func (p *Puncture) end() {
	if p.closed {
		return
	}
	p.closed = true
	p.beat.Stop()
	p.shard.Stop(p.Sender)
	p.shard.Stop(p.ours)
	if p.bind.link != nil {
		p.bind.link.close()
	}
	p.bind.t.router.ForgetFlow(p.Flow)
	p.bind.end()
	close(p.done)
	p.Tell()
	if p.onEnd != nil {
		p.onEnd()
	}
}

// beats pings the peer, and ends a puncture that nothing comes through any more.
func (p *Puncture) beats() {
	now, t := time.Now(), p.bind.t.opts.times
	switch {
	case p.open && now.Sub(p.heard) >= t.silence:
		p.bind.t.Stats.Lost.Add(1)
		p.bind.t.router.Log().Info("puncture closed", "peer", p.Peer.String(), "reason", "peer is silent")
		p.end()
		return
	case !p.open && now.Sub(p.began) >= t.opening:
		p.bind.t.router.Log().Info("puncture did not open", "peer", p.Peer.String())
		p.end()
		return
	}
	p.beat = p.shard.Loop().After(t.beat, p.beats)
	if p.bind.link != nil {
		p.bind.link.arq.trim()
	}
	onward := p.onward
	if p.responder && !p.pinged {
		// The peer's worker starts when it gets our answer. Until then a message for nobody opens our own NAT.
		onward = routing.NewRoute(onward.First())
	}
	p.send(onward, appendKind(nil, kindPing))
}

// send sends a message to the peer.
func (p *Puncture) send(onward routing.Route, payload []byte) {
	if dst := p.bind.ReserveFrame(onward, routing.RouteOf(p.ours), len(payload), nil); dst != nil {
		copy(dst, payload)
		p.bind.CommitFrame(nil)
	}
}

// move sends to another address of the peer from now on.
func (p *Puncture) move(to netip.AddrPort) {
	p.bind.t.router.Log().Info("puncture moved", "peer", p.at.String(), "to", to.String())
	p.at = to
	p.onward = routing.NewRoute(udpAddress(to), p.onward.Last())
	p.bind.sock.WantFlush()
}

// fromPeer handles what comes for the puncture's worker.
func (p *Puncture) fromPeer(s *routing.Shard, m *routing.Message) {
	if p.closed {
		return
	}
	if p.scratch == nil {
		p.scratch = make([]byte, routing.HeadRoom, 4<<10)
	}
	msg, err := parsePunched(m.Payload(), p.scratch[:routing.HeadRoom])
	if err != nil {
		p.bind.t.Stats.Malformed.Add(1)
		return
	}
	switch msg.kind {
	case kindPing:
		p.pinged = true
		m.SetPayloadBytes(appendKind(nil, kindPong))
		m.Reply(s, p.ours)
	case kindPong:
		p.heard = s.Loop().Now()
		if !p.open {
			p.open = true
			p.bind.t.Stats.Opened.Add(1)
			p.bind.t.router.Log().Info("puncture open", "peer", p.Peer.String(), "local", p.bind.Local.String(), "link", p.bind.link != nil)
			close(p.opened)
		}
	case kindPayload:
		if cap(msg.payload) > 512<<10 {
			p.scratch = nil
		} else {
			p.scratch = msg.payload
		}
		p.deliver(msg.onward, msg.back, msg.payload, routing.HeadRoom)
	}
}

// deliver hands a message of the peer, buf[start:] and its routes, to the worker it is for.
func (p *Puncture) deliver(onward, back routing.Route, buf []byte, start int) {
	m := p.shard.NewMessage()
	m.Onward, m.Return, m.From = onward, back, p.bind.throttle
	m.PushReturn(p.Sender)
	m.SetPayload(buf[:cap(buf)], 0, start, len(buf), cap(buf))
	m.SetProducer(&p.producer)
	p.shard.Deliver(m)
	p.shard.Free(m)
}

// punctureSender is the puncture as the worker that local senders address.
type punctureSender struct{ *Puncture }

// TerminalPeer implements routing.Terminal: nobody is authenticated.
func (s *punctureSender) TerminalPeer() *routing.Peer { return nil }

// SourceName implements routing.Sourced.
func (s *punctureSender) SourceName() string { return routing.HostSource(s.Peer.Addr()) }

// TerminalProducer implements routing.Terminal.
func (s *punctureSender) TerminalProducer() *routing.Producer { return &s.producer }

// Lossy implements routing.Lossy.
func (s *punctureSender) Lossy(*routing.Shard) bool { return !s.Linked() }

// HandleMessage wraps m for the peer's worker.
func (s *punctureSender) HandleMessage(_ *routing.Shard, m *routing.Message) {
	m.PopOnward()
	if s.closed {
		return
	}
	s.wrapped = appendPunched(s.wrapped[:0], m.Onward, m.Return, m.Payload())
	if dst := s.bind.ReserveFrame(s.onward, routing.RouteOf(s.ours), len(s.wrapped), m.From); dst != nil {
		copy(dst, s.wrapped)
		s.bind.CommitFrame(m.From)
	}
	if cap(s.wrapped) > 1<<20 {
		s.wrapped = nil
	}
}
