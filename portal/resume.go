package portal

import (
	"crypto/rand"
	"time"

	"sallyport/routing"
)

const (
	// confirmEvery is how much may have come before the other end is told, and confirmWithin how long.
	confirmEvery  = 256 << 10
	confirmWithin = time.Second
	// askFirst is how long an inlet waits for the answer to a Resume before it asks again, then twice as long each time up to askMost.
	askFirst = 1500 * time.Millisecond
	askMost  = 6 * time.Second
	// maxStuck is how often in a row a path may lose messages before anything went over it.
	maxStuck = 12
)

// newToken returns a random id or secret.
func newToken() (t token) {
	_, _ = rand.Read(t[:]) // never fails (crypto/rand)
	return t
}

// newLine lets c outlive its path, as this end would have it.
func (c *conn) newLine(hold time.Duration) {
	c.keeper = c.env.keeper(c.shard)
	c.line = &lifeline{hold: hold.Truncate(time.Millisecond), kept: keep{pool: &c.keeper.pool, total: &c.env.Stats.Kept}}
}

// appendOffer appends the Ping or Pong of c's version, with what it says of c's line.
func (c *conn) appendOffer(b []byte, kind byte) []byte {
	c.window.known = true
	if kind == kindPong && c.version < resumeVersion {
		if c.extended {
			return appendHandshake(b, kind, c.window.size)
		}
		return appendHandshake(b, kind, 0)
	}
	var f fields
	if kind == kindPing {
		f.id = c.tally.id
		if c.inlet.opts.TellClient {
			f.client = c.tally.client
		}
	}
	if l := c.line; l != nil {
		f.hold = uint64(l.hold / time.Millisecond)
		if kind == kindPing {
			f.again, f.process = l.offers, c.env.Process
		} else {
			f.secret = l.secret
		}
	}
	return appendOffer(b, kind, c.window.size, &f)
}

// got is the position up to which all has come from the other end.
func (c *conn) got() uint64 {
	if c.peerDone {
		return c.window.received + 1
	}
	return c.window.received
}

// losePath is called when the path has ended, or something was lost on it: both ends hold what they have and wait for another path. It
// reports false if the connection cannot do that.
func (c *conn) losePath() bool { return c.losePathAt(time.Now()) }

// losePathAt is losePath for a path that has been lost since a time: the hold counts from then, so that both ends give up together.
func (c *conn) losePathAt(since time.Time) bool {
	if c.state != open || c.line == nil {
		return false
	}
	c.leavePath()
	c.env.Stats.Away.Add(1)
	c.state = away
	if c.lines != nil {
		c.lines.left(c)
	}
	c.line.until, c.line.pause = since.Add(c.line.hold), askFirst
	if c.sock != nil {
		c.sock.Pause()
	}
	if c.inlet != nil {
		c.ask()
	}
	c.wait()
	return true
}

// lost is called when a message is missing. The path is taken again, which an outlet can only ask for; one on which that does
// not help is none.
func (c *conn) lost() {
	if c.line == nil || c.state != open {
		c.end(ReasonGap, true)
		return
	}
	if c.line.stalled(c.got()) {
		c.env.Log.Warn("portal connection closed", "portal", c.name, "reason", ReasonGap.String(), "times", c.line.stuck)
		c.end(ReasonGap, true)
		return
	}
	if c.outlet {
		c.sendDisconnect(c.route, ReasonPath)
	}
	c.losePath()
}

// leavePath gives up the addresses of the path: nothing that is still on it can come here any more.
func (c *conn) leavePath() {
	c.unwatch()
	c.shard.Stop(c.self)
	c.throttle.Close()
	c.throttle = routing.NewThrottle(c.shard, c)
	c.held = false
	if c.line != nil {
		c.line.posted = false
	}
}

// wait sets the timer for what comes next while the path is away.
func (c *conn) wait() {
	if c.state != away {
		return
	}
	at := c.line.until
	if c.inlet != nil && c.terminal != nil && c.line.retryAt.Before(at) {
		at = c.line.retryAt
	}
	c.timer.Stop()
	c.timer = c.shard.Loop().After(time.Until(at), c.waited)
}

