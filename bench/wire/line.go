package wire

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"
)

// item is a packet on the line; it arrives at a time.
type item struct {
	at    time.Duration
	bytes []byte
}

// line is one direction: packets go in, and come out when they are due. It knows no socket and no clock: times are given, as
// durations since any beginning.
type line struct {
	o      Options
	rng    *rand.Rand
	idle   time.Duration // when all that was put in has been sent
	last   time.Duration // when the last packet in order arrives
	fifo   []item
	head   int
	late   lateHeap // those that others overtake
	toLoss int      // segments until one is lost
	counts Counts
}

type lateHeap []item

func (h lateHeap) Len() int           { return len(h) }
func (h lateHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h lateHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *lateHeap) Push(x any)        { *h = append(*h, x.(item)) }
func (h *lateHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func newLine(o Options) *line {
	if o.Queue == 0 {
		o.Queue = 100 * time.Millisecond
	}
	l := &line{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x77697265))}
	l.nextLoss()
	return l
}

// nextLoss draws how many segments pass before one is lost (geometric distribution).
func (l *line) nextLoss() {
	switch {
	case l.o.Loss <= 0:
		l.toLoss = math.MaxInt
	case l.o.Loss >= 1:
		l.toLoss = 0
	default:
		l.toLoss = int(min(math.Log(1-l.rng.Float64())/math.Log1p(-l.o.Loss), 1<<40))
	}
}

// lost says whether the next segment is lost.
func (l *line) lost() bool {
	if l.toLoss > 0 {
		l.toLoss--
		return false
	}
	l.nextLoss()
	l.counts.Lost++
	return true
}

// run returns how many segments of size bytes may go in one piece: what the line sends in half a millisecond.
func (l *line) run(size int) int {
	if l.o.Rate == 0 {
		return math.MaxInt
	}
	return max(int(l.o.Rate/8*0.0005)/max(size, 1), 1)
}

// admit takes a packet of size bytes at now: it returns when the packet arrives, and false if the queue is full. late tells that
// it may be overtaken.
func (l *line) admit(size int, now time.Duration) (at time.Duration, late, ok bool) {
	at = now
	if l.o.Rate > 0 {
		start := max(l.idle, now)
		wait := start - now
		if wait > l.o.Queue {
			return 0, false, false
		}
		l.counts.Queued = max(l.counts.Queued, wait)
		l.idle = start + time.Duration(float64(size)*8/l.o.Rate*1e9)
		at = l.idle
	}
	at += l.o.Delay
	if l.o.Jitter > 0 {
		at += time.Duration(l.rng.Int64N(int64(l.o.Jitter)))
	}
	if l.o.Reorder > 0 && l.rng.Float64() < l.o.Reorder {
		return max(at, l.last) + max(l.o.Delay/4, time.Millisecond), true, true
	}
	at = max(at, l.last)
	l.last = at
	return at, false, true
}

// put takes a packet that lies in b, cutting it as needed; get gives memory for a piece.
func (l *line) put(b []byte, now time.Duration, get func(n int) []byte) {
	p, ok := parse(b)
	if !ok {
		return // not IP: nothing that anybody waits for
	}
	most := l.run(p.segmentSize())
	for from := 0; from < p.segments; {
		if l.lost() {
			from++
			continue
		}
		to := from + 1
		for to < p.segments && to-from < most && l.toLoss > 0 && l.o.Reorder+l.o.Duplicate+l.o.Corrupt == 0 {
			l.toLoss--
			to++
		}
		at, late, ok := l.admit(p.sizeOf(from, to), now)
		if !ok {
			l.counts.Dropped += uint64(to - from)
			from = to
			continue
		}
		piece := p.cut(from, to, get)
		if l.o.Corrupt > 0 && l.rng.Float64() < l.o.Corrupt {
			l.spoil(piece)
		}
		l.counts.Carried += uint64(to - from)
		l.counts.Bytes += uint64(p.sizeOf(from, to))
		if late {
			heap.Push(&l.late, item{at, piece})
		} else {
			l.fifo = append(l.fifo, item{at, piece})
			if l.o.Duplicate > 0 && l.rng.Float64() < l.o.Duplicate {
				again := get(len(piece))
				copy(again, piece)
				l.fifo = append(l.fifo, item{at, again})
			}
		}
		from = to
	}
}

// spoil changes one bit of what a TCP segment carries. The checksum of what a TUN device gives is not complete (needCSum), so nobody notices.
func (l *line) spoil(b []byte) {
	p, ok := parse(b)
	if !ok || b[0]&needCSum == 0 || len(b) < headerSize+p.network+20 {
		return
	}
	data := headerSize + p.network + int(b[headerSize+p.network+12]>>4)*4
	if n := len(b) - data; n > 0 {
		b[data+l.rng.IntN(n)] ^= 1 << l.rng.IntN(8)
		l.counts.Corrupted++
	}
}

// next returns when the next packet is due; false if none is there.
func (l *line) next() (at time.Duration, ok bool) {
	if l.head < len(l.fifo) {
		at, ok = l.fifo[l.head].at, true
	}
	if len(l.late) > 0 && (!ok || l.late[0].at < at) {
		at, ok = l.late[0].at, true
	}
	return at, ok
}

// take returns the next packet if it is due at now, else nil.
func (l *line) take(now time.Duration) []byte {
	at, ok := l.next()
	if !ok || at > now {
		return nil
	}
	if len(l.late) > 0 && l.late[0].at == at {
		return heap.Pop(&l.late).(item).bytes
	}
	b := l.fifo[l.head].bytes
	l.fifo[l.head] = item{}
	if l.head++; l.head == len(l.fifo) {
		l.fifo, l.head = l.fifo[:0], 0
	} else if l.head > 4096 && l.head > len(l.fifo)/2 {
		n := copy(l.fifo, l.fifo[l.head:])
		clear(l.fifo[n:])
		l.fifo, l.head = l.fifo[:n], 0
	}
	return b
}
