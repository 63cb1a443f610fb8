package udp

import "time"

// Numbers of BBR (draft-cardwell-iccrg-bbr-congestion-control-00, version 1, as Linux has it, but for bbrLost).
const (
	bbrHigh      = 2.885 // gain while the rate still doubles: 2/ln 2
	bbrWindow    = 2     // what may be under way, in what the path holds
	bbrRounds    = 10    // for how many rounds at least the highest rate counts
	bbrFull      = 3     // rounds without a quarter more that end the start
	bbrAgain     = 1.5   // times the rate with which it ended that show it to have ended too soon
	bbrLost      = 0.15  // share of such a round that, if lost, ends it at once: a queue is full
	bbrLostLeast = 16    // packets that this has to be
	bbrRisen     = 1.1   // times the rate, after more was tried, that show the path to have become faster
	bbrSeen      = 3     // phases in which that shows
	bbrRTTFor    = 10 * time.Second
	bbrProbeRTT  = 200 * time.Millisecond
	bbrTurn      = 2 * time.Millisecond // what nodes and timers take beyond the path's round trip
	bbrBurst     = 32                   // packets that may go at once however slow it is
	bbrLocal     = 1 << 20              // bytes under way where the path is shorter than timers are exact
	bbrUnpaced   = 2 * time.Millisecond // round trip of such a path
	bbrTimerStep = time.Millisecond
	bbrQueue     = 5 * time.Millisecond  // by which the shortest round trip of a round is longer than a quarter more than the shortest, where a queue stands
	bbrDrain     = 3                     // round trips that less is sent for at most, until what was tried has left the queue
	bbrLate      = 10 * time.Millisecond // up to which a timer's lateness is made up for at once, where half a round trip is as long
)

// bbrCycle are the gains of the rounds once the path is full: more, to see whether it has become faster, then as much less.
var bbrCycle = [...]float64{1.25, 0.75, 1, 1, 1, 1, 1, 1}

// bbr decides how much may be under way and how fast it is sent, from the rate at which packets are delivered and the shortest round trip. A loss
// says nothing: on long lines most are not from full queues.
type bbr struct {
	delivered   uint64    // bytes acknowledged so far
	deliveredAt time.Time // when the last of them were
	firstSent   time.Time // when the packet was sent that was acknowledged then
	limited     uint64    // samples count little until so much is delivered: there was nothing to send

	rate, before float64 // highest of the rounds now and before, bytes a nanosecond
	rounds       int
	roundEnd     uint64        // of delivered
	roundBegan   uint64        // the same, when the round began
	lost         uint64        // bytes in this round
	trips        time.Duration // shortest round trip in this round; 0 before the first

	shortest   time.Duration
	shortestAt time.Time
	probing    bool      // little is under way, for the round trip to be seen
	probeEnd   time.Time // zero before little is under way
	probed     time.Duration

	full            float64
	flat            int
	filled, drained bool
	phase           int
	phaseAt         time.Time
	tried           float64 // the rate when more was last tried
}

// mark is what a packet has of it when it is sent.
type mark struct {
	delivered              uint64
	deliveredAt, firstSent time.Time
	limited                bool
}

// sent returns the mark of a packet; idle tells that none was under way.
func (b *bbr) sent(now time.Time, idle bool) mark {
	if idle || b.deliveredAt.IsZero() {
		b.deliveredAt, b.firstSent = now, now
		b.limited = max(b.limited, b.delivered+1)
	}
	return mark{b.delivered, b.deliveredAt, b.firstSent, b.limited > b.delivered}
}

func (b *bbr) most() float64 { return max(b.rate, b.before) }

// acked takes an acknowledgement of bytes, the newest of which were sent at the time given with mark m, when inFlight bytes are left. size is that of
// packets.
func (b *bbr) acked(bytes, inFlight, size int, m mark, sentAt, now time.Time) {
	b.delivered += uint64(bytes)
	b.deliveredAt, b.firstSent = now, sentAt
	if m.delivered >= b.roundEnd {
		defer b.round(m.limited, b.queued(), b.delivered-b.roundBegan, b.lost, size)
		b.roundBegan, b.roundEnd, b.lost, b.trips = b.delivered, b.delivered, 0, 0
		if !m.limited { // an idle link forgets nothing
			b.rounds++
		}
		if b.rounds > bbrRounds {
			b.before, b.rate, b.rounds = b.rate, 0, 1
		}
	}
	interval := max(sentAt.Sub(m.firstSent), now.Sub(m.deliveredAt))
	if interval <= 0 || interval < b.shortest {
		return
	}
	if rate := float64(b.delivered-m.delivered) / float64(interval); !m.limited || rate > b.most() {
		b.rate = max(b.rate, rate)
	}
	if b.filled && b.most() >= bbrAgain*b.full { // there was too little to send to see what the line has, or it has become faster
		b.filled, b.drained, b.full, b.flat = false, false, b.most(), 0
	}
	b.turn(inFlight, now)
}

