package udp

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

const (
	// linkMark begins every datagram of a Link. A fragment begins with a CBOR array, so the two cannot be taken for each other.
	linkMark  = 'S'
	tokenSize = 8
	// linkPacketSize is the largest datagram of a Link: QUIC relies on it everywhere (RFC 9000 §14).
	linkPacketSize = 1200
	// linkMinPacketSize has room for the longest acknowledgement.
	linkMinPacketSize = 512
	// linkHighWater is how many bytes wait to be sent before the sources that fill a link are paused; linkLimit is how many that were not
	// acknowledged end it.
	linkHighWater = 1 << 20
	linkLimit     = arqMaximum + 32<<20
)

// link makes a puncture between two of ours reliable: messages are framed as on TCP, a length and then CBOR, in a stream of bytes
// that an arq carries. Its datagrams carry a token made of the addresses of both workers, so whoever does not see the path cannot
// forge them. What it carries is a secure channel's; to damage that takes more than a datagram.
type link struct {
	p        *Puncture
	arq      *arq
	send     [1 + tokenSize]byte // what datagrams to the peer begin with
	recv     [1 + tokenSize]byte
	throttle *routing.Throttle
	backlog  *routing.Backlog
	written  uint64 // bytes
	paused   bool
	reserved int
	drain    int // how many bytes may wait when the backlog is told; 0: not
	timer    *dataplane.Timer
	armed    time.Time // when timer fires; zero if it does not
	resent   uint64    // that were counted
	lost     uint64
	parts    uint64
	loose    bool   // both ends take messages beside the stream
	scratch  []byte // for those that come
	closed   bool
	moved    movedTo
}

func isLinkPacket(b []byte) bool { return len(b) > 1+tokenSize && b[0] == linkMark }

func newLink(p *Puncture, version uint64) *link {
	size := max(linkPacketSize, p.bind.t.opts.PacketSize)
	if p.bind.t.opts.PacketSize < defaultPacketSize {
		size = max(p.bind.t.opts.PacketSize, linkMinPacketSize) // somebody knows of a network that carries less
	}
	l := &link{p: p, arq: newARQ(size - 1 - tokenSize), loose: version >= looseVersion}
	l.arq.grown = &p.bind.t.grown
	if p.bind.t.opts.PacketSize >= defaultPacketSize {
		l.arq.search(linkMinPacketSize-1-tokenSize, maxPacketSize-1-tokenSize)
	}
	l.throttle = routing.NewSharedThrottle(p.shard, l)
	l.backlog = routing.NewBacklog(p.shard, (*linkDraining)(l), linkHighWater, 0)
	initiator, responder := p.ours.Text(), p.onward.Last().Value
	if p.responder {
		initiator, responder = responder, initiator
	}
	token := func(role byte) (mark [1 + tokenSize]byte) {
		h := sha256.New()
		h.Write([]byte{role, byte(len(initiator))})
		h.Write([]byte("sallyport link" + initiator + responder))
		mark[0] = linkMark
		copy(mark[1:], h.Sum(nil))
		return mark
	}
	l.send, l.recv = token(0), token(1)
	if p.responder {
		l.send, l.recv = l.recv, l.send
	}
	return l
}

// close ends the link; what waits has its last chance.
func (l *link) close() {
	l.flush()
	if !l.closed {
		l.arq.giveBack()
	}
	l.closed = true
	l.timer.Stop()
	l.throttle.Close()
	l.backlog.Close()
}

// PauseSource implements routing.Source: the peer may send no more than a window.
func (l *link) PauseSource() { l.paused = true }

// ResumeSource implements routing.Source.
func (l *link) ResumeSource() {
	l.paused = false
	l.p.shard.Loop().Post(dataplane.TaskFunc(l.handOn)) // not within whatever has drained
}

// receive takes a datagram of the peer.
func (l *link) receive(b []byte, from netip.AddrPort) {
	if l.closed || subtle.ConstantTimeCompare(b[:1+tokenSize], l.recv[:]) != 1 {
		l.p.bind.t.Stats.Foreign.Add(1)
		return
	}
	now := time.Now()
	if err := l.arq.receive(b[1+tokenSize:], now); err != nil {
		l.p.bind.t.Stats.Malformed.Add(1)
		return
	}
	l.heardFrom(from, now)
	if whole := l.arq.looseIn.whole; whole != nil {
		l.deliverLoose(whole)
	}
	if l.closed {
		return
	}
	l.p.bind.t.Stats.Incomplete.Add(l.arq.looseIn.incomplete - l.parts)
	l.parts = l.arq.looseIn.incomplete
}

