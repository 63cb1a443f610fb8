package routing

import (
	"crypto/rand"
	"encoding/hex"
	"sync/atomic"
)

// Flow identifies what a producer may reach (docs/protocol/01 §5.5). Flows are compared by pointer.
type Flow struct {
	id    string
	ended atomic.Bool // nothing is brought in under it any more
}

// NewFlow makes a flow with a random id.
func NewFlow() *Flow { return &Flow{id: randomHex()} }

// ID returns the flow's id, 32 hex characters; empty for nil.
func (f *Flow) ID() string {
	if f == nil {
		return ""
	}
	return f.id
}

// End says that nothing is brought in under f any more: workers forget it in time. It is for the flow of a connection or a channel that
// has ended. What a listener accepted outlives the listener, so its flow does not end. Any goroutine.
func (f *Flow) End() { f.ended.Store(true) }

// Producer is a worker that brings messages from outside the node: they reach only consumers of its own flow or of the flow of
// the listener that made it.
type Producer struct {
	Own     *Flow
	Spawner *Flow // nil if the connection or channel was begun by this node
}

// mayReach reports whether p may reach a worker that consumes flows. begun is the flow of all that this node began.
func (p *Producer) mayReach(flows []*Flow, begun *Flow) bool {
	spawner := p.Spawner
	if spawner == nil {
		spawner = begun
	}
	for _, f := range flows {
		if f == p.Own || f == spawner {
			return true
		}
	}
	return false
}

// randomHex returns 16 random bytes as 32 lower-case hex characters, the form of a random address.
func randomHex() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// fillRandom fills b with random bytes.
func fillRandom(b []byte) { _, _ = rand.Read(b) }

// ownerText is an identifier as text, or "none".
func ownerText(id *[32]byte) string {
	if id == nil {
		return "none"
	}
	return "I" + hex.EncodeToString(id[:])
}
