package dataplane

// Chunk sizes, small to large. A connection that has to hold a few bytes takes a small one; a busy connection fills
// large ones, which make long writes. 256 KiB holds a frame of the largest usual payload (128 KiB) with room to spare; 512 KiB is
// for what has that much waiting already, and the size of the loop's buffer.
var chunkSizes = [...]int{4 << 10, 32 << 10, 64 << 10, 256 << 10, readBufferSize}

// chunkKeep is how many free chunks of each size a loop keeps: at most 64*4 KiB + 16*32 KiB + 8*64 KiB + 4*256 KiB + 4*512 KiB = 4.25 MiB.
var chunkKeep = [...]int{64, 16, 8, 4, 4}

// chunk is a pooled block: w bytes are filled, r of them are already with the kernel.
type chunk struct {
	buf   []byte
	r, w  int
	class int // index in chunkSizes; -1 for a block made for one large frame
}

func (c *chunk) pending() int { return c.w - c.r }

// chunkPool keeps free chunks of one loop. It is not safe for concurrent use, and need not be.
type chunkPool struct {
	free [len(chunkSizes)][]*chunk
}

// get returns an empty chunk with room for n bytes.
func (p *chunkPool) get(n int) *chunk {
	for class, size := range chunkSizes {
		if n > size {
			continue
		}
		if k := len(p.free[class]); k > 0 {
			c := p.free[class][k-1]
			p.free[class] = p.free[class][:k-1]
			c.r, c.w = 0, 0
			return c
		}
		return &chunk{buf: make([]byte, size), class: class}
	}
	return &chunk{buf: make([]byte, n), class: -1}
}

// put gives c back. Using c afterwards is a fault that a doubled put would hide, so it panics.
func (p *chunkPool) put(c *chunk) {
	if c.r < 0 {
		panic("dataplane: chunk freed twice")
	}
	if c.class < 0 || len(p.free[c.class]) >= chunkKeep[c.class] {
		return
	}
	c.r = -1
	p.free[c.class] = append(p.free[c.class], c)
}
