package node

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/udp"
)

// TestPublicAddressByRelay: nodes learn their public addresses from a relay's node through its channel. A rendezvous server, whose answers could be
// forged, is not even asked.
func TestPublicAddressByRelay(t *testing.T) {
	forger, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { forger.Close() })
	asked := make(chan struct{}, 1)
	go func() {
		if _, _, err := forger.ReadFrom(make([]byte, 2048)); err == nil {
			asked <- struct{}{}
		}
	}()
	server := echoServer(t)
	relay := udpNode(t, "relay", "")
	a, b := udpNode(t, "a", forger.LocalAddr().String()), udpNode(t, "b", forger.LocalAddr().String())
	at := "/ip4/127.0.0.1/tcp/" + netip.MustParseAddrPort(relay.Listening()).String()[len("127.0.0.1:"):] + "/secure/api"
	bind, _ := punctured(t, a, b, at, server)
	before := a.udp.Stats.MessagesOut.Load()
	passes(t, "over the puncture", bind)
	if a.udp.Stats.MessagesOut.Load() < before+3 {
		t.Error("the client did not go over UDP")
	}
	select {
	case <-asked:
		t.Error("the rendezvous server was asked")
	default:
	}
	relay.seers.mu.Lock()
	defer relay.seers.mu.Unlock()
	if n := len(relay.seers.calls); n != 0 {
		t.Errorf("%d requests are kept after their answers", n)
	}
}

// TestSeenByToken: a node tells the address of the datagram with the token that was named through the channel, and of no other.
func TestSeenByToken(t *testing.T) {
	relay, a := udpNode(t, "relay", ""), udpNode(t, "a", "")
	at := "/ip4/127.0.0.1/tcp/" + netip.MustParseAddrPort(relay.Listening()).String()[len("127.0.0.1:"):] + "/secure/api"
	if _, err := a.CreateRelay(t.Context(), resource.Relay{Name: "a", At: at}); err != nil {
		t.Fatal(err)
	}
	ways := a.relayWays()
	if len(ways) != 1 {
		t.Fatalf("%d ways", len(ways))
	}
	route := routing.RouteOf(ways[0].channels[0].Encryptor)
	ask := func(f control.Fields) control.Message {
		t.Helper()
		m, err := control.Ask(within(t), a.router, route, control.OpSeen, f)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	socket := netip.MustParseAddrPort(relay.ListeningUDP())
	if m := ask(control.Fields{}); m.Name != socket.String() {
		t.Fatalf("the socket is said to be %s, it is %s", m.Name, socket)
	}
	for name, f := range map[string]control.Fields{
		"a short token": {Data: make([]byte, udp.TokenSize-1), Wait: time.Second}, "a long one": {Data: make([]byte, udp.TokenSize+1), Wait: time.Second},
		"no time": {Data: make([]byte, udp.TokenSize)}, "much time": {Data: make([]byte, udp.TokenSize), Wait: seenMost + time.Millisecond},
	} {
		if m := ask(f); control.Status(m.Code) != control.StatusMalformed {
			t.Errorf("%s: %v", name, control.Status(m.Code))
		}
	}
	show := func(ctx context.Context, token [udp.TokenSize]byte) *udp.Bind {
		b, err := a.udp.Bind(within(t), a.router.Shards()[0], netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{})
		if err != nil {
			t.Fatal(err)
		}
		go b.Show(ctx, socket, token)
		return b
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ours, others := [udp.TokenSize]byte{1}, [udp.TokenSize]byte{2}
	show(ctx, others)
	if m := ask(control.Fields{Data: ours[:], Wait: 400 * time.Millisecond}); m.Err() != nil || m.Name != "" {
		t.Errorf("without a datagram: %v, %q", m.Err(), m.Name)
	}
	b := show(ctx, ours)
	if m := ask(control.Fields{Data: ours[:], Wait: seenMost}); m.Err() != nil || m.Name != b.Local.String() {
		t.Errorf("%v, %q, it comes from %v", m.Err(), m.Name, b.Local)
	}
}
