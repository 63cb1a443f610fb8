package routing

import (
	"math"
	"testing"
	"time"
)

// TestCrowdBounds goes through what decides about the sources of a slow destination, on both sides of each bound.
func TestCrowdBounds(t *testing.T) {
	a, b, fresh := &Throttle{}, &Throttle{}, &Throttle{}
	c := &crowd{}
	if (*crowd)(nil).most() != math.MaxInt || c.most() != math.MaxInt {
		t.Error("a destination without a crowd is bounded")
	}
	c.count(a, 60)
	if c.most() != math.MaxInt {
		t.Error("one source is a crowd")
	}
	c.count(b, 30)
	if c.most() != slowRoom {
		t.Errorf("%d may wait", c.most())
	}
	if c.rate = slowRoom / slowTime; c.most() != slowRoom {
		t.Errorf("%d may wait", c.most())
	}
	if c.rate = 2 * slowRoom / slowTime; c.most() < 2*slowRoom-slowTime || c.most() > 2*slowRoom {
		t.Errorf("%d may wait", c.most())
	}
	// Of 90 bytes of two, half of the average is 22.5.
	for _, x := range []struct {
		from *Throttle
		size int
		want bool
	}{{a, 0, true}, {b, 0, true}, {fresh, 18, true}, {fresh, 17, false}, {fresh, 0, false}} {
		if got := c.heavy(x.from, x.size); got != x.want {
			t.Errorf("%d bytes more: heavy %v", x.size, got)
		}
	}
	c.rate = 0
	c.measure(1000, 0)
	c.measure(4000, 2*time.Second)
	if c.rate != 500 {
		t.Errorf("a rate of %v", c.rate)
	}
	(*crowd)(nil).measure(1, time.Second)
	c.tight = true
	c.refused = map[*Throttle]time.Time{a: {}}
	c.disperse()
	if c.brought != nil || c.total != 0 || c.rate != 0 || c.tight || c.refused == nil {
		t.Errorf("%+v", c)
	}
	(*crowd)(nil).disperse()

	now := time.Unix(1000, 0)
	const patience = time.Second
	for name, x := range map[string]struct {
		c           *crowd
		pending     int
		taken       uint64
		holds       bool
		tight, anew bool
	}{
		"no crowd":                           {nil, 0, 0, false, false, false},
		"with room":                          {&crowd{since: now.Add(-time.Hour)}, 0, 0, false, false, false},
		"not for long":                       {&crowd{tight: true, held: 100, since: now.Add(-holdPatience*patience + 1)}, 100, 49, false, true, false},
		"for long":                           {&crowd{tight: true, held: 100, since: now.Add(-holdPatience * patience)}, 100, 49, true, true, false},
		"half of it was taken":               {&crowd{tight: true, held: 100, since: now.Add(-holdPatience * patience)}, 51, 50, false, true, true},
		"half of it is left":                 {&crowd{tight: true, held: 100, since: now.Add(-holdPatience * patience)}, 50, 50, false, false, true},
		"half of what a slow one may have":   {&crowd{tight: true, held: 4 * slowRoom, since: now.Add(-holdPatience * patience)}, 4 * slowRoom, slowRoom / 2, false, true, true},
		"less than half of what it may have": {&crowd{tight: true, held: 4 * slowRoom, since: now.Add(-holdPatience * patience)}, 4 * slowRoom, slowRoom/2 - 1, true, true, false},
		"taken before it was tight":          {&crowd{tight: true, held: 100, taken: 10, since: now.Add(-holdPatience * patience)}, 100, 59, true, true, false},
	} {
		got := x.c.holds(x.pending, x.taken, now, patience)
		if got != x.holds || x.c != nil && (x.c.tight != x.tight || x.anew != x.c.since.Equal(now) || x.anew != (x.c.taken == x.taken) && x.taken > 0) {
			t.Errorf("%s: %v, %+v", name, got, x.c)
		}
	}
}

