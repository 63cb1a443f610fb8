package control

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// Limits of one identity's requests.
const (
	perPeerRate    = 500  // a second
	perPeerBurst   = 4000 // at once
	perPeerWaiting = 8192 // that wait for an event
	allWaiting     = 65_536
	queueSize      = 4096 // that wait to be handled
	forgetAfter    = time.Minute
)

// Handler answers requests of one kind. It runs on the service's goroutine and must not block: what has to wait keeps the Call and answers
// it later, within the request's Wait.
type Handler func(c *Call)

// Call is a request that was admitted. Answer may be used from any goroutine; what it is given first is sent.
type Call struct {
	// Request is what was asked; the Call owns it.
	Request Message
	// Peer is who asked, as authenticated by a secure channel.
	Peer [32]byte

	service *Service
	shard   *routing.Shard
	back    routing.Route
	done    atomic.Bool
	timer   *time.Timer
	late    Fields
	cancel  func()
	waits   bool
}

// Options configure a Service.
type Options struct {
	// Allow decides whether a peer may ask at all; nil allows whoever has a secure channel. It runs on the service's goroutine.
	Allow func(peer [32]byte) bool
	// Flows are from where the service can be reached: of channels only.
	Flows []*routing.Flow
	Log   *slog.Logger
}

// Stats counts requests, for metrics.
type Stats struct {
	Answered, Denied, Busy, Malformed, Unknown atomic.Uint64
	Waiting                                    atomic.Int64
}

// Service answers requests.
type Service struct {
	opts  Options
	queue chan *Call
	stop  chan struct{}
	ended chan struct{}
	once  sync.Once
	// Stats counts requests.
	Stats Stats

	mu       sync.Mutex
	handlers map[Op]Handler
	peers    map[[32]byte]*peer
	waiting  map[*Call]struct{}
	leaving  bool
}

// peer is what is counted of one identity.
type peer struct {
	left    float64
	at      time.Time
	waiting int
}

// New starts the service on every shard of r. OpProbe and OpLeaving are answered; Handle adds others.
func New(ctx context.Context, r *routing.Router, o Options) (*Service, error) {
	s := &Service{
		opts: o, queue: make(chan *Call, queueSize), stop: make(chan struct{}), ended: make(chan struct{}),
		handlers: map[Op]Handler{}, peers: map[[32]byte]*peer{}, waiting: map[*Call]struct{}{},
	}
	s.Handle(OpProbe, func(c *Call) { c.Answer(StatusOK, Fields{Data: c.Request.Data}) })
	s.Handle(OpLeaving, func(c *Call) { c.Await(Fields{}, func() {}) })
	if err := r.StartNamed(ctx, Address, func(*routing.Shard) routing.Worker { return routing.WorkerFunc(s.take) }, o.Flows...); err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

// Handle sets the handler of a kind of request. Any goroutine.
func (s *Service) Handle(op Op, h Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[op] = h
}

// Close answers whoever waits that the node stops, and ends the service. Answers have been given to the shards when it returns. Not on a shard.
func (s *Service) Close() {
	s.once.Do(func() {
		close(s.stop)
		<-s.ended
		s.mu.Lock()
		s.leaving = true
		list := make([]*Call, 0, len(s.waiting))
		for c := range s.waiting {
			list = append(list, c)
		}
		s.mu.Unlock()
		for _, c := range list {
			c.Answer(StatusLeaving, Fields{})
		}
	})
}

// take is the worker: it copies the request for the service's goroutine.
func (s *Service) take(sh *routing.Shard, m *routing.Message) {
	if m.Peer == nil || m.Return.Len() == 0 { // without a channel nobody knows who asks
		s.Stats.Denied.Add(1)
		return
	}
	request, err := Parse(m.Payload())
	if err != nil || request.Answer {
		s.Stats.Malformed.Add(1)
		return
	}
	c := &Call{Request: request, Peer: m.Peer.ID, service: s, shard: sh, back: m.Return.Clone()}
	select {
	case s.queue <- c:
	default:
		s.Stats.Busy.Add(1)
		c.send(StatusBusy, Fields{})
	}
}

func (s *Service) run() {
	defer close(s.ended)
	tick := time.NewTicker(forgetAfter)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			s.forget(now)
		case c := <-s.queue:
			c.shard.Loop().Guard("a control request", func() { s.handle(c) })
		}
	}
}

