package portal

import (
	"sallyport/dataplane"
	"sallyport/routing"
)

// A connection that goes on over a channel of another shard moves there with its socket, so that no message crosses shards afterwards: a crossing
// costs every message a copy, a lock and a wake-up, a move costs one of each.

// post runs f on c's shard, unless c has moved to another by then: whoever moves a connection looks for itself at what may have been
// the reason for f. Any goroutine.
func (c *conn) post(f func()) {
	s := c.home.Load()
	if s == nil {
		return
	}
	s.Loop().Post(dataplane.TaskFunc(func() {
		if c.home.Load() == s {
			f()
		}
	}))
}

// moveTo brings a connection whose path is away to another shard and runs then there. It happens in a task of its own, so that c stays where
// it is until whoever called has returned.
func (c *conn) moveTo(to *routing.Shard, then func()) {
	c.post(func() {
		if c.state != away {
			return
		}
		c.leavePath()
		c.timer.Stop()
		c.timer = nil
		c.grant.Unwatch(c)
		c.keeper.leave(c)
		var socket *dataplane.Handover
		if c.sock != nil {
			h, ok := c.sock.HandOver()
			if !ok {
				c.end(ReasonReset, true)
				return
			}
			socket = &h
			c.sock = nil
		}
		c.home.Store(nil)
		if !to.Loop().Post(dataplane.TaskFunc(func() { c.arrive(to, socket, then) })) && socket != nil {
			socket.Reset()
		}
	})
}

// arrive is the other half of moveTo, on the new shard.
func (c *conn) arrive(s *routing.Shard, socket *dataplane.Handover, then func()) {
	c.shard = s
	c.throttle = routing.NewThrottle(s, c)
	c.pace, c.keeper = c.env.pacer(s), c.env.keeper(s)
	c.line.kept.pool = &c.keeper.pool
	c.home.Store(s)
	if socket != nil {
		sock, err := s.Loop().TakeOver(*socket, c)
		if err != nil {
			c.end(ReasonReset, true)
			return
		}
		c.sock = sock
		c.limit()
		sock.Pause()
	}
	if c.upstream != nil {
		c.upstream.posted = false
	}
	if c.grant.Watch(c); c.state != away {
		return
	}
	if c.inlet != nil && c.inlet.closed.Load() {
		c.end(ReasonShutdown, false)
		return
	}
	if c.got() != c.line.told {
		c.owe()
	}
	then()
	c.wait()
}
