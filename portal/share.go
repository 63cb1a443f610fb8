package portal

import "time"

const (
	// shareSlack is how long more than two round trips what the streams of a full path have under way may be on its way: nodes take turns.
	shareSlack = 10 * time.Millisecond
	// shortSlack is the same for first windows in a path so short that transfers are held back beside requests (pacer): there it must not cost anything.
	shortSlack = 50 * time.Millisecond
	// climbRounds is for how many rounds climbUp times as much is under way, and as long what was before. When that brings climbLeast times as much, it
	// stays, up to climbMost in all; else it becomes climbDown times that.
	climbRounds = 8
	climbUp     = 1.25
	climbLeast  = 1.05
	climbMost   = 8
	climbDown   = 0.93
	// shareRoom is what they have beyond that, so that messages can be on each leg of a slow path.
	shareRoom = 16 << 10
	// shortPath is the longest round trip of a path that may well be within one machine or one room: windows there need not be small before transfers
	// are held back beside requests (pacer), and nodes take turns for longer than it takes.
	shortPath = 2 * time.Millisecond
	// leastShare is the least that one of them has.
	leastShare = 4 << 10
	// fullQueue is how much longer than a round trip and a quarter a credit's way must be to show that something waits in the path, and fullFor how
	// long that is believed.
	fullQueue = 5 * time.Millisecond
	fullFor   = 2 * time.Second
	// leastGap is the least time without data that counts, where a quarter of a round trip is less.
	leastGap = 5 * time.Millisecond
	// unknownPart is the part of Limits.Window that first windows come to together in a path of which nothing is known.
	unknownPart = 4
	// shareEpoch is over how long streams are counted, at least.
	shareEpoch = time.Second
	// stillShare is from which share of the time on in which nothing comes a path counts as one that stands still again and again.
	stillShare = 1.0 / 8
	// unevenMost is how many times what a full path has under way one stream's part may be in a path that is not full: while rates still rise windows are
	// three times what they were good for.
	unevenMost = 2
	startMost  = 6
)

// share is what the streams of one path bring together, and what each of them may therefore have under way. Where something waits in the path, more
// under way only makes it wait longer: there all windows together are what the path brings in two round trips, and each stream that could use more
// gets the same part of it. It has no clock.
type share struct {
	unknown int       // bytes that first windows come to before anything is known
	moved   uint64    // bytes so far
	came    time.Time // when the last of them did
	fullAt  time.Time // when something was last seen to wait in the path

	// The highest rates lately, in bytes a nanosecond: over one round trip, and over the way of a credit.
	burst      peak
	rate       peak
	roundAt    time.Time
	roundMoved uint64
	gaps       time.Duration // in this round, beyond what messages take on the line
	still      float64       // share of gaps lately
	idle       time.Duration // in which nothing came, in all
	risen      float64       // the rate that has to be exceeded by a quarter, else the path's start is over
	flat       int           // rounds in which it was not

	// What climb tries.
	gain      float64
	up        bool // it is tried now
	stepAt    time.Time
	stepMoved uint64
	stepRate  float64 // before it was tried

	// How many streams would use more than they have: one that brings half of an equal part counts as one, one that brings less as less.
	// Those that have begun and brought nothing yet count only for the first windows of others that begin: they may stay idle.
	fresh      int       // such streams in this epoch
	epoch      uint      // counts times of shareEpoch or four round trips
	since      time.Time // when the epoch began
	epochMoved uint64    // what moved was then
	part       float64   // half of an equal part, in bytes
	streams    float64   // in this epoch so far
	before     float64   // and in the one before
}

// streamShare is what one stream has brought in an epoch.
type streamShare struct {
	epoch   uint
	fresh   bool // it has brought nothing yet
	moved   float64
	counted float64 // for how much it counts
	before  float64 // and in the epoch before
}