// waited goes on when the timer of wait has run.
func (c *conn) waited() {
	if c.state != away {
		return
	}
	now := time.Now()
	switch {
	case !now.Before(c.line.until):
		c.expire(ReasonHold)
		return
	case c.terminal != nil && !now.Before(c.line.retryAt):
		c.leavePath()
		c.leaveLane(laneRest)
		c.ask()
	}
	c.wait()
}

// expire ends a connection that has found no other path.
func (c *conn) expire(r Reason) {
	switch {
	case c.line.gone != ReasonNone:
		r = c.line.gone // which the other end will not learn
	case c.done:
		r = ReasonNone // both directions had finished: only the last confirmation is missing
	}
	c.end(r, false)
}

// goOn goes on over route, where the other end has all before received and takes all before allowed.
func (c *conn) goOn(route routing.Route, received, allowed uint64) {
	l := c.line
	if allowed < l.sent+uint64(max(c.credit, 0)) || !l.rewind(received) {
		c.sendDisconnect(route, ReasonGap)
		c.end(ReasonGap, false)
		return
	}
	if c.state == away {
		c.env.Stats.Away.Add(-1)
		if c.lines != nil {
			c.lines.back(c)
		}
	}
	c.state, c.route = open, route
	if c.timer.Stop(); c.done {
		c.timer = c.shard.Loop().After(c.line.hold, c.unsettled)
	}
	c.env.Stats.Resumed.Add(1)
	c.tally.resumed++
	c.lossy = routing.IsLossy(c.shard, c.terminal)
	c.counter, c.expect = 0, 0
	c.credit = int(min(allowed-l.sent, maxCredit))
	c.topCredit = c.credit
	l.told = c.got()
	if l.gone != ReasonNone {
		c.sendDisconnect(route, l.gone)
		c.forget(l.gone)
		return
	}
	c.fed() // the next read will show
	if c.sock != nil {
		c.sock.Pause() // until all is sent again: an outlet may not have noticed that the path before was gone
		c.giveCredit() // the socket may have taken what waited
	}
	c.catchUpLater() // in a task of its own: what is handled now lies in the loop's read buffer, which catchUp needs
}

// catchUp sends again what the other end does not have, a few payloads at a time, then the Finish; then the socket is read on.
func (c *conn) catchUp() {
	l := c.line
	if l.posted = false; !l.catching {
		return // asked for over a path that was left, and done
	}
	buf := c.shard.Loop().ReadBuffer()
	for range readBudget {
		if c.state != open || c.held {
			return // with ResumeSource, or over another path, it goes on
		}
		if !l.behind() {
			break
		}
		size := min(c.env.Limits.PayloadSize, len(buf)-routing.HeadRoom-routing.TailRoom)
		n := l.again(buf[routing.HeadRoom : routing.HeadRoom+size])
		c.env.Stats.Resent.Add(uint64(n))
		c.carry(buf[:routing.HeadRoom+size+routing.TailRoom], n, false)
	}
	if c.state != open {
		return
	}
	if l.behind() {
		c.catchUpLater()
		return
	}
	l.catching = false
	if l.owesFinish() {
		c.sendFinish()
	}
	c.settle()
	c.resume()
}

// catchUpLater goes on with it after others had their turn.
func (c *conn) catchUpLater() {
	if !c.line.posted {
		c.line.posted = true
		c.post(c.catchUp)
	}
}

// behind reports whether something is sent again before the socket is read on.
func (c *conn) behind() bool { return c.line != nil && c.line.behind() }

// sendFinish tells the other end that this direction has ended.
func (c *conn) sendFinish() {
	if c.line != nil {
		c.line.finished = true
		c.line.told = c.got()
	}
	c.send(c.route, appendFinish(c.small[:0], c.counter, c.version, c.got()))
}

// finished is called when both directions have finished. The socket has all; the other end may not.
func (c *conn) finished() {
	if c.line == nil {
		c.finish(ReasonNone)
		return
	}
	if sock := c.sock; sock != nil {
		c.done, c.sock = true, nil
		c.told.ended(ReasonNone)
		c.timer.Stop()
		c.timer = c.shard.Loop().After(c.line.hold, c.unsettled)
		sock.Close()
	}
	c.settle()
}

