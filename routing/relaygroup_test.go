package routing

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

// put makes a member of g what a test wants it to be.
func put(g *group, number int, priority uint32, up, down bool, now time.Time) *member {
	m := g.join(memberKey{id: MemberID{byte(number)}})
	m.priority, m.down = priority, down
	m.current.Store(nil)
	m.regs = nil
	if up {
		m.regs = []*registration{{id: uint64(number), member: m}}
		m.current.Store(m.regs[0])
	}
	m.note(now)
	return m
}

// TestFailoverChoice: the lowest number that is up gets new flows, one that is lost is replaced at once, and one that comes back takes over when it has been
// up for a while, which is longer each time.
func TestFailoverChoice(t *testing.T) {
	now := time.Unix(1000, 0)
	g := &group{}
	chosen := func(want *member, why string) (again time.Duration) {
		t.Helper()
		at := g.choose(now)
		if g.chosen != want {
			t.Fatalf("%s: %+v", why, g.chosen)
		}
		if at.IsZero() {
			return 0
		}
		return at.Sub(now)
	}
	chosen(nil, "nobody is there")
	b := put(g, 2, 10, true, false, now)
	chosen(b, "the only one")
	a := put(g, 1, 0, true, false, now)
	delay := preemptDelay
	if again := chosen(b, "one with a lower number has just come"); again != delay {
		t.Errorf("asked again in %v", again)
	}
	now = now.Add(delay - 1)
	chosen(b, "a moment too early")
	now = now.Add(1)
	chosen(a, "it was up for long enough")
	for range 6 {
		put(g, 1, 0, false, false, now)
		if again := chosen(b, "the chosen one is lost"); again != 0 {
			t.Errorf("asked again in %v though nobody waits", again)
		}
		put(g, 1, 0, true, false, now)
		delay = min(2*delay, preemptDelayMax)
		if again := chosen(b, "it is back"); again != delay {
			t.Fatalf("asked again in %v, want %v", again, delay)
		}
		now = now.Add(delay - 1)
		if delay < preemptDelayMax {
			chosen(b, "not for long enough")
		}
		now = now.Add(1)
		chosen(a, "back for long enough")
	}
	put(g, 1, 0, true, true, now)
	chosen(b, "its target is down")
	put(g, 2, 10, true, true, now)
	chosen(a, "all targets are down: the first is as good as any")
	put(g, 2, 10, true, false, now)
	chosen(b, "one target is back")
	put(g, 2, 10, false, false, now)
	chosen(a, "who can be reached at all")
	now = now.Add(lossesCount)
	g.tidy(now)
	if len(g.members) != 1 {
		t.Errorf("%d members, of whom one has gone long ago", len(g.members))
	}
}

// TestGroupProperties: whatever happens to members, who is chosen can be reached; it is up if anybody is; with nobody lost it changes only to a lower number; and when
// all has been quiet for long enough it is the lowest that is up. Spreading gives flows to those that are up, evenly.
func TestGroupProperties(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		now := time.Unix(1_000_000, 0)
		g := &group{}
		type is struct{ up, down bool }
		state := map[int]is{}
		for step := range 120 {
			was := g.chosen
			number := r.IntN(5)
			st := is{up: r.IntN(3) > 0, down: r.IntN(4) == 0}
			state[number] = st
			put(g, number, uint32(number/2), st.up, st.down, now)
			if r.IntN(4) == 0 {
				g.tidy(now)
			}
			g.choose(now)
			anyUp, anyReachable := false, false
			for _, st := range state {
				anyUp = anyUp || st.up && !st.down
				anyReachable = anyReachable || st.up
			}
			switch c := g.chosen; {
			case !anyReachable:
				if c != nil {
					t.Fatalf("seed %d step %d: somebody is chosen and nobody can be reached", seed, step)
				}
			case c == nil || !c.reachable():
				t.Fatalf("seed %d step %d: %+v", seed, step, c)
			case anyUp && !c.usable():
				t.Fatalf("seed %d step %d: one whose target is down is chosen", seed, step)
			case was != nil && was != c && was.usable() && (c.priority >= was.priority || c.settled(now).After(now)):
				t.Fatalf("seed %d step %d: from %d to %d without need", seed, step, was.priority, c.priority)
			}
			now = now.Add(time.Duration(r.IntN(20_000)) * time.Millisecond)
		}
		for range 2 { // quiet
			now = now.Add(lossesCount + preemptDelayMax)
			g.choose(now)
		}
		for _, m := range g.candidates() {
			if m.priority < g.chosen.priority {
				t.Fatalf("seed %d: in the end %d is chosen, and %d is up", seed, g.chosen.priority, m.priority)
			}
		}
		list := g.candidates()
		for _, m := range list {
			m.reports.Store(true)
		}
		got := map[*member]int64{}
		for i := range 50 {
			if m := pick(list, uint64(i+1)); m != nil {
				got[m]++
			}
		}
		for _, m := range list {
			if n := got[m]; n < int64(50/len(list)) || n > int64(50/len(list)+1) {
				t.Fatalf("seed %d: %d of 50 flows for one of %d members", seed, n, len(list))
			}
		}
	}
}

