package udp

import (
	"slices"
	"sort"
)

const (
	// blockSize is the size of the blocks that streams lie in. A frame of a portal is some bytes more than 64 KiB; three of them fit.
	blockSize = 256 << 10
	// blocksKept is how many blocks a link keeps for the next burst.
	blocksKept = 64
	// littleBlock is the size of the first block of a link on which nothing waits: most carry a ping each second.
	littleBlock = 8 << 10
)

// blocks keeps memory that is used again and again: what is under way on a long line comes and goes by megabytes.
type blocks struct{ free [][]byte }

func (b *blocks) get() []byte {
	if k := len(b.free) - 1; k >= 0 {
		m := b.free[k]
		b.free[k], b.free = nil, b.free[:k]
		return m
	}
	return make([]byte, blockSize)
}

func (b *blocks) put(m []byte) {
	if cap(m) == blockSize && len(b.free) < blocksKept {
		b.free = append(b.free, m[:blockSize])
	}
}

// trim gives up half of what is kept.
func (b *blocks) trim() {
	k := len(b.free) / 2
	clear(b.free[k:])
	b.free = b.free[:k]
}

// block is a part of a stream.
type block struct {
	from uint64
	data []byte
}

// sending is the part of a stream that the peer has not acknowledged.
type sending struct {
	list      []block // ascending, without gaps
	base, end uint64
	blocks    *blocks
}

// reserve returns n bytes at the end of the stream, to be filled and taken over with commit.
func (s *sending) reserve(n int) []byte {
	k := len(s.list) - 1
	if k < 0 || cap(s.list[k].data)-len(s.list[k].data) < n {
		var data []byte
		switch {
		case n > blockSize:
			data = make([]byte, n)
		case s.base == s.end && n <= littleBlock:
			data = make([]byte, littleBlock)
		default:
			data = s.blocks.get()
		}
		s.list = append(s.list, block{s.end, data[:0]})
		k++
	}
	data := s.list[k].data
	return data[len(data) : len(data)+n : len(data)+n]
}

func (s *sending) commit(n int) {
	b := &s.list[len(s.list)-1]
	b.data = b.data[:len(b.data)+n]
	s.end += uint64(n)
}

// appendTo appends a part of the stream.
func (s *sending) appendTo(buf []byte, part span) []byte {
	k := sort.Search(len(s.list), func(i int) bool { return s.list[i].from > part.from }) - 1
	for ; part.from < part.to; k++ {
		b := s.list[k]
		piece := b.data[part.from-b.from:]
		piece = piece[:min(uint64(len(piece)), part.to-part.from)]
		buf = append(buf, piece...)
		part.from += uint64(len(piece))
	}
	return buf
}

// drop gives up what comes before base. When that is all, the last block is used again.
func (s *sending) drop(base uint64) {
	s.base = base
	k := 0
	for ; k < len(s.list) && s.list[k].from+uint64(len(s.list[k].data)) <= base; k++ {
		if k == len(s.list)-1 {
			s.list[k] = block{base, s.list[k].data[:0]}
			break
		}
		s.blocks.put(s.list[k].data)
	}
	s.list = slices.Delete(s.list, 0, k)
}

// receiving is the part of the peer's stream that was not handed on. What comes in order is appended to in; behind a gap it waits in blocks, from which
// it is moved a block at a time, so in is never much larger than a frame.
type receiving struct {
	in     []byte // in[at:] came in order and was not taken yet
	at     int
	moved  uint64 // offset behind in
	expect uint64 // offset of the first byte that has not come
	early  []span // what came beyond it
	waits  []block
	blocks *blocks
}

// put adds a part of the stream that begins or ends behind expect.
func (r *receiving) put(from uint64, data []byte) {
	to := from + uint64(len(data))
	if from < r.expect {
		data, from = data[r.expect-from:], r.expect
	}
	if from == r.expect && r.moved == r.expect && len(r.early) == 0 {
		r.append(data)
		r.expect, r.moved = to, to
		return
	}
	r.keep(from, data)
	r.early = addSpan(r.early, span{from, to})
	if r.early[0].from == r.expect {
		r.expect = r.early[0].to
		r.early = slices.Delete(r.early, 0, 1)
	}
}

// append appends to in.
func (r *receiving) append(data []byte) {
	if len(r.in)+len(data) > cap(r.in) && r.at > 0 {
		r.in, r.at = r.in[:copy(r.in, r.in[r.at:])], 0
	}
	r.in = append(r.in, data...)
}

// keep puts a part where it waits. Blocks begin at multiples of their size.
func (r *receiving) keep(from uint64, data []byte) {
	for len(data) > 0 {
		start := from - from%blockSize
		k := sort.Search(len(r.waits), func(i int) bool { return r.waits[i].from >= start })
		if k == len(r.waits) || r.waits[k].from != start {
			r.waits = slices.Insert(r.waits, k, block{start, r.blocks.get()})
		}
		n := copy(r.waits[k].data[from-start:], data)
		data, from = data[n:], from+uint64(n)
	}
}

// more moves what has come in order from the next block to in. It reports false if there is none.
func (r *receiving) more() bool {
	if r.moved == r.expect {
		return false
	}
	b := r.waits[0]
	to := min(b.from+blockSize, r.expect)
	r.append(b.data[r.moved-b.from : to-b.from])
	if r.moved = to; to == b.from+blockSize || to == r.expect && len(r.early) == 0 {
		r.blocks.put(b.data)
		r.waits = slices.Delete(r.waits, 0, 1)
	}
	return true
}

// ready returns what has come in order and was moved to in. It is valid until the next call of put or more.
func (r *receiving) ready() []byte { return r.in[r.at:] }

// take is called when n bytes of what is ready have been handed on.
func (r *receiving) take(n int) {
	if r.at += n; r.at == len(r.in) {
		r.in, r.at = r.in[:0], 0
	}
}
