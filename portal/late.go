package portal

import (
	"sallyport/dataplane"
	"sallyport/routing"
)

// late takes the place of an inlet's connection that ended before the outlet had answered: the answer is the first that tells where to
// say so. Without it the outlet would keep its target open for nobody.
type late struct {
	self    routing.WireAddress
	peer    [32]byte
	hasPeer bool
	reason  Reason
	timer   *dataplane.Timer
}

// leaveLate puts a late in c's place, for as long as the outlet may take to answer.
func (c *conn) leaveLate(r Reason) {
	l := &late{self: c.self, peer: c.peer, hasPeer: c.hasPeer, reason: r}
	s := c.shard
	s.StartAs(c.self, l, s.Consumes(c.self.Text())...)
	l.timer = s.Loop().After(c.env.Limits.OpenTimeout, func() { s.Stop(l.self) })
}

// HandleMessage answers a Pong with a Disconnect; any other answer is an end already.
func (l *late) HandleMessage(s *routing.Shard, m *routing.Message) {
	if (m.Peer != nil) != l.hasPeer || (l.hasPeer && m.Peer.ID != l.peer) {
		return
	}
	l.timer.Stop()
	s.Stop(l.self)
	if msg, err := parse(m.Payload()); err == nil && msg.kind == kindPong && m.Return.Len() > 0 {
		m.SetPayloadBytes([]byte{kindDisconnect, byte(l.reason)})
		m.Reply(s, l.self)
	}
}
