package portal

import (
	"sync"
	"sync/atomic"
)

// Grant is the decision whether one peer may use one portal. It is decided when it is made, and again when a policy or
// a credential changes or expires; the data path only reads it.
type Grant struct {
	allowed  atomic.Bool
	mu       sync.Mutex
	watchers map[Revoker]struct{}
}

// Revoker is told, on any goroutine, that a grant was taken back.
type Revoker interface{ Revoked() }

// NewGrant makes a grant.
func NewGrant(allowed bool) *Grant {
	g := &Grant{}
	g.allowed.Store(allowed)
	return g
}

// Allowed reports the decision.
func (g *Grant) Allowed() bool { return g == nil || g.allowed.Load() }

// Set changes the decision. Taking a grant back ends the connections that use it.
func (g *Grant) Set(allowed bool) {
	if g.allowed.Swap(allowed) == allowed || allowed {
		return
	}
	g.mu.Lock()
	watchers := g.watchers
	g.watchers = nil
	g.mu.Unlock()
	for w := range watchers {
		w.Revoked()
	}
}

// Held reports whether a connection depends on the grant, and is to be told when it is taken back.
func (g *Grant) Held() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.watchers) > 0
}

// Watch has w told when the grant is taken back, also if that was before.
func (g *Grant) Watch(w Revoker) {
	if g == nil {
		return
	}
	g.mu.Lock()
	if g.watchers == nil {
		g.watchers = map[Revoker]struct{}{}
	}
	g.watchers[w] = struct{}{}
	g.mu.Unlock()
	if !g.Allowed() { // taken back meanwhile
		w.Revoked()
	}
}

// Unwatch ends what Watch began.
func (g *Grant) Unwatch(w Revoker) {
	if g == nil {
		return
	}
	g.mu.Lock()
	delete(g.watchers, w)
	g.mu.Unlock()
}

// Guard decides for a portal.
type Guard interface {
	// Grant returns the decision for a peer's identifier, nil for a peer without one. It must not block. A nil Grant
	// allows for ever.
	Grant(peer *[32]byte) *Grant
}
