package portal

import (
	"time"

	"sallyport/routing"
)

const (
	// rttFor is how long the shortest round trip is believed before it is measured again (BBR: MinRTTFilterLen, ProbeRTTInterval).
	rttFor = 10 * time.Second
	// probeLeast and probeMost bound how long that takes.
	probeLeast = 50 * time.Millisecond
	probeMost  = 3 * time.Second
	// rttMost is the longest round trip that windows are made for: longer ones are queues.
	rttMost = 2 * time.Second
)

// roundTrip is what the portal connections of a shard that go over one channel know of it together.
type roundTrip struct {
	users  int
	rtt    time.Duration // shortest round trip; 0 before the first
	at     time.Time     // when it was last seen
	until  time.Time     // end of the probe; zero when there is none
	probed time.Duration // shortest in the probe; 0 before the first

	// What all streams together bring.
	moved   uint64    // bytes so far
	came    time.Time // when the last of them did
	epoch   uint      // counts times of slowEpoch or four round trips
	since   time.Time // when the epoch began
	streams int       // that brought something in it
	before  int       // and in the one before
	rate    peak      // bytes a nanosecond in a path that is slow
	slow    bool
	// The highest rate over one round trip lately.
	burst      peak
	burstAt    time.Time
	burstMoved uint64
}

const (
	// slowEpoch is over how long streams are counted, at least.
	slowEpoch = time.Second
	// slowQueue is how much longer than two round trips data may be on its way before its path counts as slow. What first windows hold is
	// then reduced to what the path brings in that time.
	slowQueue = 100 * time.Millisecond
	// slowRoom is what they hold beyond that, so that messages can be on each leg of the path.
	slowRoom = 64 << 10
	// burstRatio is from which ratio of the highest rate of a round trip to the rate over a credit's way data counts as bursts.
	burstRatio = 3
	// leastWindow is the least that a first window is reduced to.
	leastWindow = 32 << 10
)

// add notes that n bytes of a stream came. epoch is what add returned for the stream's bytes before.
func (p *roundTrip) add(n int, epoch uint, now time.Time) uint {
	p.moved += uint64(n)
	p.came = now
	if elapsed := now.Sub(p.burstAt); elapsed >= max(p.rtt, minRound) {
		if p.burstMoved > 0 {
			p.burst.add(float64(p.moved-p.burstMoved) / float64(elapsed))
		}
		p.burstAt, p.burstMoved = now, p.moved
	}
	if p.epoch == 0 || now.Sub(p.since) > max(slowEpoch, 4*p.rtt) {
		p.epoch++
		p.since, p.before, p.streams = now, p.streams, 0
	}
	if epoch != p.epoch {
		p.streams++
	}
	return p.epoch
}

// brought notes that a credit brought new data after d, and that n bytes of all streams came meanwhile. When that took much longer than
// the path is long, and they came evenly, something waits in it, and n shows its rate; until something shows that it has become
// faster. When they came in bursts, the path stood still in between, as it does where packets are lost: there windows must not shrink.
func (p *roundTrip) brought(n uint64, d time.Duration) {
	rate := float64(n) / float64(d)
	even := max(p.burst.now, p.burst.before) < burstRatio*rate
	switch {
	case d > 2*p.rtt+slowQueue && even:
		p.slow = true
		p.rate.add(rate)
	case p.slow && (rate > 2*max(p.rate.now, p.rate.before) || !even):
		p.slow, p.rate = false, peak{}
	}
}

// floor returns how large a window whose first size is given has to be at least: as large as at first, unless the path is slow.
func (p *roundTrip) floor(first int) int {
	if p == nil || !p.slow {
		return first
	}
	all := max(p.rate.now, p.rate.before)*float64(2*p.rtt+slowQueue) + slowRoom
	return min(first, max(int(all)/max(p.streams, p.before, 1), leastWindow))
}

// sample notes that something went to the peer and an answer came after d. It may have been later than it could, since there were others
// before it, or the peer had nothing to send; never sooner. So the shortest counts. When that has not been seen for a while, the
// windows are reduced for a moment to half of what fits, as what they hold might be what makes every sample longer; the shortest of
// that time then counts.
func (p *roundTrip) sample(d time.Duration, now time.Time) {
	p.settle(now)
	switch {
	case p.rtt == 0 || d <= p.rtt:
		p.rtt, p.at, p.until = d, now, time.Time{}
	case !p.until.IsZero():
		if p.probed == 0 || d < p.probed {
			p.probed = d
		}
	case now.Sub(p.at) > rttFor:
		// Twice what it takes now: for what is under way to come, and for a credit to bring new data.
		p.until, p.probed = now.Add(min(max(2*d, probeLeast), probeMost)), 0
	}
}

// probing reports whether the windows are to be reduced now.
func (p *roundTrip) probing(now time.Time) bool {
	p.settle(now)
	return !p.until.IsZero()
}

// settle ends a probe whose time is over.
func (p *roundTrip) settle(now time.Time) {
	if p.until.IsZero() || now.Before(p.until) {
		return
	}
	if p.probed > 0 {
		// Where a queue was too long to drain meanwhile, it would make the windows larger, and they the queue.
		most := 2 * p.rtt
		if p.slow {
			most = p.rtt * 5 / 4
		}
		p.rtt = min(p.probed, max(most, time.Millisecond), rttMost)
	}
	p.at, p.until = now, time.Time{}
}

// usePath returns what is known of the way through t; leavePath has to be called as often.
func (p *pacer) usePath(t routing.Terminal) *roundTrip {
	known := p.paths[t]
	if known == nil {
		known = &roundTrip{}
		p.paths[t] = known
	}
	known.users++
	return known
}

// leavePath forgets what is known of the way through t with its last user.
func (p *pacer) leavePath(t routing.Terminal) {
	if known := p.paths[t]; known != nil {
		if known.users--; known.users == 0 {
			delete(p.paths, t)
		}
	}
}
