package udp

import (
	"math"
	"slices"
	"time"
)

// acknowledged handles what the peer says has come: ranges of packet numbers, newest first.
func (a *arq) acknowledged(ranges []span, now time.Time) {
	before, bytes := a.inFlight, 0
	top := ranges[0].to - 1
	for i := range a.flight {
		p := &a.flight[i]
		k, _ := slices.BinarySearchFunc(ranges, p.number, func(s span, number uint64) int {
			if s.from > number {
				return -1
			}
			return 1
		})
		if k == len(ranges) || p.number >= ranges[k].to {
			continue
		}
		p.acked = true
		bytes += int(p.data.to - p.data.from)
		if p.data.to > p.data.from && p.data.to > a.base {
			a.acked = addSpan(a.acked, span{max(p.data.from, a.base), p.data.to})
		}
		if p.number == top {
			a.measure(now.Sub(p.at))
		}
		a.tries = 0
	}
	a.largest, a.anyAcked = max(a.largest, top), true
	a.flight = slices.DeleteFunc(a.flight, func(p sentPacket) bool { return p.acked })
	a.inFlight -= bytes
	if len(a.acked) > 0 && a.acked[0].from <= a.base {
		a.head += int(a.acked[0].to - a.base)
		a.base = a.acked[0].to
		a.acked = slices.Delete(a.acked, 0, 1)
		a.next = max(a.next, a.base)
		if a.head == len(a.out) {
			a.out, a.head = a.out[:0], 0
		}
	}
	if bytes > 0 && before >= a.cwnd/2 { // not while it is not the window that holds back
		a.grow(bytes, now)
	}
	a.findLost(now)
}

// measure takes a round trip time (RFC 9002 §5.3).
func (a *arq) measure(sample time.Duration) {
	if !a.anyAcked {
		a.rtt, a.dev = sample, sample/2
		return
	}
	a.dev += ((a.rtt - sample).Abs() - a.dev) / 4
	a.rtt += (sample - a.rtt) / 8
}

// cubic is the growth of CUBIC (RFC 9438) after a loss: fast at first, slow where the last loss was, then faster and faster. So a long line is
// filled again within seconds where one packet for each round trip would take minutes.
type cubic struct {
	top   float64   // cwnd at the last loss, bytes
	since time.Time // when growth began after it; zero if it has not
	reach float64   // seconds until top is reached
	reno  float64   // cwnd as it were with a packet for each round trip, which is more on short lines
}

// cubicScale is C of RFC 9438, packets by seconds cubed.
const cubicScale = 0.4

func (a *arq) grow(bytes int, now time.Time) {
	if a.cwnd < a.ssthresh {
		a.cwnd = min(a.cwnd+bytes, arqMaximum)
		return
	}
	c, cwnd, size := &a.cubic, float64(a.cwnd), float64(a.size)
	if c.since.IsZero() {
		c.since, c.reno, c.top = now, cwnd, max(c.top, cwnd)
		c.reach = math.Cbrt((c.top - cwnd) / size / cubicScale)
	}
	t := (now.Sub(c.since) + a.rtt).Seconds() - c.reach
	target := min(max(c.top+size*cubicScale*t*t*t, cwnd), 1.5*cwnd)
	// A packet for each round trip, where the RFC has half of one until top is reached: packets are smaller than TCP's.
	c.reno += float64(bytes) * size / cwnd
	a.cwnd = min(int(max(cwnd+(target-cwnd)*float64(bytes)/cwnd, c.reno)), arqMaximum)
}

// shrink reduces what is under way after a loss, once for all losses of one round trip.
func (a *arq) shrink(number uint64) {
	if number < a.recovery {
		return
	}
	a.recovery = a.number
	top := float64(a.cwnd)
	if top < a.cubic.top {
		top *= 0.85 // others need room (fast convergence)
	}
	a.cubic = cubic{top: top}
	a.ssthresh = max(a.cwnd*7/10, arqMinimum*a.size)
	a.cwnd = a.ssthresh
}

