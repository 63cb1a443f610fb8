package node

import (
	"testing"
	"time"
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
