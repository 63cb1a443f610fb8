package secure

import (
	"testing"

	"sallyport/crypto/identity"
)

// TestFaultInHandshake: a fault in checking one peer fails that peer's handshake; the next one succeeds, and so the node is still there.
func TestFaultInHandshake(t *testing.T) {
	faults := 1
	b := newNode(t, 1, func(o *Options) {
		o.Trust = func(identity.Identifier) error {
			if faults--; faults >= 0 {
				panic("as asked")
			}
			return nil
		}
	})
	a := newNode(t, 1, nil)
	c := a.connect(t, b)
	a.unanswered(t, a.dial(t, c.Sender, "api")) // the initiator has finished when it has sent what the fault comes from
	ch := a.dial(t, c.Sender, "api")
	a.through(t, ch, []byte("abc"))
	eventually(t, "no handshake is under way", func() bool { return b.channels.UnderWay() == 0 })
}
