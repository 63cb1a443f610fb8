// Package latekeeper has a keeper of keys for tests that is away at first.
package latekeeper

import (
	"context"
	"sync/atomic"

	"sallyport/crypto/identity"
)

// Keeper attests keys as the one in it does, once it is there.
type Keeper struct {
	identity.Keeper
	There atomic.Bool
	Asked atomic.Int64 // how often it was asked
}

// Attest implements identity.Keeper; it fails with identity.ErrKeeperAway while the keeper is away.
func (k *Keeper) Attest(ctx context.Context, r identity.AttestationRequest) (attestation, history []byte, err error) {
	if k.Asked.Add(1); !k.There.Load() {
		return nil, nil, identity.ErrKeeperAway
	}
	return k.Keeper.Attest(ctx, r)
}
