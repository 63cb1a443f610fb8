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
}

func (d *sink) Waiting() (int, uint64) { return d.waits, uint64(d.taken) }
func (d *sink) WantDrain(low int)      { d.low = low }
func (d *sink) Stalled()               { d.stalled++; d.backlog.Close() }

func newSink(s *Shard) *sink {
	d := &sink{low: -1}
	d.backlog = NewBacklog(s, d, 1000, 0)
	return d
}

// brings is a message of n bytes.
func (d *sink) brings(n int, from *Throttle) {
	if d.waits += n; d.waits > 1000 && d.stalled == 0 {
		d.backlog.Over(d.waits, from)
	}
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
	if held := time.Duration(shared.total.Load()); held > time.Since(began)/2 || held == 0 {
		t.Errorf("the shared source was held for %v of %v", held, period)
	}
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
	if greedy.stalled != 1 || greedy.waits > 6<<20 {
		t.Errorf("stalled %d times with %d bytes", greedy.stalled, greedy.waits)
	}
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
