package portal

import (
	"cmp"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// agree takes what the outlet's Pong says of holding: the shorter time counts, and without a secret there is none.
func (c *conn) agree(m *routing.Message, msg message) {
	if c.line == nil {
		return
	}
	var f fields
	if msg.fields > 0 {
		f, _ = parseFields(m.Payload()[msg.fields:]) // parse has read them before
	}
	if f.hold == 0 || f.secret == (token{}) || c.version < resumeVersion {
		c.line = nil
		return
	}
	c.line.secret, c.line.hold = f.secret, shorter(c.line.hold, f.hold)
}

// shorter returns the shorter of a time and a number of milliseconds.
func shorter(d time.Duration, ms uint64) time.Duration {
	if ms < uint64(d/time.Millisecond) {
		return time.Duration(ms) * time.Millisecond
	}
	return d
}

// resumeAll takes the inlet's connections to a new path: those that have none, and those that are on another. Any goroutine.
func (in *Inlet) resumeAll(p *path) {
	p.shard.Loop().Post(dataplane.TaskFunc(func() {
		t := p.shard.FirstTerminal(p.route)
		if t == nil || t.TerminalPeer() == nil {
			return
		}
		peer := t.TerminalPeer().ID
		in.mu.Lock()
		list := make([]*conn, 0, len(in.conns))
		for c := range in.conns {
			list = append(list, c)
		}
		in.mu.Unlock()
		for _, c := range list {
			c.post(func() { c.offered(p, t, peer) })
		}
	}))
}

// Silent tells that nothing has been heard over the path with a route since then: connections that can be resumed hold what they have, and ask over the path
// that there is. Any goroutine.
func (in *Inlet) Silent(route routing.Route, since time.Time) {
	route = in.opts.Prefix.Concat(route)
	in.each(func(c *conn) {
		if c.state == open && c.goesOver(route) {
			c.leaveLane(laneRest)
			c.losePathAt(since)
		}
	})
}

// Restart has clients begin anew, over the path that there is, that have no answer yet over the path with a route, which was left. Any goroutine.
func (in *Inlet) Restart(route routing.Route) {
	route = in.opts.Prefix.Concat(route)
	in.each(func(c *conn) {
		if c.state == opening && c.goesOver(route) {
			c.anew = true
			c.offerAgain(false)
		}
	})
}

// Lost tells that the path with a route is no more, though the connection that it goes over may be there. Connections that can be resumed wait for the next
// path, others end. Any goroutine.
func (in *Inlet) Lost(route routing.Route) {
	route = in.opts.Prefix.Concat(route)
	in.each(func(c *conn) {
		if c.goesOver(route) && !c.losePath() && !c.offerAgain(true) {
			c.end(ReasonPath, true)
		}
	})
}

// Gone tells that the process has ended that a peer was, over the path with a route: its connections there, and those without a path, end. Any goroutine.
func (in *Inlet) Gone(peer [32]byte, route routing.Route) {
	route = in.opts.Prefix.Concat(route)
	in.each(func(c *conn) {
		if c.hasPeer && c.peer == peer && (c.state == away || c.goesOver(route)) {
			c.PeerGone()
		}
	})
}

// goesOver reports whether the connection goes over what a route begins with.
func (c *conn) goesOver(route routing.Route) bool {
	return c.terminal != nil && c.terminal == c.shard.FirstTerminal(route)
}

// offered tells an inlet's connection that there is a path, over t to peer.
func (c *conn) offered(p *path, t routing.Terminal, peer [32]byte) {
	if c.line == nil || peer != c.peer || c.inlet.path.Load() != p || t == c.terminal {
		return
	}
	if l := c.bulk.lane; l != nil && c.state == open && c.inlet.hasLane(l) {
		return
	}
	switch c.state {
	case open:
		c.losePath() // which asks over the new one; what is still on its way here is sent again
	case away:
		if c.terminal != nil {
			c.leavePath()
		}
		c.leaveLane(0) // what was asked there may have no answer, and this one is known to work
		c.line.pause = askFirst
		c.ask()
		c.wait()
	}
}

// ask sends a Resume over the inlet's path, if there is one to the peer. The answer may be lost, so the timer of wait asks again.
func (c *conn) ask() {
	if c.terminal != nil || c.state != away {
		return
	}
	p := c.way()
	if p == nil {
		return
	}
	if p.shard != c.shard {
		c.moveTo(p.shard, c.ask)
		return
	}
	t := c.shard.FirstTerminal(p.route)
	if t == nil || t.TerminalPeer() == nil || t.TerminalPeer().ID != c.peer {
		if c.bulk.lane != nil {
			c.leaveLane(laneRest)
			c.ask()
		}
		return // SetPath will tell
	}
	if c.grant == nil && c.inlet.opts.Guard != nil { // carried over an upgrade: decided when somebody has shown who it is
		grant := c.inlet.opts.Guard.Grant(&c.peer)
		if !grant.Allowed() {
			c.env.Stats.Denied.Add(1)
			c.end(ReasonPolicy, false)
			return
		}
		c.grant = grant
		if c.grant.Watch(c); c.state == ended {
			return
		}
	}
	var flows []*routing.Flow
	if producer := t.TerminalProducer(); producer != nil {
		flows = []*routing.Flow{producer.Own}
	}
	c.self = c.shard.Start(c, flows...)
	c.watch(t)
	l := c.line
	l.attempt++
	l.retryAt = time.Now().Add(l.pause)
	l.pause = min(2*l.pause, askMost)
	m := resumeMessage{kind: kindResume, id: l.id, secret: l.secret, attempt: l.attempt, received: c.got(), allowed: c.window.allowed, sent: l.end() + 1}
	c.send(p.route, m.append(c.small[:0]))
}

// resumed handles what comes while the path is away: the answer to the Resume.
func (c *conn) resumed(m *routing.Message, msg message) {
	switch msg.kind {
	case kindResumed:
		r, err := parseResume(m.Payload())
		if err == nil && r.attempt == c.line.attempt && m.Return.Len() > 0 {
			c.line.theirs = r.sent
			c.goOn(m.Return.Clone(), r.received, r.allowed)
		}
	case kindDisconnect:
		if msg.reason != ReasonPath { // else ask again, when the timer says so
			if c.line.gone == ReasonNone { // else it ended here
				c.tally.by = c.toldBy(msg.reason)
			}
			c.expire(cmp.Or(msg.reason, ReasonUnknown))
		}
	}
}
