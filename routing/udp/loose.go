package udp

import (
	"encoding/binary"
	"time"
)

// Loose messages go beside the stream of a link (docs/protocol/07): each in packets of its own that are never sent again, so none waits for another.
const (
	// looseMost is the longest message: a datagram of a portal, and all that is before it.
	looseMost = 66 << 10
	// looseWaits is how many bytes of messages wait to be sent; what comes beyond is dropped.
	looseWaits = 2 << 20
	// looseParts is how many bytes of messages that are not whole a link keeps, loosePieces in how many separate pieces each.
	looseParts  = 256 << 10
	loosePieces = 64
)

// looseOut is the messages that wait to be sent, one behind the other: of each its length, four bytes, and its bytes. The zero value is empty.
type looseOut struct {
	buf  []byte
	head int
	sent int    // bytes of the first that were sent
	id   uint64 // of the first
}

// waiting returns how many bytes were not sent.
func (o *looseOut) waiting() int { return len(o.buf) - o.head - o.sent }

// reserve returns n bytes for a message, to be filled and taken over with commit; nil if too much waits.
func (o *looseOut) reserve(n int) []byte {
	if n == 0 || n > looseMost || o.waiting()+n > looseWaits {
		return nil
	}
	if o.head > 0 && o.head >= len(o.buf)/2 {
		o.buf, o.head = o.buf[:copy(o.buf, o.buf[o.head:])], 0
	}
	at := len(o.buf)
	if need := at + 4 + n; need > cap(o.buf) {
		o.buf = append(make([]byte, 0, max(need, 2*cap(o.buf))), o.buf...)
	}
	return o.buf[at+4 : at+4+n : at+4+n]
}

// commit takes over the n bytes that were reserved.
func (o *looseOut) commit(n int) {
	o.buf = binary.LittleEndian.AppendUint32(o.buf, uint32(n))
	o.buf = o.buf[:len(o.buf)+n]
}

// first returns the first message, and what of it was not sent.
func (o *looseOut) first() (total int, rest []byte) {
	total = int(binary.LittleEndian.Uint32(o.buf[o.head:]))
	return total, o.buf[o.head+4+o.sent : o.head+4+total]
}

// take goes on behind n bytes of the first message.
func (o *looseOut) take(n int) {
	total, rest := o.first()
	if o.sent += n; n < len(rest) {
		return
	}
	o.head += 4 + total
	o.sent = 0
	if o.id++; o.head == len(o.buf) {
		o.buf, o.head = o.buf[:0], 0
	}
}

// trim gives up memory of a burst.
func (o *looseOut) trim() {
	if len(o.buf) == 0 && cap(o.buf) > keptBuffer {
		o.buf = nil
	}
}

// appendLoose appends a packet with a piece of the first message that waits.
func (a *arq) appendLoose(buf []byte, now time.Time) []byte {
	limit := len(buf) + a.size
	total, rest := a.loose.first()
	p := sentPacket{number: a.number, data: span{a.out.base, a.out.base}, at: now, mark: a.bbr.sent(now, a.inFlight == 0)}
	a.number++
	buf = binary.AppendUvarint(buf, p.number)
	flagsAt := len(buf)
	buf = append(buf, arqLoose)
	if a.due && len(a.seen) > 0 {
		with := a.appendAck(buf)
		if len(with)+3*binary.MaxVarintLen32+len(rest) <= limit || len(rest) > a.size/2 {
			buf, a.due = with, false
			buf[flagsAt] |= arqAck
		} // else a message would be cut in two over it: another packet tells
	}
	buf = binary.AppendUvarint(buf, a.loose.id)
	buf = binary.AppendUvarint(buf, uint64(total))
	buf = binary.AppendUvarint(buf, uint64(a.loose.sent))
	p.loose = min(len(rest), limit-len(buf))
	buf = append(buf, rest[:p.loose]...)
	a.loose.take(p.loose)
	a.launch(p)
	a.inFlight += p.loose
	a.sentAt = now
	a.tokens -= float64(p.loose)
	return buf
}

// loosePart is a message of which pieces have come.
type loosePart struct {
	id    uint64
	data  []byte
	have  []span
	turns int // calls of trim since it began
}

// looseIn puts messages together. The zero value is ready.
type looseIn struct {
	parts      []loosePart // in the order in which they began
	bytes      int         // of all of them
	whole      []byte      // the message that the last packet made whole, valid until the next one
	incomplete uint64      // messages that were given up
}

// piece is a piece of a message as it lies in a packet.
type piece struct {
	id, total, offset uint64
	data              []byte
}

// readPiece reads a piece, which goes to the end of b.
func readPiece(n *numbers) (p piece, ok bool) {
	p.id, p.total, p.offset = n.next(), n.next(), n.next()
	if n.bad || len(n.b) == 0 || p.total > looseMost || p.offset >= p.total || uint64(len(n.b)) > p.total-p.offset {
		return p, false
	}
	p.data = n.b
	return p, true
}

// put takes a piece, which is borrowed.
func (l *looseIn) put(p piece) {
	if uint64(len(p.data)) == p.total {
		l.whole = p.data
		return
	}
	k := 0
	for k < len(l.parts) && (l.parts[k].id != p.id || uint64(len(l.parts[k].data)) != p.total) {
		k++
	}
	if k == len(l.parts) {
		for l.bytes+int(p.total) > looseParts {
			l.giveUp(0)
		}
		k = len(l.parts)
		l.parts = append(l.parts, loosePart{id: p.id, data: make([]byte, p.total)})
		l.bytes += int(p.total)
	}
	m := &l.parts[k]
	copy(m.data[p.offset:], p.data)
	m.have = addSpan(m.have, span{p.offset, p.offset + uint64(len(p.data))})
	switch {
	case m.have[0] == span{0, p.total}:
		l.whole = m.data
		l.remove(k)
	case len(m.have) > loosePieces:
		l.giveUp(k)
	}
}

func (l *looseIn) remove(k int) {
	l.bytes -= len(l.parts[k].data)
	copy(l.parts[k:], l.parts[k+1:])
	l.parts[len(l.parts)-1] = loosePart{}
	l.parts = l.parts[:len(l.parts)-1]
}

func (l *looseIn) giveUp(k int) {
	l.incomplete++
	l.remove(k)
}

// trim gives up what was not made whole since the last call.
func (l *looseIn) trim() {
	for k := len(l.parts) - 1; k >= 0; k-- {
		if l.parts[k].turns++; l.parts[k].turns > 1 {
			l.giveUp(k)
		}
	}
}
