package fair

import (
	"sync"
	"time"
)

// Rate divides a number of events a second among sources. One gets two fifths of it at most, since each event costs time that others would have.
// Until the rest is used up in a second everybody may; after that only who has had less than its part of what there was, so that nobody
// can use up what is for the others. It is safe for concurrent use.
type Rate struct {
	perSecond int
	now       func() time.Time

	mu   sync.Mutex
	from time.Time // when the second began
	root taken
	last int // what was admitted in the second before
}

// taken is what a source, or a part of one, has had in this second.
type taken struct {
	count int
	parts map[string]*taken
}

// NewRate makes a Rate; perSecond is positive.
func NewRate(perSecond int) *Rate { return &Rate{perSecond: perSecond, now: time.Now} }

// PerSecond returns what there is in a second.
func (r *Rate) PerSecond() int { return r.perSecond }

// Used returns how many were admitted in the last whole second.
func (r *Rate) Used() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	return r.last
}

// turn begins another second when it is time.
func (r *Rate) turn() {
	now := r.now()
	switch d := now.Sub(r.from); {
	case d < time.Second && d >= 0:
		return
	case d < 2*time.Second && d >= 0:
		r.last = r.root.count
	default:
		r.last = 0
	}
	r.from, r.root = now, taken{}
}

// Take reports whether a source may now, and counts it.
func (r *Rate) Take(from Source) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	own := r.root.parts[from[0]]
	if (r.root.count >= r.perSecond || own != nil && own.count >= r.alone()) && !r.hasLess(from) {
		return false
	}
	at := &r.root
	at.count++
	for _, key := range from {
		next := at.parts[key]
		if next == nil {
			next = &taken{}
			if at.parts == nil {
				at.parts = map[string]*taken{}
			}
			at.parts[key] = next
		}
		next.count++
		at = next
	}
	return true
}

// alone is how many the nearest part of a source may have, whether others want them or not.
func (r *Rate) alone() int { return max(r.perSecond*2/5, 1) }

// hasLess reports whether a source has had less than its part, beside the others of this second. All that is nearest to the node shares perSecond
// equally, as far as one may have it; what lies behind one of them shares what that one may have.
func (r *Rate) hasLess(from Source) bool {
	at, part := &r.root, r.perSecond
	for _, key := range from {
		own := at.parts[key]
		sources := len(at.parts)
		if own == nil {
			sources++
		}
		if part = min(part/sources, r.alone()); part == 0 {
			return false
		}
		if own == nil || own.count < part {
			return true
		}
		if own.count >= 2*part { // whoever can choose what is behind it has had twice its part
			return false
		}
		at = own
	}
	return false
}
