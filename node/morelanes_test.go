package node

import (
	"testing"
	"time"

	"sallyport/dataplane"
)

// TestLaneTrial: where segments are lost and transfers share lanes each gets one, as far as the bound allows; they stay if that brings half as much again, and end if not.
func TestLaneTrial(t *testing.T) {
	const before = 100
	for _, c := range []struct {
		name      string
		transfers int
		lossy     bool
		after     uint64 // moved in a look, with more lanes
		left      int    // transfers then
		tried     int
		kept      int
	}{
		{"more comes", 5, true, 151, 5, 5, 5},
		{"no more comes", 5, true, 149, 5, 5, 1},
		{"bounded", 30, true, 300, 30, 8, 8},
		{"no losses", 5, false, 300, 5, 1, 1},
		{"one transfer", 1, true, 300, 1, 1, 1},
		{"some have ended, which says nothing", 5, true, 60, 3, 5, 5},
	} {
		l := laneTrial{least: 1, most: lossyLanes(2), now: 1}
		if n := l.look(before, c.transfers, c.lossy); n != 1 {
			t.Errorf("%s: %d lanes before anything is known", c.name, n)
		}
		l.look(before, c.transfers, c.lossy)
		if n := l.look(before, c.transfers, c.lossy); n != c.tried {
			t.Errorf("%s: %d lanes, not %d", c.name, n, c.tried)
		}
		for range trialLooks - 1 { // until transfers have moved nothing counts
			if n := l.look(0, c.left, c.lossy); n != c.tried {
				t.Errorf("%s: %d lanes before the verdict", c.name, n)
			}
		}
		l.moved = c.after
		if n := l.look(c.after, c.left, c.lossy); n != c.kept {
			t.Errorf("%s: %d lanes in the end, not %d", c.name, n, c.kept)
		}
		if failed := c.kept < c.tried; failed {
			for range trialRest - 2 {
				if n := l.look(before, c.transfers, c.lossy); n != 1 {
					t.Fatalf("%s: tried again too soon", c.name)
				}
			}
			l.look(before, c.transfers, c.lossy)
			if n := l.look(before, c.transfers, c.lossy); n != c.tried {
				t.Errorf("%s: not tried again", c.name)
			}
		}
	}
	// Nothing is compared with a look in which nothing came.
	l := laneTrial{least: 1, most: 8, now: 1}
	for range 10 {
		if n := l.look(0, 5, true); n != 1 {
			t.Errorf("%d lanes while nothing comes", n)
		}
	}
}

// TestLossyLanes: the bound follows the limit, and none come of a limit of one.
func TestLossyLanes(t *testing.T) {
	for limit, want := range map[int]int{1: 0, 2: 8, 3: 12, 16: 15} {
		if n := lossyLanes(limit); n != want {
			t.Errorf("limit %d: %d lanes, not %d", limit, n, want)
		}
	}
}

// TestLossesCount: some losses at the beginning, and as few as a line that is full has, do not count.
func TestLossesCount(t *testing.T) {
	for _, c := range []struct {
		l    dataplane.Losses
		want bool
	}{
		{dataplane.Losses{}, false},
		{dataplane.Losses{Sent: 100, Again: lossLeast - 1}, false},
		{dataplane.Losses{Sent: 100 * lossShare, Again: 100}, false},
		{dataplane.Losses{Sent: 100 * lossShare, Again: 101}, true},
		{dataplane.Losses{Received: 100, OutOfOrder: lossLeast - 1}, false},
		{dataplane.Losses{Received: 100 * orderShare, OutOfOrder: 100}, false},
		{dataplane.Losses{Received: 100 * orderShare, OutOfOrder: 101}, true},
		{dataplane.Losses{Sent: 100, Again: 20, RTT: 2*time.Second + queueTime, Least: time.Second}, true},
		{dataplane.Losses{Sent: 100, Again: 20, RTT: 2*time.Second + queueTime + 1, Least: time.Second}, false},
	} {
		if got := lossesCount(c.l); got != c.want {
			t.Errorf("%+v: %v", c.l, got)
		}
	}
}

// TestLossWatch: segments are lost all the time when two looks in a row show it; what was lost before, and what a look that is too short shows, does not count.
func TestLossWatch(t *testing.T) {
	now := time.Unix(1000, 0)
	var w lossWatch
	var l dataplane.Losses
	look := func(what string, after time.Duration, sent, again, received, disordered uint32, want bool) {
		t.Helper()
		now = now.Add(after)
		l.Sent, l.Again, l.Received, l.OutOfOrder = l.Sent+sent, l.Again+again, l.Received+received, l.OutOfOrder+disordered
		if got := w.look(now, l); got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	const long = lossEvery
	look("a start that was too fast", long, 10_000, 500, 0, 0, false)
	look("nothing is lost after it", long, 10_000, 0, 0, 0, false)
	look("some again", long, 10_000, 100, 0, 0, false)
	look("too soon after that", lossEvery/2-1, 10_000, 100, 0, 0, false)
	look("and in the next look", 1, 0, 0, 0, 0, true)
	look("too few to say anything else", long, lossLook-1, 0, 0, 0, true)
	look("no more, with those few", long, 1, 0, 0, 0, false)
	look("out of order", long, 0, 0, 10_000, 300, false)
	look("again", long, 0, 0, 10_000, 300, true)
	now = now.Add(long)
	if w.look(now, dataplane.Losses{}) {
		t.Error("a connection that has ended loses segments")
	}
	l = dataplane.Losses{}
	look("anew", long, 1000, 100, 0, 0, false)
	look("anew, again", long, 1000, 100, 0, 0, true)
}
