package node

import (
	"math"
	"time"
)

// Times of a watched path. One that is lost is noticed within three seconds where answers come as they should.
const (
	// quiet is how long nothing has been heard before the peer is asked, and pingInterval how long there is no answer before it is asked again: half as many questions as at
	// even distances for paths that are well, most of which are only there, and as many for those that are not.
	quiet        = 1200 * time.Millisecond
	pingInterval = 400 * time.Millisecond
	// tickInterval is how often a path is looked at whose peer has been asked.
	tickInterval = 200 * time.Millisecond
	// silenceLimit is how long a peer may be silent that is asked and whose answers come in time; it is more, up to silenceMost, where round
	// trips vary or answers get lost, and on a long path silenceNew until learned answers have shown what it is like.
	silenceLimit = 2400 * time.Millisecond
	silenceNew   = 5 * time.Second
	silenceMost  = 15 * time.Second
	learned      = 8
	// nearby is the round trip of a path that does not need that.
	nearby = 150 * time.Millisecond
	// falseAlarm is how probable it may be that a peer that is there answers none of the pings in that time.
	falseAlarm = 1e-4
)

// liveness judges from what was heard of a peer whether it is there. It has no clock of its own.
type liveness struct {
	heard   time.Time // when there was a sign of life
	ticked  time.Time
	due     time.Time  // when tick is to be called next
	pings   []sentPing // without an answer, oldest first
	rtt     time.Duration
	spread  time.Duration // of round trips, as in RFC 6298
	peak    time.Duration // the longest round trip, forgotten slowly
	answers int
	missing float64 // part of the pings that get no answer, smoothed
}

type sentPing struct {
	number uint64
	at     time.Time
}

// maxPings bounds the pings that are remembered.
const maxPings = 32

func newLiveness(now time.Time) *liveness {
	return &liveness{heard: now, ticked: now, due: now.Add(tickInterval)}
}

// soonBack is how soon a peer is there again that had not gone.
const soonBack = 3 * time.Second

// again returns what judges the next path to the same peer, which begins with what is known of the one before. If that was given up and the peer was there
// again at once, it had been silent and not gone.
func (l *liveness) again(now time.Time, gaveUp bool) *liveness {
	next := newLiveness(now)
	next.rtt, next.spread, next.peak, next.missing, next.answers = l.rtt, l.spread, l.peak, l.missing, l.answers
	if gaveUp && now.Sub(l.ticked) < soonBack {
		next.peak = min(max(2*l.peak, l.limit()/2), silenceMost/3)
	}
	return next
}

// sent notes a ping.
func (l *liveness) sent(number uint64, now time.Time) {
	if len(l.pings) == maxPings {
		l.pings = append(l.pings[:0], l.pings[1:]...)
	}
	l.pings = append(l.pings, sentPing{number, now})
}

// answered notes the answer to a ping. Those before it are missing: answers keep their order on most paths.
func (l *liveness) answered(number uint64, now time.Time) {
	l.sign(now)
	for i, p := range l.pings {
		if p.number != number {
			continue
		}
		for range i {
			l.missing += (1 - l.missing) / 4
		}
		l.missing -= l.missing / 16
		l.sample(now.Sub(p.at))
		l.pings = append(l.pings[:0], l.pings[i+1:]...)
		return
	}
}

func (l *liveness) sample(rtt time.Duration) {
	l.answers++
	l.peak = max(rtt, l.peak-l.peak/128)
	if l.rtt == 0 {
		l.rtt, l.spread = rtt, rtt/2
		return
	}
	l.spread += ((l.rtt - rtt).Abs() - l.spread) / 4
	l.rtt += (rtt - l.rtt) / 8
}

// sign notes a sign of life of whatever kind.
func (l *liveness) sign(now time.Time) {
	if now.After(l.heard) {
		l.heard = now
	}
}

// lostAt is when a silent path was lost, at the latest: by then there would have been a word.
func (l *liveness) lostAt() time.Time { return l.heard.Add(quiet) }

// limit is how long the peer may be silent.
func (l *liveness) limit() time.Duration {
	d := max(silenceLimit, 2*(l.rtt+4*l.spread), 3*l.peak)
	if l.answers < learned && (l.answers == 0 || l.rtt > nearby || l.missing > 0.02) {
		d = max(d, silenceNew)
	}
	if l.missing > 0.02 {
		pings := math.Log(falseAlarm) / math.Log(min(l.missing, 0.8))
		d = max(d, quiet+time.Duration((pings-1)*float64(pingInterval))+l.rtt)
	}
	return min(d, silenceMost)
}

// tick is called when it is due. It says whether to ask, and whether the peer has been silent for too long. When this process stood still itself, that time does
// not count.
func (l *liveness) tick(now time.Time) (ask, lost bool) {
	if late := now.Sub(l.due); late > pingInterval {
		l.heard = l.heard.Add(late)
	}
	l.ticked = now
	silent := now.Sub(l.heard)
	asked := len(l.pings) > 0 && now.Sub(l.pings[len(l.pings)-1].at) < pingInterval
	return silent >= quiet-tickInterval/2 && !asked, silent >= l.limit()
}

// plan says when tick is to be called next: soon while an answer is awaited or somebody wants to know closely, else not before the peer has to be asked. Most paths of most
// members are only there, and to look at them more often would be most of what they cost.
func (l *liveness) plan(now time.Time, closely bool) {
	l.due = now.Add(tickInterval)
	if at := l.heard.Add(quiet); len(l.pings) == 0 && !closely && at.After(l.due) {
		l.due = at
	}
}
