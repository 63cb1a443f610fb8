package datagram

import "time"

// Bounds of a window, in bytes, and times of its marks.
const (
	windowFirst = 128 << 10
	windowLeast = 32 << 10
	windowMost  = 4 << 20
	// markEvery is the part of the window after which a mark is sent: a quarter.
	markEvery = 4
	markIdle  = time.Second // and the time without one
	markLost  = time.Second // after which a mark without answer is given up
	// markSlack and three round trips without an answer while the window is full show that the last mark may be lost: another one asks.
	markSlack = 100 * time.Millisecond
	// A path's shortest round trip is believed for tripFor. An answer that took more than twice that and tripSlack shows that something waits.
	tripFor   = 10 * time.Second
	tripSlack = 20 * time.Millisecond
	marksMost = 16
)

// sentMark is a mark without answer.
type sentMark struct {
	number, position uint64
	at               time.Time
}

// window says how far a sender may be ahead of the other end (docs/protocol/07). It knows no clock; the zero value is not ready, newWindow's is.
type window struct {
	size            int
	sent, confirmed uint64 // bytes
	marked          uint64 // sent, at the last mark
	markedAt        time.Time
	number          uint64 // of the next mark
	marks           [marksMost]sentMark
	count           int // of marks
	limited         bool
	trip            time.Duration // the shortest; 0 for not known
	tripAt          time.Time     // when it was measured
	full            bool          // the window was what kept the sender back since then
	shrunkAt        time.Time
	// While the trip is measured anew with a small window: the size before, and the first mark after all that filled the path.
	before int
	fresh  uint64
}

func newWindow() window { return window{size: windowFirst} }

// restart is for another path: what was under way is lost.
func (w *window) restart() {
	number := w.number
	*w = newWindow()
	w.number = number // answers that are still on the way mean nothing here
}

// open reports whether more may be sent. Once it has said no, the window is what keeps the sender back.
func (w *window) open() bool {
	if w.sent-w.confirmed < uint64(w.size) {
		return true
	}
	w.limited = true
	return false
}

// add notes that n bytes are sent.
func (w *window) add(n int) { w.sent += uint64(n) }

// mark reports whether a mark is to be sent now, with which number. It is asked after each change.
func (w *window) mark(now time.Time) (number uint64, due bool) {
	full := w.sent-w.confirmed >= uint64(w.size)
	switch {
	case full && w.count > 0 && !now.Before(w.again()):
	case w.sent == w.marked:
		return 0, false
	case w.sent-w.marked >= uint64(w.size/markEvery), now.Sub(w.markedAt) >= markIdle:
	case w.count == 0 && full: // a window that has shrunk: nothing else would open it
	default:
		return 0, false
	}
	if w.count == marksMost {
		copy(w.marks[:], w.marks[1:]) // the answer to a later one says more
		w.count--
	}
	number = w.number
	w.number++
	w.marks[w.count] = sentMark{number, w.sent, now}
	w.count++
	w.marked, w.markedAt = w.sent, now
	return number, true
}

// answered takes the answer to a mark. One that was not sent, or was answered or given up, means nothing.
func (w *window) answered(number uint64, now time.Time) {
	for i, m := range w.marks[:w.count] {
		if m.number != number {
			continue
		}
		gained := int(min(m.position-w.confirmed, windowMost))
		w.confirmed = m.position
		w.count = copy(w.marks[:], w.marks[i+1:w.count])
		w.adapt(number, now.Sub(m.at), gained, now)
		return
	}
}

// adapt changes the size after the answer to a mark that took trip and confirmed so many bytes.
func (w *window) adapt(number uint64, trip time.Duration, gained int, now time.Time) {
	if w.before > 0 {
		if number < w.fresh {
			return
		}
		w.size, w.before, w.trip = w.before, 0, 0
	}
	switch {
	case w.trip == 0 || trip <= w.trip || now.Sub(w.tripAt) > tripFor && !w.full:
		w.trip, w.tripAt, w.full = max(trip, time.Microsecond), now, false
	case now.Sub(w.tripAt) > tripFor:
		w.before, w.size, w.fresh = w.size, min(w.size, windowLeast), w.number
		return
	}
	switch {
	case trip > 2*w.trip+tripSlack:
		if now.Sub(w.shrunkAt) >= trip {
			w.size, w.shrunkAt = max(w.size*3/4, windowLeast), now
		}
	case w.limited && trip <= 3*w.trip/2+tripSlack/2:
		w.size = min(w.size+gained, windowMost)
	}
	w.full = w.full || w.limited
	w.limited = false
}

// expire gives up marks that have had no answer for too long, with all that was before them. It reports whether there was one.
func (w *window) expire(now time.Time) bool {
	n := 0
	for n < w.count && now.Sub(w.marks[n].at) >= markLost {
		w.confirmed = w.marks[n].position
		n++
	}
	w.count = copy(w.marks[:], w.marks[n:w.count])
	return n > 0
}

// again is when a full window asks once more.
func (w *window) again() time.Time { return w.markedAt.Add(3*w.trip + markSlack) }

// next returns when expire or mark may have something to do; ok is false while there is no mark under way.
func (w *window) next(now time.Time) (at time.Time, ok bool) {
	if w.count == 0 {
		return at, false
	}
	at = w.marks[0].at.Add(markLost)
	if again := w.again(); again.After(now) && again.Before(at) {
		return again, true
	}
	return at, true
}
