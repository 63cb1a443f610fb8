package dataplane

import "golang.org/x/sys/unix"

// Reserve returns n contiguous bytes at the end of the output, to be filled before anything else is done with c and
// then taken over with Commit. The content is undefined. What waits may be sent in Commit.
func (c *Conn) Reserve(n int) []byte {
	if c.tls != nil {
		return c.reservePlain(n)
	}
	return c.reserve(n)
}

// reserve is Reserve in what goes to the socket.
func (c *Conn) reserve(n int) []byte {
	if c.lentBytes > 0 {
		c.takeLent()
	}
	if k := len(c.out); k > 0 {
		if tail := c.out[k-1]; len(tail.buf)-tail.w >= n {
			return tail.buf[tail.w : tail.w+n]
		}
	}
	// A busy connection will write more in this turn than this frame: grow with what already waits.
	want := n
	if grown := min(2*c.outBytes, chunkSizes[len(chunkSizes)-1]); grown > want {
		want = grown
	}
	tail := c.loop.pool.get(want)
	c.out = append(c.out, tail)
	return tail.buf[:n]
}

// Commit appends the first n bytes of the last Reserve to the output. They are sent at the end of the turn.
func (c *Conn) Commit(n int) {
	if c.closed {
		return
	}
	if c.tls != nil {
		c.commitPlain(n)
		return
	}
	c.out[len(c.out)-1].w += n
	c.outBytes += n
	if c.outBytes >= flushAt && !c.blocked && c.connect == nil {
		c.flush()
		return
	}
	c.markDirty()
}

// Write appends a copy of p to the output, which is sent at the end of the turn.
func (c *Conn) Write(p []byte) {
	if c.tls != nil {
		c.writePlain(p)
		return
	}
	c.write(p)
}

// write is Write of what goes to the socket.
func (c *Conn) write(p []byte) {
	if c.lentBytes > 0 {
		c.takeLent()
	}
	if c.closed || len(p) == 0 {
		return
	}
	if k := len(c.out); k > 0 {
		tail := c.out[k-1]
		n := copy(tail.buf[tail.w:], p)
		tail.w += n
		c.outBytes += n
		p = p[n:]
	}
	for len(p) > 0 {
		n := min(len(p), chunkSizes[len(chunkSizes)-1])
		copy(c.reserve(n), p[:n])
		c.out[len(c.out)-1].w += n
		c.outBytes += n
		p = p[n:]
	}
	c.markDirty()
}

// WriteBorrowed is Write for bytes that need not be copied if the kernel takes them soon: before WriteBorrowed returns or, when
// they lie in the input that the loop is handing out (see FrameHandler.OnFrame), when all of that has been handed out. So what
// several frames bring for c goes out with one system call.
func (c *Conn) WriteBorrowed(p []byte) {
	if c.closed || len(p) == 0 {
		return
	}
	if c.lentBytes > 0 && c.loop.inInput(p) && len(c.lent) < maxIovecs {
		c.lend(p)
		return
	}
	if len(p) < borrowedDirect || c.blocked || c.tls != nil || c.limits != nil {
		c.Write(p)
		return
	}
	if c.Pending() > 0 {
		if c.flush(); c.closed || c.outBytes > 0 {
			c.Write(p)
			return
		}
	}
	if c.loop.inInput(p) && c.connect == nil {
		c.loop.lenders = append(c.loop.lenders, c)
		c.lend(p)
		return
	}
	n, errno := rawWrite(c.fd, p)
	if errno != 0 {
		n = 0
		if errno != unix.EAGAIN && errno != unix.EINTR {
			c.writeFailed(errno)
			return
		}
	}
	if n < len(p) {
		c.blocked = errno != unix.EINTR
		c.Write(p[n:])
	}
}

// lend notes p as output. Nothing else is waiting when the first is lent.
func (c *Conn) lend(p []byte) {
	c.lent = append(c.lent, p)
	c.lentBytes += len(p)
}

