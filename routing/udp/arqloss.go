package udp

import (
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
			if a.out, a.head = a.out[:0], 0; cap(a.out) > 512<<10 {
				a.out = nil // an idle link keeps nothing of a burst
			}
		}
	}
	if bytes > 0 && before >= a.cwnd/2 { // not while it is not the window that holds back
		a.grow(bytes)
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

func (a *arq) grow(bytes int) {
	if a.cwnd < a.ssthresh {
		a.cwnd += bytes
	} else if a.growth += bytes; a.growth >= a.cwnd {
		a.growth -= a.cwnd
		a.cwnd += a.size
	}
	a.cwnd = min(a.cwnd, arqMaximum)
}

// shrink reduces what is under way after a loss, once for all losses of one round trip.
func (a *arq) shrink(number uint64) {
	if number < a.recovery {
		return
	}
	a.recovery = a.number
	a.ssthresh = max(a.cwnd*7/10, arqMinimum*a.size)
	a.cwnd, a.growth = a.ssthresh, 0
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

// deadline is when timeout is to be called; the zero time is never.
func (a *arq) deadline() time.Time {
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
