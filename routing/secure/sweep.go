package secure

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"

	"sallyport/dataplane"
	"sallyport/internal/cborhead"
	"sallyport/routing"
	"sallyport/routing/fair"
)

// admit takes a place for a channel that somebody opened here. When all are taken, the oldest channel of the source that holds most ends;
// of a peer that has as many as it may the new one does.
func (cs *Channels) admit(c *Channel, from fair.Source) {
	cs.mu.Lock()
	p := cs.peers[c.Peer.ID]
	p.open, p.latest = p.open+1, c.OpenedAt
	cs.peers[c.Peer.ID] = p
	tooMany := p.open > cs.perPeer
	cs.mu.Unlock()
	place, oldest, evicted := cs.opened.Take(from, c)
	c.place = place
	if tooMany {
		cs.Stats.TooMany.Add(1)
		cs.note("secure channel closed: its peer has too many", cs.perPeer, from)
		c.Close()
	}
	if evicted {
		cs.Stats.Evicted.Add(1)
		cs.note("secure channel closed to make room for others", cs.opened.Max(), from)
		oldest.Close()
	}
}

// dismiss undoes admit.
func (cs *Channels) dismiss(c *Channel) {
	cs.opened.Leave(c.place)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	p := cs.peers[c.Peer.ID]
	if p.open--; p.open == 0 {
		delete(cs.peers, c.Peer.ID)
	} else {
		cs.peers[c.Peer.ID] = p
	}
}

// sweep ends channels that nobody can use any more: those whose way out has been gone for a while, and those whose peer
// has fallen silent.
func (cs *Channels) sweep() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-cs.stop:
			return
		case <-tick.C:
		}
		now, byShard := time.Now(), map[*routing.Shard][]*Channel{}
		for _, c := range cs.List() {
			if now.Sub(c.Heard()) >= unquiet { // of the others nothing is to be found, and most that are only there are of them
				byShard[c.shard] = append(byShard[c.shard], c)
			}
		}
		for s, list := range byShard {
			s.Loop().Post(dataplane.TaskFunc(func() {
				for _, c := range list {
					c.check()
				}
			}))
		}
	}
}

const (
	sweepInterval = time.Second
	// lostSweeps is how many sweeps a responder whose way out is gone waits for its initiator to come by another way.
	lostSweeps = 10
	// pingEvery is how often a peer that watches the channel says something, about.
	pingEvery = 1200 * time.Millisecond
	// unquiet is how long a channel is not looked at after something was heard.
	unquiet = pingEvery + pingEvery/4
	// quietPeer is after how much silence of a peer that pinged those who can find another way begin to look for one.
	quietPeer = 3 * time.Second
	// silence is how long a peer that pinged may be silent: more than four of the reference's pings.
	silence = 45 * time.Second
	// A peer that does not ping, and to which another node leads that does not say when it has gone, is asked when it has been silent for
	// probeAfter, every probeEvery, and is gone after unanswered.
	probeAfter = 20 * time.Second
	probeEvery = 10 * time.Second
	unanswered = 55 * time.Second
)

var errSilent = errors.New("peer is silent")

func (c *Channel) check() {
	if c.closed {
		return
	}
	quiet := time.Since(c.Heard())
	if c.Peer.Pinged && quiet > quietPeer { // whether or not there is a way to it
		c.watchers.TellSilent(c.Heard().Add(pingEvery))
	}
	if c.shard.FirstTerminal(c.remote) == nil && c.remote.Len() > 1 {
		if heard := c.heard.Load(); heard != c.lostAt { // it was heard since: the peer had found a way
			c.lost, c.lostAt = 0, heard
		}
		c.lost++
		if c.Initiator || c.lost > lostSweeps {
			c.end(false)
		}
		return
	}
	c.lost = 0
	switch behind := c.remote.Len() > 2; {
	case c.Peer.Pinged && quiet > silence, !c.Initiator && behind && quiet > unanswered:
		c.cs.log.Info("secure channel closed", "reason", errSilent.Error(), describe(c.Peer.ID))
		c.cs.Stats.Silent.Add(1)
		c.end(true)
	case !c.Peer.Pinged && behind && quiet > probeAfter && time.Since(c.probed) > probeEvery:
		c.probe()
	}
}

// probe asks the peer's echo service for an answer, as sessions do (docs/protocol/03 §2.3): every node has it, and the reference's too
// answer through channels that they opened. What comes back is not looked at: that it came is what counts.
func (c *Channel) probe() {
	s := c.shard
	c.probed = time.Now()
	if c.pong == nil {
		pong := s.Start(routing.WorkerFunc(func(*routing.Shard, *routing.Message) {}), c.Flow)
		c.pong = &pong
	}
	var number [8]byte
	_, _ = rand.Read(number[:])
	m := s.NewMessage()
	m.Onward, m.Return = routing.RouteOf(c.Encryptor).Concat(routing.LocalRoute(routing.EchoService)), routing.RouteOf(*c.pong)
	m.SetPayloadBytes(cborhead.Append(nil, cborhead.Uint, binary.BigEndian.Uint64(number[:])))
	s.Deliver(m)
	s.Free(m)
}
