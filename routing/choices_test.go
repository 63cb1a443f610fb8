package routing

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/dataplane"
	"sallyport/internal/cborhead"
	"sallyport/routing/bare"
)

// TestMembersComeInOrder: among members that are up the lowest number comes first, then who registered first, then who came first.
func TestMembersComeInOrder(t *testing.T) {
	at := time.Unix(1000, 0)
	list := []*member{
		{priority: 1, since: at.Add(time.Hour), order: 9}, {priority: 2, since: at, order: 8}, {priority: 2, since: at.Add(time.Second), order: 1},
		{priority: 2, since: at.Add(time.Second), order: 2}, {priority: 3, since: at.Add(-time.Hour), order: 0},
	}
	for i, m := range list {
		for j, o := range list {
			if m.before(o) != (i < j) {
				t.Errorf("member %d before %d: %v", i, j, m.before(o))
			}
		}
	}
}

// TestSpreadTakesTurns: of members that are equal each gets one new flow after the other; what one gets alone goes to it, and where nobody can be reached nobody gets it.
func TestSpreadTakesTurns(t *testing.T) {
	n := &relayName{}
	if n.give() != nil {
		t.Error("given to nobody")
	}
	var list []*member
	for i := range 3 {
		list = append(list, &member{order: uint64(i)})
	}
	n.among.Store(&list)
	for i := range 9 {
		if n.give() != list[i%3] {
			t.Fatalf("flow %d goes out of turn", i)
		}
	}
	alone := &registration{member: list[1]}
	n.among.Store(nil)
	n.current.Store(alone)
	for range 2 {
		if n.give() != list[1] {
			t.Error("not given to who gets new flows")
		}
	}
}

// TestHoldBeginsWithSharedSource: the time for which a shared source may be held is reckoned from when it is paused, not from when one of its own was; the second
// one does not begin it anew, and where they are stopped because very much waits it is that mode's.
func TestHoldBeginsWithSharedSource(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	var w, x, y stopwatch
	own, one, two := NewThrottle(s, &w), NewSharedThrottle(s, &x), NewSharedThrottle(s, &y)
	on(t, s, func() {
		d := newSink(s)
		b, now := d.backlog, s.loop.Now()
		old := now.Add(-holdFor / 2)
		d.waits, d.taken = 2000, 10
		b.Over(2000, own)
		if b.mode != holding || !b.since.Equal(now) || b.taken != 10 || w.since.IsZero() {
			t.Fatalf("mode %d since %v", b.mode, b.since)
		}
		b.since, d.taken = old, 20
		b.Over(2000, one)
		if !b.since.Equal(now) || b.taken != 20 || x.since.IsZero() {
			t.Errorf("the first shared source is held since %v", now.Sub(b.since))
		}
		b.since, d.taken = old, 30
		b.Over(2000, two)
		if !b.since.Equal(old) || b.taken != 20 || y.since.IsZero() {
			t.Errorf("the second shared source begins it anew")
		}
		b.gate.Open()
		b.mode, b.since, b.taken = throttling, old, 7
		b.hold(one, now)
		if !b.since.Equal(old) || b.taken != 7 || b.gate.paused[0] != one {
			t.Error("another mode's time begins anew")
		}
		b.Close()
	})
}

