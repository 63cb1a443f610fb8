package udp

import (
	"slices"
	"sort"
	"time"
)

// launch puts a packet under way.
func (a *arq) launch(p sentPacket) {
	if a.landed > 64 && 2*a.landed > len(a.flight) {
		a.flight, a.landed = a.flight[:copy(a.flight, a.flight[a.landed:])], 0
	}
	a.flight = append(a.flight, p)
	a.under++
}

// land notes that a packet is no longer under way.
func (a *arq) land(p *sentPacket) {
	p.done = true
	a.under--
	a.inFlight -= p.size()
}

// tidy passes over packets that are done.
func (a *arq) tidy() {
	for a.landed < len(a.flight) && a.flight[a.landed].done {
		a.landed++
	}
	if a.landed == len(a.flight) {
		a.flight, a.landed = a.flight[:0], 0
	}
}

// acknowledged handles what the peer says has come: ranges of packet numbers, newest first. Only what is new in them costs anything: a long line has
// thousands of packets under way.
func (a *arq) acknowledged(ranges []span, now time.Time) {
	bytes := 0
	top := ranges[0].to - 1
	var last sentPacket
	newest := false
	var run span // of the stream
	for _, r := range slices.Backward(ranges) {
		first := a.landed + sort.Search(len(a.flight)-a.landed, func(i int) bool { return a.flight[a.landed+i].number >= r.from })
		for i := first; i < len(a.flight) && a.flight[i].number < r.to; i++ {
			p := &a.flight[i]
			if p.done {
				continue
			}
			a.land(p)
			a.passed(p, now)
			bytes += p.size()
			if p.data.from != run.to {
				a.arrived(run)
				run = p.data
			}
			run.to = p.data.to
			if p.number == top {
				a.measure(now.Sub(p.at))
			}
			last, newest = *p, true
			a.tries = 0
		}
	}
	a.arrived(run)
	a.largest, a.anyAcked = max(a.largest, top), true
	if len(a.acked) > 0 && a.acked[0].from <= a.out.base {
		a.out.drop(a.acked[0].to)
		a.acked = slices.Delete(a.acked, 0, 1)
		a.next = max(a.next, a.out.base)
	}
	if bytes > 0 {
		if newest && last.number == top {
			a.bbr.trip(now.Sub(last.at), a.inFlight, arqMinimum*a.size, now)
		}
		a.bbr.acked(bytes, a.inFlight, a.size, last.mark, last.at, now)
		a.grow(bytes)
	}
	a.findLost(now)
}

// arrived notes a part of the stream that the peer has.
func (a *arq) arrived(s span) {
	if s.to > s.from && s.to > a.out.base {
		a.acked = addSpan(a.acked, span{max(s.from, a.out.base), s.to})
	}
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

// grow sets how much may be under way after bytes were acknowledged.
func (a *arq) grow(bytes int) {
	target := a.bbr.window(a.size)
	switch {
	case a.bbr.filled:
		a.cwnd = min(a.cwnd+bytes, target)
	case a.cwnd < target || a.bbr.delivered < uint64(arqInitial*a.size):
		a.cwnd += bytes
	}
	a.cwnd = min(max(a.cwnd, arqMinimum*a.size), arqMaximum)
}

// room is how much may be under way now.
func (a *arq) room() int {
	if a.bbr.probing {
		return arqMinimum * a.size
	}
	return a.cwnd
}

// findLost looks for packets that later ones have overtaken (RFC 9002 §6.1).
func (a *arq) findLost(now time.Time) {
	a.lossAt = time.Time{}
	patience := max(a.rtt*9/8, arqGranularity)
	for i := a.landed; i < len(a.flight) && a.flight[i].number < a.largest; i++ {
		p := &a.flight[i]
		if p.done {
			continue
		}
		if at := p.at.Add(patience); a.largest-p.number < arqReorder && at.After(now) {
			if a.lossAt.IsZero() || at.Before(a.lossAt) {
				a.lossAt = at
			}
			continue
		}
		a.lose(p, now)
	}
	a.tidy()
}

// lose puts a packet's data down to be sent again.
func (a *arq) lose(p *sentPacket, now time.Time) {
	a.land(p)
	a.stuck(p, now)
	a.bbr.lost += uint64(p.size())
	if p.loose > 0 {
		a.looseLost++
	}
	if p.data.to > p.data.from && p.data.to > a.out.base {
		a.lost = addSpan(a.lost, span{max(p.data.from, a.out.base), p.data.to})
	}
}

// patience is how long the last packet may stay unanswered.
func (a *arq) patience() time.Duration {
	d := max(a.rtt+4*a.dev, arqMinTimeout) << min(a.tries, 8)
	return min(d, arqMaxTimeout)
}

// tooSoon reports whether the next packet has to wait; paceAt then says until when. What is under way is spread over the round trip, since a
// burst of it overflows the queue of the first device. Timers are exact to a millisecond or so, hence the steps, and late where a machine is busy, which is
// made up for; a shorter path has no need of it.
func (a *arq) tooSoon(now time.Time) bool {
	if a.rtt < bbrUnpaced || a.bbr.shortest < bbrUnpaced && a.bbr.shortest > 0 {
		return false
	}
	rate := a.bbr.pace()
	if rate == 0 {
		rate = bbrHigh * float64(a.cwnd) / float64(a.rtt)
	}
	late := max(2*bbrTimerStep, min(a.bbr.shortest/2, bbrLate))
	most := max(rate*float64(late), float64(bbrBurst*a.size))
	if a.pacedAt.IsZero() {
		a.tokens = most
	} else {
		a.tokens = min(a.tokens+rate*float64(now.Sub(a.pacedAt)), most)
	}
	if a.pacedAt = now; a.tokens >= float64(a.size) {
		return false
	}
	a.paceAt = now.Add(max(time.Duration((float64(a.size)-a.tokens)/rate), bbrTimerStep))
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
	case a.under > 0 || a.blocked || len(a.lost) > 0:
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
	if a.tries < 2 && a.under > 0 {
		// Send the oldest again; it may still be acknowledged itself.
		if p := &a.flight[a.landed]; p.data.to > p.data.from && p.data.to > a.out.base {
			a.lost = addSpan(a.lost, span{max(p.data.from, a.out.base), p.data.to})
		}
		return
	}
	for i := a.landed; i < len(a.flight); i++ {
		if p := &a.flight[i]; !p.done {
			a.lose(p, now)
		}
	}
	a.shrink(now)
	a.tidy()
	a.cwnd = arqMinimum * a.size
}
