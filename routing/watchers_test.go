package routing

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// told counts what a watcher is told, and unwatches when asked to.
type told struct {
	closed, lost, away, back int
	silent                   time.Time
	of                       *Watchers
}

func (w *told) TerminalClosed() { w.closed++ }
func (w *told) MessageLost() {
	w.lost++
	if w.of != nil {
		w.of.Unwatch(w)
	}
}
func (w *told) PeerSilent(since time.Time) { w.silent = since }
func (w *told) TerminalAway(away bool) {
	if away {
		w.away++
	} else {
		w.back++
	}
}

// onlyClosed wants to know nothing but the end.
type onlyClosed struct{ closed int }

func (w *onlyClosed) TerminalClosed() { w.closed++ }

// TestWatchers: who watches is told what it wants to know, once of the end, and not any more when it has stopped to watch.
func TestWatchers(t *testing.T) {
	var ws Watchers
	if ws.Any() {
		t.Error("somebody watches")
	}
	ws.Unwatch(&told{})
	all, little, gone := &told{}, &onlyClosed{}, &told{}
	for _, w := range []Watcher{all, little, gone} {
		ws.Watch(w)
	}
	ws.Unwatch(gone)
	since := time.Unix(5, 0)
	ws.TellAway(true)
	ws.TellAway(false)
	ws.TellSilent(since)
	ws.TellLost()
	if all.away != 1 || all.back != 1 || !all.silent.Equal(since) || all.lost != 1 || all.closed != 0 || !ws.Any() {
		t.Errorf("%+v", all)
	}
	all.of = &ws
	ws.TellLost()
	ws.TellLost()
	if all.lost != 2 {
		t.Errorf("told %d times of a loss", all.lost)
	}
	all.of = nil
	ws.Watch(all)
	ws.Tell()
	ws.Tell()
	if all.closed != 1 || little.closed != 1 || gone.closed+gone.lost+gone.away != 0 || ws.Any() {
		t.Errorf("%+v %+v %+v", all, little, gone)
	}
}

// awayWay is a way that may be away and may lose messages.
type awayWay struct {
	way
	away, lossy bool
}

func (w *awayWay) Away(*Shard) bool  { return w.away }
func (w *awayWay) Lossy(*Shard) bool { return w.lossy }

// TestWhatATerminalIs: away and lossy are what says so of itself; a plain one is neither.
func TestWhatATerminalIs(t *testing.T) {
	for _, yes := range []bool{true, false} {
		if w := (&awayWay{away: yes, lossy: !yes}); IsAway(nil, w) != yes || IsLossy(nil, w) != !yes {
			t.Errorf("away %v, lossy %v", IsAway(nil, w), IsLossy(nil, w))
		}
	}
	if IsAway(nil, &way{}) || IsLossy(nil, &way{}) {
		t.Error("a plain one is away, or lossy")
	}
}

// TestOneMachineOneSource: a network of 64 bits counts as one machine, an IPv4 address for itself, however it is written.
func TestOneMachineOneSource(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::/64", "2001:db8:0:0:ffff::1": "2001:db8::/64", "2001:db8:0:1::1": "2001:db8:0:1::/64",
	} {
		if got := HostSource(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is %s, want %s", address, got, want)
		}
	}
}

// TestNoticeText: each kind has words of its own, and what is none is not read as one.
func TestNoticeText(t *testing.T) {
	seen := map[string]bool{}
	for k := NoticeKind(0); k <= NoticeFull+1; k++ {
		text := k.String()
		if seen[text] || strings.HasPrefix(text, "notice ") != (k == 0 || k > NoticeFull) {
			t.Errorf("%d: %q", k, text)
		}
		seen[text] = true
	}
	longest := Notice{Kind: NoticeHeld, Name: strings.Repeat("a", maxRelayName)}
	if n, ok := ParseNotice(append(AppendNotice(nil, longest), 1, 2)); !ok || n != longest {
		t.Errorf("%+v, %v", n, ok)
	}
	whole := AppendNotice(nil, Notice{Kind: NoticeFull, Name: "n"})
	for name, b := range map[string][]byte{
		"nothing": nil, "the mark alone": noticeMark, "no name": whole[:len(noticeMark)+1], "half a name": whole[:len(whole)-1], "another version": append([]byte{0xff, 'S', 'P', 2}, whole[4:]...),
		"too long a name": AppendNotice(nil, Notice{Kind: NoticeHeld, Name: longest.Name + "a"}),
	} {
		if n, ok := ParseNotice(b); ok {
			t.Errorf("%s: %+v", name, n)
		}
	}
}