// TestRelaysOnStoppedShards: where the workers of names cannot be started nobody has them, and who registers on terms is told.
func TestRelaysOnStoppedShards(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	g, err := dataplane.NewGroup(2, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	r, err := NewRouter(g, log)
	if err != nil {
		t.Fatal(err)
	}
	rs := newRelays(t, r, RelayOptions{})
	g.Stop()
	refused := NoticeKind(0)
	rs.install([]request{
		{name: "a", reg: &registration{relays: rs, holder: "x", shard: r.shards[0]}},
		{name: "b", reg: &registration{relays: rs, holder: "x", shard: r.shards[1]}, done: func(_ RelayState, k NoticeKind) { refused = k }},
	})
	if refused != NoticeFull || len(rs.held) != 0 || rs.State("a").Registrations != 0 || rs.State("b").Registrations != 0 || r.HasNamed("forward_to_a") {
		t.Errorf("told %v, held %v", refused, rs.held)
	}
}

// TestRegistrationOfLostWay: a registration whose way has ended, or is another one, when it is to begin is forgotten and not answered; one whose way is there is watched.
func TestRegistrationOfLostWay(t *testing.T) {
	for _, there := range []bool{true, false} {
		r := newRouter(t, 1)
		listener := NewFlow()
		rs := newRelays(t, r, RelayOptions{Flows: []*Flow{listener}})
		c, other := newCaller(t, r.shards[0], listener, &Peer{ID: [32]byte{1}}), newCaller(t, r.shards[0], listener, &Peer{ID: [32]byte{1}})
		q := request{name: "bank", back: RouteOf(c.address).Concat(LocalRoute("rr")), owner: &[32]byte{1}, reg: &registration{relays: rs, id: 5, forward: RouteOf(c.address), shard: r.shards[0], terminal: c.way, holder: "x"}}
		if !there {
			q.reg.terminal = other.way
		}
		rs.install([]request{q})
		on(t, r.shards[0], func() {})
		if !there {
			eventually(t, "forgotten", func() bool { return len(rs.Names()) == 0 && !r.HasNamed("forward_to_bank") })
			c.nothing(t, "it is answered")
			if c.way.Any() || other.way.Any() {
				t.Error("it is watched")
			}
			continue
		}
		if got := c.receive(t); !bytes.Contains(got.Payload, []byte("forward_to_bank")) || !c.way.Any() || rs.State("bank").ID != 5 {
			t.Errorf("answered %q, watched %v, %+v", got.Payload, c.way.Any(), rs.State("bank"))
		}
		on(t, r.shards[0], func() { c.way.Tell() })
		eventually(t, "forgotten with its way", func() bool { return len(rs.Names()) == 0 })
	}
}

// carrying is a way that counts what it carries.
type carrying struct {
	*way
	traffic Traffic
}

func (c carrying) Carried() Traffic { return c.traffic }

// TestTraffic: what the channels of names carried is told by name, with lanes under the name that they are of, of so many names, and of the others together. A name of
// this node, or that cannot be reached, has carried nothing.
func TestTraffic(t *testing.T) {
	r := newRouter(t, 2)
	rs := newRelays(t, r, RelayOptions{})
	put := func(name string, g *registration) {
		n := &relayName{name: name}
		m := n.join(memberKey{})
		if g != nil {
			g.member, g.name = m, n
			m.current.Store(g)
		}
		rs.mu.Lock()
		rs.named[name] = n
		rs.mu.Unlock()
	}
	channel := func(shard int, n uint64) *registration {
		return &registration{shard: r.shards[shard], terminal: carrying{&way{}, Traffic{n, 2 * n, 3 * n, 4 * n}}}
	}
	put("bank", channel(0, 100))
	put(LaneName("bank"), channel(1, 1))
	put("here", &registration{shard: r.shards[0]})
	put("plain", &registration{shard: r.shards[0], terminal: &way{}})
	put("lost", nil)
	want := map[string]Traffic{"bank": {101, 202, 303, 404}, "here": {}, "plain": {}, "lost": {}}
	check := func() {
		t.Helper()
		got := rs.Traffic(limited(t))
		if len(got) != len(want) {
			t.Errorf("%d names, want %d", len(got), len(want))
		}
		for name, traffic := range want {
			if g, known := got[name]; !known || g != traffic {
				t.Errorf("%s: %+v, want %+v", name, g, traffic)
			}
		}
	}
	check()
	for i := range maxTraffic + 2 {
		name := fmt.Sprintf("a%03d", i) // before all others
		put(name, channel(0, 1))
		if i < maxTraffic {
			want[name] = Traffic{1, 2, 3, 4}
		}
	}
	for _, name := range []string{"bank", "here", "plain", "lost"} {
		delete(want, name)
	}
	want[OtherNames] = Traffic{103, 206, 309, 412}
	check()
}

// TestGroupsAreCounted: of how many shared names members are up, down or away, name by name, and beyond so many together; who has left is not counted.
func TestGroupsAreCounted(t *testing.T) {
	rs := newRelays(t, newRouter(t, 1), RelayOptions{})
	put := func(name string, changes uint64) {
		n := &relayName{name: name}
		n.grouped.Store(true)
		n.changes = changes
		for i := range 7 { // one has left, one is away, two are down, three are up
			m := n.join(memberKey{id: MemberID{byte(i)}})
			if i == 0 {
				continue
			}
			g := &registration{member: m}
			m.regs = []*registration{g}
			if i > 1 {
				m.current.Store(g)
			}
			m.down = i < 4
		}
		rs.named[name] = n
	}
	one := GroupUse{Up: 3, Down: 2, Away: 1, Changes: 5}
	for i := range maxTraffic + 2 {
		put(fmt.Sprintf("a%03d", i), 5)
	}
	got := rs.Groups()
	if len(got) != maxTraffic+1 || got["a000"] != one || got[fmt.Sprintf("a%03d", maxTraffic-1)] != one || got[OtherNames] != (GroupUse{6, 4, 2, 10}) {
		t.Errorf("%d names: %+v, the others %+v", len(got), got["a000"], got[OtherNames])
	}
}

// TestUnusualEncodings: what a route may be in other than its shortest form, on both sides of each limit.
func TestUnusualEncodings(t *testing.T) {
	route := func(addresses ...string) string {
		return string([]byte{byte(0x80 + len(addresses))}) + strings.Join(addresses, "")
	}
	value := func(n int) string {
		return string(cborhead.Append(nil, cborhead.Bytes, uint64(n))) + strings.Repeat("v", n)
	}
	for name, c := range map[string]struct {
		text string
		n    int // addresses; -1: refused
	}{
		"the longest value":                 {route("\x82\x00" + value(maxAddressLen)), 1},
		"the longest value, unusual":        {route("\x83\x00" + value(maxAddressLen) + "\x01"), 1},
		"a value too long":                  {route("\x82\x00" + value(maxAddressLen+1)), -1},
		"a value too long, unusual":         {route("\x83\x00" + value(maxAddressLen+1) + "\x01"), -1},
		"the largest type":                  {route("\x82\x18\xff\x41a"), 1},
		"a type too large":                  {route("\x82\x19\x01\x00\x41a"), -1},
		"a type that is no number":          {route("\x82\x41a\x41a"), -1},
		"one item":                          {route("\x81\x00"), -1},
		"no array":                          {route("\xa1\x00\x41a"), -1},
		"an open address":                   {"\x81\x9f\x00\x41a\xff", 1},
		"an open address with more":         {"\x81\x9f\x00\x41a\x01\x02\xff", 1},
		"an open address that does not end": {"\x81\x9f\x00\x41a\x01", -1},
		"an open address, cut off":          {"\x81\x9f\x00\x41a", -1},
		"an open route":                     {"\x9f\x82\x00\x41a\x82\x00\x41b\xff", 2},
		"an open route that does not end":   {"\x9f\x82\x00\x41a", -1},
		"more items, one missing":           {"\x81\x84\x00\x41a\x01", -1},
		"the most addresses":                {"\x98\x40" + strings.Repeat("\x82\x00\x41a", maxRouteLen), maxRouteLen},
		"an address too many":               {"\x98\x41" + strings.Repeat("\x82\x00\x41a", maxRouteLen+1), -1},
		"an address missing":                {"\x82\x82\x00\x41a", -1},
		"a value in pieces":                 {"\x81\x82\x00\x5f\x41a\xff", -1},
		"a value longer than there is":      {"\x81\x82\x00\x42a", -1},
		"a text":                            {"\x61a", -1},
		"nothing":                           {"", -1},
	} {
		r, end, err := ReadRoute([]byte(c.text), 0)
		if (err == nil) != (c.n >= 0) || err == nil && (r.Len() != c.n || end != len(c.text)) {
			t.Errorf("%s: %d addresses to %d of %d, %v", name, r.Len(), end, len(c.text), err)
		}
		if err != nil {
			continue
		}
		again, _, err := ReadRoute(AppendRoute(nil, r), 0) // in its shortest form
		if err != nil || !again.Equal(r) {
			t.Errorf("%s: %v is not the same again, %v", name, again, err)
		}
	}
	deep := func(n int) string { return strings.Repeat("\x81", n) + "\x00" }
	for name, c := range map[string]struct {
		text string
		end  int // -1: refused
	}{
		"as deep as may be":         {deep(maxSkipDepth), maxSkipDepth + 1},
		"deeper":                    {deep(maxSkipDepth + 1), -1},
		"a map":                     {"\xa2\x01\x02\x03\x04", 5},
		"a map, one item missing":   {"\xa2\x01\x02\x03", -1},
		"a map larger than all":     {"\xb8\xff\x01", -1},
		"an open map":               {"\xbf\x01\x02\xff", 4},
		"a tag":                     {"\xc1\x1a\x00\x00\x00\x01", 6},
		"a tag of nothing":          {"\xc1", -1},
		"a text":                    {"\x63abc", 4},
		"a text, cut off":           {"\x63ab", -1},
		"a text in pieces":          {"\x7f\x61a\x61b\xff", 6},
		"pieces without an end":     {"\x7f\x61a", -1},
		"an array, one is missing":  {"\x82\x01", -1},
		"a negative number":         {"\x20", 1},
		"nothing but what is there": {"\xf6\x01", 1},
	} {
		end, err := SkipItem([]byte(c.text), 0)
		if (err == nil) != (c.end >= 0) || err == nil && end != c.end {
			t.Errorf("%s: ends at %d, %v", name, end, err)
		}
	}
}

// TestRequestsThatAreNone: a request for a name that is none, or has nowhere to be answered, is counted; the longest name is taken, and one that asks for any gets one.
func TestRequestsThatAreNone(t *testing.T) {
	r := newRouter(t, 1)
	listener := NewFlow()
	newRelays(t, r, RelayOptions{Flows: []*Flow{listener}})
	s := r.shards[0]
	c := newCaller(t, s, listener, &Peer{ID: [32]byte{1}})
	for i, bad := range [][]byte{nil, {5, 'a'}, bare.AppendString(nil, strings.Repeat("n", maxRelayName+1))} {
		c.send(t, LocalRoute(RelayService), LocalRoute("rr"), bad)
		if n := s.Drops.Malformed.Load(); n != uint64(i+1) {
			t.Errorf("%d: %d counted", i, n)
		}
	}
	on(t, s, func() { // nobody to answer to
		m := s.NewMessage()
		m.Onward = LocalRoute(RelayService)
		m.SetPayloadBytes(bare.AppendString(nil, "name"))
		s.Deliver(m)
		s.Free(m)
	})
	if n := s.Drops.Malformed.Load(); n != 4 {
		t.Errorf("without a way back: %d counted", n)
	}
	c.nothing(t, "a request that is none")
	names := map[string]bool{}
	for _, name := range []string{strings.Repeat("n", maxRelayName), "register", "register"} {
		c.send(t, LocalRoute(RelayService), LocalRoute("rr"), bare.AppendString(nil, name))
		text, _, err := bare.Bytes(c.receive(t).Payload)
		if given, is := strings.CutPrefix(string(text), RelayPrefix); err != nil || !is || names[given] || given == "register" || len(name) > 100 && given != name {
			t.Errorf("%.10s: %q, %v", name, text, err)
		} else {
			names[given] = true
		}
	}
	if len(names) != 3 || s.Drops.Malformed.Load() != 4 {
		t.Errorf("%d names", len(names))
	}
}

// TestFlowsOfWorkers: a worker is reached through a flow from when it consumes it until it does not, each once.
func TestFlowsOfWorkers(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	on(t, s, func() {
		a, b, ended := NewFlow(), NewFlow(), NewFlow()
		ended.End()
		w := s.Start(Echo(nil, nil), a).Text()
		for i, c := range []struct {
			f    func()
			want []*Flow
		}{
			{func() { s.AddConsumer(w, a) }, []*Flow{a}},
			{func() { s.AddConsumer(w, b) }, []*Flow{a, b}},
			{func() { s.AddConsumer(w, nil) }, []*Flow{a, b}},
			{func() { s.AddConsumer(w, ended) }, []*Flow{a, b}},
			{func() { s.RemoveConsumer(w, ended) }, []*Flow{a, b}},
			{func() { s.RemoveConsumer("nobody", a) }, []*Flow{a, b}},
			{func() { s.RemoveConsumer(w, a) }, []*Flow{b}},
			{func() { s.AddConsumer(w, a) }, []*Flow{b, a}},
		} {
			before := s.Consumes(w)
			was := slices.Clone(before)
			if c.f(); !slices.Equal(s.Consumes(w), c.want) || !slices.Equal(before, was) {
				t.Errorf("%d: %d flows, want %d", i, len(s.Consumes(w)), len(c.want))
			}
		}
		s.AddConsumer("nobody", a)
		if s.Worker("nobody") != nil || len(s.workers) == 0 || s.Consumes("nobody") != nil {
			t.Error("a worker out of nothing")
		}
		seen := 0
		s.Each(func(Worker) { seen++ })
		if seen != len(s.workers) {
			t.Errorf("%d of %d workers", seen, len(s.workers))
		}
	})
}
