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

	share // what all streams together bring
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
		if p.full(now) {
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
		known = &roundTrip{share: share{unknown: p.window / unknownPart}}
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
