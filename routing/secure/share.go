package secure

import (
	"sync"

	"sallyport/crypto/identity"
)

// depth is into how many parts a source is divided: the machine or identity next to this node, the connection to it, and whoever is
// behind that as the machine names it, with one worker between that it may have. What comes after is chosen by those behind.
const depth = 4

// source says where something came from, from the nearest part to the farthest.
type source [depth]string

// String names the nearest part in a log: an address, or an identifier.
func (s source) String() string {
	if len(s[0]) == 32 {
		return identity.Identifier([]byte(s[0])).String()
	}
	return s[0]
}

// shares divides a number of places among sources: when all are taken, whoever comes takes the place of the oldest of the source that
// holds most, part by part. So one source that takes places as fast as it can takes them from itself. It is safe for concurrent use.
type shares[T any] struct {
	max int

	mu   sync.Mutex
	root share[T]
	age  uint64
}

// share is what a source, or a part of one, holds.
type share[T any] struct {
	parent      *share[T]
	key         string
	parts       map[string]*share[T]
	held        int
	since       uint64 // when it came; decides between equals
	first, last *place[T]
}

// place is one that was taken.
type place[T any] struct {
	of         *share[T]
	prev, next *place[T]
	value      T
	left       bool
}

func newShares[T any](max int) *shares[T] { return &shares[T]{max: max} }

// take takes a place. If all were taken, oldest is what was in the place that it got, and evicted is true.
func (s *shares[T]) take(from source, value T) (p *place[T], oldest T, evicted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root.held >= s.max {
		old := s.biggest(from)
		oldest, evicted = old.value, true
		s.remove(old)
	}
	s.age++
	at := &s.root
	for _, key := range from {
		next := at.parts[key]
		if next == nil {
			next = &share[T]{parent: at, key: key, since: s.age}
			if at.parts == nil {
				at.parts = map[string]*share[T]{}
			}
			at.parts[key] = next
		}
		at.held++
		at = next
	}
	at.held++
	p = &place[T]{of: at, prev: at.last, value: value}
	if at.last == nil {
		at.first = p
	} else {
		at.last.next = p
	}
	at.last = p
	return p, oldest, evicted
}

// biggest chooses who has to go for one that comes from a source.
func (s *shares[T]) biggest(from source) *place[T] {
	at := &s.root
	for _, key := range from {
		own := at.parts[key]
		if own != nil && own.held*len(at.parts) > at.held {
			at = own // more than its part: no need to look at the others
			continue
		}
		var most *share[T]
		for _, part := range at.parts {
			if most == nil || part.held > most.held || part.held == most.held && part.since < most.since {
				most = part
			}
		}
		at = most
	}
	return at.first
}

// leave gives a place back. It is fine to leave twice, or after having been evicted.
func (s *shares[T]) leave(p *place[T]) {
	if p == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(p)
}

func (s *shares[T]) remove(p *place[T]) {
	if p.left {
		return
	}
	p.left = true
	at := p.of
	if p.prev == nil {
		at.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		at.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	for ; at != nil; at = at.parent {
		at.held--
		if at.held == 0 && at.parent != nil {
			delete(at.parent.parts, at.key)
		}
	}
}

// held returns how many places are taken.
func (s *shares[T]) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.root.held
}
