package routing

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/dataplane"
	"sallyport/routing/bare"
)

// way is a Terminal as a connection has it: what is sent to it is counted and handed on.
type way struct {
	Watchers
	peer     *Peer
	from     *Throttle
	producer Producer
	sent     func(s *Shard, m *Message)
}

func (w *way) TerminalPeer() *Peer                { return w.peer }
func (w *way) TerminalProducer() *Producer        { return &w.producer }
func (w *way) HandleMessage(s *Shard, m *Message) { w.sent(s, m) }

// caller is a node seen from the relay: a way to it, what came back over it, and messages it sends.
type caller struct {
	shard   *Shard
	way     *way
	address WireAddress
	got     chan Reply
}

func newCaller(t *testing.T, s *Shard, listener *Flow, peer *Peer) *caller {
	t.Helper()
	c := &caller{shard: s, got: make(chan Reply, 100)}
	c.way = &way{peer: peer, producer: Producer{Own: NewFlow(), Spawner: listener}}
	c.way.sent = func(_ *Shard, m *Message) {
		m.PopOnward()
		c.got <- Reply{Onward: m.Onward.Clone(), Return: m.Return.Clone(), Payload: slices.Clone(m.Payload())}
	}
	on(t, s, func() { c.address = s.Start(c.way) })
	return c
}

// send delivers as a message of the caller arrives: its way in front of the return route, its producer, its identity.
func (c *caller) send(t *testing.T, onward, ret Route, payload []byte) {
	t.Helper()
	on(t, c.shard, func() {
		m := c.shard.NewMessage()
		m.Onward, m.Return, m.Peer, m.From = onward, ret, c.way.peer, c.way.from
		m.PushReturn(c.address)
		m.SetPayloadBytes(payload)
		m.SetProducer(&c.way.producer)
		c.shard.Deliver(m)
		c.shard.Free(m)
	})
}

func (c *caller) receive(t *testing.T) Reply {
	t.Helper()
	select {
	case r := <-c.got:
		return r
	case <-time.After(90 * time.Second):
		t.Fatal("nothing came")
		return Reply{}
	}
}

func (c *caller) nothing(t *testing.T, why string) {
	t.Helper()
	for range 3 { // what was sent has been handled, and what that posted to other shards
		for _, s := range c.shard.router.shards {
			on(t, s, func() {})
		}
	}
	select {
	case r := <-c.got:
		t.Errorf("%s: got %q", why, r.Payload)
	default:
	}
}

func (c *caller) register(t *testing.T, name string) {
	t.Helper()
	c.send(t, LocalRoute(StaticRelayService), LocalRoute("rr"), bare.AppendString(nil, name))
}

func newRelays(t *testing.T, r *Router, o RelayOptions) *Relays {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	rs, err := NewRelays(limited(t), r, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rs.Close)
	return rs
}

// TestRelayForward registers, sends through the relay, and answers (docs/protocol/03 §3.2, §3.3), with both sides on one shard and
// on two.
func TestRelayForward(t *testing.T) {
	for _, shards := range []int{1, 2} {
		r := newRouter(t, shards)
		l := NewFlow()
		rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
		owner, user := newCaller(t, r.shards[0], l, nil), newCaller(t, r.shards[shards-1], l, nil)
		owner.register(t, "b1")
		answer := owner.receive(t)
		if !answer.Onward.Equal(LocalRoute("rr")) || !answer.Return.Equal(LocalRoute("forward_to_b1")) || string(answer.Payload) != "\x0dforward_to_b1" {
			t.Fatalf("answer %s / %s / %q", answer.Onward, answer.Return, answer.Payload)
		}
		if got := rs.Names(); !slices.Equal(got, []string{"b1"}) {
			t.Errorf("names %v", got)
		}
		user.send(t, LocalRoute("forward_to_b1", "uppercase"), LocalRoute("app"), []byte("hello"))
		m := owner.receive(t)
		if !m.Onward.Equal(LocalRoute("uppercase")) || !m.Return.Equal(RouteOf(user.address).Concat(LocalRoute("app"))) {
			t.Fatalf("forwarded %s / %s", m.Onward, m.Return)
		}
		// The owner answers along the return route: only the relay made that possible.
		owner.send(t, m.Return, LocalRoute("uppercase"), []byte("HELLO"))
		back := user.receive(t)
		if !back.Onward.Equal(LocalRoute("app")) || !back.Return.Equal(RouteOf(owner.address).Concat(LocalRoute("uppercase"))) || string(back.Payload) != "HELLO" {
			t.Fatalf("answered %s / %s / %q", back.Onward, back.Return, back.Payload)
		}
		// And the other way round, without asking again; the owner's return route may have hops of its own.
		user.send(t, back.Return, LocalRoute("app"), []byte("more"))
		if m := owner.receive(t); string(m.Payload) != "more" {
			t.Fatalf("got %q", m.Payload)
		}
	}
}