// unsettled ends a connection that has finished and waited for the last confirmation: the other end has it, and what told so was lost.
func (c *conn) unsettled() {
	if c.state == open {
		c.forget(ReasonNone)
	}
}

// settle forgets a connection when both directions have finished and both ends know.
func (c *conn) settle() {
	if c.state == open && c.done && c.line.settled() && c.line.told == c.got() {
		c.forget(ReasonNone)
	}
}

// confirmed takes what a message says of what has come at the other end. It returns false if that ended the connection.
func (c *conn) confirmed(msg *message) bool {
	if c.line == nil {
		return true
	}
	ok := msg.confirms
	if ok && msg.kind == kindCredit {
		ok = c.line.confirm(msg.confirmed)
	} else if ok {
		ok = c.line.confirmLow(uint32(msg.confirmed))
	}
	if !ok {
		c.env.Log.Warn("portal connection closed", "portal", c.name, "reason", "confirmed is missing or impossible", "confirmed", msg.confirmed)
		c.end(ReasonGap, true)
		return false
	}
	c.unstarve()
	return true
}

// unstarve reads on when there is room for what is read.
func (c *conn) unstarve() {
	if c.starved && c.sendSize() > 0 {
		c.fed()
		c.resume()
	}
}

// keepRoom returns how much more may be sent without being confirmed: anything while the node's memory for it is not spent.
func (c *conn) keepRoom() int {
	if !c.keeper.pool.spent() {
		return MaxPayload * readBudget
	}
	return max(c.env.Limits.LeastWindow-c.line.kept.size, 0)
}

// owe sees to it that the other end is told what has come.
func (c *conn) owe() {
	l := c.line
	if l == nil {
		return
	}
	if c.got()-l.told >= confirmEvery {
		c.confirm(false)
		return
	}
	if !l.owing {
		l.owing = true
		c.keeper.owe(c)
	}
}

// confirm tells the other end what has come; asks makes it answer.
func (c *conn) confirm(asks bool) {
	if c.state != open {
		return
	}
	c.line.told = c.got()
	c.send(c.route, appendConfirmingCredit(c.small[:0], 0, c.got(), asks))
	c.settle()
}

// appendCreditFor appends the Credit of the connection's version.
func (c *conn) appendCreditFor(b []byte, amount uint64) []byte {
	if c.version < resumeVersion {
		return appendCredit(b, amount)
	}
	if c.line != nil {
		c.line.told = c.got()
	}
	return appendConfirmingCredit(b, amount, c.got(), false)
}

// credited goes on after a Credit, which was added up.
func (c *conn) credited(m *routing.Message, msg message) {
	if !c.confirmed(&msg) {
		return
	}
	c.unstarve()
	if msg.fields == 0 || c.line == nil {
		return
	}
	if f, err := parseFields(m.Payload()[msg.fields:]); err == nil && f.asks {
		c.confirm(false)
	}
	c.settle()
}

// peerFinished handles the Finish of the other end.
func (c *conn) peerFinished() {
	if c.peerDone {
		return
	}
	c.peerDone = true
	c.tally.half(c.far())
	if !c.readDone {
		c.sock.CloseWrite()
		c.owe()
		return
	}
	if c.line != nil {
		c.confirm(false) // the other end waits for nothing else
	}
	if c.state == open {
		c.finished()
	}
}

// tellLater keeps an inlet's connection whose client has gone while the path was away, until the other end was told why or the hold has
// run out; the outlet's end learns it when it asks.
func (c *conn) tellLater(r Reason) bool {
	if c.inlet == nil || c.line.gone != ReasonNone {
		return false
	}
	c.line.gone = r
	if sock := c.sock; sock != nil {
		c.done, c.sock = true, nil
		c.told.ended(r)
		sock.Abort()
	}
	return true
}

// forgetLine gives back what outlives the path.
func (c *conn) forgetLine() {
	if c.line == nil {
		return
	}
	if c.lines != nil {
		c.lines.remove(c)
	}
	c.line.wipe()
}
