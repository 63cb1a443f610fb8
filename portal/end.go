package portal

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/routing"
)

// OnClose is called when the socket has closed.
func (c *conn) OnClose(_ *dataplane.Conn, err error) {
	c.backlog.Close()
	if c.state == ended || c.done {
		return
	}
	reason := ReasonReset
	c.tally.by = c.near()
	if errors.Is(err, dataplane.ErrLoopClosed) {
		reason, c.tally.by = ReasonShutdown, c.here()
	}
	c.end(reason, true)
}

// TerminalClosed implements routing.Watcher: the path is gone, and with it perhaps some data. A client that was not read yet
// can wait for the next path.
func (c *conn) TerminalClosed() {
	c.unwatch()
	if c.state == away { // what was asked over this path has no answer any more
		c.leavePath()
		if c.bulk.lane != nil { // the inlet's path may be there all the time, and nobody tells of it
			c.leaveLane(laneRest)
			c.ask()
		}
		c.wait()
		return
	}
	if !c.losePath() && !c.offerAgain(true) {
		c.end(ReasonPath, false)
	}
}

// PeerSilent implements routing.SilenceWatcher. A node of ours says something each second, so the path is lost: the inlet looks for another, or is gone.
func (c *conn) PeerSilent(since time.Time) {
	if c.outlet && c.line != nil && c.state == open {
		c.sendDisconnect(c.route, ReasonPath)
		c.losePathAt(since)
	}
}

// PeerGone implements routing.GoneWatcher: nobody is there any more who could go on.
func (c *conn) PeerGone() {
	if c.state == open || c.state == away {
		c.end(ReasonGone, false)
	}
}

// MessageLost implements routing.LossWatcher: a message of the peer's node was lost or overtaken, perhaps one of this connection. Only
// between two of ours would the numbers of its payloads tell, and even there a lost credit stops it for good.
func (c *conn) MessageLost() {
	switch {
	case c.state == away || (c.state == opening && c.outlet && c.line != nil): // an answer that is lost is asked for again
	case c.line != nil && c.offerAgain(false):
	default:
		c.lost()
	}
}

// offerAgain gives a client that waits for the outlet's answer back to the inlet, for its next path if this one is broken.
func (c *conn) offerAgain(broken bool) bool {
	if c.state != opening || c.reoffer == nil {
		return false
	}
	fd, ok := c.sock.Detach()
	if !ok {
		return false
	}
	c.sock, c.told, c.places = nil, nil, nil // they stay the client's
	c.forget(ReasonPath)
	c.reoffer(fd, broken)
	return true
}

// Revoked implements Revoker.
func (c *conn) Revoked() {
	c.post(func() { c.end(ReasonPolicy, true) })
}

// finish ends a connection whose data has all been handed over: the socket gets what is queued, then FIN.
func (c *conn) finish(r Reason) {
	if c.forget(r) && c.sock != nil {
		c.sock.Close()
	}
}

// end ends a connection whose stream is not whole, or that one side gave up: the socket is reset unless all is well.
func (c *conn) end(r Reason, tell bool) {
	if c.state == ended {
		return
	}
	if tell && c.state == open {
		c.sendDisconnect(c.route, r)
	}
	if tell && c.state == away && r != ReasonShutdown && c.tellLater(r) {
		return
	}
	if !c.forget(r) || c.sock == nil {
		return
	}
	if r == ReasonNone {
		c.sock.Close()
	} else {
		c.sock.Abort()
	}
}

func (c *conn) sendDisconnect(route routing.Route, r Reason) {
	if c.extended {
		c.send(route, []byte{kindDisconnect, byte(r)})
	} else {
		c.send(route, []byte{kindDisconnect})
	}
}

// forget leaves the tables; it reports false if that was done before.
func (c *conn) forget(r Reason) bool {
	if c.state == ended {
		return false
	}
	if c.state == away {
		c.env.Stats.GivenUp[min(r, reasonCount-1)].Add(1)
		c.env.Stats.Away.Add(-1)
	}
	c.state = ended
	if !c.done { // else it was told when the socket was given up
		c.told.ended(r)
	}
	c.timer.Stop()
	c.timer = nil
	switch {
	case c.asked && c.anew:
		c.leaveLate(ReasonReset) // with ReasonPath the outlet would wait for a Resume
	case c.asked && r != ReasonPath:
		c.leaveLate(r)
	default:
		c.shard.Stop(c.self)
	}
	c.throttle.Close()
	if c.backlog.Finish(); c.sock == nil {
		c.backlog.Close() // else OnClose does
	}
	c.unwatch()
	c.unwatchBare()
	c.grant.Unwatch(c)
	c.wasRequest()
	c.noTransfer()
	c.forgetLine()
	c.window.end()
	c.env.Stats.Active.Add(-1)
	c.env.Stats.Ended[min(r, reasonCount-1)].Add(1)
	c.record(r)
	if r != ReasonNone && r != ReasonReset {
		c.env.Log.Info("portal connection ended", "portal", c.name, "reason", r.String())
	}
	c.places.giveBack()
	if c.onEnd != nil {
		c.onEnd()
	}
	c.told.left()
	return true
}

// closeFD closes a socket that never became a connection; the client sees a reset rather than an empty answer.
func closeFD(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}
