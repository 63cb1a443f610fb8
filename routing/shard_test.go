package routing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"sallyport/dataplane"
	"sallyport/internal/await"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newRouter makes a router of n shards that ends with the test.
func newRouter(t testing.TB, n int) *Router {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	g, err := dataplane.NewGroup(n, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	r, err := NewRouter(g, log)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var (
	limited    = await.Context
	eventually = await.True
)

// on runs f on shard s.
func on(t testing.TB, s *Shard, f func()) {
	t.Helper()
	if err := s.Do(limited(t), f); err != nil {
		t.Fatal(err)
	}
}

// named starts a worker and fails the test if it cannot.
func named(t testing.TB, r *Router, name string, w Worker, flows ...*Flow) {
	t.Helper()
	if err := r.StartNamed(limited(t), name, func(*Shard) Worker { return w }, flows...); err != nil {
		t.Fatal(err)
	}
}

// drops adds a counter up over the shards.
func drops(r *Router, of func(*Drops) *atomic.Uint64) (n uint64) {
	for _, s := range r.shards {
		n += of(&s.Drops).Load()
	}
	return n
}

// from marks a message as brought by p and delivers it to name.
func from(s *Shard, p *Producer, name string) {
	m := s.NewMessage()
	m.Onward = LocalRoute(name)
	m.SetProducer(p)
	s.Deliver(m)
	s.Free(m)
}

// TestFlowControl follows the table of docs/protocol/01 §5.5: what a producer emits reaches the consumers of its own flow and of
// its spawner's, and nothing else.
func TestFlowControl(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	l, c1, c2, other := NewFlow(), NewFlow(), NewFlow(), NewFlow()
	accepted := &Producer{Own: c1, Spawner: l} // a connection accepted by listener l
	outgoing := &Producer{Own: c2}             // a connection opened by this node
	for _, tc := range []struct {
		name     string
		producer *Producer
		consumes []*Flow
		reached  bool
	}{
		{"nobody's consumer", accepted, nil, false},
		{"consumer of another flow", accepted, []*Flow{other}, false},
		{"consumer of another connection", accepted, []*Flow{c2}, false},
		{"consumer of the connection", accepted, []*Flow{c1}, true},
		{"consumer of the listener", accepted, []*Flow{l}, true},
		{"consumer of both", accepted, []*Flow{other, l, c1}, true},
		{"outgoing, consumer of the listener", outgoing, []*Flow{l}, false},
		{"outgoing, consumer of the connection", outgoing, []*Flow{c2}, true},
		{"outgoing, consumer of nothing", outgoing, nil, false},
		{"local sender", nil, nil, true},
		{"local sender, consumer of a flow", nil, []*Flow{other}, true},
	} {
		on(t, s, func() {
			reached := false
			a := s.Start(WorkerFunc(func(*Shard, *Message) { reached = true }), tc.consumes...)
			before := s.Drops.Flow.Load()
			from(s, tc.producer, a.Text())
			if reached != tc.reached {
				t.Errorf("%s: reached %v, want %v", tc.name, reached, tc.reached)
			}
			if dropped := s.Drops.Flow.Load() - before; (dropped == 1) == tc.reached {
				t.Errorf("%s: %d drops counted", tc.name, dropped)
			}
			// Consumers come and go.
			if tc.producer != nil && !tc.reached {
				s.AddConsumer(a.Text(), tc.producer.Own)
				from(s, tc.producer, a.Text())
				if !reached {
					t.Errorf("%s: not reached after AddConsumer", tc.name)
				}
				reached = false
				s.RemoveConsumer(a.Text(), tc.producer.Own)
				from(s, tc.producer, a.Text())
				if reached {
					t.Errorf("%s: reached after RemoveConsumer", tc.name)
				}
				if !slices.Equal(s.Consumes(a.Text()), tc.consumes) {
					t.Errorf("%s: consumes %v at the end", tc.name, s.Consumes(a.Text()))
				}
			}
			s.Stop(a)
			before = s.Drops.NoWorker.Load()
			from(s, tc.producer, a.Text())
			if s.Drops.NoWorker.Load() != before+1 {
				t.Errorf("%s: a stopped worker is still there", tc.name)
			}
		})
	}
	// Only the first hop is looked at: a worker that may be reached passes on to one that may not.
	named(t, r, "hop", Hop("hop"), l)
	hidden := false
	named(t, r, "hidden", WorkerFunc(func(_ *Shard, m *Message) { hidden = m.Return.First().Value == "hop" }))
	on(t, s, func() {
		m := s.NewMessage()
		m.Onward = LocalRoute("hop", "hidden")
		m.SetProducer(accepted)
		s.Deliver(m)
		s.Free(m)
	})
	if !hidden {
		t.Error("the route's tail was held against the message")
	}
	// A named worker can be opened for a flow later, and closed again.
	if err := r.AddConsumer(limited(t), "hidden", c2); err != nil {
		t.Fatal(err)
	}
	on(t, s, func() {
		if got := s.Consumes("hidden"); !slices.Contains(got, c2) {
			t.Error("AddConsumer of the router did nothing")
		}
	})
	r.RemoveConsumer("hidden", c2)
	on(t, s, func() {
		if got := s.Consumes("hidden"); slices.Contains(got, c2) {
			t.Error("RemoveConsumer of the router did nothing")
		}
	})
	// Flows are found by id while they are registered.
	r.RegisterFlow(l)
	if r.LookupFlow(l.ID()) != l || len(l.ID()) != 32 {
		t.Error("flow not found")
	}
	r.ForgetFlow(l)
	if r.LookupFlow(l.ID()) != nil || (*Flow)(nil).ID() != "" {
		t.Error("forgotten flow found")
	}
}

// TestCrossShardFlow sends over shards: the rule holds at the destination.
func TestCrossShardFlow(t *testing.T) {
	r := newRouter(t, 2)
	a, b := r.shards[0], r.shards[1]
	mine := NewFlow()
	var got atomic.Int64
	var open, shut WireAddress
	on(t, b, func() {
		count := WorkerFunc(func(s *Shard, _ *Message) {
			if s != b {
				t.Error("handled on the wrong shard")
			}
			got.Add(1)
		})
		open, shut = b.Start(count, mine), b.Start(count)
	})
	on(t, a, func() {
		from(a, &Producer{Own: mine}, open.Text())
		from(a, &Producer{Own: mine}, shut.Text())
		from(a, nil, shut.Text())
	})
	eventually(t, "messages handled", func() bool { return got.Load() == 2 && drops(r, func(d *Drops) *atomic.Uint64 { return &d.Flow }) == 1 })
}

func TestNotDelivered(t *testing.T) {
	r := newRouter(t, 2)
	s := r.shards[0]
	on(t, s, func() {
		m := s.NewMessage()
		s.Deliver(m) // no onward route: a heartbeat
		m.Onward = NewRoute(Address{Type: TCP, Value: "127.0.0.1:1"}, LocalAddress("echo"))
		s.Deliver(m)
		m.Onward = LocalRoute("nobody")
		s.Deliver(m)
		m.Onward = LocalRoute("00112233445566778899aabbccddeeff") // has this shard's form
		s.Deliver(m)
		m.Onward = LocalRoute("zz112233445566778899aabbccddeeff")
		s.Deliver(m)
		s.Free(m)
	})
	if n := s.Drops.NotLocal.Load(); n != 1 {
		t.Errorf("%d not local, want 1", n)
	}
	if n := s.Drops.NoWorker.Load(); n != 3 {
		t.Errorf("%d without worker, want 3", n)
	}
	on(t, s, func() { // the form of the other shard: it is sent there and dropped there
		m := s.NewMessage()
		m.Onward = LocalRoute("01112233445566778899aabbccddeeff")
		s.Deliver(m)
		s.Free(m)
	})
	eventually(t, "dropped on the other shard", func() bool { return r.shards[1].Drops.NoWorker.Load() == 1 })
}

// TestLoopEnds sends a message into a circle of routes.
func TestLoopEnds(t *testing.T) {
	for _, shards := range []int{1, 2} {
		r := newRouter(t, shards)
		var passed atomic.Int64
		circle := func(next *WireAddress) Worker {
			return WorkerFunc(func(s *Shard, m *Message) {
				passed.Add(1)
				m.PopOnward()
				m.PushOnward(RouteOf(*next))
				s.Deliver(m)
			})
		}
		var a, b WireAddress
		last := r.shards[shards-1]
		on(t, r.shards[0], func() { a = r.shards[0].Start(circle(&b)) })
		on(t, last, func() { b = last.Start(circle(&a)) })
		r.Inject(RouteOf(a), Route{}, []byte("round"))
		eventually(t, "loop ended", func() bool { return drops(r, func(d *Drops) *atomic.Uint64 { return &d.Loop }) == 1 })
		if n := passed.Load(); n > maxHops || n < maxHops-20 { // turns through the inbox count as deliveries too
			t.Errorf("%d shards: passed %d times, want about %d", shards, n, maxHops)
		}
		for _, s := range r.shards { // the shards are well and at rest
			on(t, s, func() {
				if s.depth != 0 {
					t.Errorf("depth %d left", s.depth)
				}
			})
		}
	}
}

// TestLongRoute goes through more workers than deliveries nest.
func TestLongRoute(t *testing.T) {
	r := newRouter(t, 1)
	named(t, r, "hop", Hop("hop"))
	named(t, r, "echo", Echo(nil, nil))
	var route []string
	for range 60 {
		route = append(route, "hop")
	}
	payload := bytes.Repeat([]byte("x"), 50_000)
	reply, err := r.Request(limited(t), LocalRoute(append(route, "echo")...), payload)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(reply.Payload, payload) || reply.Return.Len() != 61 || reply.Onward.Len() != 1 {
		t.Errorf("%d bytes, onward %d, return %d hops", len(reply.Payload), reply.Onward.Len(), reply.Return.Len())
	}
}

func TestRequestAcrossShards(t *testing.T) {
	r := newRouter(t, 3)
	named(t, r, "uppercase", Uppercase())
	var hops []string
	for _, s := range r.shards { // a chain of workers, one a shard
		on(t, s, func() {
			a := s.NewAddress()
			s.StartAs(a, Hop(a.Text()))
			hops = append(hops, a.Text())
			if r.ShardOf(a.Text()) != s || r.ShardFor(RouteOf(a)) != s {
				t.Error("address does not name its shard")
			}
		})
	}
	route := LocalRoute(append(hops, hops[1], hops[0], "uppercase")...)
	reply, err := r.Request(limited(t), route, []byte("\x05hello"))
	if err != nil {
		t.Fatal(err)
	}
	if string(reply.Payload) != "\x05HELLO" || reply.Return.Len() != 6 {
		t.Errorf("%q, return %s", reply.Payload, reply.Return)
	}
	// What is no text gets no answer, and is counted.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.Request(ctx, LocalRoute("uppercase"), []byte{5, 'x'}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("answered: %v", err)
	}
	if drops(r, func(d *Drops) *atomic.Uint64 { return &d.Malformed }) != 1 {
		t.Error("not counted")
	}
}

// TestShardOf: a random address tells its shard; what has another form tells none.
func TestShardOf(t *testing.T) {
	r := newRouter(t, 3)
	for i, s := range r.Shards() {
		if got := r.ShardOf(s.NewAddress().Text()); got != s {
			t.Errorf("an address of shard %d is taken for another's", i)
		}
	}
	rest := "0123456789abcdef0123456789abcd"
	for _, address := range []string{"", "echo", "00", "03" + rest, "ff" + rest, "zz" + rest, "0" + rest, "000" + rest, "0x" + rest} {
		if got := r.ShardOf(address); got != nil {
			t.Errorf("%q belongs to shard %d", address, got.ID())
		}
	}
}

// TestMayReach: what comes in reaches consumers of its own flow, of its listener's, or, when this node began it, of Begun; nothing else.
func TestMayReach(t *testing.T) {
	own, spawner, begun, other := NewFlow(), NewFlow(), NewFlow(), NewFlow()
	if own.ID() == other.ID() || len(own.ID()) != 32 {
		t.Errorf("flows have the ids %s and %s", own.ID(), other.ID())
	}
	accepted, dialed := &Producer{Own: own, Spawner: spawner}, &Producer{Own: own}
	for _, c := range []struct {
		name     string
		producer *Producer
		flows    []*Flow
		want     bool
	}{
		{"no flow", accepted, nil, false}, {"another flow", accepted, []*Flow{other}, false}, {"its own", accepted, []*Flow{other, own}, true},
		{"its listener's", accepted, []*Flow{spawner}, true}, {"accepted, for what was begun", accepted, []*Flow{begun}, false},
		{"begun", dialed, []*Flow{other, begun}, true}, {"begun, its own", dialed, []*Flow{own}, true}, {"begun, a listener's", dialed, []*Flow{spawner}, false},
		{"a nil flow", accepted, []*Flow{nil}, false}, {"begun, a nil flow", dialed, []*Flow{nil}, false},
	} {
		if got := c.producer.mayReach(c.flows, begun); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestNames(t *testing.T) {
	r := newRouter(t, 2)
	ctx := limited(t)
	nothing := func(*Shard) Worker { return WorkerFunc(func(*Shard, *Message) {}) }
	if err := r.StartNamed(ctx, "a", nothing); err != nil {
		t.Fatal(err)
	}
	if err := r.StartNamed(ctx, "a", nothing); !errors.Is(err, ErrExists) {
		t.Errorf("second start: %v", err)
	}
	if list, err := r.Addresses(ctx); err != nil || !slices.Equal(list, []string{"a"}) {
		t.Errorf("%v, %v", list, err)
	}
	if err := r.StopNamed(ctx, "a"); err != nil || r.HasNamed("a") {
		t.Errorf("stop: %v", err)
	}
	if err := r.StopNamed(ctx, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second stop: %v", err)
	}
	if list, _ := r.Addresses(ctx); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
}

func TestMailboxOverflow(t *testing.T) {
	r := newRouter(t, 1)
	b, err := r.OpenMailbox(limited(t), Route{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range mailboxSize + 3 {
		r.Inject(NewRoute(b.Address()), LocalRoute("x"), []byte{byte(i)})
	}
	on(t, r.shards[0], func() {})
	if n := r.shards[0].Drops.Overflow.Load(); n != 3 {
		t.Errorf("%d dropped, want 3", n)
	}
	for i := range mailboxSize {
		if m, err := b.Receive(limited(t)); err != nil || m.Payload[0] != byte(i) {
			t.Fatalf("message %d: %v, %v", i, m, err)
		}
	}
	b.Close()
	r.Inject(NewRoute(b.Address()), Route{}, nil)
	on(t, r.shards[0], func() {})
	if r.shards[0].Drops.NoWorker.Load() != 1 {
		t.Error("closed mailbox still there")
	}
}

// switched is a Source that remembers what it was told.
type switched struct{ paused, pauses, resumes int }

func (s *switched) PauseSource()  { s.paused++; s.pauses++ }
func (s *switched) ResumeSource() { s.paused--; s.resumes++ }

func TestThrottle(t *testing.T) {
	r := newRouter(t, 2)
	s, o := r.shards[0], r.shards[1]
	src, lost := &switched{}, &switched{}
	th, gone := NewThrottle(s, src), NewThrottle(s, lost)
	g1, g2, far := NewGate(s), NewGate(s), NewGate(o)
	on(t, s, func() {
		g1.Pause(nil)
		if g1.Shut() {
			t.Error("a message without source shut the gate")
		}
		g1.Pause(th)
		g1.Pause(th)
		g2.Pause(th)
		g2.Pause(gone)
		if src.paused != 1 || src.pauses != 1 || !g1.Shut() || lost.paused != 1 {
			t.Errorf("%+v after three pauses", src)
		}
		gone.Close()
		g1.Open()
		if src.paused != 1 || g1.Shut() {
			t.Errorf("%+v after the first gate opened", src)
		}
	})
	on(t, o, func() { far.Pause(th) })
	on(t, s, func() { // after the pause that was posted
		g2.Open()
		if src.paused != 1 || lost.resumes != 0 {
			t.Errorf("%+v while another shard's gate is shut, %+v closed", src, lost)
		}
	})
	on(t, o, func() { far.Open(); far.Open() })
	on(t, s, func() {
		if src.paused != 0 || src.resumes != 1 {
			t.Errorf("%+v at the end", src)
		}
		g1.Pause(th)
		g1.Open()
		if src.paused != 0 || src.pauses != 2 {
			t.Errorf("%+v after another round", src)
		}
	})
}

// TestGrow makes room around payloads: in place while there is some, by moving when not, with the content kept.
func TestGrow(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	on(t, s, func() {
		for _, size := range []int{0, 1, 5000, 200_000, 600_000} {
			m := s.NewMessage()
			data := bytes.Repeat([]byte{7}, size)
			m.SetPayloadBytes(data)
			for layer := range 30 {
				head, tail := m.Room()
				was := unsafe.SliceData(m.buf)
				b := m.Grow(s, 40, 20)
				if len(b) != size+60*(layer+1) {
					t.Fatalf("size %d", len(b))
				}
				if moved := unsafe.SliceData(m.buf) != was; moved != (head < 40 || tail < 20) {
					t.Errorf("moved %v with room %d, %d", moved, head, tail)
				}
				copy(b, bytes.Repeat([]byte{1}, 40))
				copy(b[len(b)-20:], bytes.Repeat([]byte{2}, 20))
				inner := b[40*(layer+1) : 40*(layer+1)+size]
				if !bytes.Equal(inner, data) || bytes.Count(b[:40*(layer+1)], []byte{1}) != 40*(layer+1) {
					t.Fatalf("content lost at layer %d of %d bytes", layer, size)
				}
				s.depth = min(s.depth+1, maxDepth) // the next worker's scratch memory
			}
			s.depth = 0
			m.Narrow(40, len(m.Payload())-20)
			if h, tl := m.Room(); h < 40 || tl < 20 {
				t.Errorf("room %d, %d after Narrow", h, tl)
			}
			s.Free(m)
		}
	})
}

func TestAllocsDeliver(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	named(t, r, "a", Hop("a"))
	named(t, r, "b", Hop("b"))
	got := 0
	named(t, r, "end", WorkerFunc(func(_ *Shard, m *Message) { got += len(m.Payload()) }))
	on(t, s, func() {
		route, back, payload := LocalRoute("a", "b", "a", "end"), LocalRoute("00112233445566778899aabbccddeeff"), make([]byte, 100)
		if n := testing.AllocsPerRun(1000, func() {
			m := s.NewMessage()
			m.Onward, m.Return = route, back
			m.SetPayloadBytes(payload)
			s.Deliver(m)
			s.Free(m)
		}); n != 0 {
			t.Errorf("a message through three hops allocates %v times", n)
		}
	})
	if got != 1001*100 {
		t.Errorf("%d bytes delivered", got)
	}
}

// counter is about the smallest worker with state.
type counter struct{ n uint32 }

func (c *counter) HandleMessage(*Shard, *Message) { c.n++ }

// BenchmarkMillionWorkers delivers to a million live workers in turn and reports what each costs in memory.
func BenchmarkMillionWorkers(b *testing.B) {
	r := newRouter(b, 1)
	s := r.shards[0]
	const workers = 1_000_000
	routes := make([]Route, workers)
	before := heap()
	on(b, s, func() {
		for i := range routes {
			routes[i] = RouteOf(s.Start(&counter{}))
		}
	})
	perWorker := float64(heap()-before) / workers
	payload := make([]byte, 64)
	i := 0
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	if err := s.Do(context.Background(), func() {
		for range b.N {
			m := s.NewMessage()
			m.Onward = routes[i]
			m.SetPayloadBytes(payload)
			s.Deliver(m)
			s.Free(m)
			if i += 7919; i >= workers {
				i -= workers
			}
		}
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "messages/s")
	b.ReportMetric(perWorker, "bytes/worker")
}

// BenchmarkHops delivers through three hops of one shard, and between two shards.
func BenchmarkHops(b *testing.B) {
	for _, shards := range []int{1, 2} {
		b.Run(fmt.Sprintf("shards=%d", shards), func(b *testing.B) {
			r := newRouter(b, shards)
			done := make(chan struct{})
			var n atomic.Int64
			s := r.shards[shards-1]
			var end WireAddress
			on(b, s, func() {
				end = s.Start(WorkerFunc(func(*Shard, *Message) {
					if n.Add(1) == int64(b.N) {
						close(done)
					}
				}))
			})
			named(b, r, "a", Hop("a"))
			route, back := LocalRoute("a", "a", "a").Concat(RouteOf(end)), LocalRoute("00112233445566778899aabbccddeeff")
			payload := make([]byte, 64)
			b.ReportAllocs()
			b.ResetTimer()
			on(b, r.shards[0], func() {
				first := r.shards[0]
				for range b.N {
					m := first.NewMessage()
					m.Onward, m.Return = route, back
					m.SetPayloadBytes(payload)
					first.Deliver(m)
					first.Free(m)
				}
			})
			<-done
		})
	}
}
