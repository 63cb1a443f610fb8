package portal

import (
	"testing"
	"time"
)

// Idle connections and short ones leave a transfer beside them its window.
func TestShareOfIdleStreams(t *testing.T) {
	const first, rtt = 512 << 10, 200 * time.Microsecond
	now := time.Unix(1, 0)
	p := share{unknown: first / unknownPart}
	idle := make([]streamShare, 1000)
	for i := range idle {
		p.join(&idle[i], rtt, now)
	}
	if got := p.begins(first, rtt, now); got != leastShare {
		t.Errorf("one of 1,000 that begin at once has %d bytes, not %d", got, leastShare)
	}
	var s streamShare
	p.join(&s, rtt, now)
	for range 400 { // 0.4 s at 300 MB/s, and 2,000 short ones in that time
		for range 5 {
			var short streamShare
			p.join(&short, rtt, now)
			p.add(100, &short, rtt, now)
			p.leave(&short)
		}
		now = now.Add(time.Millisecond)
		p.add(300<<10, &s, rtt, now)
	}
	if least, _ := p.bounds(first, rtt, 0, now); least != first {
		t.Errorf("a transfer beside idle and short streams has %d bytes, not %d", least, first)
	}
	for i := range idle {
		p.leave(&idle[i])
	}
	if p.fresh != 0 {
		t.Errorf("%d streams that brought nothing are left", p.fresh)
	}
	// A stream that begins again after a while does not share with those of then.
	now = now.Add(time.Hour)
	var late streamShare
	p.join(&late, rtt, now)
	if p.before != 0 {
		t.Errorf("%.1f streams of an hour ago count", p.before)
	}
}

// TestShareEpochs: an epoch ends when it has lasted long enough, and not before; the first begins at once.
func TestShareEpochs(t *testing.T) {
	const rtt = time.Second
	now := time.Unix(1, 0)
	p := share{}
	for _, step := range []struct {
		after time.Duration
		epoch uint
	}{{0, 1}, {4 * rtt, 1}, {1, 2}, {rtt, 2}, {3 * rtt, 2}, {1, 3}} {
		now = now.Add(step.after)
		if p.turn(rtt, now); p.epoch != step.epoch {
			t.Fatalf("%v later: epoch %d, not %d", step.after, p.epoch, step.epoch)
		}
	}
	p = share{}
	now = time.Unix(1, 0)
	p.turn(time.Millisecond, now)
	if p.turn(time.Millisecond, now.Add(shareEpoch)); p.epoch != 1 {
		t.Error("an epoch was shorter than the least")
	}
}

// TestShareRises: while what a path brings still rises, what is late waited for a slow start below and not in a queue; once it rises no more, it did.
func TestShareRises(t *testing.T) {
	const rtt, late = 300 * time.Millisecond, 450 * time.Millisecond
	p, s, now := &share{}, streamShare{}, time.Unix(1000, 0)
	round := func(n int, took time.Duration) {
		for range 10 {
			now = now.Add(rtt / 10)
			p.add(n/10, &s, rtt, now)
		}
		p.brought(uint64(n), took, 0, rtt, now)
	}
	p.join(&s, rtt, now)
	for range 3 {
		round(20<<10, rtt)
	}
	for n := 80 << 10; n < 10<<20; n *= 2 {
		if round(n, late); p.full(now) {
			t.Fatalf("full with %d KiB in a round trip, twice what it brought before", n>>10)
		}
	}
	for range fullRounds + 2 { // the first may be a rise, and rounds begin when they do
		round(10<<20, late)
	}
	if !p.full(now) {
		t.Error("not full though it rises no more")
	}
}