// add notes that n bytes of a stream came over a path whose round trip is rtt.
func (p *share) add(n int, s *streamShare, rtt time.Duration, now time.Time) {
	p.moved += uint64(n)
	if most := p.burst.most(); !p.came.IsZero() && most > 0 {
		gap := now.Sub(p.came) - time.Duration(float64(n)/most)
		p.gaps += max(gap-max(rtt/4, leastGap), 0)
		if gap > leastGap {
			p.idle += gap
		}
	}
	p.came = now
	if elapsed := now.Sub(p.roundAt); elapsed >= max(rtt, minRound) {
		if p.roundMoved > 0 && p.moved-p.roundMoved > shareRoom { // a few requests say nothing
			p.burst.add(float64(p.moved-p.roundMoved) / float64(elapsed))
			p.rate.add(0)
			p.climb(rtt, now)
			p.still += (float64(p.gaps)/float64(elapsed) - p.still) / 4
		}
		p.rises(p.burst.most())
		p.roundAt, p.roundMoved, p.gaps = now, p.moved, 0
	}
	p.turn(rtt, now)
	if s.epoch != p.epoch {
		last := 0.0
		if s.epoch+1 == p.epoch {
			last = s.counted
		}
		*s = streamShare{epoch: p.epoch, before: last}
	}
	if s.fresh {
		s.fresh = false
		p.fresh--
	}
	before := s.counts(p)
	s.moved += float64(n)
	s.counted = s.counts(p)
	p.streams += s.counted - before
}

// rises notes the highest rate at the end of a round.
func (p *share) rises(most float64) {
	if p.flat++; most > p.risen*5/4 {
		p.risen, p.flat = most, 0
	} else if most < p.risen/2 {
		p.risen = most
	}
}

// starts reports whether the path's rate still rises, as in TCP's slow start: then what it brings says little of what it is good for.
func (p *share) starts() bool { return p.flat < fullRounds }

// turn begins a new epoch when it is time.
func (p *share) turn(rtt time.Duration, now time.Time) {
	length := max(shareEpoch, 4*rtt)
	elapsed := now.Sub(p.since)
	if p.epoch != 0 && elapsed <= length {
		return
	}
	p.before, p.part = p.streams, 0
	if elapsed > 2*length {
		p.before = 0 // that was long ago
	} else if p.before > 0 {
		p.part = float64(p.moved-p.epochMoved) / p.before / 2
	}
	p.epoch++
	p.since, p.epochMoved, p.streams, p.fresh = now, p.moved, 0, 0
}

// counts is for how much a stream counts in its epoch.
func (s *streamShare) counts(p *share) float64 { return min(s.moved/max(p.part, leastShare), 1) }

// full reports whether the stream brings as much as others, or nearly.
func (s *streamShare) full() bool { return max(s.counted, s.before) >= 1 }

// join counts a stream that begins, and leave takes back what one that ends was counted for.
func (p *share) join(s *streamShare, rtt time.Duration, now time.Time) {
	p.turn(rtt, now)
	*s = streamShare{epoch: p.epoch, fresh: true}
	p.fresh++
}

func (p *share) leave(s *streamShare) {
	if s.epoch == p.epoch {
		p.streams = max(p.streams-s.counts(p), 0)
		if s.fresh {
			p.fresh--
		}
	}
	*s = streamShare{}
}

// brought notes that a credit brought new data after d, or not yet, and that n bytes of all streams came meanwhile; for idle of that time nothing
// came. When it took much longer than the path is long, something waits in it; unless the path stood still in between, as it does where segments
// are lost and sent again: there it is longer than it seems, and windows must not shrink.
func (p *share) brought(n uint64, d, idle, rtt time.Duration, now time.Time) {
	if d >= fullQueue { // in less time a burst would be taken for the rate
		p.rate.now = max(p.rate.now, float64(n)/float64(d))
	}
	if p.stands() {
		p.fullAt = time.Time{}
	} else if d-idle > rtt*5/4+fullQueue {
		p.fullAt = now
	}
}

// full reports whether something waits in the path, and it is not in its start. When the last rounds brought much and no credit was long on its way, what was seen before
// was a node that came late, and nothing waits any more.
func (p *share) full(now time.Time) bool {
	return !p.fullAt.IsZero() && now.Sub(p.fullAt) < fullFor && p.rate.most() > 0 && !p.starts()
}

