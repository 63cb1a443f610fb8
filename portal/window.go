package portal

import (
	"time"
)

const (
	// windowGain is how many times what the path holds a window covers. A credit goes out when a quarter of the window was taken, and
	// needs a round trip to bring data: 4/3 would just do, the rest is for what comes unevenly. BBR's cwnd_gain is the same.
	windowGain = 2
	// startGain is the same while the rate still rises: a round that began before the window grew shows only part of what it is good for.
	startGain = 3
	// openGain is how many times what the reader takes a window grows by at the beginning, so that it is four times as large after each round trip: the slow
	// start of each leg doubles in a round trip of its own, which is half of the path's where the relay is in its middle.
	openGain = 3
	// fullRounds is how many rounds without a quarter more in one of them show that the path, not the window, is the limit (BBR:
	// BBRStartupFullBwCnt).
	fullRounds = 3
	// windowSlack is what a window has beyond that. It is the same for fast and slow streams of one channel, so their shares of it come
	// nearer to each other with each measurement, as additive increase does it in TCP.
	windowSlack = 64 << 10
	// leastSlack is the same where that is more than what fits: there it would be most of what waits.
	leastSlack = 8 << 10
	// dryShare is from which share of a credit's way on a peer without credit counts as held up by its window, and dryGain by how much more
	// than it has that window then covers.
	dryShare = 1.0 / 16
	dryGain  = 1.25
	// dryTrips bounds that in round trips, or dryLeast where that is longer, and dryMost beyond two of them. On a path of at most shortPath it is
	// shareSlack in place of dryLeast: nodes of one machine take turns for longer than its round trip, and requests beside have the pacer.
	dryTrips = 8
	dryLeast = 50 * time.Millisecond
	dryMost  = 250 * time.Millisecond
	// coverFor is how long about the window goes on to cover more once the peer no longer runs dry, or 16 rounds where those take longer: a node that comes
	// late now and then would find it too small again each time.
	coverFor = time.Second
	// minRound is the least time over which the rate of delivery is measured. On shorter paths single bursts would be taken for it.
	minRound = 10 * time.Millisecond
	// peakRounds is for how many rounds at least the highest rate counts, as BBR's filter (BBRMaxBwFilterLen is in rounds too).
	peakRounds = 10
	// halfStep is the size up to which a credit is worth half a window instead of a quarter: fewer messages where round trips cost nothing.
	halfStep = 512 << 10
)

// window is the receiving half of a portal connection's flow control: how many bytes the peer may have under way, and when it is told
// that it may send more. It measures how fast the reader takes what comes and how long the path is, and is as large as what
// fits into the path at that rate, twice. Too small a window slows a transfer down, too large a one lets bytes wait within the
// channel, where everybody waits behind them. It has no socket and no clock: times are given, and what to send is returned.
//
// The rate is the highest of the last rounds, as in BBR (draft-ietf-ccwg-bbr); that the window follows what was taken in a round
// trip is dynamic right-sizing, as TCP receivers do it.
type window struct {
	memory windowMemory
	path   *roundTrip // what the connections over one channel know of it

	size, first int    // now, and at the beginning
	extra       int    // counted beyond first for this window
	fits        int    // what size would be without bounds; 0 before it is known
	received    uint64 // bytes that came
	allowed     uint64 // bytes that the peer may have sent so far
	known       bool   // the peer has been told of the window

	creditAt time.Time // when allowed was last raised
	askedAt  time.Time // when the raise was sent that data beyond asked depends on
	asked    uint64
	moved    uint64        // what the path had brought then, of all its streams
	idled    time.Duration // and for how long nothing had come
	behind   bool          // the reader had much to take then, or the window was reduced for a moment
	waiting  bool          // for that data
	brought  streamShare

	spent   bool          // the peer had spent what it had when the last credit reached it
	soon    bool          // what the peer might send last came as soon as it could, on a path long enough to tell, alone or in the path's start
	spentAt time.Time     // when all bytes up to asked had come and none beyond; zero if that did not happen
	dry     float64       // share of the credits' ways in which nothing came since the peer had spent what it had, lately
	cover   time.Duration // what the window has to cover because of that; 0 for what the round trip says

	roundAt    time.Time // when the round began in which the rate is measured
	roundTaken uint64    // bytes taken until then
	rate       float64   // bytes a nanosecond in the last round
	peak       peak
	opened     uint64  // bytes taken for which the window has grown
	full       float64 // the rate that has to be exceeded by a quarter, else the path is the limit
	flat       int     // rounds in which it was not
}

// newWindow makes a window with its first size. It belongs to a path from usePath on.
func newWindow(m windowMemory) window {
	first := m.first()
	return window{memory: m, size: first, first: first, allowed: uint64(first)}
}

