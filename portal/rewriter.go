package portal

import (
	"sallyport/dataplane"
	"sallyport/routing"
)

// Rewriter changes what the client of one portal connection sends, on its way to the server.
type Rewriter interface {
	// Rewrite appends to dst what is sent in place of src, and returns how many bytes of src it used. It leaves the rest when it
	// has written enough for one call, or until Answer has changed that. An error ends the connection.
	Rewrite(dst, src []byte) (out []byte, used int, err error)
	// Pass returns how many of the next bytes go through unchanged; Passed says how many did.
	Pass() int64
	Passed(n int)
	// Answer shows what the server sends, before the client has it.
	Answer(b []byte)
	// Refusal is what the client is told about an error of Rewrite; nil closes without a word.
	Refusal(err error) []byte
}

// upstream is the Rewriter of an inlet's connection, with what is between it and its neighbours. The socket is read only when
// all that was read has been sent, so it holds one read and what one Rewrite makes of it.
type upstream struct {
	rw     Rewriter
	in     []byte // read, not yet rewritten
	out    []byte // rewritten, from sent on not yet sent
	sent   int
	posted bool // pump will be called
	held   bool // paused until the server answers
}

// pump reads, rewrites and sends, a few payloads at a time.
func (c *conn) pump() {
	u := c.upstream
	buf := c.shard.Loop().ReadBuffer()
	for range readBudget {
		if c.state != open || c.sock.Paused() {
			return
		}
		size := c.sendSize()
		switch {
		case size == 0:
			c.starve()
			return
		case u.sent < len(u.out):
			n := copy(buf[routing.HeadRoom:routing.HeadRoom+size], u.out[u.sent:])
			if u.sent += n; u.sent == len(u.out) {
				u.out, u.sent = nil, 0
			}
			c.sendPayload(buf, n)
		case len(u.in) > 0:
			used, ok := c.rewrite(u.in)
			if !ok {
				return
			}
			if used == 0 && len(u.out) == 0 {
				u.held = true
				c.sock.Pause()
				return
			}
			if u.in = u.in[used:]; len(u.in) == 0 {
				u.in = nil
			}
		default:
			n, err := c.sock.Read(buf[routing.HeadRoom : routing.HeadRoom+size])
			if err != nil {
				c.readEnded(err)
				return
			}
			c.meter.BytesIn.Add(uint64(n))
			if u.rw.Pass() >= int64(n) {
				u.rw.Passed(n)
				c.sendPayload(buf, n)
				continue
			}
			data := buf[routing.HeadRoom : routing.HeadRoom+n]
			used, ok := c.rewrite(data)
			if !ok {
				return
			}
			u.in = append(u.in, data[used:]...)
		}
	}
	c.pumpLater()
}

// rewrite hands src to the Rewriter; ok is false if that ended the connection.
func (c *conn) rewrite(src []byte) (used int, ok bool) {
	out, used, err := c.upstream.rw.Rewrite(c.upstream.out, src)
	c.upstream.out = out
	if err == nil {
		return used, true
	}
	c.env.Log.Warn("portal connection closed", "portal", c.name, "reason", ReasonProtocol.String(), "err", err)
	c.sock.WriteBorrowed(c.upstream.rw.Refusal(err))
	if c.state == open {
		c.sendDisconnect(c.route, ReasonProtocol)
		c.finish(ReasonProtocol)
	}
	return used, false
}

// pumpLater goes on with what is left after others had their turn.
func (c *conn) pumpLater() {
	u := c.upstream
	if u == nil || u.posted || (len(u.in) == 0 && len(u.out) == 0) {
		return // what the socket has is offered by the loop
	}
	u.posted = c.shard.Loop().Post(dataplane.TaskFunc(func() {
		u.posted = false
		c.pump()
	}))
}

// answered shows the Rewriter what the server sent, and goes on with what may have waited for it.
func (c *conn) answered(data []byte) {
	u := c.upstream
	if u == nil {
		return
	}
	u.rw.Answer(data)
	if u.held {
		u.held = false
		c.resume()
	}
}

// rewriteDown passes what the peer sent through an outlet's Rewriter, which takes everything; nil if that ended the connection.
func (c *conn) rewriteDown(data []byte) []byte {
	var out []byte
	for len(data) > 0 {
		var used int
		var err error
		if out, used, err = c.downstream.Rewrite(out, data); err != nil || used == 0 {
			c.env.Log.Warn("portal connection closed", "portal", c.name, "reason", ReasonProtocol.String(), "err", err)
			c.end(ReasonProtocol, true)
			return nil
		}
		data = data[used:]
	}
	return out
}
