package routing

import (
	"slices"
	"sync/atomic"
	"time"
)

// Preemption: how long a member that has come (back) is up before it takes over from one that is up, at first and at most, and for how long it counts that it
// was lost.
const (
	preemptDelay    = 5 * time.Second
	preemptDelayMax = 5 * time.Minute
	lossesCount     = 10 * time.Minute
)

// maxPriority is the largest number that a priority may have.
const maxPriority = 1000

// memberKey tells members of a group apart: registrations with one key are of one member.
type memberKey struct {
	identity   [32]byte
	isIdentity bool
	id         MemberID
	relay      string // where it is registered; empty for this node
}

// member is one member of a name's group. Its fields are under Relays.mu, but those that are atomic.
type member struct {
	key      memberKey
	priority uint32
	down     bool      // its target does not answer
	upSince  time.Time // since when it can be reached and is not down; zero if it is not so
	lost     []time.Time
	order    uint64          // which came first
	regs     []*registration // oldest first
	since    time.Time       // when it registered

	reports atomic.Bool // it tells its connections
	// current is the newest registration that can be reached; nil if there is none.
	current atomic.Pointer[registration]
	// connections is what it told, given the flows that it was given since, channels how many channels that brought flows for it are open.
	connections, given, channels atomic.Int64
	last                         atomic.Uint64 // when it was given a flow last, as a number
}

// reachable reports whether there is a way to the member.
func (m *member) reachable() bool { return m.current.Load() != nil }

// usable reports whether it can be reached and its target answers, as far as it says.
func (m *member) usable() bool { return m.reachable() && !m.down }

// note follows a change of what the member is.
func (m *member) note(now time.Time) {
	switch up := m.usable(); {
	case up && m.upSince.IsZero():
		m.upSince = now
	case !up && !m.upSince.IsZero():
		m.upSince = time.Time{}
		m.forget(now)
		m.lost = append(m.lost, now)
	}
}

// before reports whether the member comes before o among those that are up for long enough.
func (m *member) before(o *member) bool {
	switch {
	case m.priority != o.priority:
		return m.priority < o.priority
	case !m.since.Equal(o.since): // at whatever relay
		return m.since.Before(o.since)
	}
	return m.order < o.order
}

// forget drops what was long ago. A few losses are as good as many.
func (m *member) forget(now time.Time) {
	m.lost = slices.DeleteFunc(m.lost, func(at time.Time) bool { return now.Sub(at) >= lossesCount })
	if n := len(m.lost) - 10; n > 0 {
		m.lost = slices.Delete(m.lost, 0, n)
	}
}

// settled is from when on the member takes over from one that is up.
func (m *member) settled(now time.Time) time.Time {
	m.forget(now)
	return m.upSince.Add(min(preemptDelay<<len(m.lost), preemptDelayMax))
}

// group is the members of a relay name and what is to be done with new flows. It knows no time but what it is given.
type group struct {
	rule    Rule
	members []*member // in the order in which they came
	chosen  *member   // of RuleFailover; nil if nobody can be reached
	orders  uint64
	changes uint64 // how often another one was chosen than before
}

// find returns the member with a key.
func (g *group) find(key memberKey) *member {
	if i := slices.IndexFunc(g.members, func(m *member) bool { return m.key == key }); i >= 0 {
		return g.members[i]
	}
	return nil
}

// join returns the member with a key, which it makes where there is none.
func (g *group) join(key memberKey) *member {
	if m := g.find(key); m != nil {
		if len(m.regs) == 0 { // it comes anew
			g.orders++
			m.order = g.orders
		}
		return m
	}
	g.orders++
	m := &member{key: key, order: g.orders}
	g.members = append(g.members, m)
	return m
}

// tidy forgets members that have gone, but for those of which it counts that they were lost.
func (g *group) tidy(now time.Time) {
	gone := 0
	for i := len(g.members) - 1; i >= 0; i-- {
		m := g.members[i]
		if len(m.regs) > 0 {
			continue
		}
		if m.forget(now); len(m.lost) == 0 || gone >= maxPerName {
			g.members = slices.Delete(g.members, i, i+1)
			continue
		}
		gone++
	}
}

// candidates are the members that may be given flows: those that are up, or where all say that their targets are down those that can be reached.
func (g *group) candidates() []*member {
	var usable, reachable []*member
	for _, m := range g.members {
		if m.reachable() {
			reachable = append(reachable, m)
			if !m.down {
				usable = append(usable, m)
			}
		}
	}
	if len(usable) > 0 {
		return usable
	}
	return reachable
}

// choose decides anew who gets new flows with RuleFailover; again is when that is to be asked again, zero for when something changes.
func (g *group) choose(now time.Time) (again time.Time) {
	was := g.chosen
	defer func() {
		if was != nil && g.chosen != nil && g.chosen != was {
			g.changes++
		}
	}()
	list := g.candidates()
	if len(list) == 0 {
		g.chosen = nil
		return again
	}
	if slices.Contains(list, g.chosen) {
		best := g.chosen
		for _, m := range list {
			if m.priority >= g.chosen.priority {
				continue
			}
			switch at := m.settled(now); {
			case m.usable() && at.After(now):
				again = sooner(again, at)
			case best == g.chosen || m.before(best):
				best = m
			}
		}
		g.chosen = best
		return again
	}
	isSettled := func(m *member) int {
		if m.settled(now).After(now) {
			return 1
		}
		return 0
	}
	g.chosen = slices.MinFunc(list, func(a, b *member) int {
		if d := isSettled(a) - isSettled(b); d != 0 {
			return d
		}
		if a.before(b) {
			return -1
		}
		return 1
	})
	for _, m := range list {
		if m.priority < g.chosen.priority {
			again = sooner(again, m.settled(now))
		}
	}
	return again
}

// sooner is the earlier of two times, of which the first may be zero for none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// pick returns who gets the next flow of RuleSpread among list; count numbers the flows. nil if list is empty.
func pick(list []*member, count uint64) *member {
	if len(list) == 0 {
		return nil
	}
	reports := !slices.ContainsFunc(list, func(m *member) bool { return !m.reports.Load() })
	load := func(m *member) int64 {
		if reports {
			return m.connections.Load() + m.given.Load()
		}
		return m.channels.Load()
	}
	best := list[0]
	for _, m := range list[1:] {
		if a, b := load(m), load(best); a < b || a == b && m.last.Load() < best.last.Load() {
			best = m
		}
	}
	best.given.Add(1)
	best.last.Store(count)
	return best
}

// timer is a time.Timer whose stop may be called on nil.
type timer struct{ *time.Timer }

func after(d time.Duration, f func()) *timer { return &timer{time.AfterFunc(d, f)} }

func (t *timer) stop() {
	if t != nil {
		t.Stop()
	}
}
