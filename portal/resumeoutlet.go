package portal

import (
	"net/netip"

	"sallyport/routing"
)

// promise takes what an inlet's Ping says of holding, and of its client.
func (c *conn) promise(o *Outlet, m *routing.Message, msg message) {
	if c.version < resumeVersion || msg.fields == 0 {
		return
	}
	f, err := parseFields(m.Payload()[msg.fields:])
	if err != nil {
		return
	}
	if at, err := netip.ParseAddrPort(f.client); err == nil {
		c.client = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	if !c.hasPeer {
		return
	}
	c.tally.id, c.tally.client = f.id, f.client
	if o.opts.Hold <= 0 || f.hold == 0 || f.id == (token{}) {
		return
	}
	c.newLine(shorter(o.opts.Hold, f.hold))
	c.line.id, c.line.secret, c.line.offers, c.line.process = f.id, newToken(), f.again, f.process
}

// enter makes a connection known to those who may resume it, before its Pong. One with the same id was begun over a path that ended before
// its client was read, and ends. It reports false if the id is another identity's, or c is the one that was begun before.
func (c *conn) enter(o *Outlet) bool {
	if c.line == nil {
		return true
	}
	o.lines.expected().want(c.shard, c.line.id)
	before, ok := o.lines.add(c)
	if !ok {
		c.line = nil
		return false
	}
	if c.lines = o.lines; c.state == away {
		o.lines.left(c)
	}
	if before != nil {
		before.post(func() { before.end(ReasonPath, true) })
	}
	return true
}

// resume handles a Resume of an inlet, on the shard of the channel that it came over.
func (o *Outlet) resume(s *routing.Shard, m *routing.Message) {
	r, err := parseResume(m.Payload())
	if err != nil || m.Return.Len() == 0 {
		o.env.Stats.Malformed.Add(1)
		return
	}
	var c *conn
	if m.Peer != nil {
		o.lines.expected().want(s, r.id)
		c = o.lines.find(r.id, r.secret, &m.Peer.ID)
	}
	if c == nil {
		o.env.Stats.ResumeRefused.Add(1)
		m.SetPayloadBytes([]byte{kindDisconnect, byte(ReasonUnknown)})
		m.Reply(s, routing.LocalAddress(o.opts.Name).Wire())
		return
	}
	back := m.Return.Clone()
	c.post(func() { c.accept(o, s, back, r) })
}

// accept goes on over the way back to the inlet, which leads over shard s.
func (c *conn) accept(o *Outlet, s *routing.Shard, back routing.Route, r resumeMessage) {
	if (c.state != open && c.state != away) || r.attempt <= c.line.attempt {
		return
	}
	if s != c.shard {
		if c.losePath(); c.state == away {
			c.moveTo(s, func() { c.accept(o, s, back, r) })
		}
		return
	}
	t := s.FirstTerminal(back)
	if t == nil {
		return // gone already
	}
	if o.opts.Guard != nil {
		grant := o.opts.Guard.Grant(&c.peer)
		if !grant.Allowed() {
			o.env.Stats.Denied.Add(1)
			c.sendDisconnect(back, ReasonPolicy)
			c.end(ReasonPolicy, false)
			return
		}
		c.grant.Unwatch(c)
		c.grant = grant
		if c.grant.Watch(c); c.state == ended {
			return
		}
	}
	c.leavePath()
	c.line.attempt = r.attempt
	var flows []*routing.Flow
	if producer := t.TerminalProducer(); producer != nil {
		flows = []*routing.Flow{producer.Own}
	}
	c.self = s.Start(c, flows...)
	c.watch(t)
	m := resumeMessage{kind: kindResumed, attempt: r.attempt, received: c.got(), allowed: c.window.allowed, sent: c.line.end() + 1}
	c.send(back, m.append(c.small[:0]))
	c.line.theirs = r.sent
	c.goOn(back, r.received, r.allowed)
}
