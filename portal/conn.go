package portal

import (
	"io"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// readBudget is how many payloads one connection sends before others get their turn.
const readBudget = 8

// maxUnpaced is how many high water marks wait on the socket of a connection whose peer knows no windows, over a path that cannot be
// paused (UDP).
const maxUnpaced = 4

// maxCredit bounds what a peer can allow. It is the peer's memory, so only the arithmetic is protected: taking less than the
// peer said would leave both sides waiting.
const maxCredit = min(1<<40, math.MaxInt)

type state uint8

const (
	opening state = iota // inlet: no Pong yet; outlet: target not connected yet
	open
	away // the path is gone, and the connection waits for another
	ended
)

// conn is one end of a portal connection: a socket on one side, a route on the other. It is the worker that the peer
// sends to (docs/protocol/03 §1.1, sender_remote), the handler of its socket, and the source of what the socket sends.
type conn struct {
	env      *Env
	shard    *routing.Shard
	sock     *dataplane.Conn // nil while an outlet connects
	self     routing.WireAddress
	route    routing.Route // to the peer; set when open
	peer     [32]byte
	hasPeer  bool
	outlet   bool
	lossy    bool // the path may lose messages
	extended bool
	version  uint8 // of the extension; 0 without
	skip     bool  // no handshake (docs/protocol/03 §1.8)
	state    state
	name     string // of the portal, for logs
	meter    *Meter // of the portal
	tally    tally  // for the record
	grant    *Grant
	terminal routing.Terminal // what the route begins with, watched
	throttle *routing.Throttle
	backlog  *routing.Backlog // without windows, once too much waited
	pace     *pacer
	rates    *rates // of the portal; nil without
	timer    *dataplane.Timer
	asked    bool      // inlet: the Ping has no answer yet
	anew     bool      // inlet: its client begins anew though the answer may still come
	delayed  bool      // outlet: its client has waited for a target that was down
	bare     *bareWay  // of an outlet's without channel, behind other nodes
	inlet    *Inlet    // that the connection belongs to, or
	places   *places   // inlet: of which its client has one; nil for none
	lines    *registry // of the outlet that it belongs to

	line   *lifeline                     // what outlives the path; nil if nothing does
	bulk   laneUse                       // how much an inlet's carries
	keeper *keeper                       // of the shard, with line
	left   bool                          // counted among those that are not carried (Carry)
	done   bool                          // both directions have finished and the socket is given up
	home   atomic.Pointer[routing.Shard] // shard, for other goroutines; nil on the way to another

	// What the socket sends.
	credit    int    // bytes the peer will still take (extended)
	topCredit int    // what credit was when the last came
	counter   uint16 // of the next payload
	full      bool   // the last read got all it had room for
	readDone  bool   // the socket's end was read
	starved   bool   // paused for want of credit
	held      bool   // paused by the destination
	taking    bool   // turns with others that were paused: one payload in the next
	upstream  *upstream

	// What the peer sends.
	window   window
	openedAt time.Time // when the Ping or Pong was sent; zero once it has been answered
	expect   uint16
	peerDone bool // the peer's direction has finished
	progress uint64
	small    [72]byte // for messages without data

	downstream Rewriter // of what goes to the outlet's target
	early      *early   // outlet without handshake, while its target is not connected

	broken  func() bool               // whether the end of what the socket sends is none; nil if an end is one
	onEnd   func()                    // inlet: forget the connection
	piped   bool                      // outlet: the other end of the target's socket is in this process
	told    *Watch                    // nil for nobody
	client  netip.AddrPort            // outlet: whom the connection is for, as the inlet saw it; invalid if that is not said
	reoffer func(fd int, broken bool) // inlet: begin anew with the client, on another path if this one is broken
}

func (e *Env) newConn(s *routing.Shard, m *Meter) *conn {
	c := &conn{env: e, shard: s, name: m.name, meter: m, window: newWindow(windowMemory{&e.Limits, e.Stats})}
	c.home.Store(s)
	c.throttle = routing.NewThrottle(s, c)
	c.pace = e.pacer(s)
	e.Stats.Opened.Add(1)
	e.Stats.Active.Add(1)
	m.Opened.Add(1)
	m.Open.Add(1)
	c.tally.began = time.Now()
	return c
}

// start begins to carry data over route, on the socket that is set.
func (c *conn) start(route routing.Route) {
	c.state = open
	c.route = route
	c.timer.Stop()
	c.timer = nil
	if t := c.shard.FirstTerminal(route); t != nil {
		c.watch(t)
		c.lossy = routing.IsLossy(c.shard, t)
	}
	c.grant.Watch(c)
	if c.state == ended {
		return
	}
	c.watchBare()
	c.told.opened(c)
	c.sock.SetHandler(c)
	c.limit()
	c.sock.Resume()
	if c.extended && c.credit <= 0 {
		c.starve()
	}
}

// watch ends the connection with the terminal that it now goes through; nil leaves it as it is.
func (c *conn) watch(t routing.Terminal) {
	if t == nil || t == c.terminal {
		return
	}
	c.unwatch()
	c.terminal = t
	c.window.usePath(c.pace.usePath(t), c.shard.Loop().Now())
	t.Watch(c)
}

// unwatch undoes watch.
func (c *conn) unwatch() {
	if c.terminal == nil {
		return
	}
	c.terminal.Unwatch(c)
	c.pace.leavePath(c.terminal)
	c.window.usePath(nil, time.Time{})
	c.terminal = nil
}

// OnReadable sends what the socket has (docs/protocol/03 §1.4): one payload for each read, or several when the read before was full,
// as from a client that has much to send.
func (c *conn) OnReadable(sock *dataplane.Conn) {
	if c.upstream != nil {
		c.pump()
		return
	}
	buf := c.shard.Loop().ReadBuffer()
	budget := readBudget
	if c.taking {
		budget, c.taking, c.full = 1, false, false
	}
	for sent := 0; sent < budget; {
		if c.state != open || sock.Paused() {
			return
		}
		size, blocks := c.sendSize(), 1
		if size == 0 {
			c.starve()
			return
		}
		stride := routing.HeadRoom + size + routing.TailRoom
		if c.full {
			blocks = min(len(buf)/stride, dataplane.MaxReadBlocks)
			if c.extended {
				blocks = min(blocks, c.mayCarry()/size)
			}
		}
		if c.full && c.line != nil && size >= adoptFrom {
			if !c.readKept(sock, size, blocks) {
				return
			}
			sent += blocks
			continue
		}
		var n int
		var err error
		if blocks > 1 {
			n, err = sock.ReadBlocks(buf[:blocks*stride], routing.HeadRoom, size, stride)
		} else {
			n, err = sock.Read(buf[routing.HeadRoom : routing.HeadRoom+size])
		}
		if err != nil {
			c.readEnded(err)
			return
		}
		c.meter.BytesIn.Add(uint64(n))
		c.full = n == max(blocks, 1)*size
		for block := buf; n > 0 && (c.state == open || c.state == away); n -= size {
			c.sendPayload(block[:stride:stride], min(n, size))
			block = block[stride:]
			sent++
		}
	}
}

// sendSize is how much the next payload may carry, 0 if the peer takes nothing now.
func (c *conn) sendSize() int {
	if c.extended {
		return max(min(payloadSize(c.env.Limits.PayloadSize, c.topCredit), c.mayCarry()), 0)
	}
	return c.env.Limits.PayloadSize
}

// mayCarry is how much may be sent now, over a path with windows.
func (c *conn) mayCarry() int {
	if c.line != nil {
		return min(c.credit, c.keepRoom())
	}
	return c.credit
}

// payloadSize is how much one payload of at most size bytes may carry where credit is what was left to send after the last credit came.
// Where that is little the path is slow, and several small payloads are on all its legs at once.
func payloadSize(size, credit int) int {
	const least = 4 << 10
	return min(size, max(credit/4, least))
}

// sendPayload sends buf[HeadRoom:HeadRoom+n]; the rest of buf may be overwritten.
func (c *conn) sendPayload(buf []byte, n int) {
	if !c.grant.Allowed() {
		c.end(ReasonPolicy, true)
		return
	}
	c.sent(n)
	if c.extended {
		c.credit -= n
	}
	if c.line != nil {
		c.line.add(buf[routing.HeadRoom : routing.HeadRoom+n])
	}
	if c.state == open && !c.behind() { // else it is kept, and is sent when those before it have been sent again
		c.carry(buf, n, false)
	}
}

// carry sends buf[HeadRoom:HeadRoom+n] over the path; the rest of buf may be overwritten, and these bytes too unless they are kept.
func (c *conn) carry(buf []byte, n int, kept bool) {
	start, end := routing.HeadRoom, routing.HeadRoom+n
	start = payloadHeader(buf, start, n)
	m := c.shard.NewMessage()
	if c.extended || c.lossy {
		// The counter shows a gap. The reference does not count, but checks the counters that it gets (docs/protocol/03 §1.2).
		got := c.got()
		end += putCounter(buf[end:], c.counter, c.version, got)
		c.counter++
		if c.line != nil {
			c.line.told = got
		}
	}
	if c.extended {
		m.SetRoutes(c.route, routing.Route{}) // nobody reads the return route after the handshake
	} else {
		m.SetRoutes(c.route, routing.RouteOf(c.self))
	}
	m.SetPayload(buf, 0, start, end, len(buf))
	if kept {
		m.Keep()
	}
	m.From = c.throttle
	c.shard.Deliver(m)
	c.shard.Free(m)
}

// send sends a message without data.
func (c *conn) send(route routing.Route, b []byte) {
	m := c.shard.NewMessage()
	m.SetRoutes(route, routing.RouteOf(c.self))
	m.SetPayloadBytes(b)
	c.shard.Deliver(m)
	c.shard.Free(m)
}

func (c *conn) starve() {
	if !c.starved {
		c.starved, c.tally.starvedAt = true, c.shard.Loop().Now()
	}
	c.sock.Pause()
	if c.line != nil && c.credit > 0 {
		c.env.Stats.KeepShort.Add(1)
		c.confirm(true) // as much is kept as may be
	}
}

// PauseSource implements routing.Source.
func (c *conn) PauseSource() {
	c.held = true
	c.taking = c.window.rtt() > shortPath
	if c.sock != nil {
		c.sock.Pause()
	}
}

// ResumeSource implements routing.Source.
func (c *conn) ResumeSource() {
	c.held = false
	c.resume()
}

func (c *conn) resume() {
	if c.state == open && c.line != nil && c.line.catching {
		c.catchUpLater()
		return
	}
	if c.state == open && c.sock != nil && !c.held && !c.starved && (c.upstream == nil || !c.upstream.held) {
		c.sock.Resume()
		c.pumpLater()
	}
}

// readEnded handles the end of what the socket sends.
func (c *conn) readEnded(err error) {
	switch {
	case err == dataplane.ErrAgain:
	case err == io.EOF:
		if c.readDone {
			return // told again after the socket has moved
		}
		if c.broken != nil && c.broken() {
			c.tally.by = c.near()
			c.end(ReasonReset, true)
			return
		}
		c.readDone = true
		c.tally.half(c.near())
		if c.extended {
			c.sendFinish()
			if c.peerDone {
				c.finished()
			}
			return
		}
		if c.outlet || c.peerDone {
			// The target has said all: the reference's inlet closes its client, as it would have.
			c.end(ReasonNone, true)
			return
		}
		// The client may only have half-closed, and the peer knows no half-close: leave the way back open while it is used.
		c.waitQuiet()
	default:
		c.tally.by = c.near()
		c.end(ReasonReset, true)
	}
}

// waitQuiet ends the connection once nothing has come from the peer for a while. While the client's backlog is full the peer may only be held back,
// and an end would cut its stream off as if it were whole; the backlog bounds how long that may take. Once the client has taken what waited, the
// peer has the whole time again to go on: OnDrain.
func (c *conn) waitQuiet() {
	c.progress = c.window.received
	c.timer.Stop()
	c.timer = c.shard.Loop().After(c.env.Limits.FinishTimeout, func() {
		if c.state != open {
			return
		}
		if c.window.received != c.progress || c.backlog != nil && c.backlog.Full() {
			c.waitQuiet()
			return
		}
		c.end(ReasonNone, true)
	})
}

// HandleMessage handles a message of the peer.
func (c *conn) HandleMessage(_ *routing.Shard, m *routing.Message) {
	if c.state == ended || !c.from(m) {
		return
	}
	msg, err := parse(m.Payload())
	if err != nil {
		c.env.Stats.Malformed.Add(1)
		if c.state == open {
			c.env.Log.Warn("portal message malformed", "portal", c.name, "reason", err.Error())
			c.end(ReasonGap, true) // whatever it was, the stream is no longer whole
		}
		return
	}
	if c.bare != nil {
		c.bare.heard = c.shard.Loop().Now()
	}
	if !c.openedAt.IsZero() {
		if p := c.window.path; p != nil {
			now := time.Now()
			p.sample(now.Sub(c.openedAt), now) // the target's connecting, or the client's thinking, is in it
		}
		c.openedAt = time.Time{}
	}
	if c.state == opening {
		if !c.outlet {
			c.opened(m, msg)
		} else if c.skip { // else an outlet has not answered yet, so nobody knows its address
			c.keepEarly(m, msg)
		}
		return
	}
	if c.state == away {
		c.resumed(m, msg)
		return
	}
	switch msg.kind {
	case kindPong:
		if c.skip && !c.outlet {
			c.env.Log.Warn("portal connection closed: the outlet makes the handshake that this inlet skips; --skip-handshake belongs on both or on neither", "portal", c.name)
			c.sendDisconnect(m.Return.Clone(), ReasonProtocol)
			c.end(ReasonProtocol, false)
		}
	case kindPayload:
		c.payload(m, msg)
	case kindCredit:
		if c.extended {
			c.env.Stats.CreditsIn.Add(1)
			c.credit += int(min(msg.amount, uint64(max(maxCredit-c.credit, 0))))
			c.topCredit = c.credit
			c.credited(m, msg)
		}
	case kindFinish:
		if c.gap(msg.counter) || !c.confirmed(&msg) {
			return // a stream cut short must not look whole
		}
		c.peerFinished()
	case kindDisconnect:
		if msg.reason == ReasonPath && c.losePath() {
			return
		}
		c.tally.by = c.toldBy(msg.reason)
		if msg.reason == ReasonNone {
			c.finish(ReasonNone)
		} else {
			c.end(msg.reason, false)
		}
	}
}

// from checks that m comes from the peer that the connection began with (docs/protocol/03 §1.6) and may still come.
func (c *conn) from(m *routing.Message) bool {
	if (m.Peer != nil) != c.hasPeer || (c.hasPeer && m.Peer.ID != c.peer) {
		c.env.Stats.Denied.Add(1)
		return false
	}
	if !c.grant.Allowed() {
		if c.state == open {
			c.end(ReasonPolicy, true)
		}
		return false
	}
	return true
}

// gap ends the connection if counter is not the one expected: something is missing.
func (c *conn) gap(counter uint16) bool {
	if counter == c.expect {
		return false
	}
	if c.line == nil {
		c.env.Log.Warn("portal connection closed", "portal", c.name, "reason", ReasonGap.String(), "expected", c.expect, "got", counter)
	}
	c.lost()
	return true
}

// payload writes what the peer sent to the socket.
func (c *conn) payload(m *routing.Message, msg message) {
	if msg.counted {
		if c.gap(msg.counter) {
			return
		}
		c.expect++
	}
	if !c.confirmed(&msg) {
		return
	}
	data := m.Payload()[msg.from:msg.to]
	if c.peerDone || len(data) == 0 {
		return
	}
	if !c.window.add(len(data), c.shard.Loop().Now()) && c.extended {
		c.end(ReasonOverrun, true)
		return
	}
	c.write(data, m.From)
}

// write hands what the peer sent to the socket. from is paused when that has too much.
func (c *conn) write(data []byte, from *routing.Throttle) {
	if c.downstream != nil {
		data = c.rewriteDown(data)
	}
	c.answered(data)
	if c.state != open {
		return
	}
	c.meter.BytesOut.Add(uint64(len(data)))
	c.flows(len(data))
	c.gotFirst()
	c.sock.WriteBorrowed(data)
	if c.state != open {
		return
	}
	if c.extended {
		c.pace.data(&c.window, c.shard.Loop().Now())
		c.giveCredit()
		c.owe()
	} else if c.lossy && c.sock.Pending() > maxUnpaced*c.env.Limits.HighWater {
		c.env.Log.Warn("portal connection closed", "portal", c.name, "reason", ReasonStalled.String(), "bytes", c.sock.Pending())
		c.end(ReasonStalled, true) // nothing on such a path can be asked to wait
	} else if pending := c.sock.Pending(); pending > c.env.Limits.HighWater {
		c.over(pending, from)
	}
}

// giveCredit lets the peer send what the socket has taken.
func (c *conn) giveCredit() {
	now := c.shard.Loop().Now()
	before := c.window.creditAt
	credit, low := c.window.update(c.sock.Pending(), c.pace.limit(&c.window, now), now)
	if credit == 0 {
		if low >= 0 {
			c.sock.WantDrain(low)
		}
		return
	}
	c.pace.credit(before, now)
	c.env.Stats.CreditsOut.Add(1)
	c.send(c.route, c.appendCreditFor(c.small[:0], credit))
}

// OnDrain goes on after the socket has taken what waited.
func (c *conn) OnDrain(*dataplane.Conn) {
	if c.backlog != nil {
		c.backlog.Drained()
		if c.state == open && c.readDone && !c.extended {
			c.waitQuiet()
		}
	}
	if c.state == open && c.extended && !c.done {
		c.giveCredit()
	}
}
