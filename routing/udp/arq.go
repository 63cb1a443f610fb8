package udp

import (
	"encoding/binary"
	"errors"
	"slices"
	"sort"
	"sync/atomic"
	"time"
)

// Numbers of the Link. They follow what QUIC does (RFC 9002), with one stream of bytes in each direction and no handshake.
const (
	arqWindow      = 2 << 20       // bytes that a side takes at first before it has handed them on
	arqWindowMost  = 64 << 20      // and at most, when that is what comes in arqWindowTrips
	arqWindowTrips = 6             // round trips: what is lost, and its repetition too, takes two more than the path holds, and the rate may still double
	arqInitial     = 32            // packets under way at first
	arqMinimum     = 4             // and at least
	arqMaximum     = arqWindowMost // bytes under way at most
	arqReorder     = 3             // later packets acknowledged that show one to be lost
	arqRanges      = 24            // ranges of packet numbers in an acknowledgement
	arqSeen        = 64            // ranges remembered
	arqEarly       = 32768         // parts of the stream that came early, each after a gap
	arqFirstRTT    = 200 * time.Millisecond
	arqMinTimeout  = 15 * time.Millisecond
	arqMaxTimeout  = 2 * time.Second
	arqGranularity = 2 * time.Millisecond
)

// Flags of a packet.
const (
	arqAck   = 1
	arqData  = 2
	arqTry   = 4  // as large as it is, to see whether that passes
	arqAsk   = 8  // a nonce follows, which the peer repeats
	arqTell  = 16 // with this
	arqLoose = 32 // a piece of a message beside the stream
)

// keptBuffer is up to which size a link keeps its buffers.
const keptBuffer = 64 << 10

// errPacket reports a packet that no honest peer sends.
var errPacket = errors.New("udp: malformed link packet")

// span is a range of numbers, to is not in it.
type span struct{ from, to uint64 }

