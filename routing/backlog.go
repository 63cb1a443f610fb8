package routing

import (
	"sync/atomic"
	"time"
)

// What waits at a destination beyond its high water mark. Sources that others share are paused for holdFor at most, so what they bring
// meanwhile is kept, within one budget of the node; a destination that takes nothing is cut off.
const (
	// defaultBacklog is the budget of a node in bytes, for all destinations beyond their high water marks.
	defaultBacklog = 128 << 20
	// backlogStep is how much of the budget a destination takes at a time.
	backlogStep = 1 << 20
	// quickBacklog is how much a destination may have waiting that takes a lot: then its sources are paused after all, for as long as it
	// takes to take drainStep.
	quickBacklog = 16 << 20
	// drainStep in drainTime, 1 MiB a second, is what is a lot.
	drainStep = 256 << 10
	drainTime = 250 * time.Millisecond
	// backlogPatience is how long a destination with a backlog may take nothing at all.
	backlogPatience = 10 * time.Second
)

// Draining is a destination with a Backlog. Its methods are called on its shard.
type Draining interface {
	// Waiting returns how many bytes wait, and how many were taken so far; the second is only compared with itself.
	Waiting() (bytes int, taken uint64)
	// WantDrain asks for one call of Backlog.Drained once at most low bytes wait.
	WantDrain(low int)
	// Stalled ends the destination: it has taken too little for too long.
	Stalled()
}

// BacklogBudget bounds what waits at all destinations of a node beyond their high water marks.
type BacklogBudget struct{ limit, used, cut, refused, dropped atomic.Int64 }

// SetLimit changes the limit, in bytes; what has been taken stays. Any goroutine.
func (b *BacklogBudget) SetLimit(bytes int64) { b.limit.Store(bytes) }

// Limit returns the limit in bytes, and Used what is taken of it. Any goroutine.
func (b *BacklogBudget) Limit() int64 { return b.limit.Load() }

// Used returns how many bytes of the limit are taken. Any goroutine.
func (b *BacklogBudget) Used() int64 { return b.used.Load() }

// Cut returns how many destinations were cut off because they took too little. Any goroutine.
func (b *BacklogBudget) Cut() int64 { return b.cut.Load() }

// Refused returns how often a source was refused by a destination because it brought more than that takes, and Dropped how many messages
// were lost by it. Any goroutine.
func (b *BacklogBudget) Refused() int64 { return b.refused.Load() }

// Dropped returns how many messages of refused sources were dropped. Any goroutine.
func (b *BacklogBudget) Dropped() int64 { return b.dropped.Load() }

// take takes n more for a destination that has share: it may have as much as is left free, so that one alone gets half.
func (b *BacklogBudget) take(share, n int64) bool {
	used := b.used.Add(n)
	if share+n > b.limit.Load()-used {
		b.used.Add(-n)
		return false
	}
	return true
}

type backlogMode uint8

const (
	flowing    backlogMode = iota // at most the high water mark waits
	holding                       // sources are paused, in the hope that it will not take long
	lagging                       // shared sources go on
	throttling                    // they are paused after all, while the destination takes a lot
)

// Backlog bounds what waits at a destination, and decides which sources it stops and for how long:
//
//   - A source of its own (NewThrottle) is paused from the high water mark on until a quarter of it is left.
//   - A source that others share (NewSharedThrottle) is paused too, but for holdFor at most: enough for one that takes much. Then it goes
//     on, and what it brings is kept within the node's budget.
//   - A destination with very much waiting that takes at least 1 MiB a second stops its sources while it takes it: they have
//     no window, and nothing but this bounds what they send.
//   - One that takes less is cut off when its share of the budget is spent, or when it takes nothing for some seconds. One that many
//     sources send to is cut off for its own idleness alone (NewSharedBacklog).
//
// It belongs to its destination's shard.
type Backlog struct {
	gate     Gate
	dest     Draining
	high     int
	patience time.Duration
	mode     backlogMode
	slow     bool      // took less than drainStep in drainTime
	since    time.Time // when mode began, or its last check
	taken    uint64    // at that time
	moved    time.Time // when something was last seen to be taken
	share    int64     // of the budget
	crowd    *crowd    // nil for a destination of one source
	closed   bool
}

// NewBacklog makes the backlog of dest on shard s; high is its high water mark in bytes. patience is how long it may take nothing while
// more waits and shared sources bring yet more; 0 is ten seconds.
func NewBacklog(s *Shard, dest Draining, high int, patience time.Duration) *Backlog {
	if patience == 0 {
		patience = backlogPatience
	}
	return &Backlog{gate: Gate{shard: s}, dest: dest, high: high, patience: patience}
}

// Full reports whether the destination has had more than its high water mark waiting, and not drained since.
func (b *Backlog) Full() bool { return b.mode != flowing }