// TestWhoIsRefused: where the room is spent a heavy source is refused, and a light one when a quarter more waits; for so long, and counted. Before that, and
// at a destination of one source, nobody is.
func TestWhoIsRefused(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	on(t, s, func() {
		now := s.loop.Now()
		heavy, light := NewSharedThrottle(s, &switched{}), NewSharedThrottle(s, &switched{})
		fill := func() *sink {
			d := newNodeSink(s, time.Minute)
			b := d.backlog
			r.Backlogs.SetLimit(0) // there is no room
			b.mode = lagging
			b.crowd.count(heavy, 4<<20)
			b.crowd.count(light, 10)
			d.waits = 8 << 20
			b.spent(d.waits, now)
			if c := b.crowd; !c.tight || c.held != d.waits || !c.since.Equal(now) {
				t.Errorf("%+v", c)
			}
			d.waits++
			b.spent(d.waits, now.Add(time.Second)) // noted when it began
			if c := b.crowd; c.held != 8<<20 || !c.since.Equal(now) {
				t.Errorf("%+v", c)
			}
			return d
		}
		for name, x := range map[string]struct {
			change  func(d *sink)
			from    *Throttle
			size    int
			refused bool
		}{
			"a heavy one":                    {func(*sink) {}, heavy, 1, true},
			"a light one":                    {func(*sink) {}, light, 1, false},
			"a light one, a quarter more":    {func(d *sink) { d.waits = 10<<20 - 1 }, light, 1, false},
			"a light one, more than that":    {func(d *sink) { d.waits = 10 << 20 }, light, 1, true},
			"nobody's":                       {func(*sink) {}, nil, 1, false},
			"of one that has ended":          {func(d *sink) { d.backlog.closed = true }, heavy, 1, false},
			"while it flows":                 {func(d *sink) { d.backlog.mode = flowing }, heavy, 1, false},
			"with room":                      {func(d *sink) { d.backlog.crowd.tight = false }, heavy, 1, false},
			"refused a moment ago":           {func(d *sink) { d.backlog.crowd.refuse(light, now) }, light, 1, true},
			"refused before, while it flows": {func(d *sink) { d.backlog.crowd.refuse(light, now); d.backlog.mode = flowing }, light, 1, true},
			"refused for long enough":        {func(d *sink) { d.backlog.crowd.refused = map[*Throttle]time.Time{light: now.Add(-refusedFor)} }, light, 1, false},
			"for a little less": {func(d *sink) {
				d.backlog.crowd.refused = map[*Throttle]time.Time{light: now.Add(time.Second - refusedFor)}
			}, light, 1, true},
		} {
			d := fill()
			x.change(d)
			told, dropped, refused, brought := d.refusals, r.Backlogs.Dropped(), r.Backlogs.Refused(), d.backlog.crowd.brought[x.from]
			got := d.backlog.Refuses(x.size, x.from)
			if got != x.refused || (r.Backlogs.Dropped()-dropped == 1) != x.refused {
				t.Errorf("%s: refused %v, %d dropped", name, got, r.Backlogs.Dropped()-dropped)
			}
			if first := d.refusals > told; first != (r.Backlogs.Refused() > refused) {
				t.Errorf("%s: told %v, counted %d", name, first, r.Backlogs.Refused()-refused)
			}
			if counted := d.backlog.crowd.brought[x.from] != brought; counted != (name == "a light one" || name == "a light one, a quarter more" || name == "with room" || name == "refused for long enough") {
				t.Errorf("%s: counted %v", name, counted)
			}
			d.backlog.closed = false
			d.backlog.Close()
		}
		alone := newSink(s)
		alone.backlog.mode = lagging
		if alone.backlog.Refuses(1, heavy) {
			t.Error("the one source of a destination is refused")
		}
		alone.backlog.spent(5000, now)
		if alone.stalled != 1 {
			t.Error("a destination of one source is not ended when its room is spent")
		}
		// Who was refused long ago is forgotten when the next one is.
		d := fill()
		d.backlog.crowd.refused = map[*Throttle]time.Time{heavy: now.Add(-refusedFor), mine(s): now.Add(time.Second - refusedFor)}
		d.backlog.crowd.refuse(light, now)
		if len(d.backlog.crowd.refused) != 2 || d.refusals != 1 {
			t.Errorf("%d are refused, told %d times", len(d.backlog.crowd.refused), d.refusals)
		}
		d.backlog.Close()
	})
}

func mine(s *Shard) *Throttle { return NewSharedThrottle(s, &switched{}) }

