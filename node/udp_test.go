package node

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/internal/await"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing/udp"
)

// forgetful is a Store that keeps nothing.
type forgetful struct{}

func (forgetful) Project(context.Context, string) (*Project, error) { return nil, admin.ErrNotFound }
func (forgetful) Identity(context.Context, string) (identity.Identifier, error) {
	return identity.Identifier{}, admin.ErrNotFound
}
func (forgetful) Credential(context.Context, identity.Identifier, identity.Identifier, string) ([]byte, error) {
	return nil, nil
}
func (forgetful) PutCredential(context.Context, identity.Identifier, identity.Identifier, string, []byte, time.Time) error {
	return nil
}
func (forgetful) PutExchangedKey(context.Context, ExchangedKey) error { return nil }
func (forgetful) ExchangedKey(context.Context, string) (*ExchangedKey, error) {
	return nil, nil
}
func (forgetful) Save([]resource.Stored) error     { return nil }
func (forgetful) Load() ([]resource.Stored, error) { return nil, nil }

// udpNode starts a node with UDP in this process.
func udpNode(t *testing.T, name, rendezvous string) *Node {
	t.Helper()
	return udpNodeAt(t, name, rendezvous, "127.0.0.1:0")
}

// udpNodeAt is udpNode at an address, over TCP and UDP.
func udpNodeAt(t *testing.T, name, rendezvous, at string) *Node {
	t.Helper()
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := ids.Create(t.Context(), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := Start(t.Context(), Options{
		Name: name, Self: self.Identifier(), Identities: ids, Store: forgetful{}, Listen: at, Shards: 2,
		UDP: UDPOptions{Listen: at, Rendezvous: rendezvous}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	return n
}

// passes sends bytes through an inlet and back.
func passes(t *testing.T, when, inlet string) {
	t.Helper()
	c, err := net.Dial("tcp", inlet)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(90 * time.Second))
	sent := bytes.Repeat([]byte(when), 5000)
	go func() {
		c.Write(sent)
		c.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%s: %d of %d bytes, %v", when, len(got), len(sent), err)
	}
}

var until = await.True

// TestDirectPath: clients go over the puncture while there is one, over the main path when it is lost, over the next puncture when that is
// there; and a puncture outlives the main path.
func TestDirectPath(t *testing.T) {
	r, err := StartRendezvous(t.Context(), "127.0.0.1:0", "", udp.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	server := echoServer(t)
	a, b := udpNode(t, "a", r.Address), udpNode(t, "b", r.Address)
	if _, err := b.CreateOutlet(t.Context(), admin.OutletRequest{To: server}); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(b.Listening())
	made, err := a.CreateInlet(t.Context(), admin.InletRequest{
		Alias: "in", From: "127.0.0.1:0", To: "/ip4/127.0.0.1/tcp/" + port + "/secure/api/service/outlet", UDP: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	entry, _ := a.inlets.Get("in")
	in := entry.Value
	direct := func() *connection {
		up, c, _ := in.direct.state()
		if !up {
			return nil
		}
		return c
	}
	until(t, "a puncture", func() bool { return direct() != nil })
	first := direct()
	if !first.puncture.Linked() {
		t.Error("two of ours do not know each other's link")
	}
	before := a.udp.Stats.MessagesOut.Load()
	passes(t, "over the puncture", made.Bind)
	if a.udp.Stats.MessagesOut.Load() < before+3 {
		t.Error("the client did not go over UDP")
	}
	first.puncture.Close()
	passes(t, "when the puncture is lost", made.Bind)
	until(t, "another puncture", func() bool { c := direct(); return c != nil && c != first })
	passes(t, "over the next puncture", made.Bind)

	second := direct()
	_, main, _ := in.session.state()
	main.tcp.Close()
	passes(t, "without the main path", made.Bind)
	until(t, "another main path", func() bool { up, c, _ := in.session.state(); return up && c != main })
	if direct() != second {
		t.Error("the puncture did not outlive the main path")
	}
	passes(t, "with both", made.Bind)
	if err := a.DeleteInlet(t.Context(), "in"); err != nil {
		t.Fatal(err)
	}
	until(t, "all sockets of punctures closed", func() bool { return len(a.udp.Binds()) == 1 })
	if _, err := a.CreateInlet(t.Context(), admin.InletRequest{From: "127.0.0.1:0", To: "/service/x", UDP: true}); err != nil {
		t.Errorf("an inlet to a worker of the same node: %v", err)
	}
}

// TestDirectPathIPv6: where the way leads over IPv6, so does the puncture, whether the relay's node tells the public addresses or a rendezvous server does; and
// nodes reach each other over UDP alone.
func TestDirectPathIPv6(t *testing.T) {
	if c, err := net.ListenPacket("udp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here: ", err)
	} else {
		c.Close()
	}
	r, err := StartRendezvous(t.Context(), "[::1]:0", "", udp.Options{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	if public, err := PublicAddress(t.Context(), r.Address, udp.Options{}, slog.New(slog.DiscardHandler)); err != nil || !strings.HasPrefix(public, "[::1]:") {
		t.Errorf("public address %q, %v", public, err)
	}
	for _, c := range []struct{ name, relayAt, rendezvous string }{
		{"told by the relay", "[::1]:0", ""}, {"told by the rendezvous server", "[::1]:0", r.Address},
	} {
		t.Run(c.name, func(t *testing.T) {
			relay := udpNodeAt(t, "relay", "", c.relayAt)
			if c.rendezvous != "" {
				relay = plainNode(t, "relay", c.relayAt)
			}
			a, b := udpNodeAt(t, "a", c.rendezvous, "[::1]:0"), udpNodeAt(t, "b", c.rendezvous, "[::1]:0")
			_, port, _ := net.SplitHostPort(relay.Listening())
			at := "/ip6/::1/tcp/" + port + "/secure/api"
			bind, in := punctured(t, a, b, at, echoServer(t))
			_, direct, _ := in.direct.state()
			if !direct.puncture.Linked() || !direct.puncture.Peer.Addr().Is6() {
				t.Errorf("linked %v, to %v", direct.puncture.Linked(), direct.puncture.Peer)
			}
			before := a.udp.Stats.MessagesOut.Load()
			passes(t, "over the puncture", bind)
			if a.udp.Stats.MessagesOut.Load() < before+3 {
				t.Error("the client did not go over UDP")
			}
			_, port, _ = net.SplitHostPort(b.ListeningUDP())
			made, err := a.CreateInlet(t.Context(), admin.InletRequest{
				Alias: "udp", From: "127.0.0.1:0", To: "/ip6/::1/udp/" + port + "/secure/api/service/outlet",
			})
			if err != nil {
				t.Fatal(err)
			}
			passes(t, "over UDP alone", made.Bind)
		})
	}
}

// punctured makes an outlet of b for a target, with a relay at a node's address, and an inlet of a that has reached it over UDP. bind is where the inlet
// listens.
func punctured(t *testing.T, a, b *Node, at, target string) (bind string, in *inlet) {
	t.Helper()
	if _, err := b.CreateOutlet(t.Context(), admin.OutletRequest{To: target}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateRelay(t.Context(), resource.Relay{Name: "b", At: at}); err != nil {
		t.Fatal(err)
	}
	made, err := a.CreateInlet(t.Context(), admin.InletRequest{
		Alias: "in", From: "127.0.0.1:0", To: at + "/service/forward_to_b/secure/api/service/outlet", UDP: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	entry, _ := a.inlets.Get("in")
	until(t, "a puncture", func() bool { up, _, _ := entry.Value.direct.state(); return up })
	return made.Bind, entry.Value
}
