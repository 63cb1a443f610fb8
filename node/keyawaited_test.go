package node

import (
	"context"
	"sync/atomic"
	"testing"

	"sallyport/crypto/identity"
	"sallyport/routing/multiaddr"
)

// awayKeeper attests keys once it is there.
type awayKeeper struct {
	identity.Keeper
	there atomic.Bool
	asked atomic.Int64
}

func (k *awayKeeper) Attest(ctx context.Context, r identity.AttestationRequest) (attestation, history []byte, err error) {
	if k.asked.Add(1); !k.there.Load() {
		return nil, nil, identity.ErrKeeperAway
	}
	return k.Keeper.Attest(ctx, r)
}

// TestKeyAwaited: a node that was started before who attests its key asks again by itself, and whoever connects gets in then.
func TestKeyAwaited(t *testing.T) {
	ids, self := newIdentities(t)
	keeper := &awayKeeper{Keeper: ids}
	n, err := Start(context.Background(), Options{
		Name: "delegate", Self: self, Identities: ids.Delegate(keeper), Store: NewHome(nil, "delegate", false), Listen: "127.0.0.1:0", Shards: 1, Log: testLog,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	settles(t, "the keeper is asked again", func() bool { return keeper.asked.Load() >= 2 })
	keeper.there.Store(true)
	client := newMember(t)
	to, err := multiaddr.Parse((&member{t: t, Node: n}).route() + "/secure/api")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.connect(within(t), to, connectOptions{self: client.self, authorized: []identity.Identifier{self}}); err != nil {
		t.Fatal(err)
	}
}
