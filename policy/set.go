package policy

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Entry is a policy of a [Set]: an expression for one resource and the action [HandleMessage].
type Entry struct {
	Resource Resource
	Expr     *Expr
}

// Set holds the policies of a node for the action [HandleMessage] (docs/protocol/02 §7.4). It is safe for concurrent
// use; reading takes no lock. The zero value is an empty set, which denies everything; see [NewSet].
//
// Nothing is stored on disk. What outlives a restart is up to the owner; in the reference that is the policies by
// name, while those by type start from their defaults.
type Set struct {
	current atomic.Pointer[policies]

	mu          sync.Mutex // guards the following, and changes of current
	subscribers map[uint64]func()
	nextID      uint64
}

// policies is one state of a set. It is never changed once it is current.
type policies struct {
	version uint64
	expr    map[Resource]*Expr
}

// DefaultExpr is the policy a node starts with for every resource type: the peer has a credential of the authority.
func DefaultExpr() *Expr { return list(ident("="), ident(subjectHasCredential), Bool(true)) }

// NewSet makes a set with [DefaultExpr] as the policy of every resource type that is its own base, and none by name.
func NewSet() *Set {
	p := &policies{expr: make(map[Resource]*Expr)}
	for _, t := range ResourceTypes() {
		if t.Base() == t {
			p.expr[ByType(t)] = DefaultExpr()
		}
	}
	s := &Set{}
	s.current.Store(p)
	return s
}

func (s *Set) load() *policies {
	if p := s.current.Load(); p != nil {
		return p
	}
	return &policies{}
}

// Lookup returns the policy that decides about the resource called name of type t: the one of the name if there is
// one, else the one of the type or of its base, else nil, which denies.
func (s *Set) Lookup(name string, t ResourceType) *Expr {
	p := s.load()
	if e := p.expr[ByName(name)]; e != nil {
		return e
	}
	return p.ofType(t)
}

func (p *policies) ofType(t ResourceType) *Expr {
	if e := p.expr[ByType(t)]; e != nil {
		return e
	}
	return p.expr[ByType(t.Base())]
}

// LookupOwn is [Set.Lookup] for a resource that may ask for a policy itself: that decides if there is none of the name.
func (s *Set) LookupOwn(own Resource, t ResourceType) *Expr {
	p := s.load()
	if e := p.expr[ByName(own.name)]; e != nil {
		return e
	}
	if e := p.expr[own]; e != nil {
		return e
	}
	return p.ofType(t)
}

// Get returns the policy set for exactly r, nil if there is none.
func (s *Set) Get(r Resource) *Expr { return s.load().expr[r] }

// Set makes e the policy of r. The error is [ErrNotPolicy] if e does not start with an operator (its stored text
// could not be read back), or wraps [ErrUnknown] for an invalid resource.
func (s *Set) Set(r Resource, e *Expr) error {
	if err := r.check(); err != nil {
		return err
	}
	if !e.isOperation() {
		return ErrNotPolicy
	}
	s.change(func(m map[Resource]*Expr) bool {
		if Equal(m[r], e) {
			return false
		}
		m[r] = e
		return true
	})
	return nil
}

// Delete removes the policy of r and reports whether there was one.
func (s *Set) Delete(r Resource) bool {
	return s.change(func(m map[Resource]*Expr) bool {
		_, ok := m[r]
		delete(m, r)
		return ok
	})
}

// List returns all policies: those by name in the order of the names, then those by type in the order of their
// numbers.
func (s *Set) List() []Entry {
	p := s.load()
	entries := make([]Entry, 0, len(p.expr))
	for r, e := range p.expr {
		entries = append(entries, Entry{r, e})
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Resource.typ, b.Resource.typ), cmp.Compare(a.Resource.name, b.Resource.name), cmp.Compare(a.Resource.kind, b.Resource.kind))
	})
	return entries
}

// Version counts the changes of the set. A decision made after reading a version may be kept for as long as Version
// returns the same number.
func (s *Set) Version() uint64 { return s.load().version }

// Subscribe has changed called after every change of the set, on the goroutine that made the change. changed must not
// block; it may use the set. Calls for concurrent changes may overlap. The returned function ends the subscription; a
// call already under way may still finish after it.
func (s *Set) Subscribe(changed func()) (cancel func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscribers == nil {
		s.subscribers = make(map[uint64]func())
	}
	id := s.nextID
	s.nextID++
	s.subscribers[id] = changed
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subscribers, id)
	}
}

// change applies edit to a copy of the policies, makes the copy current if edit says it changed something, and tells
// the subscribers.
func (s *Set) change(edit func(map[Resource]*Expr) bool) bool {
	s.mu.Lock()
	old := s.load()
	next := &policies{version: old.version + 1, expr: maps.Clone(old.expr)}
	if next.expr == nil {
		next.expr = make(map[Resource]*Expr)
	}
	if !edit(next.expr) {
		s.mu.Unlock()
		return false
	}
	s.current.Store(next)
	subscribers := slices.Collect(maps.Values(s.subscribers))
	s.mu.Unlock()
	for _, changed := range subscribers { // unlocked, so that they may use the set
		changed()
	}
	return true
}
