package node

import (
	"context"
	"fmt"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/internal/await"
	"sallyport/internal/freeport"
	"sallyport/state"
)

// member is a node with a state directory; it can be stopped and started again.
type member struct {
	t    *testing.T
	dir  *state.Dir
	ids  *identity.Manager
	self identity.Identifier
	// trust is what the next start has, and store what it makes of its store, nil to leave it.
	trust Trust
	store func(Store) Store
	*Node
}

func newMember(t *testing.T) *member {
	t.Helper()
	ctx := context.Background()
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.CreateNode(ctx, state.Node{Name: "n"}); err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, dir: dir, ids: identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})}
	i, err := m.ids.Create(ctx, identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.self = i.Identifier()
	m.start("127.0.0.1:" + freeport.For(t)) // where it comes back when it is started again
	t.Cleanup(func() { m.Stop() })
	return m
}

func (m *member) start(listen string) {
	m.t.Helper()
	var store Store = NewHome(m.dir, "n", true)
	if m.store != nil {
		store = m.store(store)
	}
	n, err := Start(context.Background(), Options{Name: "n", Self: m.self, Identities: m.ids, Store: store, Trust: m.trust, Listen: listen, Shards: 2, Log: testLog})
	if err != nil {
		m.t.Fatal(err)
	}
	m.Node = n
}

func (m *member) restart() {
	m.t.Helper()
	at := m.Listening()
	m.Stop()
	m.start(at)
}

// route leads to a member's node.
func (m *member) route() string {
	return "/ip4/127.0.0.1/tcp/" + portOf(m.Listening())
}

func only(m *member) string { return fmt.Sprintf(`(= subject.identifier "%s")`, m.self) }

func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

var (
	within     = await.Context
	eventually = await.Success
)
