// Package histogram counts times in buckets where a lock would cost too much. What turns it into a metric is elsewhere.
package histogram

import (
	"encoding/hex"
	"sync/atomic"
	"time"
)

// Bounds of histograms.
var (
	// Setup suit what takes a round trip or a few.
	Setup = []time.Duration{
		500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
		50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
		5 * time.Second, 10 * time.Second, 20 * time.Second,
	}
	// Life suit lives of connections.
	Life = []time.Duration{
		10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour,
		7 * 24 * time.Hour,
	}
)

// maxBounds is the most bounds that a Histogram has.
const maxBounds = 15

// Histogram counts times in buckets, without a lock. It remembers one connection that took long, for who wants to look at it.
type Histogram struct {
	bounds   []time.Duration
	counts   [maxBounds + 1]atomic.Uint64 // the last: beyond all bounds
	sum      atomic.Int64                 // nanoseconds
	exemplar atomic.Pointer[Exemplar]
}

// New makes a Histogram with bounds, at most maxBounds of them.
func New(bounds []time.Duration) *Histogram {
	return &Histogram{bounds: bounds[:min(len(bounds), maxBounds)]}
}

// Exemplar is a connection that took as long as Value.
type Exemplar struct {
	ID    string
	Value time.Duration
	At    time.Time
}

// exemplarFor is for how long a longer time is remembered in place of shorter ones.
const exemplarFor = 30 * time.Second

// Observe counts d, of the connection id unless that is zero.
func (h *Histogram) Observe(d time.Duration, id [16]byte, now time.Time) {
	d = max(d, 0)
	i := 0
	for i < len(h.bounds) && d > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
	if id == ([16]byte{}) {
		return
	}
	if e := h.exemplar.Load(); e == nil || d > e.Value || now.Sub(e.At) > exemplarFor {
		h.exemplar.Store(&Exemplar{ID: hex.EncodeToString(id[:]), Value: d, At: now})
	}
}

// Add adds what o has counted, which has the same bounds.
func (h *Histogram) Add(o *Histogram) {
	for i := range o.counts {
		h.counts[i].Add(o.counts[i].Load())
	}
	h.sum.Add(o.sum.Load())
}

// Counts returns how many times were counted, their sum in seconds, and how many were at most as long as each bound, which is in seconds too.
func (h *Histogram) Counts() (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(h.bounds))
	for i := range h.counts {
		count += h.counts[i].Load()
		if i < len(h.bounds) {
			buckets[h.bounds[i].Seconds()] = count
		}
	}
	return count, time.Duration(h.sum.Load()).Seconds(), buckets
}

// Exemplar returns a connection that took long lately, nil if there is none.
func (h *Histogram) Exemplar() *Exemplar { return h.exemplar.Load() }

// Quantile returns the bound of the bucket in which the q-th part of the times lies, so they are at most that; the largest bound for what is beyond, 0
// for none.
func (h *Histogram) Quantile(q float64) time.Duration {
	var counts [maxBounds + 1]uint64
	total := uint64(0)
	for i := range counts {
		counts[i] = h.counts[i].Load()
		total += counts[i]
	}
	if total == 0 || len(h.bounds) == 0 {
		return 0
	}
	want, seen := q*float64(total), uint64(0)
	for i, b := range h.bounds {
		if seen += counts[i]; float64(seen) >= want {
			return b
		}
	}
	return h.bounds[len(h.bounds)-1]
}
