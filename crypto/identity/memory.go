package identity

import (
	"context"
	"fmt"
	"sync"
)

// MemoryStore is a Store that lives as long as the process.
type MemoryStore struct {
	mu         sync.Mutex
	identities map[Identifier]*Identity
	keys       map[string][]byte
}

// NewMemoryStore makes an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{identities: map[Identifier]*Identity{}, keys: map[string][]byte{}}
}

// Identity implements Store.
func (s *MemoryStore) Identity(_ context.Context, id Identifier) (*Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.identities[id]; i != nil {
		return i, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, id)
}

// CheckUpdate decides whether a received history may replace the known one, nil if there is none: it is for PutIdentity of a
// Store (docs/protocol/02 §2.5).
func CheckUpdate(known, received *Identity) (store bool, err error) {
	if known == nil {
		return true, nil
	}
	switch Compare(known, received) {
	case Equal:
		return false, nil
	case Newer:
		return true, nil
	case Older:
		return false, fmt.Errorf("%w: the history of %s is older", ErrConsistency, received.id)
	}
	return false, fmt.Errorf("%w: %s", ErrConsistency, received.id)
}

// PutIdentity implements Store.
func (s *MemoryStore) PutIdentity(_ context.Context, i *Identity) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	store, err := CheckUpdate(s.identities[i.id], i)
	if store {
		s.identities[i.id] = i
	}
	return err
}

// PurposeKey implements Store.
func (s *MemoryStore) PurposeKey(_ context.Context, id Identifier, p Purpose) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.keys[id.String()+p.String()]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("%w: %s key of %s", ErrNotFound, p, id)
}

// PutPurposeKey implements Store.
func (s *MemoryStore) PutPurposeKey(_ context.Context, id Identifier, p Purpose, attestation []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[id.String()+p.String()] = append([]byte(nil), attestation...)
	return nil
}