// TestRelayDenied: who did not use the relay gets no further because of it.
func TestRelayDenied(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
	owner, user, stranger := newCaller(t, r.shards[0], l, nil), newCaller(t, r.shards[0], l, nil), newCaller(t, r.shards[0], l, nil)
	owner.register(t, "b1")
	owner.receive(t)
	owner.send(t, RouteOf(user.address).Concat(LocalRoute("app")), Route{}, []byte("before"))
	user.nothing(t, "before it used the relay")
	user.send(t, LocalRoute("forward_to_b1", "x"), LocalRoute("app"), []byte("hello"))
	owner.receive(t)
	stranger.send(t, RouteOf(user.address), Route{}, []byte("to the user"))
	user.nothing(t, "from a stranger")
	stranger.send(t, RouteOf(owner.address), Route{}, []byte("to the owner"))
	owner.nothing(t, "from a stranger")
	owner.send(t, RouteOf(stranger.address), Route{}, []byte("to the stranger"))
	stranger.nothing(t, "that it did not ask for")
	outside := newCaller(t, r.shards[0], NewFlow(), nil) // came by another listener
	outside.send(t, LocalRoute("forward_to_b1", "x"), LocalRoute("app"), []byte("hello"))
	owner.nothing(t, "through a listener that the relay is not open to")
}

func TestRelayDeepRegistration(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
	owner := newCaller(t, r.shards[0], l, nil)
	owner.send(t, LocalRoute(RelayService), LocalRoute("hop", "rr"), bare.AppendString(nil, "deep"))
	if a := owner.receive(t); !a.Onward.Equal(LocalRoute("hop", "rr")) {
		t.Fatalf("answered to %s", a.Onward)
	}
	user := newCaller(t, r.shards[0], l, nil)
	user.send(t, LocalRoute("forward_to_deep", "x"), LocalRoute("app"), []byte("hello"))
	if m := owner.receive(t); !m.Onward.Equal(LocalRoute("hop", "x")) {
		t.Fatalf("forwarded to %s", m.Onward)
	}
	// A random name.
	owner.send(t, LocalRoute(RelayService), LocalRoute("rr"), bare.AppendString(nil, "register"))
	a := owner.receive(t)
	name, _, err := bare.Bytes(a.Payload)
	if err != nil || len(name) != len(RelayPrefix)+32 {
		t.Fatalf("random name %q, %v", name, err)
	}
	user.send(t, LocalRoute(string(name), "y"), LocalRoute("app"), []byte("hello"))
	if m := owner.receive(t); !m.Onward.Equal(LocalRoute("y")) {
		t.Fatalf("forwarded to %s", m.Onward)
	}
	// What is no text gets no answer.
	for _, bad := range [][]byte{nil, {5, 'x'}, bytesOf(0xff, 20), bare.AppendString(nil, string(make([]byte, 513)))} {
		owner.send(t, LocalRoute(RelayService), LocalRoute("rr"), bad)
	}
	owner.nothing(t, "for a malformed request")
	if n := r.shards[0].Drops.Malformed.Load(); n != 4 {
		t.Errorf("%d malformed counted, want 4", n)
	}
}

func bytesOf(b byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}

