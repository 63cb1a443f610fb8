package routing

import (
	"sync/atomic"
	"testing"
	"time"
)

// sink is a destination that takes only what a test says.
type sink struct {
	backlog      *Backlog
	waits, taken int
	low          int
	stalled      int
	refusals     int
}

func (d *sink) Waiting() (int, uint64) { return d.waits, uint64(d.taken) }
func (d *sink) WantDrain(low int)      { d.low = low }
func (d *sink) Stalled()               { d.stalled++; d.backlog.Close() }

func (d *sink) Refused() { d.refusals++ }

func newSink(s *Shard) *sink {
	d := &sink{low: -1}
	d.backlog = NewBacklog(s, d, 1000, 0)
	return d
}

// newNodeSink is a sink that many sources send to, and that may take nothing for patience.
func newNodeSink(s *Shard, patience time.Duration) *sink {
	d := &sink{low: -1}
	d.backlog = NewSharedBacklog(s, d, 1000, patience)
	return d
}

// brings is a message of n bytes. False: it was not kept.
func (d *sink) brings(n int, from *Throttle) bool {
	if d.backlog.Refuses(n, from) {
		return false
	}
	if d.waits += n; d.waits > 1000 && d.stalled == 0 {
		d.backlog.Over(d.waits, from)
	}
	return true
}

func (d *sink) takes(n int) {
	d.waits, d.taken = d.waits-n, d.taken+n
	if d.low >= 0 && d.waits <= d.low {
		d.low = -1
		d.backlog.Drained()
	}
}

// stopwatch is a source that counts for how long it was paused.
type stopwatch struct {
	since time.Time
	total atomic.Int64
}

func (w *stopwatch) PauseSource() { w.since = time.Now() }
func (w *stopwatch) ResumeSource() {
	w.total.Add(int64(time.Since(w.since)))
	w.since = time.Time{}
}

// TestBacklogHolds: destinations that take nothing, one after the other, stop a shared source for a small part of the time; a source of
// its own waits for its destination.
func TestBacklogHolds(t *testing.T) {
	for try := 1; ; try++ { // the loop of a busy machine comes late to let sources go
		held, all := backlogHolds(t)
		if held > 0 && held <= all/2 {
			return
		}
		if try == 5 {
			t.Fatalf("the shared source was held for %v of %v", held, all)
		}
	}
}

func backlogHolds(t *testing.T) (held, all time.Duration) {
	t.Helper()
	r := newRouter(t, 2)
	near, far := r.shards[0], r.shards[1]
	var shared, own stopwatch
	common, private := NewSharedThrottle(near, &shared), NewThrottle(near, &own)
	var last *sink
	on(t, near, func() {
		last = newSink(near)
		last.brings(2000, private)
	})
	const period = 3 * time.Second
	began := time.Now()
	for k := 0; time.Since(began) < period; k++ {
		s := []*Shard{near, far}[k%2]
		on(t, s, func() { newSink(s).brings(5000, common) })
		time.Sleep(5 * time.Millisecond)
	}
	on(t, near, func() {
		if own.since.IsZero() {
			t.Error("the source of its own was let go")
		}
		last.takes(1800)
		if !own.since.IsZero() {
			t.Error("the source of its own is still paused")
		}
	})
	eventually(t, "let go", func() (ok bool) {
		on(t, near, func() { ok = common.pauses == 0 })
		return ok
	})
	return time.Duration(shared.total.Load()), time.Since(began)
}

// TestBacklogBudget: what waits is bounded by the budget, fairly, and given back.
func TestBacklogBudget(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	r.Backlogs.SetLimit(12 << 20)
	var w stopwatch
	common := NewSharedThrottle(s, &w)
	var greedy, modest *sink
	on(t, s, func() { greedy, modest = newSink(s), newSink(s) })
	fill := func(d *sink, most int) {
		t.Helper()
		eventually(t, "filled", func() (ok bool) {
			on(t, s, func() {
				if common.pauses == 0 && d.waits < most {
					d.brings(64<<10, common)
				}
				ok = d.stalled > 0 || d.waits >= most
			})
			return ok
		})
	}
	fill(modest, 2<<20)
	fill(greedy, 64<<20)
	on(t, s, func() {
		if greedy.stalled != 1 || greedy.waits > 6<<20 {
			t.Errorf("stalled %d times with %d bytes", greedy.stalled, greedy.waits)
		}
	})
	fill(modest, 3<<20)
	on(t, s, func() {
		if modest.stalled != 0 || r.Backlogs.Used() < 2<<20 {
			t.Errorf("the other stalled, %d bytes used", r.Backlogs.Used())
		}
		modest.takes(modest.waits)
		if r.Backlogs.Used() != 0 || modest.backlog.Full() {
			t.Errorf("%d bytes used at the end", r.Backlogs.Used())
		}
		modest.brings(5000, common) // it begins anew
		modest.takes(5000)
	})
}