// batchEnd hands on what came, and answers it.
func (l *link) batchEnd() {
	l.handOn()
	if !l.closed {
		l.p.bind.sock.WantFlush()
	}
}

// handOn delivers the whole messages that have come.
func (l *link) handOn() {
	if l.closed {
		return
	}
	for l.handOnReady() && !l.paused && l.arq.more() {
	}
	if l.closed {
		return
	}
	if !l.paused {
		l.arq.open()
		l.p.bind.sock.WantFlush()
	}
	l.drained()
}

// handOnReady delivers the whole messages among what is ready. It reports false when the link has ended over that.
func (l *link) handOnReady() bool {
	buf, at := l.arq.ready(), 0
	for !l.paused && len(buf)-at >= 4 {
		size := int(binary.BigEndian.Uint32(buf[at:]))
		if size > routing.MaxFrame {
			l.fail("frame too large")
			return false
		}
		if len(buf)-at-4 < size {
			break
		}
		start, end := at+4, at+4+size
		m, err := l.p.bind.shard.Parse(buf[start:end])
		if err != nil {
			l.fail(err.Error())
			return false
		}
		l.p.bind.t.Stats.MessagesIn.Add(1)
		l.deliver(m, buf, start, end)
		if l.closed {
			return false
		}
		at = end
	}
	l.arq.take(at)
	return true
}

// waiting returns how many bytes were never sent.
func (l *link) waiting() int { return l.arq.waiting() + l.arq.loose.waiting() }

// drained tells the backlog when little enough waits.
func (l *link) drained() {
	if l.drain > 0 && l.waiting() <= l.drain {
		l.drain = 0
		l.backlog.Drained()
	}
}

func (l *link) deliver(p routing.Parsed, buf []byte, start, end int) {
	m := l.p.shard.NewMessage()
	m.Onward, m.Return, m.From = p.Onward, p.Return, l.throttle
	m.PushReturn(l.p.Sender)
	m.SetPayload(buf, start-4, start+p.Start, start+p.End, end)
	m.SetProducer(&l.p.producer)
	l.p.shard.Deliver(m)
	l.p.shard.Free(m)
}

// deliverLoose delivers a message that came beside the stream, which is borrowed.
func (l *link) deliverLoose(whole []byte) {
	if !l.loose {
		l.p.bind.t.Stats.Malformed.Add(1)
		return
	}
	end := routing.HeadRoom + len(whole)
	if cap(l.scratch) < end+routing.TailRoom {
		l.scratch = make([]byte, max(end+routing.TailRoom, 4<<10))
	}
	buf := l.scratch[:cap(l.scratch)]
	copy(buf[routing.HeadRoom:], whole)
	p, err := l.p.bind.shard.Parse(buf[routing.HeadRoom:end])
	if err != nil {
		l.p.bind.t.Stats.Malformed.Add(1)
		return
	}
	l.p.bind.t.Stats.MessagesIn.Add(1)
	m := l.p.shard.NewMessage()
	m.Onward, m.Return, m.From, m.Loose = p.Onward, p.Return, l.throttle, true
	m.PushReturn(l.p.Sender)
	m.SetPayload(buf, 0, routing.HeadRoom+p.Start, routing.HeadRoom+p.End, len(buf))
	m.SetProducer(&l.p.producer)
	l.p.shard.Deliver(m)
	l.p.shard.Free(m)
}

// fail ends the puncture: the stream of messages cannot go on.
func (l *link) fail(reason string) {
	l.p.bind.t.router.Log().Warn("puncture closed", "peer", l.p.Peer.String(), "reason", reason)
	l.p.end()
}

// flush sends what may be sent now, at the end of a turn.
func (l *link) flush() {
	if l.closed {
		return
	}
	sock, now := l.p.bind.sock, time.Now()
	for sock.Room() > maxPacketSize {
		buf := append(sock.Reserve(maxPacketSize)[:0], l.send[:]...)
		out := l.arq.packet(buf, now)
		if out == nil {
			break
		}
		if len(out) > 1+tokenSize+l.arq.size {
			sock.CommitAlone(len(out), l.p.at) // a size that is tried
			continue
		}
		sock.Commit(len(out), l.p.at)
	}
	l.drained()
	l.p.bind.t.Stats.Resent.Add(l.arq.resent - l.resent)
	l.resent = l.arq.resent
	l.p.bind.t.Stats.LooseLost.Add(l.arq.looseLost - l.lost)
	l.lost = l.arq.looseLost
	l.arm(now)
}