// findLost looks for packets that later ones have overtaken (RFC 9002 §6.1).
func (a *arq) findLost(now time.Time) {
	a.lossAt = time.Time{}
	patience := max(a.rtt*9/8, arqGranularity)
	a.flight = slices.DeleteFunc(a.flight, func(p sentPacket) bool {
		if p.number >= a.largest {
			return false
		}
		if at := p.at.Add(patience); a.largest-p.number < arqReorder && at.After(now) {
			if a.lossAt.IsZero() || at.Before(a.lossAt) {
				a.lossAt = at
			}
			return false
		}
		a.lose(p)
		a.shrink(p.number)
		return true
	})
}

// lose puts a packet's data down to be sent again.
func (a *arq) lose(p sentPacket) {
	a.inFlight -= int(p.data.to - p.data.from)
	if p.data.to > p.data.from && p.data.to > a.base {
		a.lost = addSpan(a.lost, span{max(p.data.from, a.base), p.data.to})
	}
}

// patience is how long the last packet may stay unanswered.
func (a *arq) patience() time.Duration {
	d := max(a.rtt+4*a.dev, arqMinTimeout) << min(a.tries, 8)
	return min(d, arqMaxTimeout)
}

// Pacing (RFC 9002 §7.7): what is under way is spread over the round trip, since a burst of it overflows the queue of the first device, a thousand
// packets. Timers are exact to a millisecond or so, hence the steps; a shorter path has no need of it.
const (
	paceFrom      = 2 * time.Millisecond // of round trips
	paceStep      = time.Millisecond
	paceGain      = 1.25
	paceStartGain = 2
	paceBurst     = 32 // packets that may go at once however slow it is
)

// tooSoon reports whether the next packet has to wait; paceAt then says until when.
func (a *arq) tooSoon(now time.Time) bool {
	if a.rtt < paceFrom {
		return false
	}
	rate := paceGain * float64(a.cwnd) / float64(a.rtt) // bytes a nanosecond
	if a.cwnd < a.ssthresh {
		rate *= paceStartGain / paceGain
	}
	most := max(2*rate*float64(paceStep), float64(paceBurst*a.size))
	if a.pacedAt.IsZero() {
		a.tokens = most
	} else {
		a.tokens = min(a.tokens+rate*float64(now.Sub(a.pacedAt)), most)
	}
	if a.pacedAt = now; a.tokens >= float64(a.size) {
		return false
	}
	wait := time.Duration((float64(a.size) - a.tokens) / rate)
	a.paceAt = now.Add(max(wait, paceStep))
	return true
}

// deadline is when timeout is to be called; the zero time is never.
func (a *arq) deadline() time.Time {
	at := a.patienceEnds()
	if !a.paceAt.IsZero() && (at.IsZero() || a.paceAt.Before(at)) {
		return a.paceAt
	}
	return at
}

// patienceEnds is when something counts as lost.
func (a *arq) patienceEnds() time.Time {
	switch {
	case !a.lossAt.IsZero():
		return a.lossAt
	case len(a.flight) > 0 || a.blocked || len(a.lost) > 0:
		return a.sentAt.Add(a.patience())
	}
	return time.Time{}
}

// timeout goes on after deadline has come: a packet is lost, or the peer says nothing.
func (a *arq) timeout(now time.Time) {
	if !a.lossAt.IsZero() {
		if !now.Before(a.lossAt) {
			a.findLost(now)
		}
		return
	}
	if now.Before(a.sentAt.Add(a.patience())) {
		return
	}
	a.tries++
	a.probes = 1
	a.sentAt = now // of the attempt, also when there is nothing to send but a question
	if a.tries < 2 && len(a.flight) > 0 {
		// Send the oldest again; it may still be acknowledged itself.
		if p := a.flight[0]; p.data.to > p.data.from && p.data.to > a.base {
			a.lost = addSpan(a.lost, span{max(p.data.from, a.base), p.data.to})
		}
		return
	}
	for _, p := range a.flight {
		a.lose(p)
	}
	a.flight = a.flight[:0]
	a.shrink(a.number)
	a.cwnd = arqMinimum * a.size
}
