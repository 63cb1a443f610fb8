package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// TestAfterLoss: paths that end again and again soon after they were made are made anew with growing pauses, of two seconds at most, so that all are back in time
// however often a relay is restarted; one that has worked for a while is made anew at once.
func TestAfterLoss(t *testing.T) {
	now := time.Now()
	s := &session{haste: haste{spent: hasteMost, since: now}}
	wait := retryFirst
	var pauses []time.Duration
	for range 20 {
		var pause time.Duration
		pause, wait = s.afterLoss(now, 500*time.Millisecond, wait, retryMax)
		pauses = append(pauses, pause)
	}
	if pauses[0] != retryFirst || pauses[1] <= pauses[0] || pauses[19] != 2*time.Second {
		t.Errorf("%v", pauses)
	}
	if jittered := 3 * pauses[19] / 2; jittered > 3*time.Second {
		t.Errorf("the longest pause is %v", jittered)
	}
	for _, c := range []struct {
		what                  string
		worked, wait, longest time.Duration
		wantPause, wantNext   time.Duration
	}{
		{"after attempts that failed, which do not count: the peer has answered", time.Second, retryMax, retryMax, 2 * time.Second, 2 * time.Second},
		{"after a path that worked", time.Minute, retryMax, retryMax, retryLost, retryFirst},
		{"after one that worked for a few seconds", 3 * time.Second, retryMax, retryMax, retryFirst, retryFirst},
		{"after a few seconds, where it is to be tried more often", 3 * time.Second, time.Second, 100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond},
		{"where it is to be tried more often", time.Second, time.Second, 100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond},
	} {
		if pause, next := s.afterLoss(now, c.worked, c.wait, c.longest); pause != c.wantPause || next != c.wantNext {
			t.Errorf("%s: %v, then %v; want %v, then %v", c.what, pause, next, c.wantPause, c.wantNext)
		}
	}
}

// TestHaste: a session comes back at once so often in a row and then not; each time that has passed gives one more, and no rest gives more than at the beginning.
func TestHaste(t *testing.T) {
	var h haste
	now := time.Now()
	for _, c := range []struct {
		what  string
		rest  time.Duration // before
		times int           // that it comes back at once then
	}{
		{"at the beginning", 0, hasteMost},
		{"before one is given back", hasteEvery - 1, 0},
		{"when it is", 1, 1},
		{"after a part of the time", 3 * hasteEvery / 4, 0},
		{"after two parts, which are more than the whole", 3 * hasteEvery / 4, 1},
		{"after the rest of the second one", hasteEvery / 2, 1},
		{"after three times as long", 3 * hasteEvery, 3},
		{"after an hour", time.Hour, hasteMost},
	} {
		now = now.Add(c.rest)
		times := 0
		for times <= hasteMost && h.take(now) {
			times++
		}
		if times != c.times {
			t.Errorf("%s: %d times; want %d", c.what, times, c.times)
		}
	}
}

// TestUpgradedOneAfterTheOther: paths that end a moment after they were made are made anew at once where that is the end of it, as when the nodes on a path are upgraded
// one after the other; a peer that ends them for ever is asked every two seconds, and a little more often.
func TestUpgradedOneAfterTheOther(t *testing.T) {
	const worked = 1200 * time.Millisecond
	s, now, wait := &session{}, time.Now(), retryFirst
	var pauses []time.Duration
	lose := func() {
		var pause time.Duration
		pause, wait = s.afterLoss(now, worked, wait, retryMax)
		pauses = append(pauses, pause)
		now = now.Add(pause + worked)
	}
	for range 2 * 5 { // five upgrades each of a relay and the node behind it
		lose()
	}
	if slowest := slices.Max(pauses); slowest != retryLost {
		t.Errorf("ten losses in turn: %v", pauses)
	}
	begun := now
	for range 1000 {
		lose()
	}
	if each := now.Sub(begun) / 1000; each < 2*time.Second {
		t.Errorf("a peer that ends its paths for ever is asked every %v", each)
	}
	now = now.Add(time.Minute) // all is well
	pauses = nil
	for range 3 {
		lose()
	}
	if slowest := slices.Max(pauses); slowest != retryLost {
		t.Errorf("a minute later: %v", pauses)
	}
	direct := &session{slow: true}
	if pause, _ := direct.afterLoss(now, worked, retryFirst, retryMaxSlow); pause != retryFirst {
		t.Errorf("a path that is negotiated anew: %v", pause)
	}
}

