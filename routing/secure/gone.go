package secure

import (
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// goneAfter is how long a peer may take to come back whose machine has closed what the channel ran on, without a word of the peer: a process that has ended
// does that, and a firewall that cuts connections.
const goneAfter = 1200 * time.Millisecond

// severed is called when what a responder's channel ran on has ended: a peer that does not come back has gone.
func (c *Channel) severed(way routing.Terminal) {
	if s, ok := way.(routing.Severed); !ok || !s.Severed() {
		return
	}
	since := time.Now()
	c.shard.Loop().After(c.cs.goneAfter, func() {
		if !c.closed && c.way == nil && !c.cs.openedSince(c.Peer.ID, since) {
			c.gone()
		}
	})
}

// openedSince reports whether a peer has opened a channel since then.
func (cs *Channels) openedSince(peer [32]byte, since time.Time) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.peers[peer].latest.After(since)
}

// gone tells who asked that the peer's process has ended, and ends the channel.
func (c *Channel) gone() {
	c.cs.log.Info("secure channel closed", "reason", "the process of the peer has ended", describe(c.Peer.ID))
	c.watchers.TellGone()
	c.goneMu.Lock()
	list := c.awaits
	c.awaits, c.isGone = nil, true
	c.goneMu.Unlock()
	for _, tell := range list {
		tell()
	}
	c.end(false)
}

// PeerGone ends the channel: somebody between has said that the peer's process has ended. Any goroutine.
func (c *Channel) PeerGone() {
	c.shard.Loop().Post(dataplane.TaskFunc(func() {
		if !c.closed {
			c.gone()
		}
	}))
}

// AwaitGone calls tell once, when it is known that the peer's process has ended. What it returns undoes it. tell may be called on any goroutine and must not
// block. Any goroutine.
func (c *Channel) AwaitGone(tell func()) (cancel func()) {
	c.goneMu.Lock()
	defer c.goneMu.Unlock()
	if c.isGone {
		tell()
		return func() {}
	}
	c.awaited++
	number := c.awaited
	if c.awaits == nil {
		c.awaits = map[uint64]func(){}
	}
	c.awaits[number] = tell
	return func() {
		c.goneMu.Lock()
		delete(c.awaits, number)
		c.goneMu.Unlock()
	}
}
