package portal

import (
	"sync/atomic"

	"sallyport/routing"
)

// A connection that can go on over another path keeps what it sent until the other end confirms it (docs/protocol/04). What is kept
// lies in blocks of its shard: one or a few for a transfer, a small one for a request, none for a connection that is idle.

const (
	// smallBlock is the size of a small block. A large one takes a payload with the room that a message has around it, so that a socket
	// is read into the block that is kept.
	smallBlock = 2 << 10
	// adoptFrom is how much must have been read into a large block to keep it; less is copied, so that a block is filled by half at least.
	adoptFrom = 32 << 10
)

// keepFree is how many free blocks a shard keeps for good, small and large ones: 128*2 KiB + 64*65 KiB = 4.3 MiB. With a small budget it keeps less.
var keepFree = [...]int{128, 64}

// keepFreePart is the part of the budget that the free blocks of each size and shard may come to for good, and keepBusyPart for as long as they are used
// now and then: several transfers have more than those in one moment and none in the next, and to make them anew costs more than all else about them.
const (
	keepFreePart = 32
	keepBusyPart = 4
)

// keepBlock is a block: buf[r:w] is kept.
type keepBlock struct {
	buf   []byte
	r, w  int
	class int // 0 small, 1 large
}

// keepPool is the free blocks of one shard.
type keepPool struct {
	payload int           // the most bytes of one payload
	budget  int64         // of all shards, for blocks in use
	memory  *atomic.Int64 // what blocks in use take, of all shards
	free    [len(keepFree)][]*keepBlock
	idle    [len(keepFree)]int // so many of free were not taken since the last trim
	grown   func()             // if set, told when there are more than are kept for good
}

// get returns an empty block for n bytes: a small one if they fit into it, and also while memory is scarce, since a large one may be kept for little.
func (p *keepPool) get(n int) *keepBlock {
	if n > smallBlock && !p.spent() {
		return p.large()
	}
	return p.take(0, smallBlock)
}

// spent reports whether the node's memory for what is kept is used up.
func (p *keepPool) spent() bool { return p.memory.Load() >= p.budget }

// large returns an empty block that takes a payload and the room around it.
func (p *keepPool) large() *keepBlock {
	return p.take(1, routing.HeadRoom+p.payload+routing.TailRoom)
}

func (p *keepPool) take(class, size int) *keepBlock {
	p.memory.Add(int64(size))
	if k := len(p.free[class]); k > 0 {
		b := p.free[class][k-1]
		p.free[class][k-1] = nil
		p.free[class] = p.free[class][:k-1]
		p.idle[class] = min(p.idle[class], k-1)
		b.r, b.w = 0, 0
		return b
	}
	return &keepBlock{buf: make([]byte, size), class: class}
}

// put takes back a block. A block that is put twice would be two connections' at once, so that panics.
func (p *keepPool) put(b *keepBlock) {
	if b.r < 0 {
		panic("portal: block freed twice")
	}
	b.r = -1
	p.memory.Add(-int64(len(b.buf)))
	most := int(p.budget / keepBusyPart / int64(len(b.buf)))
	if n := len(p.free[b.class]); n < most || n < p.stay(b) {
		p.free[b.class] = append(p.free[b.class], b)
		if n == p.stay(b) && p.grown != nil {
			p.grown()
		}
	}
}

// stay is how many free blocks like b are kept for good.
func (p *keepPool) stay(b *keepBlock) int {
	return int(min(int64(keepFree[b.class]), p.budget/keepFreePart/int64(len(b.buf))))
}

// trim gives half of the free blocks back that were not used since the last time, down to what is kept for good. It reports whether there are more than that.
func (p *keepPool) trim() (more bool) {
	for class, list := range p.free {
		if len(list) == 0 {
			continue
		}
		stay := p.stay(list[0])
		if n := len(list) - max(stay, len(list)-(min(p.idle[class], len(list))+1)/2); n > 0 {
			clear(list[len(list)-n:])
			p.free[class] = list[:len(list)-n]
		}
		p.idle[class] = len(p.free[class])
		more = more || len(p.free[class]) > stay
	}
	return more
}

// keep is a queue of bytes: what was sent and is not confirmed.
type keep struct {
	pool   *keepPool
	total  *atomic.Int64 // of all connections
	blocks []*keepBlock
	size   int
}

// add appends a copy of p.
func (k *keep) add(p []byte) {
	k.size += len(p)
	k.total.Add(int64(len(p)))
	for len(p) > 0 {
		if n := len(k.blocks); n == 0 || k.blocks[n-1].w == len(k.blocks[n-1].buf) {
			k.blocks = append(k.blocks, k.pool.get(len(p)))
		}
		last := k.blocks[len(k.blocks)-1]
		n := copy(last.buf[last.w:], p)
		last.w += n
		p = p[n:]
	}
}

// adopt appends what lies in b from HeadRoom on, n bytes, without copying it. b is the keep's from now on.
func (k *keep) adopt(b *keepBlock, n int) {
	b.r, b.w = routing.HeadRoom, routing.HeadRoom+n
	k.blocks = append(k.blocks, b)
	k.size += n
	k.total.Add(int64(n))
}

// drop forgets the first n bytes, n at most size.
func (k *keep) drop(n int) {
	if n == 0 {
		return
	}
	k.size -= n
	k.total.Add(int64(-n))
	i := 0
	for ; i < len(k.blocks); i++ {
		b := k.blocks[i]
		if have := b.w - b.r; n < have {
			b.r += n
			break
		} else {
			n -= have
		}
		k.pool.put(b)
	}
	if i == 0 {
		return
	}
	if i == len(k.blocks) && cap(k.blocks) > 16 {
		k.blocks = nil // an idle connection keeps nothing of a burst
		return
	}
	rest := copy(k.blocks, k.blocks[i:])
	clear(k.blocks[rest:])
	k.blocks = k.blocks[:rest]
}

// copyAt copies what is kept from byte `from` on to dst and returns how much that is.
func (k *keep) copyAt(dst []byte, from int) (n int) {
	for _, b := range k.blocks {
		have := b.buf[b.r:b.w]
		if from >= len(have) {
			from -= len(have)
			continue
		}
		n += copy(dst[n:], have[from:])
		if from = 0; n == len(dst) {
			break
		}
	}
	return n
}