// TestRelayTakeOver: the same identity may take a name over, another may not.
func TestRelayTakeOver(t *testing.T) {
	for _, tc := range []struct {
		name       string
		held, asks *Peer
		allowed    bool
	}{
		{"same identity", &Peer{ID: [32]byte{1}}, &Peer{ID: [32]byte{1}}, true},
		{"another identity", &Peer{ID: [32]byte{1}}, &Peer{ID: [32]byte{2}}, false},
		{"nobody in particular from an identity", &Peer{ID: [32]byte{1}}, nil, false},
		{"an identity from nobody in particular", nil, &Peer{ID: [32]byte{1}}, false},
		{"nobody in particular", nil, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRouter(t, 2)
			l := NewFlow()
			newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
			first, second := newCaller(t, r.shards[0], l, tc.held), newCaller(t, r.shards[1], l, tc.asks)
			user := newCaller(t, r.shards[0], l, nil)
			first.register(t, "n")
			first.receive(t)
			second.register(t, "n")
			if tc.allowed {
				second.receive(t)
			} else {
				if n, ok := ParseNotice(second.receive(t).Payload); !ok || n.Kind != NoticeHeld {
					t.Errorf("%+v for a name that is held", n)
				}
			}
			user.send(t, LocalRoute("forward_to_n", "x"), LocalRoute("app"), []byte("to whom"))
			winner, loser := first, second
			if tc.allowed {
				winner, loser = second, first
			}
			if m := winner.receive(t); string(m.Payload) != "to whom" {
				t.Errorf("got %q", m.Payload)
			}
			loser.nothing(t, "for the name of another")
		})
	}
}

// TestRelayEnds frees a name when its owner's connection has gone.
func TestRelayEnds(t *testing.T) {
	r := newRouter(t, 2)
	l := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
	one, two := &Peer{ID: [32]byte{1}}, &Peer{ID: [32]byte{2}}
	first, second := newCaller(t, r.shards[1], l, one), newCaller(t, r.shards[0], l, two)
	stays := newCaller(t, r.shards[1], l, one)
	first.register(t, "n")
	first.receive(t)
	stays.register(t, "m")
	stays.receive(t)
	if got := rs.Names(); len(got) != 2 {
		t.Fatalf("names %v", got)
	}
	first.leave(t)
	eventually(t, "freed", func() bool { return slices.Equal(rs.Names(), []string{"m"}) })
	eventually(t, "worker gone", func() bool { return !r.HasNamed("forward_to_n") && r.HasNamed("forward_to_m") })
	second.register(t, "n")
	if a := second.receive(t); string(a.Payload) != "\x0cforward_to_n" {
		t.Errorf("answer %q", a.Payload)
	}
}

// leave ends the caller's way.
func (c *caller) leave(t *testing.T) {
	t.Helper()
	on(t, c.shard, func() {
		c.shard.Stop(c.address)
		c.way.Tell()
	})
}

// TestRelayNewestLiving: of the registrations of one identity under one name the newest gets the messages that can be reached, and whoever
// waits for a change is told.
func TestRelayNewestLiving(t *testing.T) {
	r := newRouter(t, 2)
	l := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
	id := &Peer{ID: [32]byte{1}}
	a, b, c := newCaller(t, r.shards[0], l, id), newCaller(t, r.shards[1], l, id), newCaller(t, r.shards[0], l, id)
	user := newCaller(t, r.shards[0], l, nil)
	states := make(chan RelayState, 10)
	rs.Await("n", 0, func(st RelayState) { states <- st })
	toward := func(want *caller, why string) {
		t.Helper()
		user.send(t, LocalRoute("forward_to_n", "x"), LocalRoute("app"), []byte(why))
		if m := want.receive(t); string(m.Payload) != why {
			t.Errorf("%s: got %q", why, m.Payload)
		}
		for _, other := range []*caller{a, b, c} {
			if len(other.got) > 0 {
				t.Errorf("%s: another one got it", why)
			}
		}
	}
	for _, o := range []*caller{a, b, c} {
		o.register(t, "n")
		o.receive(t)
	}
	first := <-states
	if first.ID == 0 {
		t.Error("told of nobody")
	}
	toward(c, "the newest")
	c.leave(t) // as if its registration had come late, over a connection that was about to end
	toward(b, "the newest that is left")
	on(t, b.shard, func() { b.way.TellAway(true) })
	eventually(t, "away", func() bool { return rs.State("n").ID == first.ID })
	if st := rs.State("n"); st.Registrations != 2 || !rs.Held("n", id.ID, a.address.Text()) || rs.Held("n", id.ID, c.address.Text()) ||
		rs.Held("n", [32]byte{2}, a.address.Text()) || rs.Held("m", id.ID, a.address.Text()) {
		t.Errorf("%+v", st)
	}
	toward(a, "while the newer one is away")
	on(t, b.shard, func() { b.way.TellAway(false) })
	toward(b, "the newer one is back")
	b.leave(t)
	rs.Await("n", first.ID, func(st RelayState) { states <- st })
	cancel := rs.Await("n", first.ID, func(st RelayState) { t.Error("told though it was taken back") })
	cancel()
	a.leave(t)
	if st := <-states; st.ID != 0 {
		t.Errorf("%+v when all have gone", st)
	}
	eventually(t, "freed", func() bool { return len(rs.Names()) == 0 })
	if len(rs.held) != 0 || len(rs.waits) != 0 {
		t.Errorf("left: %v, %v", rs.held, rs.waits)
	}
}