// TestSpreadCounts: where all members tell their connections the one with the fewest gets the next flow, with the flows since it told; where one does not,
// open channels are counted for all.
func TestSpreadCounts(t *testing.T) {
	a, b := &member{}, &member{}
	list := []*member{a, b}
	if pick(nil, 1) != nil {
		t.Error("one of nobody")
	}
	a.reports.Store(true)
	b.reports.Store(true)
	a.connections.Store(3)
	for i := range 3 {
		if pick(list, uint64(i+1)) != b {
			t.Fatalf("flow %d goes to the one with more", i)
		}
	}
	if pick(list, 4) != a || pick(list, 5) != b {
		t.Error("equals do not take turns")
	}
	b.reports.Store(false)
	b.channels.Store(1)
	for i := range 3 {
		if pick(list, uint64(i+6)) != a {
			t.Fatal("connections are compared though one does not tell them")
		}
	}
}

// on terms registers a caller on terms and returns what came of it.
func (c *caller) on(t *testing.T, rs *Relays, name string, terms Terms) (st RelayState, refused NoticeKind) {
	t.Helper()
	done := make(chan struct{})
	if err := rs.Register(c.shard, c.address.Text(), c.way.peer.ID, name, terms, func(s RelayState, k NoticeKind) {
		st, refused = s, k
		close(done)
	}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(90 * time.Second):
		t.Fatal("not answered")
	}
	return st, refused
}

// ask sends a message for a name from one flow, and returns which of the callers got it.
func ask(t *testing.T, user *caller, name, flow string, list ...*caller) int {
	t.Helper()
	user.send(t, LocalRoute("forward_to_"+name, "x"), LocalRoute(flow), []byte(flow))
	got := -1
	eventually(t, "somebody gets it", func() bool {
		for i, c := range append([]*caller{user}, list...) {
			select {
			case m := <-c.got:
				if i > 0 && string(m.Payload) != flow {
					t.Errorf("got %q", m.Payload)
				}
				got = i - 1
				return true
			default:
			}
		}
		return false
	})
	return got // -1: a notice came back
}

// sharing is who shares with whom in a test, by the first byte of the joiner.
func sharing(name string, owner [32]byte, share string, joiner [32]byte) bool {
	return share == "with "+strconv.Itoa(int(joiner[0]))
}

// TestGroupOwnership: another identity is admitted if the owner shares the name with it, and refused if not, whatever it asks for itself; who was admitted decides nothing about the name.
func TestGroupOwnership(t *testing.T) {
	for _, tc := range []struct {
		name        string
		share       string
		joiner      byte
		plain       bool // the joiner says its name and nothing else, as a node of the reference does
		allowed     bool
		withoutRule bool // the relay shares nothing
	}{
		{"named", "with 2", 2, false, true, false},
		{"named, of the reference", "with 2", 2, true, true, false},
		{"not named", "with 2", 3, false, false, false},
		{"not named, of the reference", "with 2", 3, true, false, false},
		{"not shared", "", 2, false, false, false},
		{"the owner itself", "", 1, false, true, false},
		{"the owner itself, without terms", "with 2", 1, true, true, false},
		{"a relay that knows no sharing", "with 2", 2, false, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRouter(t, 2)
			l := NewFlow()
			o := RelayOptions{Flows: []*Flow{l}, Shares: sharing}
			if tc.withoutRule {
				o.Shares = nil
			}
			rs := newRelays(t, r, o)
			owner, joiner := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{1}}), newCaller(t, r.shards[1], l, &Peer{ID: [32]byte{tc.joiner}})
			third := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{4}})
			if _, refused := owner.on(t, rs, "n", Terms{Member: MemberID{1}, Share: tc.share}); refused != 0 {
				t.Fatal(refused)
			}
			var refused NoticeKind
			if tc.plain {
				joiner.register(t, "n")
				if n, ok := ParseNotice(joiner.receive(t).Payload); ok {
					refused = n.Kind
				}
			} else {
				_, refused = joiner.on(t, rs, "n", Terms{Member: MemberID{2}, Share: "with 4", Rule: RuleSpread})
			}
			if want := map[bool]NoticeKind{true: 0, false: NoticeHeld}[tc.allowed]; refused != want {
				t.Errorf("refused %v, want %v", refused, want)
			}
			if n := len(rs.Members("n")); n != map[bool]int{true: 2, false: 1}[tc.allowed] && tc.joiner != 1 {
				t.Errorf("%d members", n)
			}
			if tc.joiner == 1 {
				return
			}
			if st := rs.State("n"); st.Rule != RuleNone {
				t.Errorf("rule %v, which the owner did not ask for", st.Rule)
			}
			if _, refused := third.on(t, rs, "n", Terms{}); refused != NoticeHeld {
				t.Errorf("one whom only the joiner shares the name with: %v", refused)
			}
			// The owner changes its mind: who is there stays, others are decided anew.
			if _, refused := owner.on(t, rs, "n", Terms{Member: MemberID{1}, Share: "with 4"}); refused != 0 {
				t.Fatal(refused)
			}
			_, refused = third.on(t, rs, "n", Terms{})
			if want := map[bool]NoticeKind{false: 0, true: NoticeHeld}[tc.withoutRule]; refused != want {
				t.Errorf("after the owner let it in: %v", refused)
			}
		})
	}
}

