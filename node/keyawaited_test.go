package node

import (
	"context"
	"testing"

	"sallyport/crypto/identity"
	"sallyport/internal/latekeeper"
	"sallyport/routing/multiaddr"
)

// TestKeyAwaited: a node that was started before who attests its key asks again by itself, and whoever connects gets in then.
func TestKeyAwaited(t *testing.T) {
	ids, self := newIdentities(t)
	keeper := &latekeeper.Keeper{Keeper: ids}
	n, err := Start(context.Background(), Options{
		Name: "delegate", Self: self, Identities: ids.Delegate(keeper), Store: NewHome(nil, "delegate", false), Listen: "127.0.0.1:0", Shards: 1, Log: testLog,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	settles(t, "the keeper is asked again", func() bool { return keeper.Asked.Load() >= 2 })
	keeper.There.Store(true)
	client := newMember(t)
	to, err := multiaddr.Parse((&member{t: t, Node: n}).route() + "/secure/api")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.connect(within(t), to, connectOptions{self: client.self, authorized: []identity.Identifier{self}}); err != nil {
		t.Fatal(err)
	}
}
