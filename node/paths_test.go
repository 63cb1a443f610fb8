package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/internal/freeport"
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

// freezer is a TCP proxy that stops to pass anything on, without a word.
type freezer struct {
	t      *testing.T
	ln     net.Listener
	to     string
	frozen atomic.Bool
	after  atomic.Int64 // bytes from the far side after which it freezes by itself; 0: never
	mu     sync.Mutex
	open   []net.Conn
}

func newFreezer(t *testing.T, to string) *freezer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{t: t, ln: ln, to: to}
	var copies sync.WaitGroup
	copies.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				near.Close()
				continue
			}
			f.mu.Lock()
			f.open = append(f.open, near, far)
			f.mu.Unlock()
			copies.Go(func() { f.pass(far, near, false) })
			copies.Go(func() { f.pass(near, far, true) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		f.mu.Lock()
		for _, c := range f.open {
			c.Close()
		}
		f.mu.Unlock()
		copies.Wait()
	})
	return f
}

func (f *freezer) pass(to, from net.Conn, back bool) {
	defer to.Close()
	var passed int64
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if f.frozen.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
		if limit := f.after.Load(); back && limit > 0 && passed+int64(n) >= limit {
			f.frozen.Store(true)
		}
		passed += int64(n)
	}
}

// route is the multiaddress of the proxy.
func (f *freezer) route() string {
	a := f.ln.Addr().String()
	return "/ip4/127.0.0.1/tcp/" + a[strings.LastIndex(a, ":")+1:]
}

// isUp reports whether a node's first inlet is up.
func isUp(n *Node) bool { return n.Inlets()[0].Status == "Up" }

// took logs how long something took that may take a time that a busy machine prolongs.
func took(t *testing.T, what string, ok func() bool) {
	t.Helper()
	began := time.Now()
	until(t, what, ok)
	t.Logf("%s: after %v", what, time.Since(began).Round(time.Millisecond))
}

// TestSilentPath: an inlet is up when the node behind it has answered, whatever the handshake said, and down when it stops to.
func TestSilentPath(t *testing.T) {
	bank, client := plainNode(t, "bank", "127.0.0.1:0"), plainNode(t, "client", "127.0.0.1:0")
	if _, err := bank.CreateOutlet(t.Context(), resource.Outlet{Name: "db", To: echoServer(t)}); err != nil {
		t.Fatal(err)
	}
	f := newFreezer(t, bank.Listening())
	f.after.Store(100) // the second message of the handshake is the last that comes
	if _, err := client.CreateInlet(t.Context(), resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: f.route() + "/secure/api/service/db", ConnectionWaitMS: 1500}); err != nil {
		t.Fatal(err)
	}
	until(t, "frozen", f.frozen.Load)
	until(t, "a channel", func() bool { return len(client.channels.List()) == 1 })
	for range 50 {
		if isUp(client) {
			t.Fatal("up over a path on which nothing has answered")
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.after.Store(0)
	f.frozen.Store(false)
	f.mu.Lock()
	for _, c := range f.open {
		c.Close()
	}
	f.open = nil
	f.mu.Unlock()
	took(t, "up when it answers", func() bool { return isUp(client) })
	passes(t, "works", client.Inlets()[0].Bind)
	f.frozen.Store(true)
	took(t, "down when it stops", func() bool { return !isUp(client) })
}

// TestComeback: inlets and outlets find each other again when the relay, or the outlet's node, has been away, and are told when either stops.
func TestComeback(t *testing.T) {
	keys := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := keys.Create(t.Context(), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bankKeys := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	bankSelf, err := bankKeys.Create(t.Context(), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	relay := plainNodeOf(t, "relay", "127.0.0.1:"+freeport.For(t), keys, self.Identifier())
	at, toRelay, target := relay.Listening(), tcpRoute(t, relay)+"/secure/api", echoServer(t)
	newBank := func() *Node {
		bank := plainNodeOf(t, "bank", "127.0.0.1:0", bankKeys, bankSelf.Identifier())
		if _, err := bank.CreateOutlet(t.Context(), resource.Outlet{Name: "db", To: target}); err != nil {
			t.Fatal(err)
		}
		if _, err := bank.CreateRelay(t.Context(), resource.Relay{Name: "bank", At: toRelay, NoConnectionWait: true}); err != nil {
			t.Fatal(err)
		}
		return bank
	}
	client := plainNode(t, "client", "127.0.0.1:0")
	if _, err := client.CreateInlet(t.Context(), resource.Inlet{
		Alias: "in", From: "127.0.0.1:0", To: toRelay + "/service/forward_to_bank/secure/api/service/db", NoConnectionWait: true,
	}); err != nil {
		t.Fatal(err)
	}
	in := client.Inlets()[0].Bind
	until(t, "told that nobody is there", func() bool { return relay.control.Stats.Waiting.Load() > 0 })
	if st := client.Inlets()[0]; st.Status == "Up" {
		t.Error("up without an outlet")
	}
	bank := newBank()
	took(t, "up when the outlet's node has come", func() bool { return isUp(client) })
	passes(t, "first", in)

	bank.Stop()
	took(t, "down when the outlet's node stops", func() bool { return !isUp(client) })
	bank = newBank()
	took(t, "up when the outlet's node is back", func() bool { return isUp(client) })
	passes(t, "second", in)

	relay.Stop()
	took(t, "down when the relay stops", func() bool { return !isUp(client) && bank.Relays()[0].ConnectionStatus != "Up" })
	time.Sleep(time.Second) // it is refused for a while
	relay = plainNodeOf(t, "relay", at, keys, self.Identifier())
	took(t, "up when the relay is back", func() bool { return isUp(client) && bank.Relays()[0].ConnectionStatus == "Up" })
	passes(t, "third", in)

	// A node that has gone without a word: its connections are cut, and it makes no others.
	bank.cut(t)
	took(t, "down when the outlet's node has gone without a word", func() bool { return !isUp(client) })
}

// cut ends a node's connections as if it had been killed.
func (n *Node) cut(t *testing.T) {
	t.Helper()
	n.cancel()
	for _, c := range n.tcp.Connections() {
		c.Close()
	}
}

// TestCheckName: a node finds out whether the relay still has its name, with the relay's help and, as through one of the reference, without.
func TestCheckName(t *testing.T) {
	relay, bank := plainNode(t, "relay", "127.0.0.1:0"), plainNode(t, "bank", "127.0.0.1:0")
	if _, err := bank.CreateRelay(t.Context(), resource.Relay{Name: "bank", At: tcpRoute(t, relay) + "/secure/api"}); err != nil {
		t.Fatal(err)
	}
	i, ok := bank.relays.Get("bank")
	if !ok {
		t.Fatal("no relay")
	}
	_, c, _ := i.Value.session.state()
	for _, known := range []controlKnown{hasControl, noControl} {
		c.control = known
		if err := bank.checkName(t.Context(), c, "bank"); err != nil {
			t.Errorf("there: %v", err)
		}
		if known == noControl {
			c.strays = 1
		}
		if err := bank.checkName(t.Context(), c, "lost"); !errors.Is(err, errNameLost) {
			t.Errorf("lost: %v", err)
		}
	}
}

// ask connects to a route and asks the node behind it.
func ask(t *testing.T, n *Node, route string, op control.Op, f control.Fields) (control.Message, error) {
	t.Helper()
	to, err := multiaddr.Parse(route)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
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
		m, _ := ask(t, client, toRelay, control.OpRelay, control.Fields{Name: "bank", Wait: time.Minute})
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
