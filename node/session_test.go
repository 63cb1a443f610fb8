package node

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAfterLoss: paths that end again and again soon after they were made are made anew with growing pauses, of two seconds at most, so that all are back in time
// however often a relay is restarted; one that has worked for a while is made anew at once.
func TestAfterLoss(t *testing.T) {
	wait := retryFirst
	var pauses []time.Duration
	for range 20 {
		var pause time.Duration
		pause, wait = afterLoss(500*time.Millisecond, wait, retryMax)
		pauses = append(pauses, pause)
	}
	if pauses[0] != retryFirst || pauses[1] <= pauses[0] || pauses[19] != 2*time.Second {
		t.Errorf("%v", pauses)
	}
	if jittered := 3 * pauses[19] / 2; jittered > 3*time.Second {
		t.Errorf("the longest pause is %v", jittered)
	}
	// Attempts that failed before do not count: the peer has answered.
	if pause, next := afterLoss(time.Second, retryMax, retryMax); pause > 2*time.Second || next > 2*time.Second {
		t.Errorf("after attempts that failed: %v, then %v", pause, next)
	}
	if pause, next := afterLoss(time.Minute, retryMax, retryMax); pause != retryLost || next != retryFirst {
		t.Errorf("after a path that worked: %v, then %v", pause, next)
	}
	if pause, next := afterLoss(3*time.Second, retryMax, retryMax); pause != retryFirst || next != retryFirst {
		t.Errorf("after one that worked for a few seconds: %v, then %v", pause, next)
	}
	if pause, next := afterLoss(3*time.Second, time.Second, 100*time.Millisecond); pause != 100*time.Millisecond || next != 100*time.Millisecond {
		t.Errorf("after a few seconds, where it is to be tried more often: %v, then %v", pause, next)
	}
	if pause, next := afterLoss(time.Second, time.Second, 100*time.Millisecond); pause != 100*time.Millisecond || next != 100*time.Millisecond {
		t.Errorf("where it is to be tried more often: %v, then %v", pause, next)
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
