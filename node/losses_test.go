package node

import (
	"testing"
	"time"

	"sallyport/dataplane"
)

// TestWantedLanes: as many lanes as the limit says, and more where segments are lost; none come of a limit of one.
func TestWantedLanes(t *testing.T) {
	for limit, want := range map[int][2]int{1: {0, 0}, 2: {1, 8}, 3: {2, 12}, 16: {15, 15}} {
		if n, more := wantedLanes(limit, false), wantedLanes(limit, true); n != want[0] || more != want[1] {
			t.Errorf("limit %d: %d and %d lanes, not %v", limit, n, more, want)
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
		{dataplane.Losses{Sent: 100, Again: lossLeast - 1, Least: shortLeg}, false},
		{dataplane.Losses{Sent: 100 * lossShare, Again: 100, Least: shortLeg}, false},
		{dataplane.Losses{Sent: 100 * lossShare, Again: 101, Least: shortLeg}, true},
		{dataplane.Losses{Received: 100, OutOfOrder: lossLeast - 1, Least: shortLeg}, false},
		{dataplane.Losses{Received: 100 * orderShare, OutOfOrder: 100, Least: shortLeg}, false},
		{dataplane.Losses{Received: 100 * orderShare, OutOfOrder: 101, Least: shortLeg}, true},
		{dataplane.Losses{Sent: 100, Again: 20, Received: 100, OutOfOrder: 20, Least: shortLeg - 1}, false},
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
	l := dataplane.Losses{Least: shortLeg}
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
	l = dataplane.Losses{Least: shortLeg}
	look("anew", long, 1000, 100, 0, 0, false)
	look("anew, again", long, 1000, 100, 0, 0, true)
}
