package routing

import (
	"math"
	"time"
)

// A destination that many sources send to, such as the connection to another node, may be slow and honest, and its sources may send more
// than it takes, with or without intent: neither is a reason to cut off what others use. So when its room is spent, the sources that
// brought most are refused there. What they bring for it is dropped from then on, all of it, since a stream with a hole is worse than one that
// ends.
const (
	// refusedFor is how long a source is refused. By then whoever used it has found the path dead: a session of the reference asks for
	// up to 40 s, one of ours for 15 s at most.
	refusedFor = 2 * time.Minute
	// slowTime bounds what waits at a destination that takes less than 1 MiB a second, when it has several sources: what it takes in this time,
	// but slowRoom at least. What waits is before everything that its other sources send.
	slowTime = 30 // seconds
	slowRoom = 8 << 20
	// holdPatience is how many times a destination's patience it may hold a spent room, if it takes neither half of it nor half of slowRoom
	// meanwhile.
	holdPatience = 6
)

// SharedDraining is a destination that many sources send to.
type SharedDraining interface {
	Draining
	// Refused is called when a source is refused because it brings more than the destination takes.
	Refused()
}

// NewSharedBacklog makes the backlog of a destination that many sources send to. A source that brings more than the destination takes is
// refused when the room is spent: Refuses is asked before a message is kept. The destination is ended only if it takes nothing for patience,
// or so little of what waits that it would hold its room for long.
func NewSharedBacklog(s *Shard, dest SharedDraining, high int, patience time.Duration) *Backlog {
	b := NewBacklog(s, dest, high, patience)
	b.crowd = &crowd{dest: dest}
	return b
}

// crowd knows what the sources of one destination have brought since it began to lag. A nil crowd is that of a destination with one source.
type crowd struct {
	dest    SharedDraining
	rate    float64 // bytes a second that are taken, while it lags
	brought map[*Throttle]int64
	total   int64
	refused map[*Throttle]time.Time

	tight bool      // the room is spent
	since time.Time // then, or when enough of it had been taken
	held  int       // what waited at that time
	taken uint64    // until that time
}

// count notes that a source has brought a message.
func (c *crowd) count(from *Throttle, size int) {
	if c.brought == nil {
		c.brought = make(map[*Throttle]int64)
	}
	c.brought[from] += int64(size)
	c.total += int64(size)
}

// measure notes what was taken in a time.
func (c *crowd) measure(bytes int64, in time.Duration) {
	if c != nil && in > 0 {
		c.rate += (float64(bytes)/in.Seconds() - c.rate) / 4
	}
}

// most is how much may wait at a slow destination.
func (c *crowd) most() int {
	if c == nil || len(c.brought) < 2 {
		return math.MaxInt
	}
	return max(slowRoom, int(c.rate*slowTime))
}

// disperse forgets who brought what: the destination has taken it.
func (c *crowd) disperse() {
	if c != nil {
		c.brought, c.total, c.rate, c.tight = nil, 0, 0, false
	}
}

// holds reports whether the destination has held a spent room for too long, in view of what it took.
func (c *crowd) holds(pending int, taken uint64, now time.Time, patience time.Duration) bool {
	if c == nil || !c.tight {
		return false
	}
	enough := min(c.held, slowRoom) / 2
	if int64(taken-c.taken) >= int64(enough) {
		c.tight = pending > c.held/2
		c.since, c.taken = now, taken
	}
	return now.Sub(c.since) >= holdPatience*patience
}

// heavy reports whether a source brought, with size bytes more, at least half of what an average one did.
func (c *crowd) heavy(from *Throttle, size int) bool {
	n := int64(len(c.brought))
	if _, known := c.brought[from]; !known {
		n++
	}
	return (c.brought[from]+int64(size))*2*n >= c.total+int64(size)
}

// refuse refuses a source from now on.
func (c *crowd) refuse(from *Throttle, now time.Time) {
	if c.refused == nil {
		c.refused = make(map[*Throttle]time.Time)
	}
	for t, at := range c.refused {
		if now.Sub(at) >= refusedFor {
			delete(c.refused, t)
		}
	}
	c.refused[from] = now
	c.dest.Refused()
}

// spent is called when more waits than there is room for.
func (b *Backlog) spent(pending int, now time.Time) {
	c := b.crowd
	if c == nil {
		b.stalled()
		return
	}
	if !c.tight {
		_, taken := b.dest.Waiting()
		c.tight, c.since, c.held, c.taken = true, now, pending, taken
	}
}

// Refuses is asked before a message of size bytes from a source is kept, and reports whether it has to be dropped; it is counted then.
func (b *Backlog) Refuses(size int, from *Throttle) bool {
	c := b.crowd
	if c == nil || b.mode == flowing && c.refused == nil || from == nil || b.closed {
		return false
	}
	now := b.gate.shard.loop.Now()
	budget := &b.gate.shard.router.Backlogs
	if at, ok := c.refused[from]; ok {
		if now.Sub(at) < refusedFor {
			budget.dropped.Add(1)
			return true
		}
		delete(c.refused, from)
	}
	if b.mode == flowing {
		return false
	}
	if c.tight {
		pending, _ := b.dest.Waiting()
		// Those that bring little may go on, within a quarter more.
		if !b.room(pending+size) && (c.heavy(from, size) || pending+size > c.held+max(c.held/4, backlogStep)) {
			c.refuse(from, now)
			budget.refused.Add(1)
			budget.dropped.Add(1)
			return true
		}
	}
	c.count(from, size)
	return false
}