// TestRelayHeld: names are limited by owner, by the connection where there is no identity, and freed with it.
func TestRelayHeld(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}, Names: 5, NamesPerOwner: 2})
	notice := func(c *caller) NoticeKind {
		t.Helper()
		n, ok := ParseNotice(c.receive(t).Payload)
		if !ok {
			t.Fatal("not a notice")
		}
		return n.Kind
	}
	member := &Peer{ID: [32]byte{1}}
	one, two := newCaller(t, r.shards[0], l, member), newCaller(t, r.shards[0], l, member)
	s1, s2 := newCaller(t, r.shards[0], l, nil), newCaller(t, r.shards[0], l, nil)
	one.register(t, "a")
	one.receive(t)
	two.register(t, "b")
	two.receive(t)
	two.register(t, "c")
	if k := notice(two); k != NoticeFull {
		t.Errorf("%v for a third name of one identity", k)
	}
	for _, n := range []string{"d", "e"} {
		s1.register(t, n)
		s1.receive(t)
	}
	s1.register(t, "f")
	if k := notice(s1); k != NoticeFull {
		t.Errorf("%v for a third name of one connection", k)
	}
	s2.register(t, "f")
	s2.receive(t)
	s2.register(t, "g")
	if k := notice(s2); k != NoticeFull {
		t.Errorf("%v for a sixth name", k)
	}
	one.register(t, "d")
	if k := notice(one); k != NoticeHeld {
		t.Errorf("%v for the name of another", k)
	}
	for _, c := range []*caller{one, two, s1, s2} {
		c.leave(t)
	}
	eventually(t, "freed", func() bool { return len(rs.Names()) == 0 })
	if len(rs.held) != 0 {
		t.Errorf("held %v", rs.held)
	}
}

// TestRelayLeadsOutOnly: a registration that leads to workers of the relay's node is refused, whatever its return route is made of.
func TestRelayLeadsOutOnly(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
	secret := make(chan string, 10)
	named(t, r, "secret", WorkerFunc(func(_ *Shard, m *Message) { secret <- string(m.Payload()) }))
	named(t, r, "hop", Hop("hop"), l)
	c, user := newCaller(t, r.shards[0], l, nil), newCaller(t, r.shards[0], l, nil)
	for i, ret := range []Route{{}, LocalRoute("secret"), LocalRoute("secret", "rr"), LocalRoute("hop", "secret")} {
		for _, via := range []Route{{}, LocalRoute("hop"), LocalRoute("hop", "hop")} {
			name := "n" + strconv.Itoa(i) + strconv.Itoa(via.Len())
			c.send(t, via.Concat(LocalRoute(StaticRelayService)), ret, bare.AppendString(nil, name))
			user.send(t, LocalRoute("forward_to_"+name, "secret"), LocalRoute("me"), []byte(name))
		}
	}
	for _, n := range rs.Names() {
		user.send(t, LocalRoute("forward_to_"+n, "secret"), LocalRoute("me"), []byte(n))
	}
	on(t, r.shards[0], func() {})
	if len(secret) > 0 {
		t.Errorf("a worker that no flow may reach got %q", <-secret)
	}
	if n := r.shards[0].Drops.Malformed.Load(); n == 0 {
		t.Error("nothing was refused")
	}
}

