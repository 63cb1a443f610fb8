package histogram

import (
	"testing"
	"time"
)

// TestHistogram counts at the bounds, below and beyond them; quantiles are bounds of buckets; an exemplar makes way for a longer one, and in time for
// any other.
func TestHistogram(t *testing.T) {
	h := New([]time.Duration{time.Millisecond, time.Second})
	now := time.Now()
	id := func(b byte) [16]byte { return [16]byte{b} }
	h.Observe(-time.Second, id(1), now)
	h.Observe(time.Millisecond, [16]byte{}, now)
	h.Observe(time.Minute, id(2), now)
	h.Observe(time.Second, id(3), now)
	n, sum, buckets := h.Counts()
	if n != 4 || sum != 61.001 || buckets[0.001] != 2 || buckets[1] != 3 {
		t.Errorf("%d, %v, %v", n, sum, buckets)
	}
	if e := h.Exemplar(); e.ID[:2] != "02" || e.Value != time.Minute {
		t.Errorf("%+v", e)
	}
	h.Observe(time.Millisecond, id(4), now.Add(exemplarFor+1))
	if e := h.Exemplar(); e.ID[:2] != "04" {
		t.Errorf("%+v", e)
	}
	if a, b, c := h.Quantile(0.5), h.Quantile(0.8), h.Quantile(1); a != time.Millisecond || b != time.Second || c != time.Second {
		t.Errorf("%v %v %v", a, b, c)
	}
	sumOf := New(h.bounds)
	sumOf.Add(h)
	sumOf.Add(h)
	if n, _, _ := sumOf.Counts(); n != 10 || New(Setup).Quantile(0.5) != 0 {
		t.Errorf("%d", n)
	}
}
