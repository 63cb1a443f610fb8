package portal

import "sallyport/routing"

// draining is a conn without windows as the destination of its backlog: its socket or, before an outlet's target is connected, what is
// kept for it.
type draining conn

// over is called when more waits than the high water mark. from brought the last of it.
func (c *conn) over(pending int, from *routing.Throttle) {
	if c.backlog == nil {
		c.backlog = routing.NewBacklog(c.shard, (*draining)(c), c.env.Limits.HighWater, c.env.Limits.StallTimeout)
	}
	c.backlog.Over(pending, from)
}

// Waiting implements routing.Draining.
func (d *draining) Waiting() (int, uint64) {
	if d.early != nil {
		return len(d.early.data), 0
	}
	if d.sock == nil {
		return 0, d.window.received
	}
	pending := d.sock.Pending()
	return pending, d.window.received - uint64(pending)
}

// WantDrain implements routing.Draining.
func (d *draining) WantDrain(low int) {
	if d.sock != nil {
		d.sock.WantDrain(low)
	}
}

// Stalled implements routing.Draining.
func (d *draining) Stalled() {
	c := (*conn)(d)
	waiting, _ := d.Waiting()
	c.env.Log.Warn("portal connection closed", "portal", c.name, "reason", ReasonStalled.String(), "bytes", waiting)
	if c.early == nil {
		c.end(ReasonStalled, true)
		return
	}
	c.sendDisconnect(c.early.back, ReasonStalled)
	c.forget(ReasonStalled)
}
