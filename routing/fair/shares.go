// Package fair divides what is scarce among those who ask for it, so that one source that asks as fast as it can takes from itself.
package fair

import (
	"net/netip"
	"sync"

	"sallyport/crypto/identity"
	"sallyport/routing"
)

// depth is into how many parts a source is divided: the machine or identity next to this node, the connection to it, and whoever is
// behind that as the machine names it, with one worker between that it may have. What comes after is chosen by those behind.
const depth = 4

// Source says where something came from, from the nearest part to the farthest.
type Source [depth]string

// String names the nearest part in a log: an address, or an identifier.
func (s Source) String() string {
	if len(s[0]) == 32 {
		return identity.Identifier([]byte(s[0])).String()
	}
	return s[0]
}

// Shares divides a number of places among sources: when all are taken, whoever comes takes the place of the oldest of the source that
// holds most, part by part. So one source that takes places as fast as it can takes them from itself. It is safe for concurrent use.
type Shares[T any] struct {
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
	first, last *Place[T]
}

// Place is one that was taken.
type Place[T any] struct {
	of         *share[T]
	prev, next *Place[T]
	value      T
	left       bool
}

// NewShares makes max places.
func NewShares[T any](max int) *Shares[T] { return &Shares[T]{max: max} }

// Take takes a place. If all were taken, oldest is what was in the place that it got, and evicted is true.
func (s *Shares[T]) Take(from Source, value T) (p *Place[T], oldest T, evicted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root.held >= s.max {
		old, _ := s.biggest(from)
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
	p = &Place[T]{of: at, prev: at.last, value: value}
	if at.last == nil {
		at.first = p
	} else {
		at.last.next = p
	}
	at.last = p
	return p, oldest, evicted
}

// Next returns who has to go for one that comes from a source when all places but waiting ones are taken, and whether that one is of a source that has more than the
// newcomer's would have, or the same: what is behind a connection can be made up, so there all are one. free is set while nobody has to go.
func (s *Shares[T]) Next(from Source, waiting int) (oldest T, more, free bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root.held+waiting < s.max {
		return oldest, false, true
	}
	if s.root.held == 0 {
		return oldest, false, false
	}
	p, more := s.biggest(from)
	return p.value, more, false
}

// biggest chooses who has to go for one that comes from a source, and says whether its source has more than that one's would have, or is the same.
func (s *Shares[T]) biggest(from Source) (p *Place[T], more bool) {
	at, same := &s.root, true
	for i, key := range from {
		own := at.parts[key]
		if same && own != nil && own.held*len(at.parts) > at.held {
			at = own // more than its part: no need to look at the others
			continue
		}
		var most *share[T]
		for _, part := range at.parts {
			if most == nil || part.held > most.held || part.held == most.held && part.since < most.since {
				most = part
			}
		}
		if same && most != own { // what is behind it is not compared
			same, more = false, i > 1 || most.held > 1 && (own == nil || most.held > own.held+1)
		}
		at = most
	}
	return at.first, more || same
}

// Leave gives a place back, and reports whether it was still held: it is fine to leave twice, or after having been evicted.
func (s *Shares[T]) Leave(p *Place[T]) bool {
	if p == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	held := !p.left
	s.remove(p)
	return held
}

// Left reports whether a place was given back or given to another.
func (s *Shares[T]) Left(p *Place[T]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.left
}

func (s *Shares[T]) remove(p *Place[T]) {
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

// Max returns how many places there are.
func (s *Shares[T]) Max() int { return s.max }

// Held returns how many places are taken.
func (s *Shares[T]) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.root.held
}

// Originated is a Terminal that knows where the connection that it is came from, from the nearest part to the farthest.
type Originated interface{ Origin() Source }

// OriginOf is SourceOf for what came through a secure channel: where the channel came from, whoever its peer is. An identity costs a
// stranger nothing, an address does.
func OriginOf(t routing.Terminal, ret routing.Route) Source {
	if o, ok := t.(Originated); ok {
		return o.Origin()
	}
	return SourceOf(t, ret)
}

// SourceOf tells where a message with a return route came from; t is its first hop.
func SourceOf(t routing.Terminal, ret routing.Route) (from Source) {
	if named, ok := t.(routing.Sourced); ok {
		from[0] = named.SourceName()
	}
	for k := 1; k < depth && ret.Len() > 0; k++ {
		a := ret.First()
		from[k] = a.Value
		if a.Type != routing.Local { // a port costs whoever chooses it nothing
			if ap, err := netip.ParseAddrPort(a.Value); err == nil {
				from[k] = routing.HostSource(ap.Addr())
			}
		}
		if len(from[k]) > maxSourcePart {
			from[k] = from[k][:maxSourcePart]
		}
		ret = ret.WithoutFirst()
	}
	return from
}

// maxSourcePart bounds what is kept of an address that others chose.
const maxSourcePart = 64
