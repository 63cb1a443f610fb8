package node

import (
	"context"
	"sync"
)

// closing is a node's streams that their program has closed and that have not ended: what was written may still be on its way. The zero value is ready.
type closing struct {
	mu      sync.Mutex
	streams map[*Stream]struct{}
}

// Close closes the program's end of the connection: what was written is still sent.
func (s *Stream) Close() error {
	s.closing.add(s)
	return s.Conn.Close()
}

// add enters a stream of which something is left.
func (c *closing) add(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-s.left:
		return
	default:
	}
	if c.streams == nil {
		c.streams = map[*Stream]struct{}{}
	}
	c.streams[s] = struct{}{}
}

// remove is for a stream of which nothing is left.
func (c *closing) remove(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(s.left)
	delete(c.streams, s)
}

// wait waits until there is none for which ok, or until ctx ends.
func (c *closing) wait(ctx context.Context, ok func(*Stream) bool) {
	for {
		s := c.one(ok)
		if s == nil {
			return
		}
		select {
		case <-s.left:
		case <-ctx.Done():
			return
		}
	}
}

// one returns one for which ok, nil if there is none.
func (c *closing) one(ok func(*Stream) bool) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		if ok(s) {
			return s
		}
	}
	return nil
}

// AwaitClosed waits until the connections that the node's program has closed have ended, or until ctx does: what was written is at the other ends then.
func (n *Node) AwaitClosed(ctx context.Context) {
	n.closing.wait(ctx, func(*Stream) bool { return true })
}