// TestAfterAbsence: a relay that cannot say when a name is registered again, as after its upgrade, is asked soon, several times in the first third of a second, and
// then no more often than one that is not there.
func TestAfterAbsence(t *testing.T) {
	soon, pause := 0, retryAbsent
	for sum := time.Duration(0); sum < 350*time.Millisecond; pause = nextAbsent(pause) {
		if sum += 3 * pause / 2; sum < 350*time.Millisecond {
			soon++
		}
	}
	if soon < 2 || soon > 5 {
		t.Errorf("asked %d times in the first third of a second", soon)
	}
	for range 10 {
		pause = nextAbsent(pause)
	}
	if pause != retryRefused {
		t.Errorf("then every %v", pause)
	}
}

// TestAfterFailure: a relay whose machine says that nobody listens is asked again and again, so whenever it comes back it is found within half a second, also
// where another attempt had failed in another way before; one that does not answer has been waited for already; else pauses grow.
func TestAfterFailure(t *testing.T) {
	refused, silent, other := fmt.Errorf("dial: %w", unix.ECONNREFUSED), context.DeadlineExceeded, errors.New("not in the mood")
	direct, negotiated := &session{}, &session{slow: true}
	for back := time.Duration(0); back < 3*time.Minute; back += 97 * time.Millisecond {
		now, wait := time.Duration(0), retryMax
		for now < back { // refused at once, and then the longest pause that there is
			var pause time.Duration
			pause, wait = direct.afterFailure(refused, time.Millisecond, wait, retryMax)
			now += time.Millisecond + 3*pause/2
		}
		if late := now - back; late > 500*time.Millisecond {
			t.Fatalf("a relay that is back after %v is asked %v later", back, late)
		}
	}
	for _, c := range []struct {
		what                string
		s                   *session
		err                 error
		took, wait, longest time.Duration
		wantPause, wantNext time.Duration
	}{
		{"refused", direct, refused, 0, time.Second, retryMax, retryRefused, time.Second},
		{"refused, where it is to be tried more often", direct, refused, 0, time.Second, 100 * time.Millisecond, 100 * time.Millisecond, time.Second},
		{"refused, where there is another path", negotiated, refused, 0, time.Second, retryMaxSlow, time.Second, 2 * time.Second},
		{"no answer", direct, silent, 4 * time.Second, 2 * time.Second, retryMax, retryFirst, 2 * time.Second},
		{"no answer, where there is another path", negotiated, silent, 4 * time.Second, 2 * time.Second, retryMaxSlow, 2 * time.Second, 4 * time.Second},
		{"something else", direct, other, 0, time.Second, retryMax, time.Second, 2 * time.Second},
		{"something else, again and again", direct, other, 0, retryMax, retryMax, retryMax, retryMax},
	} {
		if pause, next := c.s.afterFailure(c.err, c.took, c.wait, c.longest); pause != c.wantPause || next != c.wantNext {
			t.Errorf("%s: %v, then %v; want %v, then %v", c.what, pause, next, c.wantPause, c.wantNext)
		}
	}
}

// TestPausesAreSpread: what lost its path together does not come back together: pauses are as long as they are said to be, or up to half as long again, evenly.
func TestPausesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pause, tenths = time.Second, 5
		var s session
		var spread [tenths]int
		for range 1000 {
			begun := time.Now()
			ends := s.pause(pause)
			if is := <-ends; !is.Equal(s.next) {
				t.Fatalf("the next attempt is said to be at %v, and is at %v", s.next, is)
			}
			late := time.Since(begun) - pause
			if late < 0 || late >= pause/2 {
				t.Fatalf("%v late", late)
			}
			spread[late*10/pause]++
		}
		for k, n := range spread {
			if n < 100 { // 200 are expected; so few come in one run of 10^14
				t.Errorf("%d of 1000 pauses are in tenth %d", n, k)
			}
		}
	})
}
