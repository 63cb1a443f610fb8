package udp

import (
	"container/list"
	"net/netip"
	"sync/atomic"
	"time"

	"sallyport/routing"
)

// Limits of reassembly. The reference's window per peer is the same; it has none of the other limits.
const (
	// partialTimeout is how long an incomplete message waits for its next part.
	partialTimeout = 10 * time.Second
	// peerTimeout is how long a silent peer is remembered.
	peerTimeout = 2 * time.Minute
	// maxPeers bounds the peers remembered by one socket, about 300 bytes each.
	maxPeers = 20_000
	// restartGap is how far behind the window a number must be to show that the peer began anew: nothing is under way for so long.
	restartGap = 1024
	// restartQuiet is for a number less far behind: a peer that sent nothing newer for so long has begun anew.
	restartQuiet = time.Second
	// partialCost is what one part costs beyond its bytes when it has to wait for others.
	partialCost = 96
)

// reassembler puts messages together, for one socket. Beyond the reference (docs/protocol/01 §3.3):
//
//   - a part that comes twice is ignored; it does not destroy its message
//   - messages from just before the first one seen are taken, if they were only overtaken
//   - a peer that began anew with a smaller number is heard after a second at most, not when its counter has caught up
//   - incomplete messages of all peers together are bounded, and dropped after ten seconds without a new part
type reassembler struct {
	window int
	budget *atomic.Int64 // bytes that all sockets of a transport may still hold
	stats  *Stats
	peers  map[netip.AddrPort]*list.Element
	order  list.List // of *peer, the one heard last in front
	held   int       // incomplete messages
	spare  []byte    // memory of the last message, for the next
}

// peer is one remote address. Its window is the numbers from start on.
type peer struct {
	addr    netip.AddrPort
	source  routing.WireAddress // addr as an address of type 2
	start   uint16
	done    uint64 // bit i: the message start+i was complete
	partial map[uint16]*partial
	heard   time.Time // when a datagram of the window, or a newer one, came last
	last    time.Time // when any came
	credit  int       // bytes that came and were not answered yet; of a guarded socket
	proven  bool      // it receives at its address
}

// partial is a message of which parts are missing.
type partial struct {
	total uint16
	next  uint16            // parts before it are in data
	data  []byte            // with routing.HeadRoom bytes before it
	ahead map[uint16][]byte // parts after a gap
	cost  int
	touch time.Time
}

func newReassembler(window int, budget *atomic.Int64, stats *Stats) *reassembler {
	return &reassembler{window: window, budget: budget, stats: stats, peers: map[netip.AddrPort]*list.Element{}}
}

// message is a routing message put together. buf[start:end] holds it; all of buf may be overwritten.
type message struct {
	peer       *peer
	buf        []byte
	start, end int
	pooled     bool // buf is given back with release
}

// add takes a datagram that was parsed. It returns true and the message when that is complete; it lies in buf if it is of one part.
func (r *reassembler) add(buf []byte, f fragment, from netip.AddrPort, now time.Time) (m message, ok bool) {
	p := r.peer(from, f.number, now)
	i := f.number - p.start // position in the window, if it is in there
	switch {
	case int16(i) < 0:
		if int16(i) >= -restartGap && now.Sub(p.heard) < restartQuiet {
			r.stats.Late.Add(1)
			return m, false
		}
		r.stats.Restarts.Add(1)
		r.forget(p)
		r.begin(p, f.number)
		i = f.number - p.start
	case int(i) >= r.window:
		i = r.shift(p, i)
	}
	p.heard = now
	if p.done&(1<<i) != 0 {
		r.stats.Duplicates.Add(1)
		return m, false
	}
	if f.total == 1 {
		r.drop(p, f.number)
		p.done |= 1 << i
		return message{peer: p, buf: buf, start: f.start, end: f.end}, true
	}
	q := p.partial[f.number]
	if q != nil && q.total != f.total {
		r.stats.Malformed.Add(1) // of another message: the first one stays, and goes when its parts stay away
		return m, false
	}
	if q == nil {
		q = r.open(p, f)
	}
	if !r.take(p, q, f, buf[f.start:f.end], now) {
		return m, false
	}
	p.done |= 1 << i
	m = message{peer: p, buf: q.data[:cap(q.data)], start: routing.HeadRoom, end: len(q.data), pooled: true}
	r.close(p, f.number, q)
	return m, true
}

