package routing

import (
	"sync/atomic"
	"time"

	"sallyport/dataplane"
)

const (
	// holdFor is how long a destination that takes too little may stop a source that others share: an eighth of the second between two
	// pings of a session.
	holdFor = 125 * time.Millisecond
	// holdShare is the part of the time for which a shared source may be stopped in vain: a twentieth.
	holdShare = 20
	// holdDebt is how much of that a source may be ahead.
	holdDebt = 500 * time.Millisecond
)

// Throttle lets destinations pause a source when they cannot take more (backpressure). Every connection that brings messages has one; a
// message points to it. It belongs to the shard of its source.
type Throttle struct {
	shard  *Shard
	source Source
	shared bool
	pauses int
	gone   bool
	// owed is until when pauses that have been in vain are paid for, in nanoseconds since 1970. Destinations on any shard use it.
	owed atomic.Int64
}

// NewThrottle makes the throttle of a source on shard s whose messages all go to one destination, such as a client's socket: who pauses
// it stops nobody else.
func NewThrottle(s *Shard, source Source) *Throttle { return &Throttle{shard: s, source: source} }

// NewSharedThrottle makes the throttle of a source on shard s whose messages go to many destinations, such as the connection of another
// node. None of them may pause it for long.
func NewSharedThrottle(s *Shard, source Source) *Throttle {
	return &Throttle{shard: s, source: source, shared: true}
}

// Shared reports whether messages of the source go to many destinations: it is another node's connection. t may be nil.
func (t *Throttle) Shared() bool { return t != nil && t.shared }

// Close is called when the source has ended: pauses and resumes do nothing any more. On the source's shard.
func (t *Throttle) Close() { t.gone = true }

// fault ends a source whose message showed a fault of this program.
func (t *Throttle) fault() {
	if f, ok := t.source.(dataplane.Faulted); ok && !t.gone {
		f.Faulted()
	}
}

func (t *Throttle) pause() {
	if t.pauses++; t.pauses == 1 && !t.gone {
		t.source.PauseSource()
	}
}

func (t *Throttle) resume() {
	if t.pauses--; t.pauses == 0 && !t.gone {
		t.source.ResumeSource()
	}
}

// mayHold reports whether a destination may pause the source now. Any shard.
func (t *Throttle) mayHold(now time.Time) bool {
	return !t.shared || t.owed.Load()-now.UnixNano() < holdShare*int64(holdDebt-holdFor)
}

// charge notes that the source was paused for d in vain. Any shard.
func (t *Throttle) charge(now time.Time, d time.Duration) {
	for {
		owed := t.owed.Load()
		if t.owed.CompareAndSwap(owed, max(owed, now.UnixNano())+holdShare*int64(d)) {
			return
		}
	}
}

// Gate is the destination's half: while it is shut, the sources that send to it are paused. It belongs to one shard. A source that others
// share is let go after a fraction of a ping, whatever the destination takes: so the destination bounds what waits for it otherwise,
// as Backlog does.
type Gate struct {
	shard    *Shard
	paused   []*Throttle
	hard     bool      // shared sources too are paused until Open
	released bool      // shared sources are let go until Open
	since    time.Time // when the first shared source was paused
	timer    *dataplane.Timer
	armed    bool
}

// NewGate makes a gate on shard s.
func NewGate(s *Shard) *Gate { return &Gate{shard: s} }

// Pause pauses the source of a message that the destination has taken but after which it wants no more, until Open.
func (g *Gate) Pause(t *Throttle) {
	if t == nil {
		return
	}
	if t.shared && !g.hard && !g.mayHold(t) {
		g.released = true
		return
	}
	g.pause(t)
}

// mayHold reports whether a shared source may be paused, and sees to it that it is let go in time.
func (g *Gate) mayHold(t *Throttle) bool {
	now := g.shard.loop.Now()
	if g.released || !t.mayHold(now) {
		return false
	}
	if g.since.IsZero() {
		g.since = now
	}
	g.arm(holdFor)
	return true
}

// arm sets the timer; one that is set already fires early enough.
func (g *Gate) arm(d time.Duration) {
	if g.armed {
		return
	}
	g.armed = true
	if g.timer == nil {
		g.timer = g.shard.loop.After(d, g.fired)
		return
	}
	g.timer.Reset(d)
}

func (g *Gate) fired() {
	g.armed = false
	if g.since.IsZero() {
		return
	}
	now := g.shard.loop.Now()
	if left := holdFor - now.Sub(g.since); left > 0 {
		g.arm(left)
		return
	}
	g.released = true
	g.letGo(now, now.Sub(g.since))
}

// letGo lets shared sources go on and charges them for a pause that was in vain.
func (g *Gate) letGo(now time.Time, held time.Duration) {
	kept := g.paused[:0]
	list := g.paused
	for _, t := range list {
		if !t.shared {
			kept = append(kept, t)
			continue
		}
		t.charge(now, held)
		g.resume(t)
	}
	clear(list[len(kept):])
	g.paused = kept
	g.since = time.Time{}
}

// holdsShared reports whether a shared source is paused.
func (g *Gate) holdsShared() bool {
	for _, t := range g.paused {
		if t.shared {
			return true
		}
	}
	return false
}

func (g *Gate) pause(t *Throttle) {
	for _, p := range g.paused {
		if p == t {
			return
		}
	}
	g.paused = append(g.paused, t)
	if t.shard == g.shard {
		t.pause()
		return
	}
	t.shard.loop.Post(dataplane.TaskFunc(t.pause))
}

func (g *Gate) resume(t *Throttle) {
	if t.shard == g.shard {
		t.resume()
		return
	}
	t.shard.loop.Post(dataplane.TaskFunc(t.resume))
}

// Shut reports whether a source is paused, or was let go and may send before the destination is ready for more.
func (g *Gate) Shut() bool { return len(g.paused) > 0 || g.released }

// Open lets all paused sources go on.
func (g *Gate) Open() {
	for i, t := range g.paused {
		g.paused[i] = nil
		g.resume(t)
	}
	g.paused = g.paused[:0]
	g.released, g.since = false, time.Time{}
}
