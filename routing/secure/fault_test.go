package secure

import (
	"sync/atomic"
	"testing"

	"sallyport/crypto/identity"
)

// TestFaultInHandshake: a fault in checking one peer fails that peer's handshake; the next one succeeds, and so the node is still there.
func TestFaultInHandshake(t *testing.T) {
	var asked atomic.Int64
	b := newNode(t, 1, func(o *Options) {
		o.Trust = func(identity.Identifier) error {
			if asked.Add(1) == 1 {
				panic("as asked")
			}
			return nil
		}
	})
	a := newNode(t, 1, nil)
	c := a.connect(t, b)
	a.unanswered(t, a.dial(t, c.Sender, "api")) // the initiator has finished when it has sent what the fault comes from
	eventually(t, "it has come", func() bool { return asked.Load() == 1 })
	ch := a.dial(t, c.Sender, "api")
	a.through(t, ch, []byte("abc"))
	eventually(t, "no handshake is under way", func() bool { return b.channels.UnderWay() == 0 })
}
