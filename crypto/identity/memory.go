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
}

type purposeOf struct {
	id Identifier
	p  Purpose
}

// NewMemoryStore makes an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{identities: map[Identifier]*Identity{}}
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