// addSpan adds s to an ascending list of ranges that do not touch.
func addSpan(list []span, s span) []span {
	i, _ := slices.BinarySearchFunc(list, s.from, func(e span, at uint64) int {
		if e.to < at {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(list) && list[j].from <= s.to; j++ {
		s.from, s.to = min(s.from, list[j].from), max(s.to, list[j].to)
	}
	return slices.Replace(list, i, j, s)
}

// sentPacket is a packet under way.
type sentPacket struct {
	number uint64
	data   span // of the stream
	at     time.Time
	done   bool // acknowledged, or lost
	loose  int  // bytes of a message beside the stream
	try    int  // the size that it tries; 0 for one with data
	mark   mark
}

// size returns how many bytes under way the packet is.
func (p *sentPacket) size() int { return int(p.data.to-p.data.from) + p.loose }

// arq carries a stream of bytes each way over packets that may be lost, repeated and reordered. It knows no socket and no clock: who
// uses it hands packets in and out, and calls timeout when deadline has come.
//
// A packet is: number uvarint | flags | acknowledgement, if flagged: limit, largest number, count, length of the first range, then for
// each further one gap and length, all uvarint | data, if flagged: offset uvarint, bytes to the end. One that is flagged to try a size is filled
// with zeroes, and one that asks or tells has a nonce; older versions take both for packets with nothing in them. A loose one has a piece of a message
// in place of a part of the stream, and is never sent again.
type arq struct {
	size int // of the largest packet
	mtu  pmtu

	out    sending
	inMost int    // of in since the last trim
	next   uint64 // offset of the first byte never sent
	limit  uint64 // the peer takes bytes before it

	number   uint64       // of the next packet
	flight   []sentPacket // ascending; flight[:landed] are done, and each that is older than arqReorder packets acknowledged
	landed   int
	under    int // packets of flight that are not done
	inFlight int // bytes of them
	lost     []span
	acked    []span // of the stream, after base
	largest  uint64 // acknowledged
	anyAcked bool
	cwnd     int
	bbr      bbr // how cwnd and the pace are found
	rtt, dev time.Duration
	tokens   float64   // bytes that may be sent at pacedAt
	pacedAt  time.Time // when tokens was last reckoned
	paceAt   time.Time // when more may be sent, if that is what is waited for
	lossAt   time.Time // when the next packet counts as lost by time
	sentAt   time.Time
	tries    int  // timeouts in a row
	probes   int  // packets that may be sent in spite of cwnd
	blocked  bool // by limit
	resent   uint64

	loose     looseOut
	looseTurn bool // the next packet is for that, when the stream has something too
	looseLost uint64
	looseIn   looseIn

	seen   []span // packet numbers of the peer
	due    bool   // an acknowledgement is
	newest bool   // the last packet was the newest so far
	asked  *nonce // that the peer asks with
	answer *nonce // that it answers with
	receiving
	blocks blocks
	came   uint64 // bytes of the peer's stream, early ones too
	allow  uint64 // the peer may send bytes before it
	told   uint64 // allow as the peer knows it
	window int    // how far allow is ahead of what was handed on
	grown  *grownWindows
	// The round trip in which what comes is measured.
	roundAt   time.Time
	roundCame uint64
	roundMost int // that came in one, since the last trim
}

func newARQ(size int) *arq {
	a := &arq{size: size, limit: arqWindow, allow: arqWindow, told: arqWindow, window: arqWindow, cwnd: arqInitial * size, rtt: arqFirstRTT, dev: arqFirstRTT / 2}
	a.out.blocks, a.receiving.blocks = &a.blocks, &a.blocks
	return a
}

// pending returns how many bytes were not acknowledged.
func (a *arq) pending() int { return int(a.out.end - a.out.base) }

// waiting returns how many bytes were never sent.
func (a *arq) waiting() int { return int(a.out.end - a.next) }

// trim gives up buffers that are empty and were hardly used since the last call: a burst begins with what the last one left, and an idle link keeps
// nothing.
func (a *arq) trim() {
	if len(a.ready()) == 0 && cap(a.in) > keptBuffer && a.inMost < cap(a.in)/8 {
		a.in, a.at = nil, 0
	}
	a.blocks.trim()
	a.loose.trim()
	a.looseIn.trim()
	if a.pending() == 0 && a.roundMost < keptBuffer {
		a.out.list = nil
	}
	if a.window > arqWindow && 2*arqWindowTrips*a.roundMost < a.window { // others may need it
		less := max(a.window/2, arqWindow)
		a.grown.giveBack(a.window - less)
		a.window = less
	}
	a.inMost, a.roundMost = len(a.ready()), 0
}

// packet appends the next packet to buf, which has room for size bytes. It returns nil if there is none to send now.
func (a *arq) packet(buf []byte, now time.Time) []byte {
	data, again := a.pick()
	loose := a.loose.waiting() > 0 && a.probes == 0 && a.inFlight < a.room()
	if a.paceAt = (time.Time{}); (data.to > data.from || loose) && a.probes == 0 && a.tooSoon(now) {
		data.to, again, loose = data.from, false, false
	}
	if (data.to > data.from || loose) && a.probes == 0 && a.trying(now) {
		return a.try(buf, now)
	}
	if loose && (a.looseTurn || data.to == data.from) {
		a.looseTurn = false
		return a.appendLoose(buf, now)
	}
	a.looseTurn = true
	if data.to == data.from && a.probes == 0 && !a.due {
		return nil
	}
	flags := byte(0)
	if a.due && len(a.seen) > 0 {
		flags |= arqAck
	}
	if data.to > data.from || a.probes > 0 {
		flags |= arqData
	}
	if flags == 0 {
		return nil
	}
	limit := len(buf) + a.size
	number := a.number
	a.number++
	buf = binary.AppendUvarint(buf, number)
	buf = append(buf, flags)
	if flags&arqAck != 0 {
		buf = a.appendAck(buf)
		a.due = false
	}
	if flags&arqData == 0 {
		return buf
	}
	buf = binary.AppendUvarint(buf, data.from)
	data.to = min(data.to, data.from+uint64(limit-len(buf)))
	buf = a.out.appendTo(buf, data)
	if again {
		a.resent++
		if a.lost[0].from = data.to; a.lost[0].from >= a.lost[0].to {
			a.lost = a.lost[1:]
		}
	} else {
		a.next = max(a.next, data.to)
	}
	a.probes = max(a.probes-1, 0)
	a.launch(sentPacket{number: number, data: data, at: now, mark: a.bbr.sent(now, a.inFlight == 0)})
	a.inFlight += int(data.to - data.from)
	a.sentAt = now
	a.tokens -= float64(data.to - data.from)
	return buf
}

// pick chooses what to send next: what was lost first. An empty span is nothing.
func (a *arq) pick() (data span, again bool) {
	nothing := span{a.out.base, a.out.base}
	if a.inFlight >= a.room() && a.probes == 0 {
		return nothing, false
	}
	for len(a.lost) > 0 {
		s := &a.lost[0]
		s.from = max(s.from, a.out.base)
		if k := sort.Search(len(a.acked), func(i int) bool { return a.acked[i].to > s.from }); k < len(a.acked) && a.acked[k].from <= s.from {
			s.from = a.acked[k].to // it has come after all
		}
		if s.from < s.to {
			return *s, true
		}
		a.lost = a.lost[1:]
	}
	to := min(a.out.end, a.limit)
	a.blocked = a.next >= a.limit && a.out.end > a.limit
	if a.next < to {
		return span{a.next, to}, false
	}
	if !a.blocked && a.loose.waiting() == 0 { // a peer's window that bounds the rate is a part of the path
		a.bbr.limited = a.bbr.delivered + uint64(max(a.inFlight, 1))
	}
	return nothing, false
}

// appendAck appends an acknowledgement of what came, the newest ranges.
func (a *arq) appendAck(b []byte) []byte {
	k := len(a.seen) - 1
	b = binary.AppendUvarint(b, a.allow)
	a.told = a.allow
	b = binary.AppendUvarint(b, a.seen[k].to-1)
	count := min(len(a.seen), arqRanges)
	b = binary.AppendUvarint(b, uint64(count))
	b = binary.AppendUvarint(b, a.seen[k].to-a.seen[k].from)
	for range count - 1 {
		b = binary.AppendUvarint(b, a.seen[k].from-a.seen[k-1].to)
		k--
		b = binary.AppendUvarint(b, a.seen[k].to-a.seen[k].from)
	}
	return b
}

// numbers reads uvarints.
type numbers struct {
	b   []byte
	bad bool
}

func (n *numbers) next() uint64 {
	v, k := binary.Uvarint(n.b)
	if k <= 0 {
		n.bad, n.b = true, nil
		return 0
	}
	n.b = n.b[k:]
	return v
}

// receive takes a packet of the peer, which is borrowed. A malformed one changes nothing. When it made a message beside the stream whole, that is
// looseIn.whole.
func (a *arq) receive(b []byte, now time.Time) error {
	a.looseIn.whole = nil
	n := numbers{b: b}
	number := n.next()
	if n.bad || len(n.b) == 0 || number >= 1<<62 {
		return errPacket
	}
	flags := n.b[0]
	n.b = n.b[1:]
	var limit uint64
	var ranges [arqRanges]span // newest first
	count := 0
	if flags&arqAck != 0 {
		limit = n.next()
		top := n.next()
		k := n.next()
		if n.bad || k == 0 || k > arqRanges || top >= a.number {
			return errPacket
		}
		count = int(k)
		to := top + 1
		for i := range count {
			if i > 0 {
				gap := n.next()
				if gap == 0 || gap > to {
					return errPacket
				}
				to -= gap
			}
			length := n.next()
			if n.bad || length == 0 || length > to {
				return errPacket
			}
			ranges[i] = span{to - length, to}
			to -= length
		}
	}
	var from uint64
	if flags&arqData != 0 {
		from = n.next()
		if n.bad || from >= 1<<62 {
			return errPacket
		}
		if from+uint64(len(n.b)) > a.allow || from > a.expect && len(a.early) >= arqEarly {
			return errPacket // more than it may; not acknowledged, so nothing is lost
		}
	}
	if flags&(arqAsk|arqTell) != 0 && len(n.b) < nonceSize {
		return errPacket
	}
	var part piece
	if flags&arqLoose != 0 {
		var ok bool
		if part, ok = readPiece(&n); !ok || flags&(arqData|arqAsk|arqTell|arqTry) != 0 {
			return errPacket
		}
	}
	a.newest = len(a.seen) == 0 || number >= a.seen[len(a.seen)-1].to
	if a.saw(number) {
		return nil
	}
	if flags&(arqTry|arqLoose) != 0 {
		a.due = true
	}
	if flags&arqLoose != 0 {
		a.looseIn.put(part)
	}
	if flags&(arqAsk|arqTell) != 0 && flags&(arqAck|arqData) == 0 {
		v := nonce(n.b[:nonceSize])
		if flags&arqAsk != 0 {
			a.asked = &v
		} else {
			a.answer = &v
		}
	}
	if flags&arqAck != 0 {
		a.acknowledged(ranges[:count], now)
		a.limit = max(a.limit, limit)
	}
	if flags&arqData != 0 {
		a.due = true
		if to := from + uint64(len(n.b)); to > a.expect {
			a.came += to - max(from, a.expect)
			a.put(from, n.b)
		}
		a.inMost = max(a.inMost, len(a.ready()))
		a.widen(now)
	}
	return nil
}

// saw remembers a packet's number, and reports whether it came before, or is too old to tell.
func (a *arq) saw(number uint64) bool {
	for _, s := range a.seen {
		if s.from <= number && number < s.to {
			return true
		}
	}
	if len(a.seen) >= arqSeen && number < a.seen[0].from {
		return true
	}
	a.seen = addSpan(a.seen, span{number, number + 1})
	if len(a.seen) > arqSeen {
		a.seen = a.seen[1:]
	}
	return false
}

// widen makes the window what comes in arqWindowTrips, if that is more than it is (dynamic right-sizing, as TCP receivers do it).
func (a *arq) widen(now time.Time) {
	if a.roundAt.IsZero() || now.Sub(a.roundAt) >= a.rtt {
		if !a.roundAt.IsZero() {
			came := int(a.came - a.roundCame)
			a.roundMost = max(a.roundMost, came)
			if want := min(arqWindowTrips*came, arqWindowMost); want > a.window && a.grown.take(want-a.window) {
				a.window = want
			}
		}
		a.roundAt, a.roundCame = now, a.came
	}
}

// grownWindows is what the windows of all links of a node have beyond their first size, of which most is the bound. Any goroutine.
type grownWindows struct {
	bytes atomic.Int64
	most  int64
}

// take reports whether n bytes more are within the bound, and counts them if so. Nil has none.
func (g *grownWindows) take(n int) bool {
	if g == nil || g.bytes.Add(int64(n)) <= g.most {
		return true
	}
	g.bytes.Add(-int64(n))
	return false
}

// giveBack gives back n bytes that were taken.
func (g *grownWindows) giveBack(n int) {
	if g != nil {
		g.bytes.Add(-int64(n))
	}
}

// giveBack gives back what the window took.
func (a *arq) giveBack() { a.grown.giveBack(a.window - arqWindow) }

// open lets the peer send a window beyond what has come, and tells it if that is much more than it knows.
func (a *arq) open() {
	if allow := a.expect + uint64(a.window); allow > a.allow {
		a.allow = allow
		a.due = a.due || a.allow-a.told > arqWindow/8
	}
}