// usePath tells the window which path its bytes come over; nil when it is not known.
func (w *window) usePath(p *roundTrip, now time.Time) {
	if w.path != nil {
		w.path.leave(&w.brought)
	}
	if w.path, w.waiting, w.soon = p, false, false; p == nil {
		return
	}
	p.join(&w.brought, p.rtt, now)
	if !w.known && w.received == 0 && w.size == w.first {
		if least := p.begins(w.first, p.rtt, now); least < w.first { // nobody has been told of it yet
			w.size, w.allowed = least, uint64(least)
		}
	}
}

// rtt is the shortest round trip of the path, 0 if it is not known yet.
func (w *window) rtt() time.Duration {
	if w.path == nil {
		return 0
	}
	return w.path.rtt
}

// add notes that n bytes came, and reports false if the peer was not allowed to send them.
func (w *window) add(n int, now time.Time) bool {
	w.received += uint64(n)
	if w.received > w.allowed {
		return false
	}
	last := w.spentAt // when anything came since the peer had spent its credit
	if w.path != nil {
		if !last.IsZero() && w.path.came.After(last) {
			last = w.path.came
		}
		if w.waiting && w.received >= w.asked {
			w.soon = w.path.rtt >= minRound && (w.path.alone() || w.path.starts()) && now.Sub(w.askedAt)-(w.path.idle-w.idled) <= w.path.rtt*5/4+fullQueue
			if w.soon && w.received > w.asked && !w.spentAt.IsZero() {
				w.path.came = now // the peer waited for the credit; the path did not stand still
			}
		}
		w.path.add(n, &w.brought, w.path.rtt, now)
	}
	switch {
	case !w.waiting:
	case w.received <= w.asked:
		if w.received == w.asked {
			w.spentAt = now
		}
		if took := now.Sub(w.askedAt); w.path != nil && took > w.path.rtt && w.asked-w.received < uint64(w.size/2) {
			w.path.brought(w.path.moved-w.moved, took, w.path.idle-w.idled, w.path.rtt, now) // it will be later
		}
	case w.received > w.asked:
		// These bytes could only be sent after the credit had come: it went there and they came back.
		w.waiting, w.spent = false, !w.spentAt.IsZero()
		took, idle := now.Sub(w.askedAt), time.Duration(0)
		if w.path != nil {
			w.path.sample(took, now)
			w.path.brought(w.path.moved-w.moved, took, w.path.idle-w.idled, w.path.rtt, now)
		}
		if !last.IsZero() && !w.behind {
			idle = now.Sub(last)
			if most := w.peak.most(); most > 0 { // as long as the message itself was on the line nothing else could come
				idle = max(idle-time.Duration(float64(n)/most), 0)
			}
		}
		w.ranDry(idle, took, now)
	}
	return true
}

// update looks whether the peer is to be told that it may send more. pending is how much of what came the reader has not taken, and
// limit bounds the window this time. It returns the credit to send, which then counts as given; or 0 and how many bytes may be
// pending when it is time to look again, -1 for never before the peer sends more.
func (w *window) update(pending, limit int, now time.Time) (credit uint64, low int) {
	taken := w.received - uint64(pending)
	w.measure(pending, now)
	w.open(taken, pending, now)
	size := w.size
	probing := w.path != nil && w.path.probing(now)
	if probing {
		size = max(min(size, w.fits)/2, min(size, leastShare))
	}
	size = min(size, limit)
	// The peer should be able to have a whole window under way beyond what the reader has taken.
	amount := int64(taken) + int64(size) - int64(w.allowed)
	if step := int64(max(min(size/2, max(size/4, halfStep/2)), 1)); amount < step {
		// Look again when enough was taken; if the peer can still send that much, its data will make us.
		return 0, int(max(amount+int64(pending)-step, -1))
	}
	if !w.waiting {
		w.waiting, w.asked, w.askedAt = true, w.allowed, now
		w.behind, w.spentAt = pending > size/4 || probing, time.Time{}
		if w.received == w.asked {
			w.spentAt = now
		}
		if w.path != nil {
			w.moved, w.idled = w.path.moved, w.path.idle
		}
	}
	w.allowed += uint64(amount)
	w.creditAt = now
	return uint64(amount), -1
}

