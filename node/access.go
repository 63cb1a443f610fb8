package node

import (
	"sync"
	"time"

	"sallyport/crypto/identity"
	"sallyport/policy"
	"sallyport/portal"
)

// maxGrants bounds the decisions that one guard remembers.
const maxGrants = 100_000

// record is what an authority attested of a peer (docs/protocol/02 §7.3).
type record struct {
	attributes map[string]string
	expires    time.Time
	attestedBy identity.Identifier
}

// access holds what decisions depend on: policies and peers' attributes. A decision is made when one of them changes, and at
// expiry; the data path only reads the result.
type access struct {
	policies *policy.Set

	mu      sync.Mutex
	records map[identity.Identifier]*record
	guards  map[*guard]struct{}
}

func newAccess(policies *policy.Set) *access {
	a := &access{policies: policies, records: map[identity.Identifier]*record{}, guards: map[*guard]struct{}{}}
	policies.Subscribe(a.decideAll)
	return a
}

// learn stores what a verified credential says, replacing what was known of the peer.
func (a *access) learn(c *identity.Credential) {
	attributes := make(map[string]string, len(c.Attributes))
	for k, v := range c.Attributes {
		attributes[k] = v
	}
	r := &record{attributes: attributes, expires: time.Unix(int64(c.ExpiresAt), 0), attestedBy: c.Issuer}
	a.mu.Lock()
	a.records[c.Subject] = r
	a.mu.Unlock()
	time.AfterFunc(time.Until(r.expires)+10*time.Millisecond, func() { a.expire(c.Subject, r) })
	a.decide(c.Subject)
}

func (a *access) expire(id identity.Identifier, r *record) {
	a.mu.Lock()
	current := a.records[id] == r
	if current {
		delete(a.records, id)
	}
	a.mu.Unlock()
	if current {
		a.decide(id)
	}
}

// record returns what is known of a peer, nil if nothing is.
func (a *access) record(id identity.Identifier) *record {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.records[id]
}

// recall takes back what was known of a peer before a restart, unless more is known by now, or it has expired.
func (a *access) recall(id identity.Identifier, r *record) {
	a.mu.Lock()
	if a.records[id] != nil || !time.Now().Before(r.expires) {
		a.mu.Unlock()
		return
	}
	a.records[id] = r
	a.mu.Unlock()
	time.AfterFunc(time.Until(r.expires)+10*time.Millisecond, func() { a.expire(id, r) })
	a.decide(id)
}

// attributes returns what authority attested of a peer, if it has not expired.
func (a *access) attributes(id, authority identity.Identifier) (map[string]string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.records[id]
	if r == nil || r.attestedBy != authority || !time.Now().Before(r.expires) {
		return nil, false
	}
	return r.attributes, true
}

// guard decides for one resource. It implements portal.Guard.
type guard struct {
	access    *access
	name      string
	kind      policy.ResourceType
	authority *identity.Identifier // nil: the node knows none

	mu     sync.Mutex
	grants map[identity.Identifier]*portal.Grant
	anyone *portal.Grant // for peers without an identity
}

// guard returns the guard of a resource. With neither an authority nor a policy of its own a resource is open to everybody, as in the
// reference (docs/protocol/02 §7.4): the result is then nil.
func (a *access) guard(name string, kind policy.ResourceType, authority *identity.Identifier, hasPolicy bool) *guard {
	if authority == nil && !hasPolicy {
		return nil
	}
	g := &guard{access: a, name: name, kind: kind, authority: authority, grants: map[identity.Identifier]*portal.Grant{}, anyone: portal.NewGrant(false)}
	a.mu.Lock()
	a.guards[g] = struct{}{}
	a.mu.Unlock()
	return g
}

// close ends the guard: it is no longer told of changes.
func (g *guard) close() {
	if g != nil {
		g.access.mu.Lock()
		delete(g.access.guards, g)
		g.access.mu.Unlock()
	}
}

// Grant implements portal.Guard.
func (g *guard) Grant(peer *[32]byte) *portal.Grant {
	if peer == nil {
		return g.anyone // no secure channel: nobody knows who that is
	}
	id := identity.Identifier(*peer)
	g.mu.Lock()
	grant, known := g.grants[id]
	if !known {
		if len(g.grants) >= maxGrants {
			for other := range g.grants { // any one: it is decided again when it comes back
				delete(g.grants, other)
				break
			}
		}
		grant = portal.NewGrant(false)
		g.grants[id] = grant
	}
	g.mu.Unlock()
	if !known {
		grant.Set(g.allows(id))
	}
	return grant
}

// allows evaluates the policy for a peer now.
func (g *guard) allows(id identity.Identifier) bool {
	expr := g.access.policies.Lookup(g.name, g.kind)
	if expr == nil {
		return false
	}
	env := policy.NewEnv(g.name, policy.HandleMessage.String())
	var attributes map[string]string
	has := false
	if g.authority != nil {
		attributes, has = g.access.attributes(id, *g.authority)
	}
	env.SetSubject(id.String(), g.authority != nil, has, attributes)
	return expr.Allows(env)
}

// guardsNow returns the guards at this moment.
func (a *access) guardsNow() []*guard {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*guard, 0, len(a.guards))
	for g := range a.guards {
		list = append(list, g)
	}
	return list
}

// decide decides again for one peer.
func (a *access) decide(id identity.Identifier) {
	for _, g := range a.guardsNow() {
		g.mu.Lock()
		grant := g.grants[id]
		g.mu.Unlock()
		if grant != nil {
			grant.Set(g.allows(id))
		}
	}
}

// decideAll decides again for every peer: a policy has changed.
func (a *access) decideAll() {
	for _, g := range a.guardsNow() {
		g.mu.Lock()
		grants := make(map[identity.Identifier]*portal.Grant, len(g.grants))
		for id, grant := range g.grants {
			grants[id] = grant
		}
		g.mu.Unlock()
		for id, grant := range grants {
			grant.Set(g.allows(id))
		}
	}
}