// grantOf is an Admission that a test sets.
type grantOf struct{ atomic.Bool }

func (g *grantOf) Allowed() bool { return g.Load() }

// TestRelayMembers: a relay with members passes on what came through a member's channel, for as long as it is one.
func TestRelayMembers(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	var grant grantOf
	grant.Store(true)
	var never grantOf
	decided := 0
	newRelays(t, r, RelayOptions{Flows: []*Flow{l}, Admit: func(id [32]byte) Admission {
		if decided++; id[0] == 9 {
			return &never
		}
		return &grant
	}})
	named(t, r, "hop", Hop("hop"), l)
	owner := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{1}})
	member, stranger := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{2}}), newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{9}})
	bareTCP := newCaller(t, r.shards[0], l, nil)
	bareTCP.way.from = NewSharedThrottle(r.shards[0], &switched{})
	owner.register(t, "n")
	owner.receive(t)
	to := LocalRoute("forward_to_n", "api")
	for range 10 {
		member.send(t, to, LocalRoute("app"), []byte("hello"))
		owner.receive(t)
	}
	if decided != 1 {
		t.Errorf("decided %d times for one channel", decided)
	}
	stranger.send(t, to, LocalRoute("app"), []byte("hello"))
	owner.nothing(t, "from a stranger's channel")
	bareTCP.send(t, to, LocalRoute("app"), []byte("hello"))
	bareTCP.send(t, to, Route{}, []byte("hello"))
	bareTCP.send(t, LocalRoute("hop").Concat(to), LocalRoute("app"), []byte("hello"))
	owner.nothing(t, "without a channel")
	bareTCP.send(t, LocalRoute("forward_to_nobody", "api"), LocalRoute("app"), []byte("hello"))
	bareTCP.nothing(t, "which names there are is for members")
	member.send(t, LocalRoute("forward_to_nobody", "api"), LocalRoute("app"), []byte("hello"))
	if n, ok := ParseNotice(member.receive(t).Payload); !ok || n.Kind != NoticeAbsent || n.Name != "nobody" {
		t.Errorf("%+v for a name that is not there", n)
	}
	if n := drops(r, func(d *Drops) *atomic.Uint64 { return &d.NotMember }); n != 5 {
		t.Errorf("%d refused, want 5", n)
	}
	grant.Store(false)
	member.send(t, to, LocalRoute("app"), []byte("hello"))
	owner.nothing(t, "from one whose membership has ended")
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	go func() { // the node's own
		m := owner.receive(t)
		r.Inject(m.Return, LocalRoute("x"), []byte("answer"))
	}()
	if a, err := r.Request(ctx, to, []byte("own")); err != nil || string(a.Payload) != "answer" {
		t.Errorf("a worker of the relay's node: %v", err)
	}
}

// TestRelayAbsent: a message for a name that nobody has is answered at once, a notice never is, and a route that loops ends.
func TestRelayAbsent(t *testing.T) {
	r := newRouter(t, 2)
	l := NewFlow()
	newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
	c := newCaller(t, r.shards[1], l, nil)
	expect := func() {
		t.Helper()
		a := c.receive(t)
		if n, ok := ParseNotice(a.Payload); !ok || n != (Notice{Kind: NoticeAbsent, Name: "n"}) || !a.Return.Equal(LocalRoute("forward_to_n")) {
			t.Fatalf("%q from %s", a.Payload, a.Return)
		}
	}
	c.send(t, LocalRoute("forward_to_n", "api"), LocalRoute("me"), []byte("first message"))
	expect()
	c.send(t, LocalRoute("forward_to_n", "api"), LocalRoute("me"), AppendNotice(nil, Notice{Kind: NoticeAbsent, Name: "m"}))
	c.nothing(t, "for a notice")
	c.register(t, "n")
	c.receive(t)
	on(t, c.shard, func() { c.way.TellAway(true) })
	c.send(t, LocalRoute("forward_to_n", "api"), LocalRoute("me"), []byte("first message"))
	expect()
	for _, bad := range []string{"", "\xff", "\xffSP\x01", "\xffSP\x01\x01", "\xffSP\x01\x01\x05abc", "\xffSP\x02\x01\x00"} {
		if n, ok := ParseNotice([]byte(bad)); ok {
			t.Errorf("%q is %+v", bad, n)
		}
	}
}