// take adds a part to an incomplete message and reports whether that is complete.
func (r *reassembler) take(p *peer, q *partial, f fragment, part []byte, now time.Time) bool {
	if f.offset < q.next || q.ahead[f.offset] != nil {
		r.stats.Duplicates.Add(1)
		return false
	}
	if len(q.data)-routing.HeadRoom+len(part) > routing.MaxFrame || !r.charge(p, q, len(part)+partialCost) {
		r.stats.NoRoom.Add(1)
		r.drop(p, f.number)
		return false
	}
	q.touch = now
	if f.offset != q.next {
		if q.ahead == nil {
			q.ahead = map[uint16][]byte{}
		}
		q.ahead[f.offset] = append(make([]byte, 0, len(part)), part...) // never nil, also when it is empty
		return false
	}
	q.data = append(q.data, part...)
	for q.next++; q.next < q.total; q.next++ {
		waiting := q.ahead[q.next]
		if waiting == nil {
			return false
		}
		q.data = append(q.data, waiting...)
		delete(q.ahead, q.next)
	}
	if len(q.data)-routing.HeadRoom > routing.MaxFrame {
		r.stats.NoRoom.Add(1)
		r.drop(p, f.number)
		return false
	}
	return true
}

// charge takes bytes from the budget. When it is used up, incomplete messages of this socket are dropped, those of the peer that was
// silent for longest first, but not q itself.
func (r *reassembler) charge(p *peer, q *partial, n int) bool {
	if r.budget.Add(int64(-n)) >= 0 {
		q.cost += n
		return true
	}
	for e := r.order.Back(); e != nil; e = e.Prev() {
		other := e.Value.(*peer)
		for number, o := range other.partial {
			if o != q {
				r.stats.NoRoom.Add(1)
				r.drop(other, number)
			}
		}
		if r.budget.Load() >= 0 {
			q.cost += n
			return true
		}
	}
	r.budget.Add(int64(n))
	return false
}

// peer returns what is known of a remote address.
func (r *reassembler) peer(from netip.AddrPort, number uint16, now time.Time) *peer {
	if e := r.peers[from]; e != nil {
		r.order.MoveToFront(e)
		p := e.Value.(*peer)
		p.last = now
		return p
	}
	for len(r.peers) >= maxPeers {
		r.remove(r.order.Back())
	}
	p := &peer{addr: from, source: routing.Address{Type: routing.UDP, Value: from.String()}.Wire(), last: now}
	r.begin(p, number)
	r.peers[from] = r.order.PushFront(p)
	return p
}

// begin sets the window so that number is its last: the messages before it may have been overtaken.
func (r *reassembler) begin(p *peer, number uint16) {
	p.start, p.done = number-uint16(r.window-1), 0
}

// shift moves the window until position i is its last, and returns the new position.
func (r *reassembler) shift(p *peer, i uint16) uint16 {
	by := i - uint16(r.window-1)
	p.start += by
	p.done >>= min(by, 64)
	for number := range p.partial {
		if int16(number-p.start) < 0 {
			r.stats.Incomplete.Add(1)
			r.drop(p, number)
		}
	}
	return uint16(r.window - 1)
}

// open begins an incomplete message.
func (r *reassembler) open(p *peer, f fragment) *partial {
	q := &partial{total: f.total, data: r.spare}
	r.spare = nil
	if q.data == nil {
		q.data = make([]byte, routing.HeadRoom, routing.HeadRoom+2*(f.end-f.start)+routing.TailRoom)
	}
	if p.partial == nil {
		p.partial = map[uint16]*partial{}
	}
	p.partial[f.number] = q
	r.held++
	return q
}

// close takes an incomplete message out of the tables; its memory stays with the caller.
func (r *reassembler) close(p *peer, number uint16, q *partial) {
	r.budget.Add(int64(q.cost))
	delete(p.partial, number)
	r.held--
}

// drop forgets an incomplete message, if there is one of that number.
func (r *reassembler) drop(p *peer, number uint16) {
	if q := p.partial[number]; q != nil {
		r.close(p, number, q)
	}
}

func (r *reassembler) forget(p *peer) {
	for number := range p.partial {
		r.drop(p, number)
	}
}

// remove forgets a peer.
func (r *reassembler) remove(e *list.Element) {
	p := e.Value.(*peer)
	r.forget(p)
	r.order.Remove(e)
	delete(r.peers, p.addr)
}

// release gives the memory of a message back.
func (r *reassembler) release(m message) {
	if m.pooled && cap(m.buf) <= 256<<10 {
		r.spare = m.buf[:routing.HeadRoom]
	}
}

// sweep drops what was waited for long enough. It reports whether there is anything left to watch.
func (r *reassembler) sweep(now time.Time) bool {
	for e := r.order.Back(); e != nil; {
		p := e.Value.(*peer)
		for number, q := range p.partial {
			if now.Sub(q.touch) > partialTimeout {
				r.stats.Incomplete.Add(1)
				r.drop(p, number)
			}
		}
		older := e.Prev()
		if now.Sub(p.last) > peerTimeout {
			r.remove(e)
		} else if r.held == 0 {
			break // the others were heard later
		}
		e = older
	}
	return len(r.peers) > 0
}

// clear forgets everything.
func (r *reassembler) clear() {
	for r.order.Len() > 0 {
		r.remove(r.order.Back())
	}
	r.spare = nil
}
