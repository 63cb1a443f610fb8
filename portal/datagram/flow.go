package datagram

import (
	"encoding/binary"
	"net/netip"
	"time"

	"sallyport/dataplane"
)

// flow is a client of an inlet, at the inlet or at the outlet.
type flow struct {
	number uint64
	client netip.AddrPort // at the inlet; at the outlet where its socket sends to
	here   netip.Addr     // at an inlet, as of endpoints
	began  time.Time
	last   time.Time // when something went through it
	// sent went to the other end of the portal, received to the flow's socket.
	sent, received carried
	answered       bool // something came back to the client
	proven         bool // and the client sent something after that

	in         *flowList // in which of its table's lists it is
	prev, next *flow

	queue   fifo
	byPeer  bool // the other end of the portal has ended it
	waiting bool // in the ring of its sender, at a place
	place   int

	served  *served // at the outlet, with the socket to the target
	sock    *dataplane.UDPSocket
	heard   bool // something came from its address
	refused bool // nobody has listened there since
}

// flowList orders flows by last, the oldest first.
type flowList struct {
	first, last *flow
	n           int
}

func (l *flowList) remove(f *flow) {
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		l.first = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		l.last = f.prev
	}
	f.prev, f.next, f.in = nil, nil, nil
	l.n--
}

func (l *flowList) push(f *flow) {
	f.prev, f.in = l.last, l
	if l.last != nil {
		l.last.next = f
	} else {
		l.first = f
	}
	l.last = f
	l.n++
}

// table has flows by the time at which they were last used. It knows no clock. A client whose address is forged does not hear what comes back, so
// it does not answer that: where room is needed those that have not go first.
type table struct{ unproven, proven flowList }

func (t *table) len() int { return t.unproven.n + t.proven.n }

// fromClient notes that a flow's client has sent something; one that is new is entered.
func (t *table) fromClient(f *flow, now time.Time) {
	f.proven = f.proven || f.answered
	t.touch(f, now)
}

// toClient notes that something came back.
func (t *table) toClient(f *flow, now time.Time) {
	f.answered = true
	t.touch(f, now)
}

func (t *table) touch(f *flow, now time.Time) {
	to := &t.unproven
	if f.proven {
		to = &t.proven
	}
	if f.last = now; f.in == to && to.last == f {
		return
	}
	t.remove(f)
	to.push(f)
}

func (t *table) remove(f *flow) {
	if f.in != nil {
		f.in.remove(f)
	}
}

// victim returns the flow that goes where another needs room, nil if there is none.
func (t *table) victim() *flow {
	if t.unproven.first != nil {
		return t.unproven.first
	}
	return t.proven.first
}

// idle returns a flow through which nothing went for so long, nil if there is none.
func (t *table) idle(now time.Time, after time.Duration) *flow {
	for _, l := range [...]*flowList{&t.unproven, &t.proven} {
		if f := l.first; f != nil && now.Sub(f.last) >= after {
			return f
		}
	}
	return nil
}

// fifo keeps datagrams that wait, one behind the other. The zero value is empty.
type fifo struct {
	buf  []byte // of each its length, two bytes, and its bytes
	head int
}

func (q *fifo) size() int { return len(q.buf) - q.head }

func (q *fifo) push(p []byte) {
	if q.head > 0 && q.head >= len(q.buf)/2 {
		q.buf, q.head = q.buf[:copy(q.buf, q.buf[q.head:])], 0
	}
	q.buf = binary.LittleEndian.AppendUint16(q.buf, uint16(len(p)))
	q.buf = append(q.buf, p...)
}

// first returns the first datagram of one that is not empty, valid until the next call of another method.
func (q *fifo) first() []byte {
	n := int(binary.LittleEndian.Uint16(q.buf[q.head:]))
	return q.buf[q.head+2:][:n:n]
}

func (q *fifo) pop() {
	if q.head += 2 + len(q.first()); q.head == len(q.buf) {
		q.buf, q.head = nil, 0 // a burst leaves nothing behind
	}
}