// TestRelayPolicy asks before a name is given.
func TestRelayPolicy(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	var asked atomic.Int64
	newRelays(t, r, RelayOptions{Flows: []*Flow{l}, Allow: func(m *Message, name string) bool {
		asked.Add(1)
		return m.Peer != nil && name == "good"
	}})
	known, unknown := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{1}}), newCaller(t, r.shards[0], l, nil)
	unknown.register(t, "good")
	unknown.nothing(t, "without an identity")
	known.register(t, "bad")
	if n, ok := ParseNotice(known.receive(t).Payload); !ok || n != (Notice{Kind: NoticeDenied, Name: "bad"}) {
		t.Errorf("%+v for a name that is not allowed", n)
	}
	known.register(t, "good")
	known.receive(t)
	if asked.Load() != 3 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// TestRelayRegistrationsBounded: requests that cannot be carried out now wait in a bounded queue, not each in a goroutine; the service
// goes on afterwards.
func TestRelayRegistrationsBounded(t *testing.T) {
	const requests = 5 * maxRegistrations
	r := newRouter(t, 2)
	l := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
	c := newCaller(t, r.shards[0], l, nil)
	c.got = make(chan Reply, requests)
	held, release := make(chan struct{}), make(chan struct{})
	r.shards[1].loop.Post(dataplane.TaskFunc(func() { close(held); <-release }))
	<-held
	before := runtime.NumGoroutine()
	for k := range requests {
		c.register(t, "name"+strconv.Itoa(k))
	}
	if n := runtime.NumGoroutine() - before; n > 3 {
		t.Errorf("%d goroutines for %d requests", n, requests)
	}
	if n := r.shards[0].Drops.Overflow.Load(); n < requests-maxRegistrations-1 {
		t.Errorf("%d requests dropped of %d", n, requests)
	}
	close(release)
	eventually(t, "the queue carried out", func() bool { return len(c.got) >= maxRegistrations/2 })
	if n := len(rs.Names()); n < maxRegistrations/2 || n > maxRegistrations/2+batch { // one owner; the first batch was no longer waiting
		t.Errorf("%d names", n)
	}
	c.register(t, "later")
	eventually(t, "a later request", func() bool { return slices.Contains(rs.Names(), "later") })
}

// TestEndedFlowsAreForgotten: a worker that many channels reached in the course of time does not keep them all.
func TestEndedFlowsAreForgotten(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	on(t, s, func() {
		stays := NewFlow() // of a listener that was closed: what it accepted goes on
		r.RegisterFlow(stays)
		r.ForgetFlow(stays)
		a := s.Start(WorkerFunc(func(*Shard, *Message) {}), stays).Text()
		for range 1000 {
			f := NewFlow()
			s.AddConsumer(a, f)
			if !slices.Contains(s.Consumes(a), f) {
				t.Fatal("not reached from a flow added")
			}
			f.End()
			s.AddConsumer(a, f)
		}
		if list := s.Consumes(a); len(list) > 2 || !slices.Contains(list, stays) {
			t.Errorf("%d flows kept", len(list))
		}
	})
}

