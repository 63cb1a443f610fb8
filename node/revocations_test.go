package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/internal/freeport"
	"sallyport/internal/logtext"
	"sallyport/internal/servers"
	"sallyport/node/admin"
	"sallyport/routing/multiaddr"
	"sallyport/routing/rpc"
	"sallyport/state"
)

// project is an authority's node, with an administrator that is not on the network.
type testProject struct {
	t     *testing.T
	path  string
	ids   *identity.Manager
	self  identity.Identifier
	admin identity.Identifier
	auth  *authority.Authority
	*Node
	registryAway atomic.Pointer[error] // why the registry of its relays is; nil: it is there
}

func newIdentities(t *testing.T) (*identity.Manager, identity.Identifier) {
	t.Helper()
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := ids.Create(context.Background(), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ids, self.Identifier()
}

func newProject(t *testing.T, ttl time.Duration) *testProject {
	t.Helper()
	p := &testProject{t: t, path: filepath.Join(t.TempDir(), "authority.db"), admin: numbered(7)}
	p.ids, p.self = newIdentities(t)
	p.start("127.0.0.1:"+freeport.For(t), ttl)
	t.Cleanup(func() { p.Stop() })
	return p
}

func (p *testProject) start(listen string, ttl time.Duration) {
	p.t.Helper()
	store, err := authority.OpenStore(p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	events := &AuthorityEvents{}
	if p.auth, err = authority.New(context.Background(), authority.Options{
		Store: store, Identities: p.ids, Self: p.self, ProjectID: "p", CredentialTTL: ttl, Events: events,
		TrustedIdentities: map[identity.Identifier]map[string]string{p.admin: {authority.RoleAttribute: authority.RoleEnroller}},
	}); err != nil {
		p.t.Fatal(err)
	}
	p.Node, err = Start(context.Background(), Options{
		Name: "authority", Self: p.self, Identities: p.ids, Listen: listen, Shards: 1, Log: testLog,
		Store:     NewHome(nil, "authority", false),
		Authority: &AuthorityOptions{Services: p.auth.Services(), Revocations: p.auth, Events: events, Close: store.Close},
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// client asks in the name of the administrator.
func (p *testProject) client() *authority.Client {
	return &authority.Client{Call: func(ctx context.Context, service string, req *rpc.Request) (*rpc.Response, error) {
		return p.auth.Services()[service].Serve(ctx, &p.admin, req), nil
	}}
}

func (p *testProject) route() multiaddr.Addr {
	to, err := multiaddr.Parse("/ip4/127.0.0.1/tcp/" + portOf(p.Listening()) + "/service/api")
	if err != nil {
		p.t.Fatal(err)
	}
	return to
}

// join makes a node of an identity that the project has as a member; without attributes it is none. It knows the history of the authority as it is, or one
// that is given.
func (p *testProject) join(attributes authority.Attributes, scope string, known ...[]byte) *member {
	p.t.Helper()
	ctx := context.Background()
	dir, err := state.Open(p.t.TempDir())
	if err == nil {
		_, err = dir.CreateNode(ctx, state.Node{Name: "n"})
	}
	if err != nil {
		p.t.Fatal(err)
	}
	m := &member{t: p.t, dir: dir}
	m.ids, m.self = newIdentities(p.t)
	history, err := p.ids.History(ctx, p.self)
	if len(known) > 0 {
		history = known[0]
	}
	if err == nil {
		_, err = m.ids.Import(ctx, history, nil)
	}
	if err == nil && attributes != nil {
		err = p.client().AddMember(ctx, m.self, attributes)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	m.trust = Trust{Authority: &p.self, Route: p.route(), Scope: scope}
	m.start("127.0.0.1:0")
	p.t.Cleanup(func() { m.Stop() })
	return m
}

// echoServer is a target that sends back what it gets.
func echoServer(t *testing.T) string {
	t.Helper()
	return servers.Listen(t, servers.Echo)
}

// says sends a word through an open connection and expects it back.
func says(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 4))
	return err
}

func (m *member) told(state string) {
	m.t.Helper()
	settles(m.t, "authority "+state, func() bool { return m.AuthorityState().State == state })
}

// inlet opens an inlet and a client's connection through it.
func (m *member) inlet(to string) (at string, c net.Conn) {
	m.t.Helper()
	in, err := m.CreateInlet(within(m.t), admin.InletRequest{From: "127.0.0.1:0", To: to})
	if err != nil {
		m.t.Fatal(err)
	}
	var failure error
	settles(m.t, "inlet carries", func() bool {
		if c, failure = net.Dial("tcp", in.Bind); failure != nil {
			return false
		}
		if failure = says(c); failure != nil {
			_ = c.Close()
			time.Sleep(100 * time.Millisecond)
		}
		return failure == nil
	})
	m.t.Cleanup(func() { _ = c.Close() })
	return in.Bind, c
}

// TestMemberIsTakenBack deletes and blocks members that have channels, portal connections and relays open, directly and through the relay.
func TestMemberIsTakenBack(t *testing.T) {
	for _, way := range []string{"delete", "block"} {
		t.Run(way, func(t *testing.T) {
			p := newProject(t, 0)
			relay := p.join(nil, "")
			bank := p.join(authority.Attributes{"ockam-relay": "bank"}, "p")
			client, other := p.join(authority.Attributes{"side": "client"}, "p"), p.join(authority.Attributes{"side": "other"}, "p")
			if _, err := bank.CreateOutlet(within(t), admin.OutletRequest{To: echoServer(t)}); err != nil {
				t.Fatal(err)
			}
			if _, err := bank.CreateRelay(within(t), admin.RelayRequest{Name: "bank", At: relay.route() + "/secure/api"}); err != nil {
				t.Fatal(err)
			}
			through := relay.route() + "/secure/api/service/forward_to_bank/secure/api/service/outlet"
			settles(t, "relay up", func() bool { return len(relay.relaySvc.Names()) == 1 })
			direct, c1 := client.inlet(bank.route() + "/secure/api/service/outlet")
			relayed, c2 := client.inlet(through)
			_, stays := other.inlet(through)
			for _, m := range []*member{relay, bank, client, other} {
				m.told(AuthorityUp)
			}
			take := func(id identity.Identifier) (at time.Time) {
				t.Helper()
				var err error
				if way == "delete" {
					err = p.client().DeleteMember(within(t), id)
				} else {
					err = p.client().Block(within(t), id)
				}
				if err != nil {
					t.Fatal(err)
				}
				return time.Now()
			}
			old, err := client.creds.get(within(t))
			if err != nil {
				t.Fatal(err)
			}
			start := take(client.self)
			for _, c := range []net.Conn{c1, c2} {
				_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
				if n, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || isTimeout(err) {
					t.Errorf("after %v: read %d, %v; a reset is right", time.Since(start), n, err)
				}
			}
			t.Logf("connections ended after %v", time.Since(start))
			settles(t, "no channel of the member is left", func() bool {
				for _, m := range []*member{relay, bank, other} {
					for _, ch := range m.channels.List() {
						if ch.Peer.ID == client.self {
							return false
						}
					}
				}
				return true
			})
			for _, at := range []string{direct, relayed} {
				c, err := net.Dial("tcp", at)
				if err != nil { // refused before the dial has returned
					continue
				}
				_ = c.SetDeadline(time.Now().Add(time.Second))
				if _, err = c.Write([]byte("word")); err == nil {
					_, err = io.ReadFull(c, make([]byte, 4))
				}
				if err == nil {
					t.Error("a revoked member's client is served")
				}
				_ = c.Close()
			}
			if err := says(stays); err != nil {
				t.Errorf("a neighbour's connection: %v", err)
			}
			// One that goes on with the credential that it had, or without any.
			to, err := multiaddr.Parse(bank.route() + "/service/api")
			if err != nil {
				t.Fatal(err)
			}
			for k, o := range []connectOptions{{noCredential: true}, {credential: func(context.Context) ([]byte, error) { return old, nil }}} {
				o.self = client.self
				c, err := client.connectListener(within(t), to, o)
				if err != nil {
					t.Fatal(err)
				}
				settles(t, "channel refused", func() bool { return bank.counters.revokedRefused.Load() > uint64(k) })
				c.close()
			}
			if bank.access.record(client.self) != nil {
				t.Error("its credential is believed")
			}
			// A node that starts again knows it before it has asked.
			p.Stop()
			bank.restart()
			if !bank.access.isRevoked(client.self) || bank.AuthorityState().Revoked != 1 {
				t.Error("forgotten by a restart")
			}
			p.start(p.Listening(), 0)
			settles(t, "relay up", func() bool { return len(relay.relaySvc.Names()) == 1 })

			// The member comes back.
			if way == "delete" {
				if err := p.client().AddMember(within(t), client.self, authority.Attributes{"side": "client"}); err != nil {
					t.Fatal(err)
				}
			} else if err := p.client().Unblock(within(t), client.self); err != nil {
				t.Fatal(err)
			}
			settles(t, "the member is served again", func() bool {
				c, err := net.Dial("tcp", direct)
				if err != nil {
					return false
				}
				defer c.Close()
				return says(c) == nil
			})

			// And the one with the relay goes.
			take(bank.self)
			settles(t, "the relay's name is free", func() bool { return len(relay.relaySvc.Names()) == 0 })
		})
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

var testLog = slog.New(slog.DiscardHandler)

func mustRoute(t *testing.T, text string) multiaddr.Addr {
	t.Helper()
	to, err := multiaddr.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// revokedBefore is a store that kept what was revoked, or could not.
type revokedBefore struct {
	forgetful
	data []byte
	err  error
}

func (s revokedBefore) PutRevoked([]byte) error  { return nil }
func (s revokedBefore) Revoked() ([]byte, error) { return s.data, s.err }

// TestRevokedBeforeTheRestart: a node says when what it kept of revocations cannot be read, whether it is the store or the content, and nothing when there was
// nothing.
func TestRevokedBeforeTheRestart(t *testing.T) {
	ids, self := newIdentities(t)
	for name, c := range map[string]struct {
		store revokedBefore
		says  bool
	}{
		"nothing":                        {revokedBefore{}, false},
		"a store that cannot be read":    {revokedBefore{err: errors.New("disk")}, true},
		"and has something all the same": {revokedBefore{data: []byte{0xa0}, err: errors.New("disk")}, true},
		"garbage":                        {revokedBefore{data: []byte("garbage")}, true},
	} {
		var log logtext.Text
		n := &Node{opts: Options{Identities: ids, Store: c.store}, log: slog.New(slog.NewTextHandler(&log, nil))}
		n.opts.Trust.Authority = &self
		r := &revocations{node: n}
		r.load(t.Context())
		if says := strings.Contains(log.String(), "cannot be read"); says != c.says {
			t.Errorf("%s: %s", name, log.String())
		}
		if !r.heard.IsZero() {
			t.Errorf("%s: the authority was heard at %v", name, r.heard)
		}
	}
}