// TestNoticeIsNotAnswered: a message is answered once along its way back; a notice, and what has no way back, are not.
func TestNoticeIsNotAnswered(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	var got [][]byte
	named(t, r, "sender", WorkerFunc(func(_ *Shard, m *Message) { got = append(got, append([]byte(nil), m.Payload()...)) }))
	on(t, s, func() {
		for _, c := range []struct {
			back    Route
			payload string
			want    int
		}{{LocalRoute("sender"), "hello", 1}, {Route{}, "hello", 1}, {LocalRoute("sender"), string(AppendNotice(nil, Notice{Kind: NoticeAbsent})), 1}, {LocalRoute("sender"), "", 2}} {
			m := s.NewMessage()
			m.Return = c.back
			m.SetPayloadBytes([]byte(c.payload))
			s.notify(m, LocalAddress("self").Wire(), Notice{Kind: NoticeAbsent, Name: "n"})
			s.Free(m)
			if len(got) != c.want {
				t.Errorf("%q from %s: %d notices", c.payload, c.back, len(got))
			}
		}
	})
	if n, ok := ParseNotice(got[0]); !ok || n.Kind != NoticeAbsent || n.Name != "n" {
		t.Errorf("%+v", n)
	}
}

// TestAwaitedName: who waits for a name is told of the next change once, at once if there was one, and not when it has stopped to wait.
func TestAwaitedName(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	listener := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{listener}})
	peer := Peer{ID: [32]byte{1}}
	one := newCaller(t, s, listener, &peer)
	states := make(chan RelayState, 10)
	undo := rs.Await("blue", 0, func(RelayState) { t.Error("told after it had stopped to wait") })
	rs.Await("blue", 0, func(st RelayState) { states <- st })
	rs.Await("red", 0, func(RelayState) { t.Error("told of another name") })
	undo()
	undo()
	one.register(t, "blue")
	one.receive(t)
	st := <-states
	if st.ID == 0 || st.Registrations != 1 || rs.State("blue") != st || rs.State("red") != (RelayState{}) {
		t.Errorf("%+v", st)
	}
	rs.Await("blue", st.ID+2, func(now RelayState) { states <- now })
	if now := <-states; now != st {
		t.Errorf("told %+v", now)
	}
	if u := rs.Use(); u.Names != 1 || u.OfOwner != 1 || len(rs.Names()) != 1 || rs.Names()[0] != "blue" {
		t.Errorf("%+v, %v", u, rs.Names())
	}
	way := one.address.Text()
	for _, c := range []struct {
		name string
		peer [32]byte
		way  string
		want bool
	}{{"blue", peer.ID, way, true}, {"red", peer.ID, way, false}, {"blue", [32]byte{2}, way, false}, {"blue", peer.ID, "other", false}} {
		if rs.Held(c.name, c.peer, c.way) != c.want {
			t.Errorf("%+v", c)
		}
	}
	rs.Await("blue", st.ID, func(now RelayState) { states <- now })
	one.leave(t)
	if now := <-states; now.ID != 0 {
		t.Errorf("gone: %+v", now)
	}
	eventually(t, "the name has gone", func() bool { return rs.Use() == NamesUse{} && !r.HasNamed("forward_to_blue") })
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if len(rs.waits) != 1 || len(rs.waits["red"]) != 1 {
		t.Errorf("%d names are waited for", len(rs.waits))
	}
}

