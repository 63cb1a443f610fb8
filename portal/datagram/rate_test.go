package datagram

import (
	"math"
	"testing"
	"time"
)

// TestRate: whatever is sent, a rate lets through what it says, shares it equally among those who want more than their share, and lets them have what others
// leave. It saves up little.
func TestRate(t *testing.T) {
	const limit, seconds, size = 1_000_000, 10, 1000.0
	for _, c := range []struct {
		name string
		want []int // bytes a second of each member
		get  []float64
	}{
		{"one", []int{5_000_000}, []float64{1_000_000}},
		{"one that takes less", []int{400_000}, []float64{400_000}},
		{"two alike", []int{2_000_000, 2_000_000}, []float64{500_000, 500_000}},
		{"a flood and a little", []int{20_000_000, 300_000}, []float64{700_000, 300_000}},
		{"three, one of them small", []int{2_000_000, 3_000_000, 100_000}, []float64{450_000, 450_000, 100_000}},
	} {
		var r rate
		r.set(limit)
		start := time.Unix(100, 0)
		got, sent := make([]float64, len(c.want)), make([]float64, len(c.want))
		for now := start; now.Before(start.Add(seconds * time.Second)); now = now.Add(250 * time.Microsecond) {
			for k, want := range c.want {
				for sent[k]+size <= float64(want)*now.Sub(start).Seconds() {
					sent[k] += size
					if r.takes(&[32]byte{byte(k)}, 1000, now) {
						got[k] += size
					}
				}
			}
		}
		all := 0.0
		for k := range got {
			all += got[k]
			if per := got[k] / seconds; math.Abs(per-c.get[k]) > 0.05*limit {
				t.Errorf("%s: member %d had %.0f bytes a second, want %.0f", c.name, k, per, c.get[k])
			}
		}
		if all > limit*seconds+float64(len(c.want)+1)*max(limit*rateBurst.Seconds(), MaxSize) {
			t.Errorf("%s: %.0f bytes went in %d s", c.name, all, seconds)
		}
		if len(r.shares) > len(c.want) {
			t.Errorf("%s: %d shares", c.name, len(r.shares))
		}
	}
}

// TestRateLetsTheLargestGo: with the smallest rate a datagram of any size goes at last, also where many have a share; and without one all go.
func TestRateLetsTheLargestGo(t *testing.T) {
	var r rate
	now := time.Unix(100, 0)
	for range 100 {
		if !r.takes(&[32]byte{}, MaxSize, now) {
			t.Fatal("refused without a limit")
		}
	}
	r.set(1000)
	gone := 0
	for range 2000 {
		now = now.Add(rateIdle / 2)
		for k := range byte(10) {
			if r.takes(&[32]byte{k}, MaxSize, now) {
				gone++
			}
		}
	}
	if gone < 10 || gone > 17 {
		t.Errorf("%d of the largest went in a time for 15", gone)
	}
	r.takes(&[32]byte{1}, 1, now.Add(time.Hour))
	if len(r.shares) != 1 {
		t.Errorf("%d shares of those who send nothing", len(r.shares)-1)
	}
}
