package portal

import (
	"math"
	"testing"
	"time"
)

// TestPace: beside an interactive connection transfers share what may be under way, by how many there were lately; alone, and on a long path, they do not.
func TestPace(t *testing.T) {
	now := time.Unix(1000, 0)
	p := &pacer{}
	quiet, transfer := &window{}, &window{}
	path := &roundTrip{rtt: time.Millisecond}
	transfer.path, quiet.path = path, path
	want := func(what string, bytes int) {
		t.Helper()
		if got := p.limit(transfer, now); got != bytes {
			t.Errorf("%s: %d bytes, not %d", what, got, bytes)
		}
	}
	want("nobody has asked", math.MaxInt)
	transfer.creditAt = now.Add(-paceFor)
	p.data(transfer, now)
	want("a transfer got data", math.MaxInt)
	p.data(quiet, now)
	want("beside one that is interactive", pacedWindow)
	if p.limit(quiet, now) != math.MaxInt {
		t.Error("the one that is interactive is held back itself")
	}
	// Four transfers, each of which counts once in its time, however often it moves half a window.
	p.credit(time.Time{}, now) // the count begins
	for range 3 {
		p.credit(time.Time{}, now)
	}
	now = now.Add(time.Millisecond)
	p.credit(now.Add(-time.Millisecond), now)
	want("four", pacedWindow/4)
	now = now.Add(paceFor)
	p.data(quiet, now)
	for _, c := range []struct{ transfers, before int }{{1, 4}, {2, 4}} {
		if p.credit(time.Time{}, now); p.transfers != c.transfers || p.before != c.before {
			t.Errorf("%d now and %d before, want %+v", p.transfers, p.before, c)
		}
	}
	want("those of the time before count", pacedWindow/4)
	now = now.Add(paceFor + 1)
	p.data(quiet, now)
	p.credit(time.Time{}, now)
	want("they do not count for ever", pacedWindow/2)
	p.transfers = 1000
	want("very many", pacedLeast)
	path.burst.add(100) // bytes in a nanosecond
	want("what fills the path four times", 100*pacedTrips*int(time.Millisecond))
	path.streams = 3
	want("for each of three", 100*pacedTrips*int(time.Millisecond)/3)
	path.streams = 0
	path.rtt = tripsFrom - 1
	want("nodes of one machine", pacedLeast)
	path.rtt = paceBelow + 1
	want("a long path", math.MaxInt)
	path.rtt = paceBelow
	want("not so long", 100*pacedTrips*int(paceBelow))
	now = now.Add(paceFor)
	want("just asked", 100*pacedTrips*int(paceBelow))
	now = now.Add(1)
	want("asked a while ago", math.MaxInt)
}