// queued reports whether something stood in a queue for all of this round.
func (b *bbr) queued() bool { return b.trips > b.shortest*5/4+bbrQueue }

// round ends a round in which bytes were delivered and lost, and packets are of a size: while the rate rises by a quarter the start goes on, whatever is
// lost. A round without ends it if much is lost too, whether there was enough to send or not. Where something stood in a queue all the time there was enough, unless it was so
// little that the queue was that of others.
func (b *bbr) round(limited, queued bool, delivered, lost uint64, size int) {
	if b.filled {
		return
	}
	limited = limited && !(queued && delivered >= uint64(bbrBurst*size))
	much := lost > uint64(bbrLostLeast*size) && float64(lost) > bbrLost*float64(delivered+lost)
	switch {
	case b.most() >= b.full*5/4:
		b.full, b.flat = b.most(), 0
	case much:
		b.filled = true
	case !limited:
		b.flat++
		b.filled = b.flat >= bbrFull
	}
	if b.filled {
		b.full = b.most()
	}
}

// turn goes on in the cycle of gains.
func (b *bbr) turn(inFlight int, now time.Time) {
	holds := int(b.most() * float64(b.shortest))
	lasted, less := now.Sub(b.phaseAt), bbrCycle[b.phase] < 1
	switch {
	case !b.filled:
	case !b.drained:
		if inFlight <= holds {
			b.drained, b.phaseAt, b.phase = true, now, 2
		}
	case less && inFlight <= holds+int(b.most()*float64(bbrTurn)), !less && lasted > b.shortest, lasted > bbrDrain*b.shortest:
		b.phaseAt = now
		if b.phase++; b.phase == len(bbrCycle) || b.phase > 1 && b.phase <= bbrSeen && b.most() >= b.tried*bbrRisen {
			b.phase, b.tried = 0, b.most() // more again, at once if that has been of use: the path has become faster, or the start ended too soon
		}
	}
}

// trip takes a round trip. When the shortest has not been seen for a while, little is sent for a moment: what is under way might be what makes
// every one longer.
func (b *bbr) trip(d time.Duration, inFlight, little int, now time.Time) {
	if b.trips == 0 || d < b.trips {
		b.trips = d
	}
	switch {
	case b.shortest == 0 || d <= b.shortest:
		b.shortest, b.shortestAt = d, now
	case !b.probing && now.Sub(b.shortestAt) > bbrRTTFor:
		b.probing, b.probeEnd, b.probed = true, time.Time{}, d
	}
	if !b.probing {
		return
	}
	b.probed = min(b.probed, d)
	if b.probeEnd.IsZero() && inFlight <= little {
		b.probeEnd = now.Add(max(bbrProbeRTT, b.shortest))
	}
	if !b.probeEnd.IsZero() && now.After(b.probeEnd) {
		b.probing, b.shortest, b.shortestAt = false, b.probed, now
	}
}

// window returns how much may be under way, 0 if it is not known yet.
func (b *bbr) window(size int) int {
	if b.most() == 0 || b.shortest == 0 {
		return 0
	}
	gain := bbrHigh
	if b.filled {
		gain = bbrWindow
	}
	least := bbrBurst * size
	if b.shortest < bbrUnpaced {
		least = bbrLocal
	}
	return max(int(gain*b.most()*float64(b.shortest+bbrTurn)), least)
}

// pace returns how fast is sent, in bytes a nanosecond, 0 if it is not known yet.
func (b *bbr) pace() float64 {
	gain := bbrHigh
	switch {
	case b.filled && !b.drained:
		gain = 1 / bbrHigh
	case b.filled:
		gain = bbrCycle[b.phase]
	}
	return gain * b.most()
}
