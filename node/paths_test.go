package node

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/node/resource"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
)

// plainNode starts a node without an authority in this process, listening at address.
func plainNode(t *testing.T, name, address string) *Node {
	t.Helper()
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := ids.Create(t.Context(), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return plainNodeOf(t, name, address, ids, self.Identifier())
}

// plainNodeOf starts a node of an identity that is there.
func plainNodeOf(t *testing.T, name, address string, ids *identity.Manager, self identity.Identifier) *Node {
	t.Helper()
	n, err := Start(t.Context(), Options{
		Name: name, Self: self, Identities: ids, Store: forgetful{}, Listen: address, Shards: 2, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	return n
}

// tcpRoute is the multiaddress of a node's listener.
func tcpRoute(t *testing.T, n *Node) string {
	t.Helper()
	return "/ip4/127.0.0.1/tcp/" + n.Listening()[strings.LastIndex(n.Listening(), ":")+1:]
}

// ask connects to a route and asks the node behind it.
func ask(t *testing.T, n *Node, route string, op control.Op, f control.Fields) (control.Message, error) {
	t.Helper()
	to, err := multiaddr.Parse(route)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := n.connect(ctx, to, connectOptions{self: n.opts.Self})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	return n.askNode(ctx, c, op, f)
}

// TestAskNode asks a relay who is registered, and the node behind it whether its outlet is there.
func TestAskNode(t *testing.T) {
	relay, bank, client := plainNode(t, "relay", "127.0.0.1:0"), plainNode(t, "bank", "127.0.0.1:0"), plainNode(t, "client", "127.0.0.1:0")
	if _, err := bank.CreateOutlet(t.Context(), resource.Outlet{Name: "db", To: "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	toRelay := tcpRoute(t, relay) + "/secure/api"
	if m, err := ask(t, client, toRelay, control.OpRelay, control.Fields{Name: "bank"}); err != nil || m.Code != uint64(control.StatusAbsent) {
		t.Errorf("before: %+v, %v", m, err)
	}
	told := make(chan control.Message, 1)
	go func() {
		m, _ := ask(t, client, toRelay, control.OpRelay, control.Fields{Name: "bank", Wait: 9 * time.Second})
		told <- m
	}()
	until(t, "asked", func() bool { return relay.control.Stats.Waiting.Load() == 1 })
	rel, err := bank.CreateRelay(t.Context(), resource.Relay{Name: "bank", At: toRelay})
	if err != nil || rel.ConnectionStatus != "Up" {
		t.Fatalf("%+v, %v", rel, err)
	}
	if m := <-told; m.Code != uint64(control.StatusOK) || m.Registration == 0 || m.State != control.StateUp || m.Count != 1 {
		t.Errorf("told %+v", m)
	}
	through := toRelay + "/service/forward_to_bank/secure/api"
	for name, want := range map[string]control.Status{"db": control.StatusOK, "dbb": control.StatusAbsent, "echo": control.StatusOK} {
		if m, err := ask(t, client, through, control.OpOutlet, control.Fields{Name: name}); err != nil || m.Code != uint64(want) {
			t.Errorf("outlet %s: %+v, %v", name, m, err)
		}
	}
	if m, err := ask(t, client, toRelay, control.OpHeld, control.Fields{Name: "bank"}); err != nil || m.Code != uint64(control.StatusAbsent) {
		t.Errorf("another's name: %+v, %v", m, err)
	}
	// Without a channel nobody is answered.
	to, _ := multiaddr.Parse(tcpRoute(t, relay))
	c, err := client.connect(t.Context(), to, connectOptions{self: client.opts.Self})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if m, err := client.askNode(ctx, c, control.OpProbe, control.Fields{}); err == nil {
		t.Errorf("answered without a channel: %+v", m)
	}
}