// TestRoomGrows: a destination's share of the budget grows by steps, as far as there is any, and a slow one's is bounded by what it takes.
func TestRoomGrows(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	on(t, s, func() {
		r.Backlogs.SetLimit(4 * backlogStep)
		d := newNodeSink(s, 0)
		b := d.backlog
		for _, x := range []struct {
			pending int
			room    bool
			share   int64
		}{{1000, true, 0}, {1001, true, backlogStep}, {1000 + backlogStep, true, backlogStep}, {1001 + backlogStep, true, 2 * backlogStep}, {1001 + 2*backlogStep, false, 2 * backlogStep}, {1000, true, 2 * backlogStep}} {
			if got := b.room(x.pending); got != x.room || b.share != x.share || r.Backlogs.Used() != x.share {
				t.Errorf("%d wait: room %v, a share of %d", x.pending, got, b.share)
			}
		}
		b.Close()
		if r.Backlogs.Used() != 0 {
			t.Error("the share is not given back")
		}
		r.Backlogs.SetLimit(1 << 40)
		slow := newNodeSink(s, 0)
		slow.backlog.crowd.count(mine(s), 1)
		slow.backlog.crowd.count(mine(s), 1)
		for _, x := range []struct {
			slow bool
			more int
			room bool
		}{{true, slowRoom, true}, {true, slowRoom + 1, false}, {false, slowRoom + 1, true}} {
			slow.backlog.slow = x.slow
			if got := slow.backlog.room(1000 + x.more); got != x.room {
				t.Errorf("%+v: %v", x, got)
			}
		}
		slow.backlog.Close()
	})
}

// TestLongestAndLargest: what came so far is known by its most addresses and bytes; what was refused is counted instead.
func TestLongestAndLargest(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	wire := func(onward, ret Route, n int) []byte {
		return append(AppendHeader(nil, onward, ret, n), make([]byte, n)...)
	}
	r.MaxRoute = 3
	on(t, s, func() {
		for _, x := range []struct {
			b                []byte
			ok               bool
			longest, largest int
			refused          uint64
		}{
			{wire(LocalRoute("a"), LocalRoute("b", "c"), 5), true, 2, -1, 0},
			{wire(LocalRoute("a", "b", "c"), Route{}, 0), true, 3, -1, 0},
			{wire(LocalRoute("a"), LocalRoute("b"), 500), true, 3, -1, 0},
			{wire(LocalRoute("a"), LocalRoute("b"), 50), true, 3, -2, 0},
			{wire(LocalRoute("a"), LocalRoute("a", "b", "c", "d"), 5000), false, 3, -2, 1},
			{[]byte("x"), false, 3, -2, 1},
		} {
			before := s.LargestMessage.Load()
			_, err := s.Parse(x.b)
			largest := before
			if x.largest == -1 {
				largest = max(before, int64(len(x.b)))
			}
			if (err == nil) != x.ok || s.LongestRoute.Load() != int64(x.longest) || s.LargestMessage.Load() != largest || s.Drops.LongRoute.Load() != x.refused {
				t.Errorf("%d bytes: %v, longest %d, largest %d of %d, %d refused", len(x.b), err, s.LongestRoute.Load(), s.LargestMessage.Load(), largest, s.Drops.LongRoute.Load())
			}
		}
	})
}

// TestFaultTakesNoInbox: a message whose worker panics has left the inbox: its bytes do not count against the sources of others for ever.
func TestFaultTakesNoInbox(t *testing.T) {
	r := newRouter(t, 2)
	here, there := r.shards[0], r.shards[1]
	var address WireAddress
	on(t, there, func() { address = there.Start(WorkerFunc(func(*Shard, *Message) { panic("as asked") })) })
	on(t, here, func() {
		m := here.NewMessage()
		m.Onward = RouteOf(address)
		m.SetPayloadBytes(make([]byte, 1000))
		here.Deliver(m)
		here.Free(m)
	})
	on(t, there, func() {})
	eventually(t, "nothing waits", func() bool { return there.waiting.Load() == 0 })
	if there.waiting.Load() != 0 {
		t.Errorf("%d bytes wait", there.waiting.Load())
	}
}
