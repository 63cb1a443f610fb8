package portal

import (
	"sallyport/dataplane"
	"sallyport/routing"
)

// readKept reads the socket once, size bytes into each of some blocks of the keep, and sends what it read from there. So a transfer is kept without a copy: the inner channel
// encrypts from the block into the shard's scratch memory instead of where the data lies. Copying cost 4 to 7 % more CPU for each byte of the
// whole path (BenchmarkHold), this costs 2 to 3 %. It returns false when there is nothing more to read now.
func (c *conn) readKept(sock *dataplane.Conn, size, blocks int) bool {
	pool := &c.keeper.pool
	var list [dataplane.MaxReadBlocks]*keepBlock
	var parts [dataplane.MaxReadBlocks][]byte
	blocks = max(1, min(blocks, len(list)))
	for i := range blocks {
		list[i] = pool.large()
		parts[i] = list[i].buf[routing.HeadRoom : routing.HeadRoom+size]
	}
	n, err := sock.ReadVector(parts[:blocks])
	c.full = err == nil && n == blocks*size
	if err == nil {
		c.meter.BytesIn.Add(uint64(n))
	}
	for _, b := range list[:blocks] {
		part := min(n, size)
		n -= part
		if part < adoptFrom || c.state == ended {
			if part > 0 && c.state != ended {
				c.sendPayload(b.buf, part)
			}
			pool.put(b)
			continue
		}
		c.sendKept(b, part)
	}
	if err != nil {
		c.readEnded(err)
		return false
	}
	return true
}

// sendKept sends n bytes that lie in a block from HeadRoom on, and keeps the block.
func (c *conn) sendKept(b *keepBlock, n int) {
	if !c.grant.Allowed() {
		c.keeper.pool.put(b)
		c.end(ReasonPolicy, true)
		return
	}
	c.sent(n)
	c.credit -= n
	c.line.adopt(b, n)
	if c.state == open && !c.behind() {
		c.carry(b.buf, n, true)
	}
}
