//go:build !small

package node

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing"
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
	closedAtOnce(t, "a client of no broker", net.JoinHostPort(at.Host, strconv.Itoa(int(at.Port))))
	if refused := outlet.portals.Stats.Denied.Load(); refused != 1 {
		t.Errorf("%d connections were refused", refused)
	}
}

// TestKafkaBehindABareRelay: the parts of an inlet to Kafka, and a relay, ask the node that their route leads to, not the one before: where a relay says that nobody is
// there, the inlet is down.
func TestKafkaBehindABareRelay(t *testing.T) {
	relay, client := newMember(t), newMember(t)
	c, err := client.tcp.Connect(within(t), relay.Listening())
	if err != nil {
		t.Fatal(err)
	}
	at := "/worker/" + c.Sender.Text()
	in := client.kafkaInlet(admin.KafkaInletRequest{To: at + "/service/forward_to_nobody", NoContentEncryption: true})
	eventually(t, func() error {
		if s := in.bootstrap.status(); s.State != resource.Down || !strings.Contains(s.Reason, routing.NoticeAbsent.String()) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if _, err := client.CreateRelay(within(t), resource.Relay{Name: "client", At: at}); err != nil {
		t.Fatal(err)
	}
	i, _ := client.relays.Get("client")
	if up, path, err := i.Value.session.state(); !up || !path.pingRoute().Equal(path.route) {
		t.Errorf("up %v, %v", up, err)
	}
}
