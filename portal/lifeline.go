package portal

import "time"

// lifeline is what one end of a portal connection remembers beyond its path: who it is, what it sent and what of that the other end has. It has
// no socket, no clock and no path; what to send is asked of it.
//
// Positions count the bytes of one direction from its beginning; the Finish is one byte more.
type lifeline struct {
	id, secret token
	hold       time.Duration // how long both ends wait for another path
	attempt    uint64        // of the last Resume, sent or accepted
	offers     uint64        // how often the client was offered before this connection
	process    [32]byte      // of the inlet's node, as the outlet knows it

	// What this end sends.
	sent      uint64 // bytes of data, each counted once
	finished  bool   // so is the Finish
	confirmed uint64 // so much of it the other end has
	next      uint64 // the next byte to send: below sent while bytes are sent again
	kept      keep   // the data from confirmed to sent
	posted    bool   // catchUp will be called
	catching  bool   // it has not come to its end since another path was taken

	// What this end was sent.
	told  uint64 // so much the other end knows that this one has
	owing bool   // the shard will look whether the other end must be told

	// While the path is away.
	until   time.Time     // when the hold runs out
	retryAt time.Time     // when to ask again
	pause   time.Duration // before the next question after that
	gone    Reason        // why the socket has ended meanwhile, to be told to the other end

	// A path that loses messages is left and taken again; one that carries nothing in between is no path.
	stuck               int
	stuckGot, stuckSent uint64
	theirs              uint64 // the position up to which the other end had sent when the path was taken, and one more; 0 if it did not say
}

// end returns the position after all that was sent.
func (l *lifeline) end() uint64 {
	if l.finished {
		return l.sent + 1
	}
	return l.sent
}

// add notes that data was sent.
func (l *lifeline) add(p []byte) {
	l.kept.add(p)
	l.added(len(p))
}

// added counts n bytes that are kept. While others are sent again these wait behind them.
func (l *lifeline) added(n int) {
	if !l.behind() {
		l.next += uint64(n)
	}
	l.sent += uint64(n)
}

// adopt is add for data that lies in a block of its own.
func (l *lifeline) adopt(b *keepBlock, n int) {
	l.kept.adopt(b, n)
	l.added(n)
}

// confirm notes that the other end has all before position n, and reports false if that cannot be.
func (l *lifeline) confirm(n uint64) bool {
	if n < l.confirmed || n > l.end() {
		return false
	}
	data := min(n, l.sent)
	l.kept.drop(int(data - min(l.confirmed, l.sent)))
	l.confirmed = n
	l.next = max(l.next, data)
	return true
}

// confirmLow is confirm for the low 32 bits of a position. No window is as large as 4 GiB, so they say which position is meant.
func (l *lifeline) confirmLow(low uint32) bool {
	return l.confirm(l.confirmed + uint64(low-uint32(l.confirmed)))
}

// rewind goes back to position n, which is how much the other end has: the rest is sent again. It reports false if that cannot be.
func (l *lifeline) rewind(n uint64) bool {
	if !l.confirm(n) {
		return false
	}
	l.next, l.catching = min(n, l.sent), true
	return true
}

// behind reports whether data is still to be sent again.
func (l *lifeline) behind() bool { return l.next < l.sent }

// again copies data that is to be sent again to dst and returns how much it is.
func (l *lifeline) again(dst []byte) int {
	n := l.kept.copyAt(dst, int(l.next-min(l.confirmed, l.sent)))
	l.next += uint64(n)
	return n
}

// owesFinish reports whether the Finish was sent and is not confirmed.
func (l *lifeline) owesFinish() bool { return l.finished && l.confirmed <= l.sent }

// settled reports whether the other end has all that this one had to send.
func (l *lifeline) settled() bool { return l.finished && l.confirmed > l.sent }

// stalled notes that a message is missing, and reports whether that has happened too often without any progress between. got is how much
// has come.
func (l *lifeline) stalled(got uint64) bool {
	if got != l.stuckGot || l.confirmed != l.stuckSent {
		l.stuck, l.stuckGot, l.stuckSent = 0, got, l.confirmed
	}
	if l.confirmed == l.end() && l.theirs == got+1 {
		return false // nothing was under way: what is missing may have been another connection's
	}
	l.stuck++
	return l.stuck > maxStuck
}

// wipe forgets everything.
func (l *lifeline) wipe() {
	l.kept.drop(l.kept.size)
	l.id, l.secret = token{}, token{}
}