// forget drops what is counted of identities that have asked nothing for a while.
func (s *Service) forget(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.peers {
		if p.waiting == 0 && now.Sub(p.at) > forgetAfter {
			delete(s.peers, id)
		}
	}
}

func (s *Service) handle(c *Call) {
	s.mu.Lock()
	ok := s.admit(c, time.Now())
	h := s.handlers[Op(c.Request.Code)]
	s.mu.Unlock()
	switch {
	case !ok:
		s.Stats.Busy.Add(1)
		c.Answer(StatusBusy, Fields{})
	case s.opts.Allow != nil && !s.opts.Allow(c.Peer):
		s.Stats.Denied.Add(1)
		c.Answer(StatusDenied, Fields{})
	case h == nil:
		s.Stats.Unknown.Add(1)
		c.Answer(StatusUnknown, Fields{})
	default:
		h(c)
	}
}

// admit counts a request of its identity. mu is held.
func (s *Service) admit(c *Call, now time.Time) bool {
	p := s.peers[c.Peer]
	if p == nil {
		p = &peer{left: perPeerBurst, at: now}
		s.peers[c.Peer] = p
	}
	p.left = min(p.left+perPeerRate*now.Sub(p.at).Seconds(), perPeerBurst)
	p.at = now
	if p.left < 1 {
		return false
	}
	p.left--
	return true
}

// Way is the address of this node's worker that leads back to the asker: its channel's.
func (c *Call) Way() string { return c.back.First().Value }

// Await keeps a call for its Wait: late is the answer when that has passed. cancel is called once, when it has been answered in whatever
// way. Too many calls that wait are answered as busy. On the service's goroutine.
func (c *Call) Await(late Fields, cancel func()) {
	s := c.service
	s.mu.Lock()
	p := s.peers[c.Peer]
	if s.leaving || p == nil || p.waiting >= perPeerWaiting || len(s.waiting) >= allWaiting {
		leaving := s.leaving
		s.mu.Unlock()
		cancel()
		if leaving {
			c.Answer(StatusLeaving, Fields{})
			return
		}
		s.Stats.Busy.Add(1)
		c.Answer(StatusBusy, Fields{})
		return
	}
	if c.done.Load() { // by an event
		s.mu.Unlock()
		cancel()
		return
	}
	c.waits, c.cancel, c.late = true, cancel, late
	p.waiting++
	s.waiting[c] = struct{}{}
	s.Stats.Waiting.Add(1)
	c.timer = time.AfterFunc(c.Request.Wait, func() { c.Answer(StatusOK, c.late) })
	s.mu.Unlock()
}

// Answer sends the answer, unless one was sent. Any goroutine.
func (c *Call) Answer(status Status, f Fields) {
	if c.done.Swap(true) {
		return
	}
	s := c.service
	s.mu.Lock()
	var cancel func()
	if c.waits {
		c.timer.Stop()
		delete(s.waiting, c)
		if p := s.peers[c.Peer]; p != nil {
			p.waiting--
		}
		s.Stats.Waiting.Add(-1)
		cancel = c.cancel
	}
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	s.Stats.Answered.Add(1)
	c.send(status, f)
}

func (c *Call) send(status Status, f Fields) {
	m := Message{Answer: true, ID: c.Request.ID, Code: uint64(status), Fields: f}
	payload, s, back := m.Append(nil), c.shard, c.back
	s.Loop().Post(dataplane.TaskFunc(func() {
		out := s.NewMessage()
		out.SetRoutes(back, routing.LocalRoute(Address))
		out.SetPayloadBytes(payload)
		s.Deliver(out)
		s.Free(out)
	}))
}
