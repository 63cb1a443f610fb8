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
		"much lost, risen with too little": {[]round{flat, {4, true, 1 << 20, 0}, {4, true, 1 << 20, 1 << 18}}, true},
		"a tenth lost":                     {[]round{flat, {1, false, 9 << 17, 1 << 17}}, false},
		"much of a few packets is nothing": {[]round{flat, {1, false, 4 * size, bbrLostLeast * size}}, false},
	} {
		var b bbr
		for _, r := range c.rounds {
			b.rate = r.rate
			b.round(r.limited, false, r.delivered, r.lost, size)
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

// TestStartEndsInAQueue: a round in which a queue stood all the time had enough to send, whatever the source did, so three flat ones end the start.
func TestStartEndsInAQueue(t *testing.T) {
	const size = 1200
	b := bbr{rate: 1, shortest: 100 * time.Millisecond}
	for k := range 1 + bbrFull {
		if b.filled {
			t.Fatalf("the start ended after %d rounds", k)
		}
		b.trips = 0
		b.trip(b.shortest*5/4+2*bbrQueue, 0, 0, time.Unix(1000, 0))
		b.round(true, b.queued(), 1<<20, 0, size)
	}
	if !b.filled {
		t.Fatal("the start goes on where a queue stands")
	}
}

// TestARQQueueStaysShort: a transfer whose source fills up what waits only when little is left, as the sources behind a backlog do, has now and then nothing
// to send. It finds out all the same that the line is full, and does not fill the line's queue, in which all that is beside it would wait.
func TestARQQueueStaysShort(t *testing.T) {
	const rate = 6.25e6 // 50 Mbit/s
	for _, c := range []struct {
		trip time.Duration
		lose float64
		busy time.Duration
	}{{100 * time.Millisecond, 0, 0}, {100 * time.Millisecond, 0, 5 * time.Millisecond}, {50 * time.Millisecond, 0.01, 0}, {20 * time.Millisecond, 0, 2 * time.Millisecond}} {
		n := newNetwork(13)
		n.delay, n.rate, n.wait, n.lose = c.trip/2, rate, 100*time.Millisecond, c.lose
		n.turns = [2]time.Duration{c.busy, c.busy}
		a := n.sides[0]
		n.sides[1].out.reserve(1)[0] = 'x'
		n.sides[1].out.commit(1)
		filler := make([]byte, 64<<10)
		settle, during := 30*c.trip+time.Second, 3*time.Second
		var from, lost, passed, rounds int
		var sum time.Duration
		for begun := n.now; n.now.Sub(begun) < settle+during; {
			if a.waiting() < len(filler)/4 {
				k := len(filler) - a.waiting()
				copy(a.out.reserve(k), filler[:k])
				a.out.commit(k)
			}
			if !n.step() {
				t.Fatal("nothing moves")
			}
			drain(n.sides[1])
			n.sides[1].open()
			if n.now.Sub(begun) < settle {
				from, lost, passed = int(n.sides[1].came), n.lost, n.delivered
			} else {
				rounds++
				sum += a.rtt
			}
		}
		share := float64(int(n.sides[1].came)-from) / during.Seconds() / (rate * (1 - c.lose))
		waste := float64(n.lost-lost) / float64(n.lost-lost+n.delivered-passed)
		trip := sum / time.Duration(rounds)
		t.Logf("%v, %.0f %% lost, busy for %v: %.2f of the line, round trip %v in the mean, %.2f %% lost; start over %v, %.0f Mbit/s seen", c.trip, 100*c.lose, c.busy, share, trip, 100*waste, a.bbr.filled, a.bbr.most()*8e3)
		if !a.bbr.filled || share < 0.85 || trip > c.trip*5/4+2*c.busy+3*time.Millisecond || waste > c.lose+0.01 {
			t.Errorf("%v, %.0f %% lost, busy for %v: %.2f of the line, round trip %v, %.3f lost, start over %v", c.trip, 100*c.lose, c.busy, share, trip, waste, a.bbr.filled)
		}
	}
}

// TestStartAfterCredits: a side that has only told now and then how much more may come knows nothing of the line, though its few packets waited round after round in a queue that
// others had filled. When it has a transfer of its own it finds the line's rate in some round trips, as at the beginning.
func TestStartAfterCredits(t *testing.T) {
	const rate, every = 25e6, 5 * time.Millisecond // 200 Mbit/s
	for _, c := range []struct {
		trip time.Duration
		size int // of what is told
	}{{50 * time.Millisecond, 100}, {200 * time.Millisecond, 100}, {50 * time.Millisecond, 10000}} {
		trip := c.trip
		n := newNetwork(21)
		n.delay, n.rate, n.wait = trip/2, rate, 100*time.Millisecond
		for _, a := range n.sides {
			a.grown = &grownWindows{most: 128 << 20}
		}
		send := func(d time.Duration, size int) {
			for end := n.now.Add(d); n.now.Before(end); {
				if k := size - n.sides[0].waiting(); k > 0 {
					clear(n.sides[0].out.reserve(k))
					n.sides[0].out.commit(k)
				}
				for n.until = n.now.Add(every); n.now.Before(n.until); {
					n.step()
					drain(n.sides[1])
					n.sides[1].open()
				}
			}
		}
		send(10*trip, c.size)
		n.delay += trip / 4 // the queue
		send(20*trip, c.size)
		n.delay -= trip / 4
		knew, came := n.sides[0].bbr.most(), n.sides[1].came
		send(12*trip, linkHighWater)
		share := float64(n.sides[1].came-came) / (12 * trip).Seconds() / rate
		t.Logf("%v, %d bytes: %.2f Mbit/s, then %.2f of the line in 12 round trips", trip, c.size, knew*8e3, share)
		if share < 0.35 {
			t.Errorf("%v, %d bytes: %.2f of the line in 12 round trips", trip, c.size, share)
		}
	}
}
