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
	bytes int // of the peers' histories
}

// strangerBytes is how much of a history there is room for, times the number of strangers: one change of an Ed25519 key takes
// about 130 bytes, but a stranger may send as many as fit maxHistory.
const strangerBytes = 512

// NewOverlay makes a Store over base that remembers at most max strangers, and of long histories fewer; beyond that some are
// forgotten.
func NewOverlay(base Store, max int) *Overlay {
	return &Overlay{base: base, max: max, peers: map[Identifier]*Identity{}}
}

// both returns what the base and what the memory knows of an identity, each nil if nothing.
func (o *Overlay) both(ctx context.Context, id Identifier) (base, peer *Identity, err error) {
	base, err = o.base.Identity(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, nil, fmt.Errorf("known identities: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return base, o.peers[id], nil
}

// newest chooses between what the base and the memory know. If they contradict each other, the base is right.
func newest(base, peer *Identity) *Identity {
	if base == nil || peer != nil && Compare(base, peer) == Newer {
		return peer
	}
	return base
}

// Identity implements Store. The newer of two histories counts: another process may have stored one in the base.
func (o *Overlay) Identity(ctx context.Context, id Identifier) (*Identity, error) {
	base, peer, err := o.both(ctx, id)
	if err != nil {
		return nil, err
	}
	if i := newest(base, peer); i != nil {
		return i, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
}

// PutIdentity implements Store.
func (o *Overlay) PutIdentity(ctx context.Context, i *Identity) error {
	base, peer, err := o.both(ctx, i.id)
	if err != nil {
		return err
	}
	if _, err := CheckUpdate(newest(base, peer), i); err != nil {
		return err
	}
	if base != nil {
		if Compare(base, i) == Equal {
			return nil
		}
		return o.base.PutIdentity(ctx, i)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	store, err := CheckUpdate(o.peers[i.id], i)
	if !store {
		return err
	}
	o.forget(i.id)
	for id := range o.peers {
		if len(o.peers) < o.max && o.bytes+len(i.raw) <= o.max*strangerBytes {
			break
		}
		o.forget(id)
	}
	o.peers[i.id] = i
	o.bytes += len(i.raw)
	return nil
}

func (o *Overlay) forget(id Identifier) {
	if i := o.peers[id]; i != nil {
		o.bytes -= len(i.raw)
		delete(o.peers, id)
	}
}
