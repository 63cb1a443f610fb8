package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/udp"
)

// TestRendezvousServer tells who asks where it comes from, and is well while it does.
func TestRendezvousServer(t *testing.T) {
	ctx := within(t)
	log := slog.New(slog.DiscardHandler)
	r, err := StartRendezvous(ctx, "127.0.0.1:0", "127.0.0.1:0", udp.Options{}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	health := func() (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Health, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	if code, text := health(); code != 200 || text != "Alive\n" {
		t.Errorf("%d %q", code, text)
	}
	public, err := PublicAddress(ctx, r.Address, udp.Options{}, log)
	if at, parseErr := netip.ParseAddrPort(public); err != nil || parseErr != nil || at.Addr() != loopback || at.Port() == 0 {
		t.Errorf("%s, %v", public, err)
	}
	r.loops.Stop()
	if code, text := health(); code != 503 || !strings.Contains(text, "does not answer") {
		t.Errorf("when the service has ended: %d %q", code, text)
	}

	everywhere, err := StartRendezvous(ctx, "0.0.0.0:0", "127.0.0.1:0", udp.Options{}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(everywhere.Stop)
	if r = everywhere; r.server.Addr() != loopback || r.server.Port() == 0 {
		t.Errorf("it asks itself at %s", r.server)
	}
	if code, _ := health(); code != 200 {
		t.Errorf("on all addresses: %d", code)
	}
	without, err := StartRendezvous(ctx, "127.0.0.1:0", "", udp.Options{}, log)
	if err != nil || without.Health != "" || without.probe != nil {
		t.Errorf("without a health check: %+v, %v", without, err)
	}
	t.Cleanup(without.Stop)
	for name, at := range map[string][2]string{"no address": {"nonsense", ""}, "taken": {without.Address, ""}, "health taken": {"127.0.0.1:0", everywhere.Health}} {
		if other, err := StartRendezvous(ctx, at[0], at[1], udp.Options{}, log); err == nil {
			other.Stop()
			t.Errorf("%s: started", name)
		}
	}
	if _, err := PublicAddress(ctx, "nonsense", udp.Options{}, log); err == nil {
		t.Error("no server")
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if a, err := PublicAddress(short, "127.0.0.1:9", udp.Options{}, log); err == nil {
		t.Errorf("told by nobody: %s", a)
	}
}

// TestNodeOverUDP: a node's socket is listed and is the one of before, answers channels that come over it, and is nobody's without --udp.
func TestNodeOverUDP(t *testing.T) {
	ctx := within(t)
	n := udpNode(t, "n", "")
	at := n.ListeningUDP()
	list := n.udpTransports()
	if len(list) != 1 || list[0].Type != "Udp" || list[0].Mode != "Listen" || list[0].Socket != at || !strings.HasPrefix(list[0].Worker, "0#") || !strings.HasPrefix(list[0].Processor, "0#") || list[0].Flow == "" {
		t.Errorf("%+v", list)
	}
	found := false
	for _, tr := range n.Describe().Transports {
		found = found || tr.Type == "Udp"
	}
	if !found {
		t.Error("it is not said of the node")
	}
	if len(n.listenerFlows()) != 2 || len(n.channelFlows()) != 3 {
		t.Errorf("%d and %d flows", len(n.listenerFlows()), len(n.channelFlows()))
	}
	if _, err := n.rendezvous(ctx); !errors.Is(err, ErrNoRendezvous) {
		t.Error(err)
	}
	n.opts.UDP.Rendezvous = "nonsense"
	if _, err := n.rendezvous(ctx); err == nil || !strings.Contains(err.Error(), EnvRendezvous) {
		t.Error(err)
	}
	n.opts.UDP.Rendezvous = "127.0.0.1:5"
	if a, err := n.rendezvous(ctx); err != nil || len(a) != 1 || a[0].String() != "127.0.0.1:5" {
		t.Errorf("%v, %v", a, err)
	}
	without := newMember(t)
	if without.ListeningUDP() != "" || without.udpTransports() != nil || len(without.listenerFlows()) != 1 || len(without.channelFlows()) != 1 {
		t.Error("a node without UDP has some")
	}
	to := "/ip4/127.0.0.1/udp/" + portOf(at)
	reply, err := without.SendMessage(ctx, admin.MessageRequest{To: to + "/secure/api/service/uppercase", Payload: text("a"), TimeoutMS: 20_000})
	if err != nil || string(reply.Payload) != string(text("A")) {
		t.Errorf("over UDP: %q, %v", reply.Payload, err)
	}
	if reply, err := without.SendMessage(ctx, admin.MessageRequest{To: "/dnsaddr/localhost/udp/" + portOf(at) + "/secure/api/service/uppercase", Payload: text("a"), TimeoutMS: 20_000}); err != nil {
		t.Errorf("by a name: %q, %v", reply.Payload, err)
	}
	for name, route := range map[string]string{"no port": "/ip4/127.0.0.1/udp/0/service/x", "two": to + to + "/service/x", "over TCP too": without.route() + to + "/service/x"} {
		addr, err := multiaddr.Parse(route)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c, err := without.connect(ctx, addr, connectOptions{self: without.self}); err == nil {
			c.close()
			t.Errorf("%s: connected", name)
		}
	}
	settles(t, "sockets are closed", func() bool { return len(without.udp.Binds()) == 0 && len(without.TCPConnections()) == 0 })

	c, err := without.connect(ctx, mustRoute(t, to+"/service/uppercase"), connectOptions{self: without.self})
	if err != nil {
		t.Fatal(err)
	}
	if c.pingRoute().String() != c.route.WithoutLast().String() {
		t.Errorf("pinged at %s", c.pingRoute())
	}
	whole := c.route
	c.route = whole.WithoutLast()
	if c.pingRoute().Len() != 1 {
		t.Error("the socket itself is not the way out")
	}
	c.route = whole
	select {
	case <-c.done():
		t.Error("done while it is open")
	default:
	}
	c.close()
	select {
	case <-c.done():
	case <-ctx.Done():
		t.Error("closed and not done")
	}

	// The port of before, unless somebody has it by now.
	ids, self := newIdentities(t)
	start := func(listen, before string) *Node {
		t.Helper()
		n, err := Start(ctx, Options{Name: "n", Self: self, Identities: ids, Store: forgetful{}, Listen: "127.0.0.1:0", Shards: 1, Log: testLog, UDP: UDPOptions{Listen: listen, ListenBefore: before}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Stop)
		return n
	}
	first := start("127.0.0.1:0", "")
	before := first.ListeningUDP()
	if second := start("127.0.0.1:0", before); second.ListeningUDP() == before {
		t.Error("two at one address")
	}
	first.Stop()
	if third := start("127.0.0.1:0", before); third.ListeningUDP() != before {
		t.Errorf("at %s, not at %s", third.ListeningUDP(), before)
	}
	if _, err := Start(ctx, Options{Name: "n", Self: self, Identities: ids, Store: forgetful{}, Listen: "127.0.0.1:0", Shards: 1, Log: testLog, UDP: UDPOptions{Listen: "nonsense"}}); err == nil {
		t.Error("at no address")
	}
}

// TestListenAgain: the address of before is taken where the port is left open and the host is the same, and another one when it cannot be.
func TestListenAgain(t *testing.T) {
	for _, c := range []struct {
		at, before string
		taken      bool
		want       string
	}{
		{"a:0", "", false, "a:0"}, {"a:0", "a:5", false, "a:5"}, {"a:0", "a:5", true, "a:0"}, {"a:7", "a:5", false, "a:7"}, {"a:0", "b:5", false, "a:0"},
	} {
		var tried []string
		got, err := listenAgain(t.Context(), c.at, c.before, testLog, func(_ context.Context, at string) (string, error) {
			tried = append(tried, at)
			if c.taken && at == c.before {
				return "", errors.New("taken")
			}
			return at, nil
		})
		if got != c.want || err != nil || len(tried) != 1+map[bool]int{true: 1}[c.taken] {
			t.Errorf("%+v: %s, %v, tried %v", c, got, err, tried)
		}
	}
}

// TestPuncturesAreForMembers: with an authority a puncture is begun with whom a credential vouches for.
func TestPuncturesAreForMembers(t *testing.T) {
	p := newProject(t, time.Hour)
	m := p.join(authority.Attributes{}, "p")
	n, err := Start(within(t), Options{
		Name: "n", Self: m.self, Identities: m.ids, Store: forgetful{}, Listen: "127.0.0.1:0", Shards: 1, Log: testLog, UDP: UDPOptions{Listen: "127.0.0.1:0"},
		Trust: Trust{Authority: &p.self},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	n.access.learn(credential(numbered(5), p.self, time.Hour, identity.Attributes{"a": "b"}))
	n.access.learn(credential(numbered(6), numbered(1), time.Hour, identity.Attributes{"a": "b"}))
	for peer, want := range map[*routing.Peer]bool{nil: false, {ID: [32]byte(numbered(5))}: true, {ID: [32]byte(numbered(6))}: false, {ID: [32]byte(numbered(7))}: false} {
		if got := n.negotiation.Allow(&routing.Message{Peer: peer}); got != want {
			t.Errorf("%+v: %v", peer, got)
		}
	}
	if open := udpNode(t, "open", ""); open.negotiation.Allow != nil {
		t.Error("without an authority somebody is refused")
	}
}

// away is a vault whose keys cannot be reached while it is told so.
type awayVault struct {
	vault.Vault
	err error
}

func (v *awayVault) Sign(ctx context.Context, h vault.Handle, digest []byte) (vault.Signature, error) {
	if v.err != nil {
		return vault.Signature{}, v.err
	}
	return v.Vault.Sign(ctx, h, digest)
}

// TestKeysAreRenewed: when they are due, of every identity of the node; that it fails is told once, counted each time, and shown with the time that is left.
func TestKeysAreRenewed(t *testing.T) {
	ctx := within(t)
	now := time.Now()
	make := func() (*awayVault, *identity.Manager, identity.Identifier) {
		v := &awayVault{Vault: vault.NewMemory()}
		ids := identity.New(identity.Options{Vault: v, Store: identity.NewMemoryStore(), Now: func() time.Time { return now }})
		i, err := ids.Create(ctx, identity.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return v, ids, i.Identifier()
	}
	home, ids, self := make()
	n, err := Start(ctx, Options{Name: "n", Self: self, Identities: ids, Store: forgetful{}, Listen: "127.0.0.1:0", Shards: 1, Log: testLog, KeysHome: "vault hsm"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	if n.keys() != nil {
		t.Error("keys that nobody has made")
	}
	if n.renewKeys(ctx, false) {
		t.Error("nothing was due, and it failed")
	}
	if _, err := ids.SecureChannelKey(ctx, self); err != nil {
		t.Fatal(err)
	}
	k := n.keys()
	if k == nil || k.Home != "vault hsm" || k.MadeAt != now.Unix() || k.RenewAt <= k.MadeAt || k.ValidUntil <= k.RenewAt || k.Reason != "" || k.Since != 0 {
		t.Errorf("%+v", k)
	}
	if d := n.Describe(); d.Keys == nil || *d.Keys != *k {
		t.Errorf("described as %+v", d.Keys)
	}
	home.err = errors.New("unplugged")
	if n.renewKeys(ctx, false) || n.counters.keysFailed.Load() != 0 {
		t.Error("it failed before it was due")
	}
	now = now.Add(identity.AttestationTTL - time.Hour)
	for i := range 2 {
		if !n.renewKeys(ctx, i > 0) || n.counters.keysFailed.Load() != uint64(i+1) {
			t.Errorf("%d failures", n.counters.keysFailed.Load())
		}
	}
	if k := n.keys(); k.Reason == "" || k.Since != now.Unix() {
		t.Errorf("%+v", k)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if n.renewKeys(ended, true); n.counters.keysFailed.Load() != 2 {
		t.Error("a node that ends counts what it did not do")
	}
	home.err = nil
	if n.renewKeys(ctx, true) || n.keys().Reason != "" {
		t.Errorf("it works again: %+v", n.keys())
	}
	other, otherIDs, otherSelf := make()
	if _, err := otherIDs.SecureChannelKey(ctx, otherSelf); err != nil {
		t.Fatal(err)
	}
	n.others.Store(otherSelf, otherIDs)
	now = now.Add(identity.AttestationTTL - time.Hour)
	other.err = errors.New("locked")
	if !n.renewKeys(ctx, false) {
		t.Error("another identity's key is not renewed")
	}
}

// TestApplyLogLevel: a configuration that was applied changes the log's level; one that has faults, or was only checked, does not.
func TestApplyLogLevel(t *testing.T) {
	ctx := within(t)
	m := newMember(t)
	var level slog.LevelVar
	good := stored(t, resource.KindHop, "hop", resource.Hop{Address: "hop"})
	if _, err := m.Apply(ctx, admin.ApplyRequest{Resources: []resource.Stored{good}, LogLevel: "error"}); err != nil {
		t.Errorf("a node whose level cannot be changed: %v", err)
	}
	m.opts.LogLevel = &level
	for name, c := range map[string]struct {
		r    admin.ApplyRequest
		want slog.Level
	}{
		"applied":  {admin.ApplyRequest{Resources: []resource.Stored{good}, LogLevel: "error"}, slog.LevelError},
		"checked":  {admin.ApplyRequest{Resources: []resource.Stored{good}, LogLevel: "error", Check: true}, slog.LevelInfo},
		"no level": {admin.ApplyRequest{Resources: []resource.Stored{good}}, slog.LevelInfo},
		"faulty":   {admin.ApplyRequest{Resources: []resource.Stored{{Kind: "carrot", Name: "x"}}, LogLevel: "error"}, slog.LevelInfo},
		"unknown":  {admin.ApplyRequest{Resources: []resource.Stored{good}, LogLevel: "loud"}, slog.LevelInfo},
	} {
		level.Set(slog.LevelInfo)
		a, err := m.Apply(ctx, c.r)
		if level.Level() != c.want {
			t.Errorf("%s: level %v, %+v, %v", name, level.Level(), a, err)
		}
	}
}

// TestUpgradeIsAnswered before the program is replaced: as a whole, with its length.
func TestUpgradeIsAnswered(t *testing.T) {
	m := newMember(t)
	c, _ := administered(t, m.Node)
	ctx := within(t)
	if _, err := admin.Post[admin.Upgrade](ctx, c, admin.PathUpgrade, admin.UpgradeRequest{}); statusOf(err) != http.StatusBadRequest {
		t.Errorf("a node that cannot: %v", err)
	}
	m.opts.Upgrade = UpgradeOptions{Version: "1", Command: func(program string, _ int) []string { return []string{program} }, Leaving: func() func() { t.Error("executed"); return func() {} }}
	program := answering(t, `{"version":"2","format":1}`)
	m.opts.Upgrade.Program = program
	// It is made unfit between the answer and the replacement, which fails then.
	m.opts.Upgrade.Secrets = func() map[string][]byte {
		if u, err := m.LastUpgrade(); err == nil && u.State == admin.UpgradeChecked {
			_ = writeOther(program)
		}
		return nil
	}
	u, err := admin.Post[admin.Upgrade](ctx, c, admin.PathUpgrade, admin.UpgradeRequest{Drain: "0s"})
	if err != nil || u.State != admin.UpgradeChecked || u.To != "2" || u.Program != program {
		t.Errorf("%+v, %v", u, err)
	}
	settles(t, "it goes on", func() bool { u, err := m.LastUpgrade(); return err == nil && u.State == admin.UpgradeFailed })
	if u, err := admin.Get[admin.Upgrade](ctx, c, admin.PathUpgrade); err != nil || u.State != admin.UpgradeFailed || u.Error == "" {
		t.Errorf("%+v, %v", u, err)
	}
}

// writeOther makes a program another one.
func writeOther(path string) error { return os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o700) }