// arm sets the timer, unless it fires early enough.
func (l *link) arm(now time.Time) {
	at := l.arq.deadline()
	if at.IsZero() || !l.armed.IsZero() && !at.Before(l.armed) {
		return
	}
	l.armed = at
	if l.timer == nil {
		l.timer = l.p.shard.Loop().After(at.Sub(now), l.fired)
		return
	}
	l.timer.Reset(at.Sub(now))
}

func (l *link) fired() {
	l.armed = time.Time{}
	if l.closed {
		return
	}
	now := time.Now()
	if at := l.arq.deadline(); !at.IsZero() && !now.Before(at) {
		l.arq.timeout(now)
	}
	l.p.bind.sock.WantFlush()
}

// linkDraining is a link as the destination of its backlog.
type linkDraining link

// Waiting implements routing.Draining.
func (d *linkDraining) Waiting() (int, uint64) {
	waiting := (*link)(d).waiting()
	return waiting, d.written - uint64(waiting)
}

// WantDrain implements routing.Draining.
func (d *linkDraining) WantDrain(low int) { d.drain = low }

// Stalled implements routing.Draining.
func (d *linkDraining) Stalled() {
	l := (*link)(d)
	l.p.shard.Loop().Post(dataplane.TaskFunc(func() {
		if !l.closed {
			l.fail("it takes too little of what is sent to it")
		}
	}))
}

// linkSender is the worker that local senders address.
type linkSender struct{ punctureSender }

// HandleMessage sends m.
func (s *linkSender) HandleMessage(_ *routing.Shard, m *routing.Message) {
	m.PopOnward()
	payload := m.Payload()
	if dst := s.ReserveFrame(m.Onward, m.Return, len(payload), m.From); dst != nil {
		copy(dst, payload)
		s.CommitFrame(m.From)
	}
}

// ReserveFrame implements routing.FrameWriter.
func (s *linkSender) ReserveFrame(onward, ret routing.Route, size int, _ *routing.Throttle) []byte {
	l := s.bind.link
	body := routing.HeaderLen(onward, ret, size) + size
	if l.closed || body > routing.MaxFrame {
		return nil
	}
	if l.arq.pending()+body > linkLimit {
		l.fail("nothing is taken")
		return nil
	}
	l.reserved = 4 + body
	frame := l.arq.out.reserve(l.reserved)
	binary.BigEndian.PutUint32(frame, uint32(body))
	head := routing.AppendHeader(frame[:4], onward, ret, size)
	return frame[len(head):l.reserved:l.reserved]
}

// CommitFrame implements routing.FrameWriter.
func (s *linkSender) CommitFrame(from *routing.Throttle) {
	l := s.bind.link
	l.arq.out.commit(l.reserved)
	s.bind.t.Stats.MessagesOut.Add(1)
	s.bind.sock.WantFlush()
	l.written += uint64(l.reserved)
	if waiting := l.waiting(); waiting > linkHighWater { // what is under way fills the line
		l.backlog.Over(waiting, from)
	}
}

// TakesLoose implements routing.LooseWriter.
func (s *linkSender) TakesLoose() bool { return s.bind.link.loose && !s.closed }

// ReserveLoose implements routing.LooseWriter.
func (s *linkSender) ReserveLoose(onward, ret routing.Route, size int) []byte {
	l := s.bind.link
	body := routing.HeaderLen(onward, ret, size) + size
	frame := l.arq.loose.reserve(body)
	if l.closed || frame == nil {
		s.bind.t.Stats.LooseDropped.Add(1)
		return nil
	}
	l.reserved = body
	head := routing.AppendHeader(frame[:0], onward, ret, size)
	return frame[len(head):body:body]
}

// CommitLoose implements routing.LooseWriter.
func (s *linkSender) CommitLoose(from *routing.Throttle) {
	l := s.bind.link
	l.arq.loose.commit(l.reserved)
	s.bind.t.Stats.MessagesOut.Add(1)
	s.bind.sock.WantFlush()
	l.written += uint64(l.reserved)
	if waiting := l.waiting(); waiting > linkHighWater {
		l.backlog.Over(waiting, from)
	}
}
