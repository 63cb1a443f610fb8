package datagram

import (
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// What waits for a path that is behind, in bytes.
const (
	flowQueue = 64 << 10 // of a flow; one datagram may always wait
	allQueues = 4 << 20  // of all flows of a sender
)

// sender sends the datagrams of a session's flows to the other end. It is of one shard.
type sender struct {
	shard    *routing.Shard
	meter    *Meter
	session  session
	self     routing.Route // where answers go; empty if there are none
	route    routing.Route // to the other end
	win      window
	throttle *routing.Throttle
	held     bool // by the connection that the path goes through
	queued   int  // bytes
	ring     []*flow
	turn     int // of ring, whose turn it is
	pumping  bool
	timer    *dataplane.Timer
	armed    bool
	small    [headMost + 1]byte
}

func (s *sender) init(shard *routing.Shard, m *Meter, name session, self routing.Route) {
	s.shard, s.meter, s.session, s.self, s.win = shard, m, name, self, newWindow()
	s.throttle = routing.NewThrottle(shard, s)
}

// follow sends over another way from now on.
func (s *sender) follow(route routing.Route) {
	s.route = route
	s.win.restart()
	s.held = false
	s.throttle.Close() // what the old one is paused by may never let it go
	s.throttle = routing.NewThrottle(s.shard, s)
	s.pump()
}

// close drops what waits.
func (s *sender) close() {
	s.timer.Stop()
	s.throttle.Close()
	for len(s.ring) > 0 {
		s.forget(s.ring[0])
	}
}

// PauseSource implements routing.Source.
func (s *sender) PauseSource() { s.held = true }

// ResumeSource implements routing.Source.
func (s *sender) ResumeSource() {
	s.held = false
	s.shard.Loop().Post(dataplane.TaskFunc(s.pump)) // not within whatever has drained
}

// ready reports whether a datagram may be sent now.
func (s *sender) ready() bool { return !s.held && s.route.Len() > 0 && s.win.open() }

// send sends a datagram of a flow, or lets it wait, or drops it. p is borrowed.
func (s *sender) send(f *flow, p []byte) {
	if len(s.ring) == 0 && s.ready() {
		s.transmit(f, p)
		return
	}
	need, has := 2+len(p), f.queue.size()
	if has > 0 && has+need > flowQueue || s.queued+need > allQueues {
		s.meter.drop(DropBehind)
		return
	}
	f.queue.push(p)
	s.queued += need
	if !f.waiting {
		f.waiting, f.place = true, len(s.ring)
		s.ring = append(s.ring, f)
	}
}

// pump sends what waits, a datagram of each flow in turn.
func (s *sender) pump() {
	if s.pumping {
		return // an outlet of this node answers while it is told
	}
	s.pumping = true
	defer func() { s.pumping = false }()
	for len(s.ring) > 0 && s.ready() {
		if s.turn >= len(s.ring) {
			s.turn = 0
		}
		f := s.ring[s.turn]
		p := f.queue.first()
		s.queued -= 2 + len(p)
		s.transmit(f, p)
		f.queue.pop()
		if f.queue.size() == 0 {
			s.leave(f)
		} else {
			s.turn++
		}
	}
}

// leave takes a flow out of the ring.
func (s *sender) leave(f *flow) {
	last := len(s.ring) - 1
	s.ring[f.place] = s.ring[last]
	s.ring[f.place].place = f.place
	s.ring[last] = nil
	s.ring, f.waiting = s.ring[:last], false
}

// forget drops what waits of a flow that ends.
func (s *sender) forget(f *flow) {
	s.queued -= f.queue.size()
	f.queue = fifo{}
	if f.waiting {
		s.leave(f)
	}
}

func (s *sender) transmit(f *flow, p []byte) {
	head := appendHead(s.small[:0], kindDatagram, s.session, f.number)
	m := s.shard.NewMessage()
	m.SetRoutes(s.route, s.self)
	m.SetPayloadBytes(p)
	copy(m.Grow(s.shard, len(head), 0), head)
	m.From, m.Loose = s.throttle, true
	s.shard.Deliver(m)
	s.shard.Free(m)
	f.sent.add(len(p))
	s.win.add(len(head) + len(p))
	s.mark()
}

// mark sends a mark if one is due, and sees to it that somebody looks whether it is answered.
func (s *sender) mark() {
	number, due := s.win.mark(s.shard.Loop().Now())
	if !due {
		return
	}
	s.post(s.route, appendHead(s.small[:0], kindMark, s.session, number))
	s.arm()
}

// answered takes the answer to a mark.
func (s *sender) answered(number uint64) {
	s.win.answered(number, s.shard.Loop().Now())
	s.mark()
	s.pump()
}

func (s *sender) arm() {
	at, ok := s.win.next(s.shard.Loop().Now())
	if s.armed || !ok {
		return
	}
	s.armed = true
	if d := time.Until(at); s.timer == nil {
		s.timer = s.shard.Loop().After(d, s.fired)
	} else {
		s.timer.Reset(d)
	}
}

func (s *sender) fired() {
	s.armed = false
	gone := s.win.expire(s.shard.Loop().Now())
	if s.mark(); gone {
		s.pump()
	}
	s.arm()
}

// post sends a small message.
func (s *sender) post(route routing.Route, b []byte) { post(s.shard, route, s.self, b) }

func post(shard *routing.Shard, route, self routing.Route, b []byte) {
	if route.Len() == 0 {
		return
	}
	m := shard.NewMessage()
	m.SetRoutes(route, self)
	m.SetPayloadBytes(b)
	m.Loose = true
	shard.Deliver(m)
	shard.Free(m)
}