// climb tries from time to time whether more under way brings more: the path may be longer than its shortest round trip says, where nodes are busy or
// messages come late. If it does, that stays; if not, a little less is tried the next time.
func (p *share) climb(rtt time.Duration, now time.Time) {
	if !p.full(now) || p.stepAt.IsZero() {
		p.stepAt, p.stepMoved, p.up = now, p.moved, false
		return
	}
	elapsed := now.Sub(p.stepAt)
	if elapsed < climbRounds*max(rtt, minRound) {
		return
	}
	rate := float64(p.moved-p.stepMoved) / float64(elapsed)
	switch {
	case !p.up:
		p.stepRate = rate
	case rate > p.stepRate*climbLeast:
		p.gain = min(max(p.gain, 1)*climbUp, climbMost)
	default:
		p.gain = max(p.gain*climbDown, 1)
	}
	p.stepAt, p.stepMoved, p.up = now, p.moved, !p.up
}

// trips is how long what is under way may be on its way in a full path.
func (p *share) trips(rtt time.Duration) time.Duration {
	gain := max(p.gain, 1)
	if p.up {
		gain *= climbUp
	}
	return time.Duration(gain * float64(2*rtt+shareSlack))
}

// equal returns the rate of an equal part where something waits in the path and that is less, else the rate given.
func (p *share) equal(rate float64, now time.Time) float64 {
	if p.full(now) {
		return min(rate, p.rate.most()/max(p.streams, p.before, 1))
	}
	return rate
}

// brings returns what the path brings of one stream in d, at most lately.
func (p *share) brings(d time.Duration) int {
	return int(p.burst.most() * float64(d) / max(p.streams, p.before, 1))
}

// alone reports whether at most one stream uses the path.
func (p *share) alone() bool { return max(p.streams+float64(p.fresh), p.before) < 2 }

// begins returns how large the window of a stream is that has just joined, where it would be first bytes if nothing was known.
func (p *share) begins(first int, rtt time.Duration, now time.Time) int {
	least, _ := p.among(max(p.streams+float64(p.fresh), p.before, 1), first, rtt, 0, now)
	return least
}

// bounds returns how large the window of a stream has to be at least, of which the first size is given, and at most. cover is how long what is under
// way is at most on its way, if that is more than usual.
func (p *share) bounds(first int, rtt, cover time.Duration, now time.Time) (least, most int) {
	return p.among(max(p.streams, p.before, 1), first, rtt, cover, now)
}

// among is bounds for one of so many streams.
func (p *share) among(streams float64, first int, rtt, cover time.Duration, now time.Time) (least, most int) {
	trips := float64(p.trips(rtt))
	if p.full(now) {
		part := func(trips float64) int { return max(int((p.rate.most()*trips+shareRoom)/streams), leastShare) }
		most = part(trips)
		if least = min(first, most); rtt <= shortPath {
			least = min(first, part(float64(2*rtt+shortSlack)))
		}
		return least, max(least, most)
	}
	trips = max(trips, float64(cover))
	if p.stands() { // what stands still comes in bursts, and is late for as long
		trips = max(trips, float64(2*rtt+dryMost))
	}
	all := max(p.burst.most()*trips+shareRoom, float64(p.unknown))
	least = min(first, max(int(all/streams), leastShare))
	if rtt <= shortPath || streams < 2 && !p.stands() {
		return least, maxCredit
	}
	// One that was quick for a moment, as with what came at once after a standstill, would keep what others wait for.
	if p.starts() {
		recent := float64(p.moved-p.roundMoved) / float64(max(now.Sub(p.roundAt), rtt/2))
		most = int((max(p.burst.most(), recent)*max(startMost*float64(rtt), trips) + shareRoom) / streams)
		return least, max(least, first, most)
	}
	most = int((p.burst.most()*max(unevenMost*float64(p.trips(rtt)), trips) + shareRoom) / streams)
	return least, max(least, first, most)
}

// stands reports whether the path stands still again and again.
func (p *share) stands() bool { return p.still > stillShare }
