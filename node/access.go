package node

import (
	"maps"
	"slices"
	"sync"
	"time"

	"sallyport/crypto/identity"
	"sallyport/policy"
	"sallyport/portal"
)

// What one guard remembers of peers that are allowed, beside what connections hold, and how many it looks at to find one that none
// holds.
const (
	maxGrants  = 100_000
	maxLooking = 64
	// minTidy is how many revocations come at least until those that have ended are looked for again: each costs the same, however many there are.
	minTidy = 64
)

// record is what an authority attested of a peer (docs/protocol/02 §7.3).
type record struct {
	attributes map[string]string
	created    time.Time // zero if that is not known
	expires    time.Time
	attestedBy identity.Identifier
	timer      *time.Timer // decides again at expiry
}

// same reports whether two records say the same.
func (r *record) same(o *record) bool {
	return r != nil && r.attestedBy == o.attestedBy && r.created.Equal(o.created) && r.expires.Equal(o.expires) && maps.Equal(r.attributes, o.attributes)
}

// access holds what decisions depend on: policies and peers' attributes. A decision is made when one of them changes, and at
// expiry; the data path only reads the result.
type access struct {
	policies *policy.Set
	self     identity.Identifier // the node's own

	mu      sync.Mutex
	records map[identity.Identifier]*record
	revoked map[identity.Identifier]revocation
	tidyAt  int // how many there are when those that have ended are looked for next
	guards  map[*guard]struct{}
}

// revocation is what an authority took back: credentials that were made at a time or before, and unless restored the member itself.
type revocation struct {
	at, until time.Time
	restored  bool
}

func newAccess(policies *policy.Set) *access {
	a := &access{policies: policies, records: map[identity.Identifier]*record{}, revoked: map[identity.Identifier]revocation{}, guards: map[*guard]struct{}{}}
	policies.Subscribe(a.decideAll)
	return a
}

// learn stores what a verified credential says, replacing what was known of the peer.
func (a *access) learn(c *identity.Credential) {
	a.put(c.Subject, &record{
		attributes: maps.Clone(c.Attributes), created: time.Unix(int64(c.CreatedAt), 0), expires: time.Unix(int64(c.ExpiresAt), 0),
		attestedBy: c.Issuer,
	}, true)
}

// revoke takes back a member's record, if it is not newer, and refuses others like it until then.
func (a *access) revoke(id identity.Identifier, at, until time.Time, restored bool) {
	a.mu.Lock()
	if now := time.Now(); len(a.revoked) >= a.tidyAt {
		maps.DeleteFunc(a.revoked, func(_ identity.Identifier, r revocation) bool { return now.After(r.until) })
		a.tidyAt = 2*len(a.revoked) + minTidy
	}
	a.revoked[id] = revocation{at, until, restored}
	r := a.records[id]
	if gone := r != nil && !r.created.After(at); gone {
		r.timer.Stop()
		delete(a.records, id)
	}
	a.mu.Unlock()
	if id == a.self {
		a.decideAll() // what the node itself has open at others
		return
	}
	a.decide(id)
}

// isRevoked reports whether a member was revoked and not restored.
func (a *access) isRevoked(id identity.Identifier) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	r, ok := a.revoked[id]
	return ok && !r.restored && time.Now().Before(r.until)
}

// isTakenBack reports whether a credential that was made at a time is one that was taken back.
func (a *access) isTakenBack(id identity.Identifier, created time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.takenBack(id, created)
}

func (a *access) takenBack(id identity.Identifier, created time.Time) bool {
	r, ok := a.revoked[id]
	return ok && time.Now().Before(r.until) && (!r.restored || !created.After(r.at))
}

// revokedCount returns how many members are revoked.
func (a *access) revokedCount() (count int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.revoked {
		if !r.restored && time.Now().Before(r.until) {
			count++
		}
	}
	return count
}

// recall takes back what was known of a peer before a restart, unless more is known by now, or it has expired.
func (a *access) recall(id identity.Identifier, r *record) { a.put(id, r, false) }

// put stores a record with the one timer that ends it, and decides again if it says anything new.
func (a *access) put(id identity.Identifier, r *record, replace bool) {
	left := time.Until(r.expires)
	a.mu.Lock()
	old := a.records[id]
	if old != nil && !replace || old.same(r) || left <= 0 || a.takenBack(id, r.created) {
		a.mu.Unlock()
		return
	}
	if old != nil {
		old.timer.Stop()
	}
	r.timer = time.AfterFunc(left+10*time.Millisecond, func() { a.expire(id, r) })
	a.records[id] = r
	a.mu.Unlock()
	a.decide(id)
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
	own       policy.Resource // what the resource asks for itself; that of its name where it cannot
	kind      policy.ResourceType
	authority *identity.Identifier // nil: the node knows none
	lenient   bool                 // everybody is allowed while there is no policy of the name

	members bool          // whoever has a credential is allowed, whatever policies say
	anyone  *portal.Grant // for peers without an identity
	room    int           // how many grants are remembered that no connection holds

	mu     sync.Mutex
	grants map[identity.Identifier]*portal.Grant
}

