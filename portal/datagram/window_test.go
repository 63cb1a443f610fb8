package datagram

import (
	"testing"
	"time"
)

// slowLine is a path with a rate and a round trip, in virtual time: a mark is answered a round trip after all before it has gone through.
type slowLine struct {
	rate    int // bytes a second
	trip    time.Duration
	through time.Time // when all that was sent has gone through
}

func (l *slowLine) send(n int, now time.Time) time.Time {
	if l.through.Before(now) {
		l.through = now
	}
	l.through = l.through.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
	return l.through.Add(l.trip)
}

// TestWindowFollowsThePath: who sends as much as may be uses the path, and does not fill what lies in it.
func TestWindowFollowsThePath(t *testing.T) {
	for _, c := range []struct {
		name    string
		l       slowLine
		use     float64       // of the rate, at least
		waiting time.Duration // at most, once it is settled
	}{
		{"fast and short", slowLine{rate: 200_000_000, trip: time.Millisecond}, 0.5, 30 * time.Millisecond},
		{"fast and long", slowLine{rate: 12_500_000, trip: 100 * time.Millisecond}, 0.7, 350 * time.Millisecond},
		{"slow and short", slowLine{rate: 1_250_000, trip: 5 * time.Millisecond}, 0.7, 150 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, now, sent := newWindow(), time.Unix(0, 0), int64(0)
			type answer struct {
				number uint64
				at     time.Time
			}
			var under []answer
			mark := func(at time.Time) {
				if number, due := w.mark(now); due {
					under = append(under, answer{number, at})
				}
			}
			worst := time.Duration(0)
			const seconds = 20
			for end := now.Add(seconds * time.Second); now.Before(end); now = now.Add(200 * time.Microsecond) {
				for len(under) > 0 && !under[0].at.After(now) {
					w.answered(under[0].number, under[0].at)
					under = under[1:]
					mark(c.l.send(20, now))
				}
				if w.expire(now) {
					mark(c.l.send(20, now))
				}
				for w.open() {
					at := c.l.send(1200, now)
					sent += 1200
					w.add(1200)
					mark(at)
					if now.Unix() >= seconds/2 {
						worst = max(worst, c.l.through.Sub(now))
					}
				}
			}
			used := float64(sent) / seconds / float64(c.l.rate)
			if used < c.use || worst > c.waiting {
				t.Errorf("used %.2f of the rate, at least %.2f wanted; %s wait, at most %s wanted; window %d", used, c.use, worst, c.waiting, w.size)
			}
		})
	}
}

// TestWindowLoses: what is lost does not keep the window shut, nor does a mark without answer.
func TestWindowLoses(t *testing.T) {
	w, now := newWindow(), time.Unix(100, 0)
	for w.open() {
		w.add(1000)
		w.mark(now)
	}
	if at, ok := w.next(now); !ok || at != now.Add(markSlack) {
		t.Fatalf("%v, %t", at, ok)
	}
	if at, ok := w.next(now.Add(markSlack)); !ok || at != now.Add(markLost) {
		t.Fatalf("%v, %t", at, ok)
	}
	if w.expire(now.Add(markLost-1)) || w.open() {
		t.Fatal("open before its time")
	}
	if !w.expire(now.Add(markLost)) || !w.open() || w.count != 0 {
		t.Fatal("shut after its time")
	}
	if _, ok := w.next(now); ok {
		t.Error("still something to wait for")
	}
	w.answered(0, now.Add(2*time.Second)) // too late, or a lie
	w.answered(1<<40, now.Add(2*time.Second))
	if w.confirmed > w.sent || w.size != windowFirst {
		t.Errorf("confirmed %d of %d, window %d", w.confirmed, w.sent, w.size)
	}
}

// TestWindowAsksAgain: where the path loses marks too, a full window asks again long before it gives up, and what is confirmed then opens it.
func TestWindowAsksAgain(t *testing.T) {
	w, now := newWindow(), time.Unix(100, 0)
	w.add(1000)
	number, _ := w.mark(now)
	if now = now.Add(20 * time.Millisecond); true {
		w.answered(number, now)
	}
	for w.open() {
		w.add(1000)
		w.mark(now) // all lost
	}
	wait := 3*w.trip + markSlack
	if _, due := w.mark(now.Add(wait - 1)); due {
		t.Error("asked again before an answer could be there")
	}
	now = now.Add(wait)
	number, due := w.mark(now)
	if _, twice := w.mark(now); !due || twice {
		t.Errorf("asked again %v, twice %v", due, twice)
	}
	if now = now.Add(20 * time.Millisecond); w.open() {
		t.Error("open without an answer")
	}
	if w.answered(number, now); !w.open() || w.confirmed != w.sent {
		t.Errorf("%d of %d confirmed", w.confirmed, w.sent)
	}
	w.add(1000)
	w.mark(now)
	if _, due := w.mark(now.Add(wait)); due {
		t.Error("asked again where nothing is kept back")
	}
}

// TestWindowMarks: a mark follows the first datagram, one after a quiet second, and each quarter of the window.
func TestWindowMarks(t *testing.T) {
	w, now := newWindow(), time.Unix(100, 0)
	marks := func(n, size int) (count int) {
		for range n {
			w.add(size)
			if _, due := w.mark(now); due {
				count++
			}
		}
		return count
	}
	if got := marks(10, 100); got != 1 {
		t.Errorf("%d marks for the first ten, want 1", got)
	}
	if got := marks(windowFirst/1024, 1024); got != markEvery {
		t.Errorf("%d marks for a window, want %d", got, markEvery)
	}
	now = now.Add(markIdle)
	if got := marks(2, 1); got != 1 {
		t.Errorf("%d marks after a second, want 1", got)
	}
	if marks(1000, windowFirst); w.count != marksMost {
		t.Errorf("%d marks remembered", w.count)
	}
	w.answered(w.number-1, now)
	if w.confirmed != w.sent || w.count != 0 {
		t.Errorf("%d of %d confirmed by the last mark", w.confirmed, w.sent)
	}
	before := w.number
	w.restart()
	if w.number != before || !w.open() || w.count != 0 {
		t.Error("not as new after another path began")
	}
}
