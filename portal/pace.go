package portal

import (
	"math"
	"time"

	"sallyport/routing"
)

const (
	// paceFor is how long after its last data a connection counts as interactive, and how often transfers are counted.
	paceFor = 50 * time.Millisecond
	// paceBelow is the longest round trip on which transfers are held back. On longer paths the bytes of a window are spread over the
	// path, and what a full one has under way (share.bounds) is less than pacedTrips.
	paceBelow = 5 * time.Millisecond
	// pacedWindow is what all transfers together have under way beside an interactive connection, and pacedLeast what each has at least.
	pacedWindow = 128 << 10
	pacedLeast  = 16 << 10
	// pacedTrips is for how many round trips of the path they have something under way, if that is more: credits go out by halves of windows and nodes take
	// turns, which takes two to three; with one more it grows until the line is full. Below tripsFrom nodes share a machine or are beside each other:
	// the processor is the limit there, not a line, and requests go before transfers.
	pacedTrips = 4
	tripsFrom  = 500 * time.Microsecond
)

// pacer keeps the transfers of a shard from standing in the way of the interactive connections beside them. Connections to one node
// share a channel, so a request waits behind all that transfers have under way; alone they get full windows, beside requests
// only what fills the path.
type pacer struct {
	asked     time.Time // when an interactive connection last got data
	asker     *window
	counted   time.Time // when the count of transfers began
	transfers int       // that moved half a window since then
	before    int       // and in the time before
	paths     map[routing.Terminal]*roundTrip
	window    int // Limits.Window
}

func (e *Env) pacer(s *routing.Shard) *pacer {
	p, _ := e.pacers.LoadOrStore(s, &pacer{paths: map[routing.Terminal]*roundTrip{}, window: e.Limits.Window})
	return p.(*pacer)
}

// data notes that a connection, of which w is the window, got data. A connection that moved half a window lately is a transfer, any other is interactive.
func (p *pacer) data(w *window, now time.Time) {
	if now.Sub(w.creditAt) > paceFor {
		p.asked, p.asker = now, w
	}
}

// credit notes that a connection lets its peer send more, and did so before at the time given.
func (p *pacer) credit(before, now time.Time) {
	if now.Sub(p.counted) > paceFor {
		p.before, p.transfers, p.counted = p.transfers, 0, now
	}
	if before.Before(p.counted) || p.counted.Equal(now) {
		p.transfers++
	}
}

// limit returns how many bytes the connection of which w is the window may have under way now at most: less beside an interactive one.
func (p *pacer) limit(w *window, now time.Time) int {
	rtt := w.rtt()
	if p.asker == w || now.Sub(p.asked) > paceFor || rtt > paceBelow {
		return math.MaxInt
	}
	least := max(pacedWindow/max(p.before, p.transfers, 1), pacedLeast)
	if rtt < tripsFrom {
		return least
	}
	return max(least, w.path.brings(pacedTrips*rtt))
}