// takeLent offers what was lent to the kernel and copies what it does not take.
func (c *Conn) takeLent() {
	lent, total := c.lent, c.lentBytes
	c.lent, c.lentBytes = c.lent[:0], 0
	if c.closed || total == 0 {
		return
	}
	iovs := c.loop.iovs[:0]
	for _, p := range lent {
		iovs = append(iovs, iovec(p))
	}
	n, errno := rawWritev(c.fd, iovs)
	clear(iovs)
	if errno != 0 {
		n = 0
		if errno != unix.EAGAIN && errno != unix.EINTR {
			c.writeFailed(errno)
			return
		}
	}
	if n < total {
		c.blocked = errno != unix.EINTR
	}
	for i, p := range lent {
		if n < len(p) {
			c.Write(p[n:])
		}
		n = max(n-len(p), 0)
		lent[i] = nil
	}
	if cap(lent) > 8 && len(c.lent) == 0 {
		c.lent = nil // an idle connection keeps nothing of a burst
	}
}

// WantDrain asks for one OnDrain when at most low bytes wait to be sent.
func (c *Conn) WantDrain(low int) {
	c.lowWater = low
	c.markDirty()
}

func (c *Conn) markDirty() {
	if !c.inDirty && !c.closed {
		c.inDirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// flush offers all output to the kernel.
func (c *Conn) flush() {
	if c.lentBytes > 0 {
		c.takeLent()
	}
	if c.closed || c.connect != nil {
		return
	}
	if c.tls != nil && !c.seal() {
		return
	}
	if c.limits != nil && !c.writeSome() {
		return
	}
	for c.limits == nil && c.outBytes > 0 && !c.blocked {
		n, errno := c.writeOut()
		if errno == unix.EINTR {
			continue
		}
		if errno == unix.EAGAIN {
			c.blocked = true
			break
		}
		if errno != 0 {
			c.writeFailed(errno)
			return
		}
		c.sent(n)
	}
	if c.lowWater >= 0 && c.outBytes <= c.lowWater {
		c.lowWater = -1
		c.handler.OnDrain(c)
		if c.closed {
			return
		}
	}
	if c.outBytes > 0 {
		return
	}
	switch c.shutting {
	case shutWrite:
		rawShutdown(c.fd, unix.SHUT_WR)
		c.shutting = shutDone
	case lingering:
		if c.eof {
			c.endWell() // sends FIN, as nothing is left to be read
			return
		}
		rawShutdown(c.fd, unix.SHUT_WR)
		c.timer.Reset(c.loop.lingerFor)
	}
}

func (c *Conn) writeOut() (int, unix.Errno) {
	if len(c.out) == 1 {
		head := c.out[0]
		n, errno := rawWrite(c.fd, head.buf[head.r:head.w])
		if errno == 0 && n < head.pending() {
			c.blocked = true
		}
		return n, errno
	}
	iovs, total := c.loop.iovs[:0], 0
	for _, ch := range c.out {
		if len(iovs) == maxIovecs {
			break
		}
		if ch.pending() > 0 {
			iovs = append(iovs, iovec(ch.buf[ch.r:ch.w]))
			total += ch.pending()
		}
	}
	n, errno := rawWritev(c.fd, iovs)
	clear(iovs)
	if errno == 0 && n < total {
		c.blocked = true
	}
	return n, errno
}

// sent drops n bytes from the front of the output.
func (c *Conn) sent(n int) {
	c.outBytes -= n
	i := 0
	for ; i < len(c.out); i++ {
		head := c.out[i]
		if k := head.pending(); n < k {
			head.r += n
			break
		} else {
			n -= k
		}
		c.loop.pool.put(head)
	}
	if i == 0 {
		return
	}
	if i == len(c.out) && cap(c.out) > 16 {
		c.out = nil // an idle connection keeps nothing of a burst
		return
	}
	rest := copy(c.out, c.out[i:])
	clear(c.out[rest:])
	c.out = c.out[:rest]
}

func (c *Conn) writeFailed(errno unix.Errno) { c.finish(asError("write", errno)) }

func (c *Conn) dropOutput() {
	for _, ch := range c.out {
		c.loop.pool.put(ch)
	}
	c.out, c.outBytes = nil, 0
	c.lent, c.lentBytes = nil, 0
	if c.plain != nil {
		c.loop.pool.put(c.plain)
		c.plain = nil
	}
}