// TestGroupNameBecomesFree: with its last member a group ends, and its terms with it.
func TestGroupNameBecomesFree(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}, Shares: sharing})
	a, b, c := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{1}}), newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{2}}), newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{3}})
	a.on(t, rs, "n", Terms{Share: "with 2", Rule: RuleSpread})
	b.on(t, rs, "n", Terms{})
	a.leave(t)
	if _, refused := c.on(t, rs, "n", Terms{}); refused != NoticeHeld {
		t.Errorf("while a member is there: %v", refused)
	}
	if st := rs.State("n"); st.Rule != RuleSpread || st.ID == 0 {
		t.Errorf("%+v while a member is there", st)
	}
	b.leave(t)
	eventually(t, "freed", func() bool { return len(rs.Names()) == 0 })
	if _, refused := c.on(t, rs, "n", Terms{}); refused != 0 || rs.State("n").Rule != RuleNone {
		t.Errorf("after all have gone: %v, %v", refused, rs.State("n").Rule)
	}
	if err := rs.Register(c.shard, c.address.Text(), c.way.peer.ID, "m", Terms{Share: string(make([]byte, maxShare+1))}, nil); err == nil {
		t.Error("an expression of any length")
	}
	if err := rs.Register(c.shard, c.address.Text(), c.way.peer.ID, "", Terms{}, nil); err == nil {
		t.Error("a name of no length")
	}
	elsewhere := *c
	elsewhere.way = &way{peer: &Peer{ID: [32]byte{9}}}
	if _, refused := elsewhere.on(t, rs, "m", Terms{}); refused != NoticeDenied {
		t.Errorf("through the channel of another: %v", refused)
	}
}

// TestGroupFailover: new flows follow the rule, those that there are stay with their member, and go nowhere when that has gone.
func TestGroupFailover(t *testing.T) {
	for _, shards := range []int{1, 2} {
		r := newRouter(t, shards)
		l := NewFlow()
		rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}, Shares: sharing})
		a, b := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{1}}), newCaller(t, r.shards[shards-1], l, &Peer{ID: [32]byte{2}})
		user := newCaller(t, r.shards[0], l, nil)
		a.on(t, rs, "n", Terms{Share: "with 2", Rule: RuleFailover})
		st, _ := b.on(t, rs, "n", Terms{Priority: 10})
		if st.Registrations != 2 || st.Way != a.address.Text() || st.Rule != RuleFailover {
			t.Errorf("%+v", st)
		}
		before := ask(t, user, "n", "one", a, b)
		moved := make(chan RelayState, 1)
		rs.Await("n", rs.State("n").ID, func(st RelayState) { moved <- st })
		a.on(t, rs, "n", Terms{Share: "with 2", Rule: RuleFailover, Down: true})
		if st := <-moved; st.Way != b.address.Text() {
			t.Errorf("told of %+v", st)
		}
		if first, second, again := before, ask(t, user, "n", "two", a, b), ask(t, user, "n", "one", a, b); first != 0 || second != 1 || again != 0 {
			t.Errorf("%d shards: before %d, then %d, and the first flow to %d", shards, first, second, again)
		}
		list := rs.Members("n")
		if len(list) != 2 || !list[0].Down || list[0].Chosen || !list[1].Chosen || list[1].Priority != 10 || list[1].Identity != b.way.peer.ID {
			t.Errorf("%+v", list)
		}
		a.leave(t)
		eventually(t, "left", func() bool { return rs.State("n").Registrations == 1 })
		if got := ask(t, user, "n", "one", a, b); got != -1 {
			t.Errorf("the middle of a stream went to %d", got)
		}
		if got := ask(t, user, "n", "three", a, b); got != 1 {
			t.Errorf("a new flow went to %d", got)
		}
		b.leave(t)
		eventually(t, "left", func() bool { return rs.State("n").ID == 0 })
		if got := ask(t, user, "n", "four", a, b); got != -1 {
			t.Errorf("with nobody there: %d", got)
		}
	}
}

