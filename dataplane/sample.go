package dataplane

import (
	"context"
	"time"
)

// Sample is how a loop is doing.
type Sample struct {
	// Busy is how long the loop has been handling events since it started.
	Busy time.Duration
	// Lag is how long a task had to wait that was given to it for this sample, or has waited so far if it was not begun in time.
	Lag time.Duration
	// Inbox is how many tasks waited before it.
	Inbox int
	// LongestTurn is the longest time for which others had to wait in the last half minute or so; -1 if the loop did not answer in time.
	LongestTurn time.Duration
}

// peakFor is for how long the longest turn counts, and up to as long again.
const peakFor = 30 * time.Second

// peakTurn is the longest turn lately. On the loop only.
type peakTurn struct {
	now, before time.Duration
	since       time.Time
}

func (p *peakTurn) add(d time.Duration) { p.now = max(p.now, d) }

// get returns the longest turn, and forgets what is old.
func (p *peakTurn) get(at time.Time) time.Duration {
	most := max(p.now, p.before)
	if at.Sub(p.since) > peakFor {
		p.now, p.before, p.since = 0, p.now, at
	}
	return most
}

// Sample asks all loops at once how they are doing, and waits until ctx ends at most. Any goroutine but those of the loops.
func (g *Group) Sample(ctx context.Context) []Sample {
	type answer struct {
		lag, longest time.Duration
	}
	list, answers := make([]Sample, len(g.loops)), make([]chan answer, len(g.loops))
	began := time.Now()
	for i, l := range g.loops {
		l.inboxMu.Lock()
		list[i].Inbox = len(l.inbox)
		l.inboxMu.Unlock()
		ch := make(chan answer, 1)
		answers[i] = ch
		l.Post(TaskFunc(func() {
			now := time.Now()
			ch <- answer{now.Sub(began), l.longest.get(now)}
		}))
	}
	for i, l := range g.loops {
		s := &list[i]
		select {
		case a := <-answers[i]:
			s.Lag, s.LongestTurn = a.lag, a.longest
		case <-ctx.Done():
			s.Lag, s.LongestTurn = time.Since(began), -1
		case <-l.Done():
			s.LongestTurn = -1
		}
		s.Busy = l.Busy()
	}
	return list
}
