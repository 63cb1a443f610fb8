package routing

import (
	"math"
	"testing"
	"time"
)

// faulty is a source that is told of faults.
type faulty struct {
	switched
	faults int
}

func (f *faulty) Faulted() { f.faults++ }

// TestGateHoldsSharedSourcesForAWhile: a gate that is shut for long lets sources go on that others use too, and charges them for it; its own sources wait.
func TestGateHoldsSharedSourcesForAWhile(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	on(t, s, func() {
		own, others := &switched{}, &switched{}
		mine, shared := NewThrottle(s, own), NewSharedThrottle(s, others)
		if mine.Shared() || !shared.Shared() || (*Throttle)(nil).Shared() {
			t.Error("whose messages go to many destinations is not known")
		}
		g := NewGate(s)
		g.fired() // nobody is paused
		if g.Shut() || g.released {
			t.Error("shut without a source")
		}
		now := s.loop.Now()
		g.Pause(shared)
		g.Pause(shared)
		g.Pause(mine)
		if others.pauses != 1 || own.pauses != 1 || !g.armed || g.since.IsZero() || !g.holdsShared() {
			t.Fatalf("%+v %+v", others, own)
		}
		timer := g.timer
		g.fired() // early, as a timer that was set for less
		if !g.armed || others.paused != 1 || g.timer != timer || g.released {
			t.Error("let go early, or never")
		}
		since := s.loop.Now().Add(-holdFor)
		g.since = since
		g.fired()
		if others.paused != 0 || own.paused != 1 || !g.released || !g.Shut() || !g.since.IsZero() || len(g.paused) != 1 || g.holdsShared() || g.armed {
			t.Errorf("others %+v, own %+v, gate %+v", others, own, g)
		}
		if owed := shared.owed.Load() - now.UnixNano(); owed < holdShare*int64(holdFor) || owed > 2*holdShare*int64(holdFor) {
			t.Errorf("charged %v", time.Duration(owed))
		}
		if mine.owed.Load() != 0 {
			t.Error("a source of its own is charged")
		}
		g.Pause(shared) // until it is open, nobody who shares is paused again
		if others.pauses != 1 {
			t.Error("paused again while the gate is shut")
		}
		g.Open()
		if own.paused != 0 || g.Shut() {
			t.Error("still shut")
		}
		g.Pause(shared)
		if others.paused != 1 {
			t.Error("who has paid for it is not paused")
		}
		g.Open()

		// Who owes too much is not paused; a gate that must hold pauses all the same.
		most := holdShare * int64(holdDebt-holdFor)
		for _, c := range []struct {
			owed int64
			may  bool
		}{{0, true}, {most - 1, true}, {most, false}, {most + 1, false}} {
			if shared.owed.Store(now.UnixNano() + c.owed); shared.mayHold(now) != c.may {
				t.Errorf("owes %d of %d: may be held %v", c.owed, most, !c.may)
			}
			if mine.owed.Store(now.UnixNano() + c.owed); !mine.mayHold(now) {
				t.Error("a source of its own may always be held")
			}
		}
		shared.owed.Store(math.MaxInt64 / 2)
		pauses := others.pauses
		g.Pause(shared)
		if others.pauses != pauses || !g.Shut() || !g.released || g.holdsShared() {
			t.Error("who owes too much is paused, or the gate is open")
		}
		g.Open()
		hard := &Gate{shard: s, hard: true}
		hard.Pause(shared)
		if others.pauses != pauses+1 || hard.released || hard.armed {
			t.Error("a gate that must hold does not")
		}
		hard.Open()

		// What was owed before counts on, what is over does not.
		shared.owed.Store(now.UnixNano() + 7)
		shared.charge(now, 5)
		if got := shared.owed.Load() - now.UnixNano(); got != 7+5*holdShare {
			t.Errorf("owes %d", got)
		}
		shared.owed.Store(now.UnixNano() - 7)
		shared.charge(now, 5)
		if got := shared.owed.Load() - now.UnixNano(); got != 5*holdShare {
			t.Errorf("owes %d", got)
		}

		src, dumb := &faulty{}, &switched{}
		th := NewThrottle(s, src)
		th.fault()
		NewThrottle(s, dumb).fault()
		if src.faults != 1 {
			t.Errorf("told of %d faults", src.faults)
		}
		th.Close()
		th.fault()
		th.pause()
		th.resume()
		if src.faults != 1 || src.pauses != 0 || src.resumes != 0 {
			t.Errorf("who has ended is told: %+v", src)
		}
	})
}

