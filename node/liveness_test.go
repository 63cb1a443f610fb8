package node

import (
	"math/rand/v2"
	"sort"
	"testing"
	"time"
)

// line is a simulated path: what becomes of a ping.
type line struct {
	rtt, jitter time.Duration
	loss        float64 // of a message in one direction
	reliable    bool    // lost messages are sent again, and hold up those behind them, as in TCP
	rnd         *rand.Rand
	last        time.Time // reliable: when the latest answer arrives
}

// answer returns when the answer to a ping arrives, or false if it is lost.
func (n *line) answer(at time.Time) (time.Time, bool) {
	d := n.rtt + time.Duration(n.rnd.Float64()*float64(n.jitter))
	for range 2 {
		for again := n.rtt + 200*time.Millisecond; n.rnd.Float64() < n.loss; again = min(2*again, 3*time.Second) {
			if !n.reliable {
				return time.Time{}, false
			}
			d += again
		}
	}
	at = at.Add(d)
	if n.reliable && at.Before(n.last) {
		at = n.last
	}
	n.last = at
	return at, true
}

type arrival struct {
	at     time.Time
	number uint64
}

// simulate watches a path that dies after some time, and returns after how long that was noticed, and how often it was said before.
func simulate(n *line, dies time.Duration) (noticed time.Duration, alarms int) {
	start := time.Unix(1000, 0)
	l := newLiveness(start)
	var coming []arrival
	number := uint64(0)
	for now := start; ; now = now.Add(tickInterval / 25) {
		for len(coming) > 0 && !coming[0].at.After(now) {
			l.answered(coming[0].number, coming[0].at)
			l.plan(coming[0].at, false)
			coming = coming[1:]
		}
		if now.Before(l.due) {
			continue
		}
		ask, lost := l.tick(now)
		if lost && now.Sub(start) >= dies {
			return now.Sub(start) - dies, alarms
		}
		if lost { // the next path is up a second later
			alarms++
			now = now.Add(time.Second)
			l, coming, n.last = l.again(now, true), nil, now
			continue
		}
		if ask {
			number++
			l.sent(number, now)
			if at, ok := n.answer(now); ok && at.Sub(start) < dies {
				coming = append(coming, arrival{at, number})
				sort.SliceStable(coming, func(i, j int) bool { return coming[i].at.Before(coming[j].at) })
			}
		}
		l.plan(now, false)
	}
}

// TestLiveness: a dead path is noticed within three seconds where round trips are steady, and one that is alive is not given up, however bad
// it is.
func TestLiveness(t *testing.T) {
	for _, c := range []struct {
		name   string
		line   line
		most   time.Duration
		alarms int // on 100 paths watched for ten minutes; each costs a new path
	}{
		{"loopback", line{rtt: time.Millisecond, reliable: true}, 3 * time.Second, 0},
		{"far away", line{rtt: 300 * time.Millisecond, jitter: 50 * time.Millisecond, reliable: true}, 3 * time.Second, 0},
		{"a little loss", line{rtt: 100 * time.Millisecond, loss: 0.01, reliable: true}, 5 * time.Second, 2},
		{"far away with much loss, over UDP", line{rtt: 300 * time.Millisecond, jitter: 100 * time.Millisecond, loss: 0.2}, silenceMost + time.Second, 15},
		{"far away with much loss, over TCP", line{rtt: 300 * time.Millisecond, jitter: 100 * time.Millisecond, loss: 0.2, reliable: true}, silenceMost + time.Second, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			alarms, longest := 0, time.Duration(0)
			for seed := range uint64(100) {
				n := c.line
				n.rnd = rand.New(rand.NewPCG(seed, 7))
				d, k := simulate(&n, 10*time.Minute)
				alarms += k
				longest = max(longest, d)
			}
			t.Logf("%d false alarms in 1000 minutes, noticed within %v", alarms, longest)
			if alarms > c.alarms || longest > c.most {
				t.Errorf("want at most %d and %v", c.alarms, c.most)
			}
		})
	}
}

// TestLivenessStoodStill: the time for which this process stood still is not the peer's silence.
func TestLivenessStoodStill(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLiveness(now)
	now = now.Add(time.Minute)
	if ask, lost := l.tick(now); lost {
		t.Error("given up after a pause of this process")
	} else if ask {
		l.sent(1, now)
	}
	l.plan(now, false)
	for range int(silenceNew/tickInterval) + 2 {
		now = now.Add(tickInterval)
		if _, lost := l.tick(now); lost {
			return
		}
		l.plan(now, false)
	}
	t.Error("not given up")
}

// TestPathThatIsOnlyThere: a path that is well and has nothing to carry is asked about, and looked at, less than once a second.
func TestPathThatIsOnlyThere(t *testing.T) {
	start := time.Unix(1000, 0)
	l := newLiveness(start)
	asked, looked := uint64(0), 0
	for now := start; now.Sub(start) < time.Minute; now = l.due {
		ask, lost := l.tick(now)
		if lost {
			t.Fatal("lost")
		}
		looked++
		l.plan(now, false)
		if ask {
			asked++
			l.sent(asked, now)
			now = now.Add(time.Millisecond)
			l.answered(asked, now)
			l.plan(now, false)
		}
	}
	if asked < 48 || asked > 51 || looked > 60 {
		t.Errorf("asked %d times and looked at %d times in a minute", asked, looked)
	}
}
