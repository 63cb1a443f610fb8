package tcp

import (
	"errors"
	"time"

	"sallyport/dataplane"
	"sallyport/routing/ws"
)

// A WebSocket connection usually ends at a proxy in front of the peer, which closes what is idle after a minute or so, and which keeps the
// connection to this side open when the one to the peer is dead. So silence is asked about.
const (
	// pingEvery is how long nothing has come before the peer is pinged, and then from ping to ping.
	pingEvery = 15 * time.Second
	// pingsLost is how many pings in a row may be without an answer.
	pingsLost = 4
)

// errSilent ends a WebSocket connection whose peer answers no pings.
var errSilent = errors.New("the peer answers no pings")

// pings asks a silent peer whether it is there.
type pings struct {
	framing *ws.Framing // nil: not asked
	timer   *dataplane.Timer
	heard   uint64
	sent    int
}

// startPings begins with the connection, on its shard.
func (c *Connection) startPings(f dataplane.Framing) {
	framing, ok := f.(*ws.Framing)
	if !ok {
		return
	}
	c.pings.framing = framing
	c.pings.timer = c.shard.Loop().After(pingEvery, c.ping)
}

func (c *Connection) ping() {
	p := &c.pings
	if c.closed || c.framed.Closed() {
		return
	}
	heard := c.framed.Received()
	switch {
	case heard != p.heard || c.framed.Paused() || !p.framing.Begun(): // a peer that is not read cannot be heard
		p.heard, p.sent = heard, 0
	case p.sent == pingsLost:
		c.t.router.Log().Info("connection to node lost", "peer", c.PeerText(), "err", errSilent)
		c.framed.Abort()
		return
	}
	if p.framing.Begun() {
		p.sent++
		c.framed.Write(p.framing.Ping())
	}
	p.timer = c.shard.Loop().After(pingEvery, c.ping)
}
