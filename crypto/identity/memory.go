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
	keys       map[purposeOf][]byte
}

type purposeOf struct {
	id Identifier
	p  Purpose
}

// NewMemoryStore makes an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{identities: map[Identifier]*Identity{}, keys: map[purposeOf][]byte{}}
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
	if a := s.keys[purposeOf{id, p}]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("%w: %s key of %s", ErrNotFound, p, id)
}

// PutPurposeKey implements Store.
func (s *MemoryStore) PutPurposeKey(_ context.Context, id Identifier, p Purpose, attestation []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[purposeOf{id, p}] = append([]byte(nil), attestation...)
	return nil
}
