package portal

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
	"sallyport/routing/routertest"
)

// simEnd is one end of a simulated channel: a Terminal whose messages come out at its other end, of which some are lost, until it is cut.
type simEnd struct {
	routing.Watchers
	shard    *routing.Shard
	self     routing.WireAddress
	peer     routing.Peer // who is at the other end
	producer routing.Producer
	other    *simEnd
	rand     *rand.Rand // for this end's shard
	lose     int        // of 10,000 messages
	quiet    bool       // a loss shows only in what is missing
	gap      bool
	cut      bool
	seen     func(payload []byte) // what passes; may be nil
}

func (e *simEnd) TerminalPeer() *routing.Peer         { return &e.peer }
func (e *simEnd) TerminalProducer() *routing.Producer { return &e.producer }
func (e *simEnd) Lossy(*routing.Shard) bool           { return e.lose > 0 }
func (e *simEnd) post(f func())                       { e.shard.Loop().Post(dataplane.TaskFunc(f)) }
func (e *simEnd) HandleMessage(_ *routing.Shard, m *routing.Message) {
	m.PopOnward()
	onward, ret, payload := m.Onward.Clone(), m.Return.Clone(), append([]byte(nil), m.Payload()...)
	if e.seen != nil {
		e.seen(payload)
	}
	e.other.post(func() { e.other.deliver(onward, ret, payload) })
}

func (e *simEnd) deliver(onward, ret routing.Route, payload []byte) {
	if e.cut {
		return
	}
	if e.lose > 0 && e.rand.IntN(10_000) < e.lose && payload[0] != kindPing && (payload[0] != kindPong || !e.quiet) { // nobody would notice
		e.gap = true
		return
	}
	if e.gap && !e.quiet {
		e.gap = false
		e.TellLost()
	}
	m := e.shard.NewMessage()
	m.SetRoutes(onward, ret)
	m.PushReturn(e.self)
	m.Peer = &e.peer
	m.SetPayloadBytes(payload)
	m.SetProducer(&e.producer)
	e.shard.Deliver(m)
	e.shard.Free(m)
}

// end ends this end of the channel; what is on its way to it is lost.
func (e *simEnd) end() {
	if !e.cut {
		e.cut = true
		e.shard.Stop(e.self)
		e.Tell()
	}
}

// simulated is an inlet and an outlet on two nodes, and the channel between them.
type simulated struct {
	in, out   *simNode
	inlet     *Inlet
	outlet    *Outlet
	ids       [2][32]byte
	rand      *rand.Rand
	lose      int
	quiet     bool
	seen      func(payload []byte)
	records   *recorder     // of the inlet's node when it has been upgraded; may be nil
	limits    Limits        // of a node that has been upgraded
	age       time.Duration // how long ago what it goes on with was written down
	near, far *simEnd
	wanted    atomic.Int64 // times that the inlet asked for lanes
	slow      atomic.Int64 // the same, only if segments are lost
}

type simNode struct {
	router *routing.Router
	env    *Env
	flow   *routing.Flow
}

func newSimNode(t testing.TB, shards int, limits Limits) *simNode {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	r := routertest.New(t, shards, log)
	return &simNode{router: r, env: &Env{Limits: limits.WithDefaults(), Stats: &Stats{}, Log: log}, flow: routing.NewFlow()}
}

// processOf returns what a new process of a node is known by.
func processOf(node string) (p [32]byte) {
	copy(p[:16], node)
	id := newToken()
	copy(p[16:], id[:])
	return p
}

