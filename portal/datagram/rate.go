package datagram

import (
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what a rate saves up: what it carries in rateBurst, and a datagram in any case.
const (
	rateBurst = 50 * time.Millisecond
	rateTick  = 4 * time.Millisecond // between two times at which bytes are shared out
	rateIdle  = time.Second          // after which a member that sends nothing has no share
)

// rate is a limit in bytes a second of what goes in one direction. What is beyond is dropped, since a datagram is worth nothing later. Each member that
// sends has an equal share, and what one does not use is everybody's. It knows no clock; the zero value has no limit. Any goroutine.
type rate struct {
	bytes atomic.Int64 // a second; 0: no limit

	mu      sync.Mutex
	at      time.Time
	shares  map[[32]byte]*rateShare
	surplus float64 // bytes
}

// rateShare is what one member may send at once.
type rateShare struct {
	tokens float64 // bytes
	last   time.Time
}

// set changes the limit.
func (r *rate) set(bytes int64) { r.bytes.Store(bytes) }

// takes reports whether n bytes of a member may go now.
func (r *rate) takes(member *[32]byte, n int, now time.Time) bool {
	limit := float64(r.bytes.Load())
	if limit == 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	burst := max(limit*rateBurst.Seconds(), MaxSize)
	if r.shares == nil {
		r.shares, r.surplus, r.at = map[[32]byte]*rateShare{}, burst, now
	}
	s := r.shares[*member]
	if s == nil {
		s = &rateShare{}
		r.shares[*member] = s
	}
	s.last = now
	if d := now.Sub(r.at); d >= rateTick {
		r.at = now
		r.shareOut(limit*min(d, rateIdle).Seconds(), burst, now)
	}
	need := float64(n)
	if s.tokens+r.surplus < need {
		return false
	}
	own := min(s.tokens, need)
	s.tokens -= own
	r.surplus -= need - own
	return true
}

// shareOut divides so many bytes equally among members that have not saved up enough. What none of them wants is everybody's.
func (r *rate) shareOut(bytes, burst float64, now time.Time) {
	for m, s := range r.shares {
		if now.Sub(s.last) >= rateIdle {
			r.surplus += s.tokens
			delete(r.shares, m)
		}
	}
	most := max(burst/float64(len(r.shares)), MaxSize) // whoever asks is one
	for bytes >= 1 {
		want := 0
		for _, s := range r.shares {
			if s.tokens < most {
				want++
			}
		}
		if want == 0 {
			break
		}
		each := bytes / float64(want)
		for _, s := range r.shares {
			if s.tokens < most {
				got := min(each, most-s.tokens)
				s.tokens += got
				bytes -= got
			}
		}
	}
	r.surplus = min(r.surplus+bytes, burst)
}
