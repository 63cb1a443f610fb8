package node

import (
	"context"
	"sync"
	"time"

	"sallyport/dataplane"
	"sallyport/limits"
)

const (
	// lossLanes is how many lanes there are at most where segments are lost, for each that the limit allows.
	lossLanes = 4
	// lossEvery is how often an inlet looks whether segments are lost.
	lossEvery = 2 * time.Second
	// laneLook is how often it looks what its transfers bring.
	laneLook = 500 * time.Millisecond
	// trialLooks is after how many looks more lanes have shown what they bring: as many for the transfers to move and for TCP to begin as for the measurement.
	trialLooks = 6
	// trialGain is how much more they have to bring in order to stay: with a control that losses slow down it is several times as much, with one that they do not, as BBR,
	// next to nothing, while connections of their own share the line less evenly than streams of one do. trialRest is how many looks it takes until they are tried again if they do not.
	trialGain = 1.5
	trialRest = 600

	// lossLeast is how many segments were lost at least where some are lost, and lossShare one of how many: below it TCP with CUBIC fills a line of
	// 10 Mbit/s over 50 ms. A lost one makes those behind it come out of order, more of them the more are on their way, so that share has to be larger.
	lossLeast  = 4
	lossShare  = 500
	orderShare = 50
	// lossLook is how many segments a look at losses is of at least, in lossEvery/2 at least, and lossRow how many looks in a row have to show losses: at the end of
	// a start of TCP that is too fast many are lost at once.
	lossLook = 500
	lossRow  = 2
	// queueTime is how much longer than twice the shortest round trip one is that shows a queue: what is lost at its end is less with fewer connections. A delayed
	// acknowledgement is no longer.
	queueTime = 40 * time.Millisecond
)

// lossyLanes returns how many lanes for transfers an inlet has at most where segments are lost, with a limit of so many connections.
func lossyLanes(limit int) int {
	if limit < 2 {
		return 0
	}
	return min(lossLanes*limit, limits.MaxLanes-1)
}

// lossesCount reports whether so many segments are lost that a TCP connection brings less than the line.
func lossesCount(l dataplane.Losses) bool {
	if l.RTT > 2*l.Least+queueTime {
		return false
	}
	return l.Again >= lossLeast && l.Again > l.Sent/lossShare || l.OutOfOrder >= lossLeast && l.OutOfOrder > l.Received/orderShare
}

// lossWatch is how a connection's losses went from look to look. The zero value is ready; any goroutine.
type lossWatch struct {
	mu   sync.Mutex
	at   time.Time // of the last look
	last dataplane.Losses
	row  int // looks in a row that showed losses
}

// look takes what was lost until now, and reports whether segments are lost all the time.
func (w *lossWatch) look(now time.Time, l dataplane.Losses) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := l // since the last look
	d.Sent, d.Again, d.Received, d.OutOfOrder = l.Sent-w.last.Sent, l.Again-w.last.Again, l.Received-w.last.Received, l.OutOfOrder-w.last.OutOfOrder
	switch {
	case int32(d.Sent) < 0 || int32(d.Received) < 0: // it has ended, or nobody looked for 2^31 segments
		w.row, w.last, w.at = 0, l, now
	case now.Sub(w.at) < lossEvery/2 || uint64(d.Sent)+uint64(d.Received) < lossLook:
	case lossesCount(d):
		w.row, w.last, w.at = w.row+1, l, now
	default:
		w.row, w.last, w.at = 0, l, now
	}
	return w.row >= lossRow
}

// isLossy reports whether segments are lost on the way to the next node. c may be nil.
func (c *connection) isLossy(ctx context.Context) bool {
	return c != nil && c.tcp != nil && c.losses.look(time.Now(), c.tcp.Losses(ctx))
}

// lossy reports whether segments are lost on the inlet's path or one of its lanes, or at the outlet's node.
func (l *inletLanes) lossy(ctx context.Context, lanes []*session) bool {
	up, main, _ := l.in.session.state()
	if !up {
		return false
	}
	if main.isLossy(ctx) {
		return true
	}
	for _, s := range lanes {
		if _, c, _ := s.state(); c.isLossy(ctx) {
			return true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lossEvery)
	defer cancel()
	w, err := l.route(ctx, main, 0)
	return err == nil && w.lossy
}

// laneTrial decides how many lanes an inlet has. Where segments are lost and transfers share lanes it tries one lane for each, and goes back to what there was if
// that does not bring more: what is lost in a line that is full is none the less with more lanes. It has no clock.
type laneTrial struct {
	least, most int // without losses, and with them
	now         int // lanes that there are

	looks  int    // since their number changed
	moved  uint64 // in the last look
	before uint64 // in two looks before the trial that is under way; 0: there is none
	users  int    // transfers when it began
	rest   int    // looks until the next one
}

// wants reports whether more lanes would be tried with so many transfers where segments are lost.
func (t *laneTrial) wants(transfers int) bool {
	return transfers > t.now && t.now < t.most && t.before == 0 && t.rest == 0
}

// look takes what was moved since the last look, and returns how many lanes there are to be.
func (t *laneTrial) look(moved uint64, transfers int, lossy bool) int {
	both := t.moved + moved
	t.moved = moved
	t.looks++
	t.rest = max(t.rest-1, 0)
	switch {
	case t.before > 0 && t.looks >= trialLooks:
		if transfers >= t.users && float64(both) < trialGain*float64(t.before) {
			t.now, t.rest, t.looks = t.least, trialRest, 0
		}
		t.before = 0
	case lossy && t.looks > 2 && both > 0 && t.wants(transfers):
		t.before, t.users, t.looks = both, transfers, 0
		t.now = min(transfers, t.most)
	}
	return t.now
}