func newSimulated(t testing.TB, seed uint64, shards int, limits Limits, hold time.Duration, o OutletOptions) *simulated {
	t.Helper()
	s := &simulated{in: newSimNode(t, shards, limits), out: newSimNode(t, shards, limits), rand: rand.New(rand.NewPCG(seed, 7))}
	s.ids[0][0], s.ids[1][0] = 1, 2
	s.in.env.Process = processOf("inlet")
	var err error
	o.Name, o.Flows, o.Hold = "outlet", []*routing.Flow{s.out.flow}, hold
	if s.outlet, err = NewOutlet(context.Background(), s.out.env, s.out.router, o); err != nil {
		t.Fatal(err)
	}
	s.inlet, err = NewInlet(context.Background(), s.in.env, s.in.router, InletOptions{
		Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Hold: hold, WantLanes: func(slow bool) {
			if slow {
				s.slow.Add(1)
			} else {
				s.wanted.Add(1)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// channel makes a channel between two nodes, each end on a shard of its choice, that shows a to b and b to a.
func (s *simulated) channel(t testing.TB, a, b [32]byte) (near, far *simEnd) {
	t.Helper()
	pick := func(n *simNode) *routing.Shard { return n.router.Shards()[s.rand.IntN(len(n.router.Shards()))] }
	make := func(n *simNode, peer [32]byte) *simEnd {
		e := &simEnd{shard: pick(n), peer: routing.Peer{ID: peer}, lose: s.lose, quiet: s.quiet, seen: s.seen,
			producer: routing.Producer{Own: routing.NewFlow(), Spawner: n.flow}, rand: rand.New(rand.NewPCG(s.rand.Uint64(), 1))}
		if err := e.shard.Do(limited(t), func() { e.self = e.shard.Start(e) }); err != nil {
			t.Fatal(err)
		}
		return e
	}
	near, far = make(s.in, b), make(s.out, a)
	near.other, far.other = far, near
	return near, far
}

// connect gives the inlet a new path; the one before stays.
func (s *simulated) connect(t testing.TB) {
	t.Helper()
	s.near, s.far = s.channel(t, s.ids[0], s.ids[1])
	s.inlet.SetPath(routing.NewRoute(s.near.self.Address(), routing.LocalAddress("outlet")))
}

// cut ends the path at both ends, at one of them a little later.
func (s *simulated) cut() {
	first, second := s.near, s.far
	if s.rand.IntN(2) == 0 {
		first, second = second, first
	}
	first.post(first.end)
	time.Sleep(time.Duration(s.rand.IntN(3000)) * time.Microsecond)
	second.post(second.end)
	if s.rand.IntN(2) == 0 {
		s.inlet.SetPath(routing.Route{})
	}
}

// lane makes another channel and returns the route over it, and what ends it.
func (s *simulated) lane(t testing.TB) (route routing.Route, cut func()) {
	t.Helper()
	near, far := s.channel(t, s.ids[0], s.ids[1])
	return routing.NewRoute(near.self.Address(), routing.LocalAddress("outlet")), func() {
		near.post(near.end)
		far.post(far.end)
	}
}

// relane changes the inlet's lanes at random, lets some connections look for one, and ends a lane that there still is.
func (s *simulated) relane(t testing.TB) {
	t.Helper()
	var routes []routing.Route
	for _, p := range s.inlet.lanes {
		if s.rand.IntN(2) == 0 {
			routes = append(routes, p.route)
		}
	}
	for range s.rand.IntN(3) {
		r, cut := s.lane(t)
		if routes = append(routes, r); s.rand.IntN(3) == 0 {
			defer cut()
		}
	}
	s.inlet.SetLanes(false, routes...)
	some := s.rand.IntN(4) + 1
	s.inlet.each(func(c *conn) {
		if c.line != nil && int(c.line.id[15])%4 < some {
			c.seekLane()
		}
	})
	time.Sleep(time.Duration(s.rand.IntN(3000)) * time.Microsecond)
}

// idle expects that both nodes have forgotten every connection and all that they kept.
func (s *simulated) idle(t testing.TB) {
	t.Helper()
	defer func() {
		if t.Failed() {
			s.describe(t)
		}
	}()
	eventually(t, "connections forgotten", func() bool {
		s.outlet.lines.mu.Lock()
		n := int64(len(s.outlet.lines.conns))
		s.outlet.lines.mu.Unlock()
		for _, node := range []*simNode{s.in, s.out} {
			st := node.env.Stats
			n += st.Active.Load() + st.Kept.Load() + st.Away.Load() + st.WindowGranted.Load()
		}
		places, _ := s.inlet.Connections()
		return n+int64(s.inlet.Active()+places) == 0
	})
}

// describe logs the connections that are left.
func (s *simulated) describe(t testing.TB) {
	t.Helper()
	for _, c := range s.all() {
		c.post(func() {
			t.Logf("outlet %v state %d done %v, peer done %v, read done %v, got %d told %d, sent %d confirmed %d next %d, credit %d, starved %v, held %v, gone %v, terminal %v, timer %v",
				c.outlet, c.state, c.done, c.peerDone, c.readDone, c.got(), c.line.told, c.line.end(), c.line.confirmed, c.line.next, c.credit, c.starved, c.held, c.line.gone,
				c.terminal != nil, c.timer != nil)
		})
	}
	for _, n := range []*simNode{s.in, s.out} {
		st := n.env.Stats
		t.Logf("active %d kept %d away %d windows %d", st.Active.Load(), st.Kept.Load(), st.Away.Load(), st.WindowGranted.Load())
	}
	time.Sleep(100 * time.Millisecond)
}

// hurry lets the hold run out for what waits for a word that was lost with a path: an end that the other end has forgotten.
func (s *simulated) hurry() {
	s.cut()
	s.inlet.SetPath(routing.Route{})
	for _, c := range s.all() {
		c.post(func() {
			if c.state == away {
				c.expire(ReasonHold)
			} else if c.line != nil {
				c.line.hold = time.Millisecond // the end of its path is on the way
			}
		})
	}
}

// all returns the connections of both ends.
func (s *simulated) all() (list []*conn) {
	s.outlet.lines.mu.Lock()
	for _, c := range s.outlet.lines.conns {
		list = append(list, c)
	}
	s.outlet.lines.mu.Unlock()
	s.inlet.mu.Lock()
	for c := range s.inlet.conns {
		list = append(list, c)
	}
	s.inlet.mu.Unlock()
	return list
}

// TestRandomCuts lets many connections send, pause, half-close and reset at random while their path is cut, moved to other shards and
// replaced at any moment, and loses messages. Nothing is lost, doubled or reordered, and nothing that was cut short looks whole.
// SALLYPORT_SEED repeats a run.
func TestRandomCuts(t *testing.T) {
	seed := randomSeed(t)
	var resumed, again atomic.Uint64
	t.Run("cases", func(t *testing.T) { randomCuts(t, seed, &resumed, &again) })
	if !t.Failed() && (resumed.Load() == 0 || again.Load() == 0) {
		t.Error("no connection was resumed, or nothing was sent again: this test shows nothing")
	}
}

func randomCuts(t *testing.T, seed uint64, resumed, again *atomic.Uint64) {
	for _, c := range []struct {
		name         string
		shards, lose int
		quiet, lanes bool
		limits       Limits
	}{
		{name: "one shard", shards: 1},
		{name: "moving", shards: 3},
		{name: "small window", shards: 2, limits: Limits{Window: 5000}},
		{name: "small payloads", shards: 2, limits: Limits{PayloadSize: 3000}}, // so sending again takes many turns
		{name: "no memory", shards: 2, limits: Limits{KeepBudget: 1}},
		{name: "lanes", shards: 2, lanes: true},
		{name: "losing", shards: 2, lose: 30},
		{name: "losing quietly", shards: 2, lose: 30, quiet: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			const conns = 30
			p := newPairs(seed, conns)
			s := newSimulated(t, seed, c.shards, c.limits, time.Minute, OutletOptions{Target: serve(t, p.serve)})
			s.lose, s.quiet = c.lose, c.quiet
			var over atomic.Bool
			var cutting sync.WaitGroup
			s.connect(t)
			cuts := 0
			cutting.Go(func() {
				for !over.Load() {
					time.Sleep(time.Duration(s.rand.IntN(10_000)) * time.Microsecond)
					before := [2]*simEnd{s.near, s.far}
					if c.lanes {
						s.relane(t)
					}
					if s.rand.IntN(3) > 0 {
						s.cut()
						time.Sleep(time.Duration(s.rand.IntN(10_000)) * time.Microsecond)
						s.connect(t)
					} else { // the new path is there before the old one ends
						s.connect(t)
						time.Sleep(time.Duration(s.rand.IntN(10_000)) * time.Microsecond)
						for _, e := range before {
							e.post(e.end)
						}
					}
					cuts++
				}
			})
			p.run(t, s.inlet)
			over.Store(true)
			cutting.Wait()
			p.await(t, s.describe)
			s.hurry()
			s.idle(t)
			p.judge(t)
			for _, l := range s.inlet.lanes {
				if l.users != 0 {
					t.Errorf("a lane counts %d connections", l.users)
				}
			}
			st, ot := s.in.env.Stats, s.out.env.Stats
			for r := range reasonCount {
				if n, m := st.Ended[r].Load(), ot.Ended[r].Load(); n+m > 0 {
					t.Logf("ended, %s: %d and %d", r, n, m)
				}
			}
			t.Logf("%d paths, resumed %d and %d times, %d and %d bytes again", cuts, st.Resumed.Load(), ot.Resumed.Load(), st.Resent.Load(), ot.Resent.Load())
			resumed.Add(st.Resumed.Load() + ot.Resumed.Load())
			again.Add(st.Resent.Load() + ot.Resent.Load())
		})
	}
}

// TestChainCuts is TestRandomCuts over the whole path, with its transports and channels: the inlets' connections to the relay are closed.
func TestChainCuts(t *testing.T) {
	seed := randomSeed(t)
	var p atomic.Pointer[pairs]
	c := newChain(t, 2, 1, false, Limits{}, OutletOptions{Target: serve(t, func(conn net.Conn) { p.Load().serve(conn) })})
	cut := func(r *rand.Rand) {
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		k := r.IntN(len(c.inlets))
		c.inlets[k].path.Close()
		c.in[k].SetPath(routing.Route{})
		c.reconnect(t, k)
	}
	count := func() (resumed, again, malformed uint64) {
		for _, m := range c.members() {
			resumed, again = resumed+m.env.Stats.Resumed.Load(), again+m.env.Stats.Resent.Load()
			malformed += m.tcp.Stats.Malformed.Load() + m.tcp.Stats.TooLarge.Load() + m.channels.Stats.OpenFailed.Load()
		}
		return resumed, again, malformed
	}
	// On some machines a round's connections have all ended before the first cut.
	for round := uint64(0); ; round++ {
		now := newPairs(seed+round, 40)
		p.Store(now)
		var over atomic.Bool
		var cutting sync.WaitGroup
		cutting.Go(func() {
			for r := rand.New(rand.NewPCG(seed+round, 3)); !over.Load(); {
				cut(r)
			}
		})
		now.run(t, c.in...)
		over.Store(true)
		cutting.Wait()
		now.judge(t)
		resumed, again, malformed := count()
		t.Logf("round %d: resumed %d times, %d bytes again", round, resumed, again)
		if malformed > 0 {
			t.Fatalf("%d messages were damaged", malformed)
		}
		if resumed > 0 || t.Failed() {
			return
		}
		if round == 20 {
			t.Fatal("never resumed")
		}
	}
}

// standstill keeps a shard's loop from doing anything until release is called, which the end of the test does too.
func standstill(t *testing.T, s *routing.Shard) (release func()) {
	t.Helper()
	stands, goes := make(chan struct{}), make(chan struct{})
	release = sync.OnceFunc(func() { close(goes) })
	t.Cleanup(release)
	go s.Do(context.Background(), func() {
		close(stands)
		<-goes
	})
	<-stands
	return release
}

// TestResumedTogether: many connections that have much to send again are resumed with one read of the transport; the frames behind each answer
// must be what they were.
func TestResumedTogether(t *testing.T) {
	const conns, size = 12, 300_000
	target, ch := served(t)
	c := newChain(t, 1, 1, false, Limits{Window: 16 << 20}, OutletOptions{Target: target})
	var clients, servers []*net.TCPConn
	for range conns {
		client, server := c.paired(t, 0, ch)
		clients, servers = append(clients, client), append(servers, server)
	}
	// The outlet's node stands still, so nothing of what is sent now is confirmed when the path goes.
	release := standstill(t, c.outlet.router.Shards()[0])
	for k, client := range clients {
		if _, err := client.Write(bytes.Repeat([]byte{byte(k + 1)}, size)); err != nil {
			t.Fatal(err)
		}
	}
	m := c.inlets[0]
	eventually(t, "all was read", func() bool { return m.env.Stats.Kept.Load() >= conns*size })
	m.path.Close()
	eventually(t, "the path is away", func() bool { return m.env.Stats.Away.Load() == conns })
	release()
	// The relay stands still until all have asked: so what they are told comes at once, too.
	c.ready = func() { release = standstill(t, c.relay.router.Shards()[0]) }
	c.reconnect(t, 0)
	asked := func() (n int) {
		_ = c.inlets[0].router.Shards()[0].Do(limited(t), func() {
			for x := range c.in[0].conns {
				if x.line.attempt > 0 {
					n++
				}
			}
		})
		return n
	}
	eventually(t, "all have asked", func() bool { return asked() == conns })
	release()
	for k, server := range servers {
		server.SetDeadline(time.Now().Add(90 * time.Second))
		got := make([]byte, size)
		if n, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(k + 1)}, size)) {
			t.Fatalf("connection %d: %d bytes, %v", k, n, err)
		}
	}
	eventually(t, "each was resumed", func() bool { return m.env.Stats.Resumed.Load() >= conns })
	if n := m.env.Stats.Resumed.Load(); n != conns {
		t.Errorf("resumed %d times, want once for each", n)
	}
	select {
	case <-m.path.Done():
		t.Error("the connection to the relay was lost")
	default:
	}
}
