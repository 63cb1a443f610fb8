package tcp

import (
	"time"

	"sallyport/routing"
)

const (
	// markTime is how long what waits may take at the rate at which the peer takes it, before those that send to it alone are paused.
	// More only makes what comes later wait.
	markTime = 50 * time.Millisecond
	// leastMark is the least that may wait.
	leastMark = 48 << 10
	// unsentTime is the same for what the kernel has taken and not sent yet; its bounds are leastUnsent and mostUnsent (TCP_NOTSENT_LOWAT).
	unsentTime  = 20 * time.Millisecond
	leastUnsent = 16 << 10
	mostUnsent  = 256 << 10
	// markEvery is how often the rate is measured, markRounds over how many measurements the highest counts.
	markEvery  = 100 * time.Millisecond
	markRounds = 10
)

// mark follows the rate of a connection: how much may wait for it. It has no socket and no clock.
type mark struct {
	most        int // bytes; as long as the rate is not known
	bytes       int // that may wait now
	unsent      int
	at          time.Time // when the measurement began; zero when nothing waited
	taken       uint64    // what the peer had taken then
	peak, older float64   // highest rates, bytes a second
	rounds      int
}

func newMark(most int) mark { return mark{most: most, bytes: most, unsent: mostUnsent} }

// note is called with what waits and what was taken so far, when something was added; it reports whether unsent has changed much. The
// rate is measured while something waits all the time.
func (m *mark) note(pending int, taken uint64, now time.Time) bool {
	if pending < leastUnsent {
		m.at = time.Time{}
		return false
	}
	if m.at.IsZero() {
		m.at, m.taken = now, taken
		return false
	}
	elapsed := now.Sub(m.at)
	if elapsed < markEvery {
		return false
	}
	rate := float64(taken-m.taken) / elapsed.Seconds()
	m.at, m.taken = now, taken
	if m.rounds++; m.rounds > markRounds {
		m.older, m.peak, m.rounds = m.peak, 0, 1
	}
	m.peak = max(m.peak, rate)
	rate = max(m.peak, m.older)
	m.bytes = max(min(int(rate*markTime.Seconds()), m.most), min(leastMark, m.most))
	unsent := max(min(int(rate*unsentTime.Seconds()), mostUnsent), leastUnsent)
	if unsent > m.unsent/2 && unsent < 2*m.unsent && (unsent != mostUnsent || m.unsent == mostUnsent) {
		return false
	}
	m.unsent = unsent
	return true
}

// drained is called when nothing waits any more: the rate is not the peer's then, but what it is sent.
func (m *mark) drained() { m.at = time.Time{} }

// hold notes what waits because the kernel takes no more, and pauses a source of its own when that is more than the line takes soon. What
// others share is left to the backlog.
func (c *Connection) hold(pending int, from *routing.Throttle) {
	now := c.shard.Loop().Now()
	if c.mark.note(pending, c.written-uint64(pending), now) {
		c.framed.SetNotSentLowat(c.mark.unsent)
	}
	if c.search.due(now) {
		if b, ok := c.framed.BBR(); c.search.look(b, ok, now) {
			c.framed.SearchAgain()
		}
	}
	if from == nil || from.Shared() || pending <= c.mark.bytes || c.backlog.Full() {
		return
	}
	c.markGate.Pause(from)
	c.framed.WantDrain(c.mark.bytes / 4)
}

// openMark lets sources go on that hold paused, once a quarter of the mark is left.
func (c *Connection) openMark() {
	if !c.markGate.Shut() {
		return
	}
	if pending := c.framed.Pending(); pending > c.mark.bytes/4 && !c.backlog.Full() {
		c.framed.WantDrain(c.mark.bytes / 4)
		return
	}
	c.markGate.Open()
}
