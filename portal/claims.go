package portal

import (
	"time"

	"sallyport/routing"
)

// A connection whose path is away keeps its place: its target is still connected, and a peer that could free places by losing paths would have
// any number of targets. But who comes back is not refused for what it has left behind. At the limit a new client of a peer that has
// connections away at this outlet waits a moment for one of their places: its inlet may be about to say that their clients have gone. Where
// they were begun by another process of the same node, nobody will resume them, and the one that has been away longest ends.

// claimFor is how long a client waits for the place of a connection that is away: an inlet resumes all that it can as soon as it has a path.
const claimFor = 3 * time.Second

// claims reports whether a client that found no place may wait for one that its peer holds.
func (o *Outlet) claims(peer *[32]byte, m *routing.Message, msg message) bool {
	if peer == nil {
		return false
	}
	var f fields
	if msg.fields > 0 {
		f, _ = parseFields(m.Payload()[msg.fields:]) // parse has read them before
	}
	waiting := o.places.waiting(peer)
	n, lost := o.lines.held(peer, f.process)
	if lost != nil {
		lost.post(func() {
			if lost.state == away {
				lost.end(ReasonLimit, false)
			}
		})
	}
	return waiting < n+o.lines.expected().number()
}

// await connects the target of c when a place is free for it, or refuses it.
func (o *Outlet) await(c *conn, back routing.Route) {
	c.timer = c.shard.Loop().After(claimFor, func() {
		if c.state == opening {
			o.env.Stats.Limited.Add(1)
			c.sendDisconnect(back, ReasonLimit)
			c.forget(ReasonLimit)
		}
	})
	var began bool
	try := func() {
		if began || c.state != opening {
			return
		}
		// c itself is one of the node's connections.
		if o.env.Stats.Active.Load() > int64(o.env.Limits.Connections) || !o.places.takeFreed(&c.peer) {
			return
		}
		began = true
		o.places.stay(c)
		c.timer.Stop()
		c.onEnd = func() { o.places.leave(&c.peer) }
		o.connect(c, back)
	}
	o.places.await(c, func() { c.post(try) })
	try() // a place may have been given back meanwhile
}