// TestRelayKeepsANameThatWasTakenAgain: between the end of a registration and the moment in which it is noticed the name may have found another owner, who
// keeps it.
func TestRelayKeepsANameThatWasTakenAgain(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
	owner, user := newCaller(t, r.shards[0], l, nil), newCaller(t, r.shards[0], l, nil)
	owner.register(t, "n")
	owner.receive(t)
	rs.mu.Lock()
	rs.ended = append(rs.ended, "n", "nobody's")
	rs.mu.Unlock()
	rs.removeEnded()
	if !slices.Equal(rs.Names(), []string{"n"}) || !r.HasNamed("forward_to_n") {
		t.Fatalf("names %v", rs.Names())
	}
	rs.mu.Lock()
	if len(rs.ended) != 0 {
		t.Errorf("%v are looked at again and again", rs.ended)
	}
	rs.mu.Unlock()
	user.send(t, LocalRoute("forward_to_n", "x"), LocalRoute("app"), []byte("hello"))
	if m := owner.receive(t); string(m.Payload) != "hello" {
		t.Errorf("got %q", m.Payload)
	}
}

// TestRelayOpensNoWorkerThatPassesOn: a worker of the relay's node that uses the relay may be answered; one that only passed a message on does not become
// reachable by that.
func TestRelayOpensNoWorkerThatPassesOn(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	newRelays(t, r, RelayOptions{Flows: []*Flow{l}})
	got := make(chan string, 10)
	for _, name := range []string{"asks", "passes"} {
		named(t, r, name, WorkerFunc(func(_ *Shard, m *Message) { got <- name + " " + string(m.Payload()) }))
	}
	owner := newCaller(t, r.shards[0], l, nil)
	owner.register(t, "n")
	owner.receive(t)
	use := func(ret Route) {
		t.Helper()
		on(t, r.shards[0], func() {
			s := r.shards[0]
			m := s.NewMessage()
			m.Onward, m.Return = LocalRoute("forward_to_n", "x"), ret
			m.SetPayloadBytes([]byte("question"))
			s.Deliver(m)
			s.Free(m)
		})
		owner.receive(t)
	}
	use(LocalRoute("passes", "elsewhere"))
	owner.send(t, LocalRoute("passes"), LocalRoute("x"), []byte("answer"))
	on(t, r.shards[0], func() {})
	if len(got) != 0 {
		t.Errorf("reached by the owner of a name: %q", <-got)
	}
	use(LocalRoute("asks"))
	owner.send(t, LocalRoute("asks"), LocalRoute("x"), []byte("answer"))
	on(t, r.shards[0], func() {})
	if len(got) != 1 || <-got != "asks answer" {
		t.Error("whoever used the relay is not answered")
	}
}

// TestRelayRepeated: one that repeats its registration as fast as it can has a part of the places for requests that wait, and others get in beside it.
func TestRelayRepeated(t *testing.T) {
	rs := &Relays{queue: make(chan request, 64), waiting: map[string]int{}}
	of := func(holder string) request { return request{name: "x", reg: &registration{holder: holder}} }
	fill := func(holder string) (n int) {
		for n < 1000 && rs.enqueue(of(holder)) {
			n++
		}
		return n
	}
	greedy, second, modest := fill("greedy"), fill("second"), fill("modest")
	if greedy != 32 || second != 16 || modest != 8 {
		t.Errorf("of 64 one got %d, another beside it %d, a third %d", greedy, second, modest)
	}
	var list []request
	for len(rs.queue) > 0 {
		list = append(list, <-rs.queue)
	}
	rs.dequeued(list)
	if len(rs.waiting) != 0 {
		t.Errorf("%v is left", rs.waiting)
	}
}

// TestLaneNames: a lane's name says whose it is, and nothing else is taken for one.
func TestLaneNames(t *testing.T) {
	for _, name := range []string{"b", "bank", "a~b", strings.Repeat("n", 100)} {
		lane := LaneName(name)
		if of, ok := LaneOf(lane); !ok || of != name || lane == LaneName(name) {
			t.Errorf("%q is a lane of %q, %v", lane, of, ok)
		}
		if of, ok := LaneOf(LaneName(lane)); !ok || of != lane {
			t.Errorf("of a lane: %q, %v", of, ok)
		}
		for _, other := range []string{name, lane[1+len(name):], lane + "0", lane[:len(lane)-1], strings.ToUpper(lane) + "~", lane[:len(lane)-1] + "g", LaneName("")} {
			if of, ok := LaneOf(other); ok {
				t.Errorf("%q is taken for a lane of %q", other, of)
			}
		}
	}
}