// TestRelayLimits: the number of names, of names of one owner and of registrations under one name is bounded, each by itself, and refusals are counted.
func TestRelayLimits(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	listener := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{listener}, Names: 3, NamesPerOwner: 2})
	a, b := newCaller(t, s, listener, &Peer{ID: [32]byte{1}}), newCaller(t, s, listener, &Peer{ID: [32]byte{2}})
	asks := func(c *caller, name string, want NoticeKind) {
		t.Helper()
		c.register(t, name)
		n, refused := ParseNotice(c.receive(t).Payload)
		if refused != (want != 0) || n.Kind != want {
			t.Errorf("%s: %+v", name, n)
		}
	}
	asks(a, "one", 0)
	asks(a, "two", 0)
	asks(a, "three", NoticeFull)
	asks(b, "one", NoticeHeld)
	asks(b, "three", 0)
	asks(b, "four", NoticeFull)
	if u := rs.Use(); u != (NamesUse{Names: 3, OfOwner: 2, RefusedNames: 1, RefusedOwners: 1}) {
		t.Errorf("%+v", u)
	}
	n := &relayName{name: "crowd", owner: &[32]byte{3}}
	rs.mu.Lock()
	for range maxPerName - 1 {
		n.regs = append(n.regs, &registration{})
	}
	rs.named["crowd"] = n
	rs.mu.Unlock()
	owner := [32]byte{3}
	for i, want := range []NoticeKind{0, NoticeFull} {
		if _, fresh, refused := rs.grant(&request{name: "crowd", owner: &owner, reg: &registration{holder: "x"}}); refused != want || fresh {
			t.Errorf("registration %d: %v", maxPerName+i, refused)
		}
	}
	if _, _, refused := rs.grant(&request{name: "crowd", reg: &registration{holder: "y"}}); refused != NoticeHeld {
		t.Errorf("of nobody: %v", refused)
	}
	one, two := [32]byte{1}, [32]byte{2}
	same := one
	for _, c := range []struct {
		a, b *[32]byte
		want bool
	}{{nil, nil, true}, {&one, nil, false}, {nil, &one, false}, {&one, &two, false}, {&one, &same, true}} {
		if sameOwner(c.a, c.b) != c.want {
			t.Errorf("%v and %v", c.a, c.b)
		}
	}
}

// TestRequestToNobody ends with its time, and says where it went.
func TestRequestToNobody(t *testing.T) {
	r := newRouter(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Request(ctx, LocalRoute("nobody"), nil); err == nil {
		t.Error("answered")
	}
	b, err := r.OpenMailbox(limited(t), LocalRoute("nobody"))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.Receive(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if s := r.shardFor(Route{}); s != r.shards[0] {
		t.Error("a route to nowhere is of another shard")
	}
}

// TestRoutePieces: first, last, and without either, of routes of every length.
func TestRoutePieces(t *testing.T) {
	long := Address{Type: 200, Value: strings.Repeat("v", 300)}
	for n, r := range []Route{{}, LocalRoute("a"), NewRoute(LocalAddress("a"), long), LocalRoute("a", "b", "c")} {
		list := r.Addresses()
		if r.Len() != n || len(list) != n {
			t.Fatalf("%d addresses of %d", len(list), n)
		}
		if n == 0 {
			if r.WithoutFirst().Len() != 0 || r.WithoutLast().Len() != 0 || r.FirstValue() != nil || len(r.Key()) != 0 {
				t.Error("of an empty route something is left")
			}
			continue
		}
		if r.First() != list[0] || r.Last() != list[n-1] || string(r.FirstValue()) != list[0].Value {
			t.Errorf("%s: first %s, last %s", r, r.First(), r.Last())
		}
		if !r.WithoutFirst().Equal(NewRoute(list[1:]...)) || !r.WithoutLast().Equal(NewRoute(list[:n-1]...)) {
			t.Errorf("%s: %s, %s", r, r.WithoutFirst(), r.WithoutLast())
		}
		if r.Equal(r.WithoutLast()) || !r.Equal(r.Clone()) {
			t.Errorf("%s is not itself", r)
		}
	}
}

// TestFaultReachesItsSource: a message that showed a fault of this program ends whoever brought it, and the shard goes on.
func TestFaultReachesItsSource(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	src := &faulty{}
	th := NewThrottle(s, src)
	on(t, s, func() {
		s.depth, s.running = 5, &parcel{}
		s.faulted()
		if s.depth != 0 || s.running != nil {
			t.Error("a delivery is under way still")
		}
		p := &parcel{to: s}
		p.m.From = th
		p.Faulted()
		(&parcel{to: s}).Faulted() // that nobody brought
	})
	on(t, s, func() {
		if src.faults != 1 {
			t.Errorf("told of %d faults", src.faults)
		}
	})
}