// Over is called after a message from a source, if pending, what waits now, is more than the high water mark. It may end the destination.
func (b *Backlog) Over(pending int, from *Throttle) {
	if b.closed {
		return
	}
	now := b.gate.shard.loop.Now()
	if b.mode == flowing {
		b.begin(holding, now)
		b.moved = now
		b.dest.WantDrain(b.high / 4)
	}
	if from == nil {
		return
	}
	if !from.shared {
		b.gate.pause(from)
		return
	}
	if b.mode == holding {
		if from.mayHold(now) {
			b.hold(from, now)
			return
		}
		b.begin(lagging, now)
		b.gate.letGo(now, 0)
	}
	if b.mode == lagging {
		b.arm(drainTime)
		room := b.room(pending)
		if room && (b.slow || pending-b.high <= b.quick()) {
			return
		}
		if !from.mayHold(now) {
			if !room {
				b.spent(pending, now)
			}
			return
		}
		b.begin(throttling, now)
		b.dest.WantDrain(max(pending-drainStep, b.high/4))
	}
	b.hold(from, now)
}

// quick is how much may wait at a destination that takes a lot: quickBacklog, or less with a small budget.
func (b *Backlog) quick() int {
	return int(min(quickBacklog, b.gate.shard.router.Backlogs.Limit()/8))
}

// hold pauses a shared source, and sees to it that somebody looks after it in time.
func (b *Backlog) hold(from *Throttle, now time.Time) {
	if b.mode == holding && !b.gate.holdsShared() {
		b.since = now
		_, b.taken = b.dest.Waiting()
	}
	b.gate.pause(from)
	if b.mode == holding {
		b.arm(holdFor)
	} else {
		b.arm(drainTime)
	}
}

// room reports whether what waits is within the destination's share of the budget, which grows as long as there is any.
func (b *Backlog) room(pending int) bool {
	if b.slow && pending-b.high > b.crowd.most() {
		return false
	}
	budget := &b.gate.shard.router.Backlogs
	for int64(pending-b.high) > b.share {
		if !budget.take(b.share, backlogStep) {
			return false
		}
		b.share += backlogStep
	}
	return true
}

func (b *Backlog) begin(m backlogMode, now time.Time) {
	b.mode, b.since = m, now
	_, b.taken = b.dest.Waiting()
}

// arm sets the gate's timer for b.tick.
func (b *Backlog) arm(d time.Duration) {
	g := &b.gate
	if g.armed {
		return
	}
	g.armed = true
	if g.timer == nil {
		g.timer = g.shard.loop.After(d, b.tick)
		return
	}
	g.timer.Reset(d)
}

// tick looks at what the destination has taken.
func (b *Backlog) tick() {
	b.gate.armed = false
	if b.closed || b.mode == flowing {
		return
	}
	now := b.gate.shard.loop.Now()
	spent := now.Sub(b.since)
	pending, taken := b.dest.Waiting()
	took := int64(taken - b.taken)
	if took > 0 {
		b.moved = now
	}
	switch {
	case b.mode == holding:
		if left := holdFor - spent; left > 0 {
			b.arm(left)
			return
		}
		if !b.gate.holdsShared() {
			return // who is paused can wait
		}
		b.begin(lagging, now)
		b.gate.letGo(now, spent)
	case spent < drainTime:
		b.arm(drainTime - spent)
		return
	case b.mode == throttling:
		if took >= drainStep { // Drained is about to be called
			break
		}
		b.slow = true
		b.gate.letGo(now, spent)
		if !b.room(pending) {
			if b.spent(pending, now); b.closed {
				return
			}
		}
		b.begin(lagging, now)
		b.dest.WantDrain(b.high / 4)
	default:
		b.slow = took < drainStep && pending > b.high
		b.begin(lagging, now)
	}
	b.crowd.measure(took, spent)
	if now.Sub(b.moved) >= b.patience || b.crowd.holds(pending, taken, now, b.patience) {
		b.stalled()
		return
	}
	b.arm(drainTime)
}

// Drained is called when the destination has taken what WantDrain asked for.
func (b *Backlog) Drained() {
	if b.closed || b.mode == flowing {
		return
	}
	now := b.gate.shard.loop.Now()
	b.moved = now
	if pending, _ := b.dest.Waiting(); b.mode == throttling && pending > b.high/4 {
		b.gate.letGo(now, 0)
		b.begin(lagging, now)
		b.dest.WantDrain(b.high / 4)
		return
	}
	b.mode, b.slow = flowing, false
	b.crowd.disperse()
	b.release()
	b.gate.Open()
}

func (b *Backlog) stalled() {
	b.gate.shard.router.Backlogs.cut.Add(1)
	b.dest.Stalled()
}

func (b *Backlog) release() {
	b.gate.shard.router.Backlogs.used.Add(-b.share)
	b.share = 0
}

// Finish is called when the destination gets no more: all sources go on. What waits counts until Close. b may be nil.
func (b *Backlog) Finish() {
	if b == nil || b.closed {
		return
	}
	b.closed = true
	b.gate.timer.Stop()
	b.gate.Open()
}

// Close is called when the destination has ended and nothing waits any more. b may be nil.
func (b *Backlog) Close() {
	if b != nil {
		b.Finish()
		b.release()
	}
}
