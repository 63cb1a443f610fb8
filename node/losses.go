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
	// shortLeg is the shortest round trip of a leg on which losses count: on a shorter one they are made good before anybody waits, and a receiver that is busy makes some.
	shortLeg = time.Millisecond
)

// lossyLanes returns how many lanes for transfers an inlet has at most where segments are lost, with a limit of so many connections.
func lossyLanes(limit int) int {
	if limit < 2 {
		return 0
	}
	return min(lossLanes*limit, limits.MaxLanes-1)
}

// wantedLanes returns how many lanes there are to be with a limit of so many connections.
func wantedLanes(limit int, lossy bool) int {
	if lossy {
		return lossyLanes(limit)
	}
	return limit - 1
}

// lossesCount reports whether so many segments are lost that a TCP connection brings less than the line.
func lossesCount(l dataplane.Losses) bool {
	if l.Least < shortLeg || l.RTT > 2*l.Least+queueTime {
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
