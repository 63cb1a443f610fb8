package identity

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Overlay is a Store over another one that keeps the histories of strangers in memory: whoever completes a handshake
// must not be able to fill a disk. What the other store knows stays there and is kept up to date there.
type Overlay struct {
	base Store
	max  int

	mu    sync.Mutex
	peers map[Identifier]*Identity
}

// NewOverlay makes a Store over base that remembers at most max strangers; beyond that some are forgotten.
func NewOverlay(base Store, max int) *Overlay {
	return &Overlay{base: base, max: max, peers: map[Identifier]*Identity{}}
}

// Identity implements Store.
func (o *Overlay) Identity(ctx context.Context, id Identifier) (*Identity, error) {
	o.mu.Lock()
	i := o.peers[id]
	o.mu.Unlock()
	if i != nil {
		return i, nil
	}
	return o.base.Identity(ctx, id)
}

// PutIdentity implements Store.
func (o *Overlay) PutIdentity(ctx context.Context, i *Identity) error {
	o.mu.Lock()
	known := o.peers[i.id]
	o.mu.Unlock()
	if known == nil {
		base, err := o.base.Identity(ctx, i.id)
		if err == nil {
			if Compare(base, i) == Equal {
				return nil
			}
			return o.base.PutIdentity(ctx, i)
		}
		if !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("known identities: %w", err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	store, err := CheckUpdate(o.peers[i.id], i)
	if !store {
		return err
	}
	for id := range o.peers {
		if len(o.peers) < o.max {
			break
		}
		delete(o.peers, id)
	}
	o.peers[i.id] = i
	return nil
}

// PurposeKey implements Store.
func (o *Overlay) PurposeKey(ctx context.Context, id Identifier, p Purpose) ([]byte, error) {
	return o.base.PurposeKey(ctx, id, p)
}

// PutPurposeKey implements Store.
func (o *Overlay) PutPurposeKey(ctx context.Context, id Identifier, p Purpose, attestation []byte) error {
	return o.base.PutPurposeKey(ctx, id, p, attestation)
}
