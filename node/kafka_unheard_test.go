//go:build !small

package node

import (
	"errors"
	"net"
	"strconv"
	"testing"
	"time"

	"sallyport/node/admin"
)

// TestUnheardBroker: a client of a broker that the outlet's node has not heard of is refused by it, and need not wait until nothing has answered.
func TestUnheardBroker(t *testing.T) {
	outlet, inlet := newMember(t), newMember(t)
	if _, err := outlet.kafkaOutlets().Create(within(t), admin.KafkaOutletRequest{Bootstrap: metadataServer(t), Allow: only(inlet)}); err != nil {
		t.Fatal(err)
	}
	in := inlet.kafkaInlet(admin.KafkaInletRequest{To: outlet.route() + "/secure/api", NoContentEncryption: true})
	eventually(t, func() error {
		_, _, err := metadata(in.request.From)
		return err
	})
	at, err := in.place(within(t), 9, in.bootstrap.portal.Bound().Addr())
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", net.JoinHostPort(at.Host, strconv.Itoa(int(at.Port))))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
	var late net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &late) && late.Timeout() {
		t.Errorf("a client of no broker: %v", err)
	}
	if refused := outlet.portals.Stats.Denied.Load(); refused != 1 {
		t.Errorf("%d connections were refused", refused)
	}
}