// ranDry notes that a credit brought new data after took, and that nothing came on this path for the time idle before it, though the reader was
// ready: the peer had spent what it had. Then the window is too small, however short the shortest round trip is: nodes that are busy, and
// segments that are lost and sent again, make a credit's way longer. The window covers more and more of that until the peer no longer runs dry.
func (w *window) ranDry(idle, took time.Duration, now time.Time) {
	w.dry += (float64(idle)/float64(max(took, 1)) - w.dry) / 4
	most, rtt := w.peak.most(), w.rtt()
	if w.path != nil {
		most = w.path.equal(most, now)
	}
	if w.dry > dryShare && most > 0 {
		covered := time.Duration(dryGain * float64(w.size) / most)
		bound := max(dryTrips*rtt, shareSlack)
		if rtt > shortPath {
			bound = max(bound, dryLeast)
		}
		w.cover = min(max(covered, w.cover), bound, 2*rtt+dryMost)
	}
}

// open lets the window grow with what is taken while it is what limits a stream whose rate still rises, and which is alone on its path or on one whose rate does
// too: the peer sends at once all that it may, the reader takes it, and nothing waits in the path. The rate is known a round trip late, so a window that follows
// it alone needs two for each step. In shorter paths than rates can be measured in, a window is large enough soon.
func (w *window) open(taken uint64, pending int, now time.Time) {
	if !w.soon || !w.path.alone() && !w.path.starts() || w.flat >= fullRounds || pending > w.size/4 {
		w.opened = taken
		return
	}
	_, bound := w.path.bounds(w.first, w.path.rtt, w.cover, now)
	if want := min(w.size+openGain*int(taken-w.opened), bound); want >= w.size+w.size/8 {
		w.opened = taken
		w.resize(want, 0, int(int64(w.allowed)-int64(taken)))
	}
}

// measure ends a round if it has lasted long enough, and makes the window fit what was measured.
func (w *window) measure(pending int, now time.Time) {
	taken := w.received - uint64(pending)
	if w.roundAt.IsZero() {
		w.roundAt, w.roundTaken = now, taken
		return
	}
	rtt, elapsed := w.rtt(), now.Sub(w.roundAt)
	if elapsed < max(rtt, minRound) {
		return
	}
	w.rate = float64(taken-w.roundTaken) / float64(elapsed)
	w.roundAt, w.roundTaken = now, taken
	if w.dry < dryShare/4 {
		w.cover -= time.Duration(float64(w.cover) * min(float64(elapsed)/float64(coverFor), 1.0/16))
	}
	most := w.peak.add(w.rate)
	if rtt == 0 {
		return
	}
	gain := float64(windowGain)
	if w.flat++; most >= w.full*5/4 {
		w.full, w.flat = most, 0
	} else if most < w.full/2 {
		w.full = most
	}
	if w.flat < fullRounds {
		gain = startGain
	}
	if pending > w.size/4 {
		// The reader had enough to take all the time: it is the limit, and what it once took does not matter.
		most, w.cover = w.rate, 0
	}
	w.fits = int(most * max(gain*float64(rtt), float64(w.cover)))
	w.fits += max(min(w.fits, windowSlack), leastSlack)
	least, bound := w.path.bounds(w.first, rtt, w.cover, now)
	ready := rtt > shortPath && pending <= w.size/4
	switch {
	case bound < w.fits || ready && w.path.full(now) && w.brought.full():
		w.fits = bound // climb sees to it that it is enough
	case ready && w.path.stands() && w.spent: // what it brings follows what it may, so it comes to its part by and by, however little it brings
		w.fits = max(w.fits, min(bound, w.size+w.size/4))
	}
	w.resize(w.fits, least, int(int64(w.allowed)-int64(taken)))
}

// resize makes the window want bytes large, not less than floor, within its bounds, and in steps when it shrinks. Small differences are left.
// under is what the peer may have under way as it is.
func (w *window) resize(want, floor, under int) {
	want = min(want, w.memory.limits.MaxWindow)
	if extra := w.memory.most(); want-w.first > extra {
		want = w.first + extra
	}
	want = max(want, floor, w.size-w.size/4)
	if w.size < want && want < w.size+w.size/8 || want < w.size && w.size-w.size/8 < want {
		want = w.size
	}
	// What the peer was allowed to send counts until the reader has taken it, however small the window is by then.
	w.extra = w.memory.resize(w.extra, max(min(max(want, under), max(want, w.first+w.extra))-w.first, 0))
	w.size = min(want, w.first+w.extra)
}

// end gives back what the window took beyond its first size.
func (w *window) end() {
	w.extra = w.memory.resize(w.extra, 0)
	w.size = min(w.size, w.first)
}

// peak is the highest of at least the last peakRounds values.
type peak struct {
	now, before float64
	rounds      int
}

// add adds a value and returns the highest.
func (p *peak) add(v float64) float64 {
	if p.rounds++; p.rounds > peakRounds {
		p.before, p.now, p.rounds = p.now, 0, 1
	}
	p.now = max(p.now, v)
	return p.most()
}

// most returns the highest.
func (p *peak) most() float64 { return max(p.now, p.before) }