// TestGroupSpread: new flows go to the member with the fewest, all messages of one to one member, whatever comes between.
func TestGroupSpread(t *testing.T) {
	r := newRouter(t, 2)
	l := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}, Shares: sharing})
	a, b := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{1}}), newCaller(t, r.shards[1], l, &Peer{ID: [32]byte{2}})
	user := newCaller(t, r.shards[0], l, nil)
	terms := Terms{Member: MemberID{1}, Share: "with 2", Rule: RuleSpread}
	a.on(t, rs, "n", terms)
	b.on(t, rs, "n", Terms{Member: MemberID{2}})
	state := rs.State("n")
	if state.Way != "" || state.ID == 0 {
		t.Errorf("%+v", state)
	}
	of, counts := map[string]int{}, [2]int{}
	for i := range 20 {
		flow := fmt.Sprint("flow ", i)
		of[flow] = ask(t, user, "n", flow, a, b)
		counts[of[flow]]++
	}
	if counts != [2]int{10, 10} {
		t.Errorf("%v of 20", counts)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		flow := fmt.Sprint("flow ", rng.IntN(20))
		if got := ask(t, user, "n", flow, a, b); got != of[flow] {
			t.Fatalf("%s went to %d and then to %d", flow, of[flow], got)
		}
	}
	if rs.State("n").ID != state.ID {
		t.Error("the state is another one though nobody came or went")
	}
	terms.Connections = 100
	a.on(t, rs, "n", terms)
	for i := range 5 {
		if got := ask(t, user, "n", fmt.Sprint("more ", i), a, b); got != 1 {
			t.Errorf("to the one with 100 connections")
		}
	}
	// A member without terms: channels are counted.
	old := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{1}})
	old.register(t, "n")
	old.receive(t)
	eventually(t, "three are there", func() bool { return rs.State("n").Registrations == 3 })
	if rs.State("n").ID == state.ID {
		t.Error("nobody is told that one has come")
	}
	var users []*caller
	for i := range 3 {
		u := newCaller(t, r.shards[0], l, nil)
		users = append(users, u)
		if got := ask(t, u, "n", fmt.Sprint("channel ", i), a, b, old); i == 0 && got != 2 {
			t.Errorf("first to %d, where channels were brought already", got)
		}
	}
	channels := func() (sum int64) {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		for _, m := range rs.named["n"].members {
			sum += m.channels.Load()
		}
		return sum
	}
	if n := channels(); n != 5 { // of users one each, of user one for each of two members
		t.Errorf("%d channels", n)
	}
	for _, u := range append(users, user) {
		u.leave(t)
	}
	if n := channels(); n != 0 {
		t.Errorf("%d channels are left", n)
	}
}

// TestFlowsAreBounded: a flow that is used is remembered, and how many are is bounded.
func TestFlowsAreBounded(t *testing.T) {
	table, kept := newFlowTable(), &member{}
	table.put(0, kept)
	for i := range uint64(5 * maxFlows) {
		table.put(i+1, &member{})
		if i%100 == 0 && table.get(0) != kept {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if n := len(table.young) + len(table.old); n > 2*maxFlows {
		t.Errorf("%d are remembered", n)
	}
	if table.get(1) != nil {
		t.Error("the first of many is remembered")
	}
}

// TestGroupTimer: a member with a lower number takes over by itself when its time has come, and nothing is left of a service that has been closed.
func TestGroupTimer(t *testing.T) {
	r := newRouter(t, 1)
	l := NewFlow()
	rs := newRelays(t, r, RelayOptions{Flows: []*Flow{l}, Shares: sharing})
	a, b := newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{1}}), newCaller(t, r.shards[0], l, &Peer{ID: [32]byte{2}})
	a.on(t, rs, "n", Terms{Share: "with 2", Priority: 5})
	b.on(t, rs, "n", Terms{})
	moved := make(chan RelayState, 1)
	rs.Await("n", rs.State("n").ID, func(st RelayState) { moved <- st })
	rs.mu.Lock()
	n := rs.named["n"]
	if n.timer == nil {
		t.Error("nothing is planned")
	}
	i := slices.IndexFunc(n.members, func(m *member) bool { return m.priority == 0 })
	n.members[i].upSince = n.members[i].upSince.Add(-preemptDelay + 10*time.Millisecond) // nearly all of the time has passed
	tell := rs.rechoose(n)
	rs.mu.Unlock()
	tell()
	select {
	case st := <-moved:
		if st.Way != b.address.Text() {
			t.Errorf("%+v", st)
		}
	case <-time.After(90 * time.Second):
		t.Fatal("it does not take over")
	}
}
