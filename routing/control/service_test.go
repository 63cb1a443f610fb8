package control

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/internal/await"
	"sallyport/routing"
	"sallyport/routing/routertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// channel stands for a secure channel to the service's node: what is sent into it arrives there as from its peer, and answers come back.
type channel struct {
	routing.Watchers
	peer     *routing.Peer
	producer routing.Producer
	self     routing.WireAddress
}

func (c *channel) TerminalPeer() *routing.Peer         { return c.peer }
func (c *channel) TerminalProducer() *routing.Producer { return &c.producer }
func (c *channel) HandleMessage(s *routing.Shard, m *routing.Message) {
	m.PopOnward()
	m.PushReturn(c.self)
	m.Peer = c.peer
	m.SetProducer(&c.producer)
	s.Deliver(m)
}

type stage struct {
	router  *routing.Router
	service *Service
	flow    *routing.Flow
}

func newStage(t *testing.T, allow func([32]byte) bool) *stage {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := routertest.New(t, 2, log)
	var err error
	st := &stage{router: r, flow: routing.NewFlow()}
	if st.service, err = New(t.Context(), r, Options{Allow: allow, Flows: []*routing.Flow{st.flow}, Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.service.Close)
	return st
}

// peer opens a channel to the node; nil has no identity.
func (st *stage) peer(t *testing.T, p *routing.Peer) routing.Route {
	t.Helper()
	s := st.router.Shards()[1]
	c := &channel{peer: p, producer: routing.Producer{Own: routing.NewFlow(), Spawner: st.flow}}
	if err := s.Do(t.Context(), func() { c.self = s.Start(c) }); err != nil {
		t.Fatal(err)
	}
	return routing.RouteOf(c.self)
}

func (st *stage) ask(t *testing.T, route routing.Route, op Op, f Fields) (Message, error) {
	t.Helper()
	return Ask(await.Context(t), st.router, route, op, f)
}

func TestService(t *testing.T) {
	member := &routing.Peer{ID: [32]byte{1}}
	st := newStage(t, func(id [32]byte) bool { return id == member.ID })
	route := st.peer(t, member)
	if m, err := st.ask(t, route, OpProbe, Fields{Data: []byte("abc")}); err != nil || m.Err() != nil || string(m.Data) != "abc" {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := st.ask(t, route, 99, Fields{}); err != nil || m.Code != uint64(StatusUnknown) || !errors.Is(m.Err(), ErrRefused) {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := st.ask(t, st.peer(t, &routing.Peer{ID: [32]byte{2}}), OpProbe, Fields{}); err != nil || m.Code != uint64(StatusDenied) {
		t.Errorf("a stranger: %+v, %v", m, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if m, err := Ask(ctx, st.router, st.peer(t, nil), OpProbe, Fields{}); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("without a channel: %+v, %v", m, err)
	}
	await.True(t, "both were denied", func() bool { return st.service.Stats.Denied.Load() == 2 })
	if n := st.service.Stats.Unknown.Load(); n != 1 {
		t.Errorf("%d unknown", n)
	}
}

// TestWaiting: a request that waits is answered by an event, by time, or when the node stops, and once.
func TestWaiting(t *testing.T) {
	st := newStage(t, nil)
	route := st.peer(t, &routing.Peer{ID: [32]byte{1}})
	var cancelled atomic.Int32
	event := make(chan *Call, 1)
	st.service.Handle(50, func(c *Call) {
		c.Await(Fields{Reason: "late"}, func() { cancelled.Add(1) })
		event <- c
	})
	if m, err := st.ask(t, route, 50, Fields{Wait: time.Millisecond}); err != nil || m.Reason != "late" {
		t.Errorf("%+v, %v", m, err)
	}
	(<-event).Answer(StatusBusy, Fields{}) // comes too late
	go func() { (<-event).Answer(StatusOK, Fields{Reason: "event"}) }()
	if m, err := st.ask(t, route, 50, Fields{Wait: time.Minute}); err != nil || m.Reason != "event" {
		t.Errorf("%+v, %v", m, err)
	}
	leaving := make(chan Message, 1)
	go func() {
		m, _ := st.ask(t, route, OpLeaving, Fields{Wait: time.Minute})
		leaving <- m
	}()
	for st.service.Stats.Waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	st.service.Close()
	if m := <-leaving; m.Code != uint64(StatusLeaving) {
		t.Errorf("%+v", m)
	}
	for end := time.Now().Add(90 * time.Second); cancelled.Load() != 2 || st.service.Stats.Waiting.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d cancelled, %d waiting", cancelled.Load(), st.service.Stats.Waiting.Load())
		}
	}
}

// TestLimits: one identity is told that it asks too much, another one is not.
func TestLimits(t *testing.T) {
	st := newStage(t, nil)
	one, two := &routing.Peer{ID: [32]byte{1}}, &routing.Peer{ID: [32]byte{2}}
	route := st.peer(t, one)
	s := st.router.Shards()[1]
	m := Message{Code: uint64(OpProbe)}
	payload := m.Append(nil)
	busy := func() bool { return st.service.Stats.Busy.Load() > 0 }
	for end := time.Now().Add(90 * time.Second); !busy(); time.Sleep(time.Millisecond) { // more than may come at once, in pieces that the queue takes
		if time.Now().After(end) {
			t.Fatal("nobody was told that it asks too much")
		}
		if err := s.Do(t.Context(), func() {
			for range 1000 {
				out := s.NewMessage()
				out.SetRoutes(route.Concat(routing.LocalRoute(Address)), routing.LocalRoute("nobody"))
				out.SetPayloadBytes(payload)
				s.Deliver(out)
				s.Free(out)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := st.ask(t, st.peer(t, two), OpProbe, Fields{}); err != nil || m.Err() != nil {
		t.Errorf("the other one: %+v, %v", m, err)
	}
	st.service.forget(time.Now().Add(time.Hour))
	if len(st.service.peers) != 0 {
		t.Errorf("%d identities remembered", len(st.service.peers))
	}
}