// guard returns the guard of a resource. With neither an authority nor a policy of its own a resource is open to everybody, as in the
// reference (docs/protocol/02 §7.4): the result is then nil.
func (a *access) guard(own policy.Resource, kind policy.ResourceType, authority *identity.Identifier, hasPolicy bool) *guard {
	if authority == nil && !hasPolicy {
		return nil
	}
	g := newGuard(a, own, kind, authority)
	a.add(g)
	return g
}

func newGuard(a *access, own policy.Resource, kind policy.ResourceType, authority *identity.Identifier) *guard {
	name, _ := own.Name()
	return &guard{
		access: a, name: name, own: own, kind: kind, authority: authority, anyone: portal.NewGrant(false), room: maxGrants,
		grants: map[identity.Identifier]*portal.Grant{},
	}
}

func (a *access) add(g *guard) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.guards[g] = struct{}{}
}

// close ends the guard: it is no longer told of changes.
func (g *guard) close() {
	if g != nil {
		g.access.mu.Lock()
		delete(g.access.guards, g)
		g.access.mu.Unlock()
	}
}

// Grant implements portal.Guard. Only peers that are allowed are remembered: who is not has nothing that could be taken back, and there
// may be any number of those. What connections hold is never forgotten.
func (g *guard) Grant(peer *[32]byte) *portal.Grant {
	if peer == nil {
		return g.anyone // no secure channel: nobody knows who that is
	}
	id := identity.Identifier(*peer)
	g.mu.Lock()
	defer g.mu.Unlock()
	if grant := g.grants[id]; grant != nil {
		return grant
	}
	grant := portal.NewGrant(g.allows(id))
	if grant.Allowed() {
		g.makeRoom()
		g.grants[id] = grant
	}
	return grant
}

// makeRoom forgets a grant that no connection holds: it is decided again when its peer comes back. Where it finds none the guard grows,
// which the limits of connections bound.
func (g *guard) makeRoom() {
	if len(g.grants) < g.room {
		return
	}
	looked := 0
	for id, grant := range g.grants {
		if !grant.Held() {
			delete(g.grants, id)
			grant.Set(false) // whoever was about to hold it is refused, rather than never told of a change
			return
		}
		if looked++; looked == maxLooking {
			return
		}
	}
}

// allows evaluates the policy for a peer now.
func (g *guard) allows(id identity.Identifier) bool {
	if g.access.isRevoked(id) || g.access.isRevoked(g.access.self) {
		return false // whatever the policy asks for
	}
	if g.isOpen() {
		return true
	}
	if g.members {
		_, has := g.access.attributes(id, *g.authority)
		return has
	}
	expr := g.access.policies.LookupOwn(g.own, g.kind)
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
		g.decide(id)
	}
}

// decideAll decides again for every peer: a policy has changed.
func (a *access) decideAll() {
	for _, g := range a.guardsNow() {
		g.decideAnyone()
		g.mu.Lock()
		ids := slices.Collect(maps.Keys(g.grants))
		g.mu.Unlock()
		for _, id := range ids {
			g.decide(id)
		}
	}
}

// decide decides again for a peer whose grant is remembered. Evaluating and storing are one step: whatever changed last is decided last.
func (g *guard) decide(id identity.Identifier) {
	g.mu.Lock()
	defer g.mu.Unlock()
	grant := g.grants[id]
	if grant == nil {
		return
	}
	allowed := g.allows(id)
	if !allowed {
		delete(g.grants, id)
	}
	grant.Set(allowed)
}

// portalGuard returns the guard of a portal. With neither an authority nor a policy of its own a portal is open to everybody, as in the
// reference (docs/protocol/02 §7.4), until there is one.
func (a *access) portalGuard(own policy.Resource, kind policy.ResourceType, authority *identity.Identifier) *guard {
	g := newGuard(a, own, kind, authority)
	g.lenient = authority == nil
	g.decideAnyone()
	a.add(g)
	g.decideAnyone() // a policy may have come in between
	return g
}

// isOpen reports whether nobody is asked who it is.
func (g *guard) isOpen() bool {
	return g.lenient && g.access.policies.Get(policy.ByName(g.name)) == nil && g.access.policies.Get(g.own) == nil
}

// decideAnyone decides about peers without an identity.
func (g *guard) decideAnyone() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.anyone.Set(g.isOpen())
}
