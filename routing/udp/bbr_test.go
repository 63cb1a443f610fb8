package udp

import (
	"testing"
	"time"
)

// TestStartEnds: the start goes on while the rate rises by a quarter, and ends after three rounds without, or one without in which much was lost, whether there was
// enough to send or not; rounds in which there was not end nothing else.
func TestStartEnds(t *testing.T) {
	const size = 1200
	type round struct {
		rate            float64
		limited         bool
		delivered, lost uint64
	}
	flat := round{1, false, 1 << 20, 0}
	for name, c := range map[string]struct {
		rounds []round
		filled bool
	}{
		"rising":                           {[]round{{1, false, 1 << 20, 0}, {1.25, false, 1 << 20, 0}, {1.57, false, 1 << 20, 0}, {1.97, false, 1 << 20, 0}, {2.47, false, 1 << 20, 0}}, false},
		"two flat ones":                    {[]round{flat, flat, flat}, false},
		"three flat ones":                  {[]round{flat, flat, flat, flat}, true},
		"flat, with too little to send":    {[]round{flat, {1, true, 1 << 20, 0}, {1, true, 1 << 20, 0}, {1, true, 1 << 20, 0}, {1, true, 1 << 20, 0}}, false},
		"much lost, rising":                {[]round{flat, {2, false, 1 << 20, 1 << 20}}, false},
		"much lost":                        {[]round{flat, {1, false, 1 << 20, 1 << 18}}, true},
		"much lost, with too little":       {[]round{flat, {1, true, 1 << 20, 1 << 18}}, true},
		"a tenth lost":                     {[]round{flat, {1, false, 9 << 17, 1 << 17}}, false},
		"much of a few packets is nothing": {[]round{flat, {1, false, 4 * size, bbrLostLeast * size}}, false},
	} {
		var b bbr
		for _, r := range c.rounds {
			b.rate = r.rate
			b.round(r.limited, r.delivered, r.lost, size)
		}
		if b.filled != c.filled {
			t.Errorf("%s: ended %v", name, b.filled)
		}
	}
}

// TestARQFasterPath: when a path becomes ten times as fast a link has it within some tens of round trips, and not after an eighth of them for each quarter more.
func TestARQFasterPath(t *testing.T) {
	n := newNetwork(4)
	n.delay, n.rate, n.wait = 10*time.Millisecond, 2.5e6, 100*time.Millisecond // 20 Mbit/s
	n.run([2][]byte{make([]byte, 4<<20), nil}, 2<<20)
	n.rate *= 10
	began := n.now
	n.run([2][]byte{make([]byte, 24<<20), nil}, 2<<20)
	took := n.now.Sub(began)
	t.Logf("24 MiB at 200 Mbit/s in %v", took)
	if took > 1500*time.Millisecond { // 1.0 s for the bytes
		t.Errorf("24 MiB took %v", took)
	}
}

// TestWindowShrinks: a link that no longer needs its window leaves it to others, and its first size stays.
func TestWindowShrinks(t *testing.T) {
	a, now := newARQ(1191), time.Unix(1000, 0)
	a.grown = &grownWindows{most: 64 << 20}
	for range 3 {
		a.widen(now)
		a.came += 2 << 20
		now = now.Add(a.rtt)
	}
	if a.window != arqWindowTrips*2<<20 {
		t.Fatalf("a window of %d bytes", a.window)
	}
	if a.trim(); a.window != arqWindowTrips*2<<20 {
		t.Error("it shrinks while it is used")
	}
	for range 10 {
		a.trim()
	}
	if got := a.grown.bytes.Load(); a.window != arqWindow || got != 0 {
		t.Errorf("a window of %d bytes, %d counted", a.window, got)
	}
}