// TestBacklogLooks goes through what a destination's timer finds, each case by itself: what becomes of the mode, the sources and the timer.
func TestBacklogLooks(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	for name, c := range map[string]struct {
		mode     backlogMode
		before   time.Duration // since the mode began
		took     int           // meanwhile
		waits    int
		own      bool // the source is the destination's own
		idle     time.Duration
		want     backlogMode
		slow     bool
		letGo    bool
		rearmed  bool
		stalled  int
		wantsLow int // -1: nothing is asked for
	}{
		"held for less than it may be":     {holding, holdFor - time.Second, 0, 5000, false, 0, holding, false, false, true, 0, -1},
		"held for as long as it may be":    {holding, holdFor, 0, 5000, false, 0, lagging, false, true, true, 0, -1},
		"its own source is held":           {holding, holdFor, 0, 5000, true, 0, holding, false, false, false, 0, -1},
		"looked at early":                  {lagging, drainTime - time.Second, 0, 5000, false, 0, lagging, false, false, true, 0, -1},
		"takes a lot":                      {lagging, drainTime, drainStep, 5000, false, 0, lagging, false, false, true, 0, -1},
		"takes little":                     {lagging, drainTime, drainStep - 1, 5000, false, 0, lagging, true, false, true, 0, -1},
		"has little":                       {lagging, drainTime, 0, 1000, false, 0, lagging, false, false, true, 0, -1},
		"has more than little":             {lagging, drainTime, 0, 1001, false, 0, lagging, true, false, true, 0, -1},
		"throttled, takes a lot":           {throttling, drainTime, drainStep, 5000, false, 0, throttling, false, false, true, 0, -1},
		"throttled, takes little":          {throttling, drainTime, drainStep - 1, 5000, false, 0, lagging, true, true, true, 0, 250},
		"takes nothing for just too long":  {lagging, drainTime, 0, 5000, false, backlogPatience, lagging, true, true, false, 1, -1},
		"takes nothing for a moment less":  {lagging, drainTime, 0, 5000, false, backlogPatience - time.Second, lagging, true, false, true, 0, -1},
		"took something after a long time": {lagging, drainTime, 1, 5000, false, 2 * backlogPatience, lagging, true, false, true, 0, -1},
	} {
		on(t, s, func() {
			d, src := newSink(s), &switched{}
			b, now := d.backlog, s.loop.Now()
			th := NewSharedThrottle(s, src)
			if c.own {
				th = NewThrottle(s, src)
			}
			b.mode, b.since, b.moved = c.mode, now.Add(-c.before), now.Add(-c.idle)
			b.gate.pause(th)
			b.gate.armed = true
			d.waits, d.taken = c.waits, c.took
			cut := r.Backlogs.Cut()
			b.tick()
			if b.mode != c.want || b.slow != c.slow || (src.paused == 0) != c.letGo || b.gate.armed != c.rearmed || d.stalled != c.stalled || d.low != c.wantsLow || int(r.Backlogs.Cut()-cut) != c.stalled {
				t.Errorf("%s: mode %d, slow %v, paused %d, armed %v, stalled %d, low %d", name, b.mode, b.slow, src.paused, b.gate.armed, d.stalled, d.low)
			}
			if early := c.before < drainTime && c.mode == lagging; early != b.since.Equal(now.Add(-c.before)) && c.mode == lagging {
				t.Errorf("%s: the look counts", name)
			}
			if c.took > 0 && c.before >= drainTime && b.moved.Before(now) {
				t.Errorf("%s: it is not noted that something was taken", name)
			}
			d.backlog.Close()
		})
	}
	on(t, s, func() {
		// A destination that has ended, or has nothing waiting, is not looked at.
		d := newSink(s)
		d.backlog.gate.armed = true
		if d.backlog.tick(); d.backlog.gate.armed || d.backlog.mode != flowing || d.backlog.Full() {
			t.Error("looked at with nothing waiting")
		}
		d.backlog.Drained()
		src := &switched{}
		d.backlog.Over(5000, NewThrottle(s, src))
		if !d.backlog.Full() || d.low != 250 || src.paused != 1 {
			t.Errorf("low %d, %+v", d.low, src)
		}
		d.backlog.Over(5000, nil) // nobody to pause
		d.backlog.Finish()
		if src.paused != 0 {
			t.Error("the source does not go on")
		}
		d.low = -1
		d.backlog.Over(9000, NewThrottle(s, src))
		d.backlog.Drained()
		d.backlog.tick()
		if src.pauses != 1 || d.low != -1 || d.stalled != 0 {
			t.Errorf("a destination that has ended pauses: %+v, low %d", src, d.low)
		}
		(*Backlog)(nil).Finish()
		(*Backlog)(nil).Close()

		// Throttled and taken: what is left decides.
		for _, c := range []struct {
			waits int
			want  backlogMode
		}{{251, lagging}, {250, flowing}, {0, flowing}} {
			d, src := newSink(s), &switched{}
			b := d.backlog
			b.mode, b.share, b.slow = throttling, backlogStep, true
			r.Backlogs.used.Add(backlogStep)
			b.gate.pause(NewSharedThrottle(s, src))
			d.waits = c.waits
			b.Drained()
			if freed := r.Backlogs.Used() == 0; b.mode != c.want || src.paused != 0 || freed != (c.want == flowing) || b.slow == freed {
				t.Errorf("%d left: mode %d, paused %d, freed %v", c.waits, b.mode, src.paused, freed)
			}
			if want := map[backlogMode]int{lagging: 250, flowing: -1}[c.want]; d.low != want {
				t.Errorf("%d left: asks for %d", c.waits, d.low)
			}
			b.Close()
			b.Close()
			if r.Backlogs.Used() != 0 {
				t.Errorf("%d bytes of the budget are lost", r.Backlogs.Used())
			}
		}
	})
	// Of a budget one destination gets what is left free, so that one alone gets half.
	b := &BacklogBudget{}
	b.SetLimit(100)
	for _, c := range []struct {
		share, n, used int64
		ok             bool
	}{{0, 30, 30, true}, {30, 20, 50, true}, {50, 1, 50, false}, {0, 26, 50, false}, {0, 25, 75, true}} {
		if ok := b.take(c.share, c.n); ok != c.ok || b.Used() != c.used || b.Limit() != 100 {
			t.Errorf("%d for one that has %d: %v, %d used", c.n, c.share, ok, b.Used())
		}
	}
	b.refused.Store(3)
	b.dropped.Store(4)
	b.cut.Store(5)
	if b.Refused() != 3 || b.Dropped() != 4 || b.Cut() != 5 {
		t.Error("what is counted is not told")
	}
	on(t, s, func() {
		d := newSink(s)
		for limit, want := range map[int64]int{8 << 20: 1 << 20, 1 << 40: quickBacklog} {
			r.Backlogs.SetLimit(limit)
			if got := d.backlog.quick(); got != want {
				t.Errorf("of %d: %d", limit, got)
			}
		}
	})
}