// flood lets sources send as fast as they may until done, and now and then something else.
func flood(t *testing.T, s *Shard, d *sink, sources []*Throttle, meanwhile func(), done func() bool) {
	t.Helper()
	for limit := time.Now().Add(90 * time.Second); ; {
		var ok bool
		on(t, s, func() {
			for _, from := range sources {
				if from.pauses == 0 && d.stalled == 0 {
					d.brings(256<<10, from)
				}
			}
			if meanwhile != nil {
				meanwhile()
			}
			ok = done()
		})
		if ok {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d bytes wait, %d sources refused, %d times stalled", d.waits, d.refusals, d.stalled)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestFloodOfSlowNode: a node that takes what comes slowly, or not for a moment, is not cut off because others send it more than it takes.
// What they send is dropped from then on, and what its neighbours send is not.
func TestFloodOfSlowNode(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	r.Backlogs.SetLimit(16 << 20)
	var w [4]stopwatch
	var flooders []*Throttle
	for i := range 3 {
		flooders = append(flooders, NewSharedThrottle(s, &w[i]))
	}
	neighbour := NewSharedThrottle(s, &w[3])
	var slow *sink
	on(t, s, func() { slow = newNodeSink(s, time.Minute) })
	lost := 0
	ask := func() {
		slow.takes(min(slow.waits, 10))
		if !slow.brings(100, neighbour) {
			lost++
		}
	}
	flood(t, s, slow, flooders, ask, func() bool { return slow.stalled > 0 || slow.refusals == len(flooders) })
	on(t, s, func() {
		for range 1000 {
			ask()
		}
		if slow.stalled > 0 {
			t.Error("the node was cut off")
		}
		if lost > 0 {
			t.Errorf("%d messages of the neighbour were dropped", lost)
		}
		if most := 12 << 20; slow.waits > most {
			t.Errorf("%d bytes wait, at most %d may", slow.waits, most)
		}
		for _, from := range flooders {
			if slow.brings(100, from) {
				t.Error("a message of a flooder was kept after others were dropped")
			}
		}
		slow.takes(slow.waits)
		if slow.brings(100, flooders[0]) {
			t.Error("a stream goes on with a hole in it")
		}
		if used := r.Backlogs.Used(); used != 0 {
			t.Errorf("%d bytes of the budget are not given back", used)
		}
		if r.Backlogs.Dropped() == 0 {
			t.Error("dropped messages were not counted")
		}
	})
}

// TestNodesThatHoldTheBudget: one that takes nothing is cut off after its patience, and so is one that takes so little of what waits that it
// would hold the budget for long.
func TestNodesThatHoldTheBudget(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	r.Backlogs.SetLimit(8 << 20)
	var w stopwatch
	source := NewSharedThrottle(s, &w)
	var idle, hog *sink
	on(t, s, func() {
		idle, hog = newNodeSink(s, 300*time.Millisecond), newNodeSink(s, time.Second)
		idle.brings(2<<20, source)
	})
	eventually(t, "the one that takes nothing is cut off", func() (ok bool) {
		on(t, s, func() {
			idle.brings(1, source)
			ok = idle.stalled > 0
		})
		return ok
	})
	flood(t, s, hog, []*Throttle{source}, func() { hog.takes(min(hog.waits, 10)) }, func() bool { return hog.stalled > 0 })
	on(t, s, func() {
		if idle.refusals != 0 || hog.refusals != 1 {
			t.Errorf("%d and %d sources refused before", idle.refusals, hog.refusals)
		}
		if used := r.Backlogs.Used(); used != 0 {
			t.Errorf("%d bytes of the budget are not given back", used)
		}
	})
}

// TestRoomOfSlowNode: while a node that several sources send to takes little, only what it takes in half a minute waits, however large the
// budget is: its neighbours' messages are behind that.
func TestRoomOfSlowNode(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	r.Backlogs.SetLimit(256 << 20)
	var w [2]stopwatch
	flooder, neighbour := NewSharedThrottle(s, &w[0]), NewSharedThrottle(s, &w[1])
	var slow *sink
	on(t, s, func() { slow = newNodeSink(s, time.Minute) })
	ask := func() {
		slow.takes(min(slow.waits, 10))
		if !slow.brings(100, neighbour) {
			t.Error("a message of the neighbour was dropped")
		}
	}
	n := 0
	flood(t, s, slow, nil, ask, func() bool { // slowly enough for the node to be seen as slow before much waits
		if flooder.pauses == 0 {
			if n++; n%4 == 0 {
				slow.brings(64<<10, flooder)
			}
		}
		return slow.refusals > 0
	})
	if most := slowRoom + 2<<20; slow.waits > most || slow.stalled > 0 {
		t.Errorf("%d bytes wait, at most %d may; stalled %d times", slow.waits, most, slow.stalled)
	}
}
