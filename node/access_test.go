package node

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/internal/await"
	"sallyport/policy"
)

// numbered makes an identifier for a test.
func numbered(n int) (id identity.Identifier) {
	copy(id[:], fmt.Sprintf("%032d", n))
	return id
}

func peerOf(id identity.Identifier) *[32]byte { return (*[32]byte)(&id) }

// credential is what an authority says of a member for a while.
func credential(subject, issuer identity.Identifier, ttl time.Duration, attributes identity.Attributes) *identity.Credential {
	return &identity.Credential{Subject: subject, Issuer: issuer, Attributes: attributes, ExpiresAt: identity.Timestamp(time.Now().Add(ttl).Unix())}
}

// holder is a connection that holds a grant.
type holder struct{ told atomic.Int32 }

func (h *holder) Revoked() { h.told.Add(1) }

func setPolicy(t testing.TB, s *policy.Set, r policy.Resource, text string) {
	t.Helper()
	expr, err := policy.Parse(text)
	if err == nil {
		err = s.Set(r, expr)
	}
	if err != nil {
		t.Fatal(err)
	}
}

var settles = await.True

var (
	ours    = numbered(1)
	theirs  = numbered(2)
	aMember = numbered(3)
	another = numbered(4)
)

// TestWhoIsAllowed goes through what a decision depends on, each with both answers.
func TestWhoIsAllowed(t *testing.T) {
	policies := policy.NewSet()
	a := newAccess(policies)
	g := a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false)
	allowed := func(what string, id identity.Identifier, want bool) {
		t.Helper()
		if got := g.Grant(peerOf(id)).Allowed(); got != want {
			t.Errorf("%s: allowed %v, want %v", what, got, want)
		}
	}
	allowed("a stranger", aMember, false)
	a.learn(credential(aMember, theirs, time.Hour, nil))
	allowed("a member of another authority", aMember, false)
	a.learn(credential(aMember, ours, time.Hour, nil))
	allowed("a member", aMember, true)
	allowed("another stranger", another, false)
	if g.Grant(nil).Allowed() {
		t.Error("nobody is allowed")
	}
	a.learn(credential(another, ours, -time.Second, nil))
	allowed("with a credential that has expired", another, false)

	setPolicy(t, policies, policy.ByName("db"), `(= subject.role "admin")`)
	allowed("without the attribute", aMember, false)
	a.learn(credential(aMember, ours, time.Hour, identity.Attributes{"role": "admin"}))
	allowed("with the attribute", aMember, true)
	a.learn(credential(aMember, ours, time.Hour, identity.Attributes{"role": "guest"}))
	allowed("with another value", aMember, false)
	policies.Delete(policy.ByName("db"))
	allowed("by the type's policy", aMember, true)
	policies.Delete(policy.ByType(policy.TCPOutlet))
	allowed("without any policy", aMember, false)

	if a.guard(policy.ByName("x"), policy.TCPOutlet, nil, false) != nil {
		t.Error("without authority and policy there is a guard")
	}
	setPolicy(t, policies, policy.ByName("open"), `(= subject.identifier "`+aMember.String()+`")`)
	open := a.guard(policy.ByName("open"), policy.TCPOutlet, nil, true)
	if !open.Grant(peerOf(aMember)).Allowed() || open.Grant(peerOf(another)).Allowed() {
		t.Error("without an authority the policy by identifier does not decide")
	}
}

// TestAttributesOf asks for what an authority attested, as a relay does.
func TestAttributesOf(t *testing.T) {
	a := newAccess(policy.NewSet())
	if _, ok := a.attributes(aMember, ours); ok {
		t.Error("attributes of a stranger")
	}
	a.learn(credential(aMember, ours, time.Hour, identity.Attributes{"k": "v"}))
	if got, ok := a.attributes(aMember, ours); !ok || got["k"] != "v" {
		t.Errorf("%v, %v", got, ok)
	}
	if _, ok := a.attributes(aMember, theirs); ok {
		t.Error("one authority's attributes taken for another's")
	}
	// The timer has not run, but the time is over.
	a.mu.Lock()
	a.records[aMember].expires = time.Now().Add(-time.Millisecond)
	a.mu.Unlock()
	if _, ok := a.attributes(aMember, ours); ok {
		t.Error("attributes after their end")
	}
}

// TestOpenConnectionsAreToldOfEveryChange holds a grant as a connection does.
func TestOpenConnectionsAreToldOfEveryChange(t *testing.T) {
	for name, change := range map[string]func(a *access, policies *policy.Set){
		"policy":     func(_ *access, p *policy.Set) { setPolicy(t, p, policy.ByName("db"), `(= subject.role "x")`) },
		"credential": func(a *access, _ *policy.Set) { a.learn(credential(aMember, theirs, time.Hour, nil)) },
		"expiry": func(a *access, _ *policy.Set) {
			a.learn(&identity.Credential{Subject: aMember, Issuer: ours, ExpiresAt: identity.Timestamp(time.Now().Unix() + 1)})
		},
	} {
		policies := policy.NewSet()
		a := newAccess(policies)
		g := a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false)
		a.learn(credential(aMember, ours, time.Hour, nil))
		grant, h := g.Grant(peerOf(aMember)), &holder{}
		grant.Watch(h)
		if !grant.Allowed() || h.told.Load() != 0 {
			t.Fatal(name, "not allowed before")
		}
		change(a, policies)
		settles(t, name, func() bool { return h.told.Load() == 1 && !grant.Allowed() && !g.Grant(peerOf(aMember)).Allowed() })
		settles(t, name+": who is denied is forgotten", func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			return len(g.grants) == 0
		})
	}
}

// TestClosedGuardIsNotTold: a portal that was deleted costs nothing any more.
func TestClosedGuardIsNotTold(t *testing.T) {
	a := newAccess(policy.NewSet())
	g := a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false)
	if len(a.guardsNow()) != 1 {
		t.Fatal("guard not known")
	}
	g.close()
	(*guard)(nil).close()
	if len(a.guardsNow()) != 0 {
		t.Error("guard still known")
	}
}

// TestOneTimerForEachMember presents credentials again and again.
func TestOneTimerForEachMember(t *testing.T) {
	a := newAccess(policy.NewSet())
	first := credential(aMember, ours, time.Hour, identity.Attributes{"a": "b"})
	a.learn(first)
	r := a.record(aMember)
	for range 1000 {
		a.learn(first)
	}
	if a.record(aMember) != r {
		t.Error("the same credential makes a new record and a new timer each time")
	}
	a.learn(credential(aMember, ours, 2*time.Hour, identity.Attributes{"a": "b"}))
	if a.record(aMember) == r || r.timer.Stop() {
		t.Error("the timer of the record before runs on")
	}
	for _, c := range []*identity.Credential{
		credential(aMember, ours, 2*time.Hour, identity.Attributes{"a": "c"}),
		credential(aMember, theirs, 2*time.Hour, identity.Attributes{"a": "c"}),
	} {
		before := a.record(aMember)
		a.learn(c)
		if a.record(aMember) == before {
			t.Errorf("%v is not new", c)
		}
	}
}

// TestOldExpiryLeavesRenewedRecord: what was renewed does not end when what it replaced would have.
func TestOldExpiryLeavesRenewedRecord(t *testing.T) {
	a := newAccess(policy.NewSet())
	g := a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false)
	a.learn(credential(aMember, ours, time.Hour, nil))
	old := a.record(aMember)
	a.learn(credential(aMember, ours, 2*time.Hour, nil))
	h := &holder{}
	g.Grant(peerOf(aMember)).Watch(h)
	a.expire(aMember, old)
	if a.record(aMember) == nil || h.told.Load() != 0 {
		t.Error("the record's predecessor took it along")
	}
	a.expire(aMember, a.record(aMember))
	if a.record(aMember) != nil || h.told.Load() != 1 {
		t.Error("a record outlives its end")
	}
}

// TestRecallIsForWhomNothingIsKnown brings back what was known before a restart.
func TestRecallIsForWhomNothingIsKnown(t *testing.T) {
	a := newAccess(policy.NewSet())
	before := &record{attributes: map[string]string{"from": "before"}, expires: time.Now().Add(time.Hour), attestedBy: ours}
	a.recall(aMember, before)
	if got, _ := a.attributes(aMember, ours); got["from"] != "before" {
		t.Error("not recalled")
	}
	a.learn(credential(another, ours, time.Minute, identity.Attributes{"from": "now"}))
	a.recall(another, &record{attributes: map[string]string{"from": "before"}, expires: time.Now().Add(time.Hour), attestedBy: ours})
	if got, _ := a.attributes(another, ours); got["from"] != "now" {
		t.Error("what is known now was replaced by what was known before")
	}
	a.recall(numbered(9), &record{expires: time.Now().Add(-time.Second), attestedBy: ours})
	if a.record(numbered(9)) != nil {
		t.Error("what has expired was recalled")
	}
}

// TestStrangersPushNobodyOut sends many strangers past a guard on which a member has a connection.
func TestStrangersPushNobodyOut(t *testing.T) {
	policies := policy.NewSet()
	a := newAccess(policies)
	g := a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false)
	g.room = 100
	a.learn(credential(aMember, ours, time.Hour, nil))
	h := &holder{}
	g.Grant(peerOf(aMember)).Watch(h)
	for i := range 10_000 {
		g.Grant(peerOf(numbered(100 + i)))
	}
	if len(g.grants) != 1 {
		t.Errorf("%d grants are kept for strangers", len(g.grants)-1)
	}
	// The same with an open policy, where strangers are allowed.
	setPolicy(t, policies, policy.ByName("db"), `(!= subject.identifier "nobody")`)
	holders := make([]*holder, 150) // more than there is room for
	for i := range holders {
		holders[i] = &holder{}
		g.Grant(peerOf(numbered(100 + i))).Watch(holders[i])
	}
	for i := range 10_000 {
		g.Grant(peerOf(numbered(1000 + i)))
	}
	// A few more than one look finds: where each begins is a matter of luck.
	if n := len(g.grants); n > 151+4*maxLooking {
		t.Errorf("%d grants are kept", n)
	}
	if g.grants[aMember] == nil || h.told.Load() != 0 {
		t.Fatal("the grant of an open connection was dropped")
	}
	setPolicy(t, policies, policy.ByName("db"), `(= subject.identifier "nobody")`)
	for i, h := range append(holders, h) {
		if h.told.Load() != 1 {
			t.Fatalf("holder %d was told %d times that the policy denies it", i, h.told.Load())
		}
	}
}

// TestForgottenGrantDenies: who got a grant in the moment in which it was forgotten does not keep it for ever.
func TestForgottenGrantDenies(t *testing.T) {
	policies := policy.NewSet()
	a := newAccess(policies)
	setPolicy(t, policies, policy.ByName("db"), `(!= subject.identifier "nobody")`)
	g := a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false)
	g.room = 1
	late := g.Grant(peerOf(numbered(10)))
	g.Grant(peerOf(numbered(11)))
	h := &holder{}
	late.Watch(h)
	if late.Allowed() || h.told.Load() != 1 {
		t.Error("a forgotten grant is still good")
	}
	if !g.Grant(peerOf(numbered(10))).Allowed() {
		t.Error("it is not decided again")
	}
}

// TestPolicyChangedWhileDeciding: whatever was said last must be what counts, however many decide at the same time.
func TestPolicyChangedWhileDeciding(t *testing.T) {
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	policies := policy.NewSet()
	a := newAccess(policies)
	yes, _ := policy.Parse(`(= subject.has_credential true)`)
	no, _ := policy.Parse(`(= subject.has_credential false)`)
	a.learn(credential(aMember, ours, time.Hour, nil))
	for round := range rounds {
		if err := policies.Set(policy.ByName("db"), yes); err != nil {
			t.Fatal(err)
		}
		g := a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false)
		last, answer := no, false
		if round%2 == 1 {
			last, answer = yes, true
			_ = policies.Set(policy.ByName("db"), no)
		}
		var all sync.WaitGroup
		start := make(chan struct{})
		for range 3 {
			all.Go(func() { <-start; g.Grant(peerOf(aMember)) })
		}
		all.Go(func() { <-start; a.decide(aMember) })
		all.Go(func() { <-start; _ = policies.Set(policy.ByName("db"), last) })
		close(start)
		all.Wait()
		if g.Grant(peerOf(aMember)).Allowed() != answer {
			t.Fatalf("round %d: allowed is %v under the policy %s", round, !answer, last)
		}
		g.close()
	}
}

// TestRevokedIsRefusedWhateverItPresents: a member that was taken back is out at once and stays out, with new credentials too, until it is restored;
// what was made before the revocation is never good again.
func TestRevokedIsRefusedWhateverItPresents(t *testing.T) {
	policies := policy.NewSet()
	a := newAccess(policies)
	a.self = ours
	g := a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false)
	now := time.Now()
	made := func(at time.Time) *identity.Credential {
		c := credential(aMember, ours, time.Hour, nil)
		c.CreatedAt = identity.Timestamp(at.Unix())
		return c
	}
	before, after := now.Add(-time.Minute), now.Add(time.Minute)
	a.learn(made(before))
	r, h := a.record(aMember), &holder{}
	g.Grant(peerOf(aMember)).Watch(h)
	a.learn(credential(another, ours, time.Hour, nil))
	stays := &holder{}
	g.Grant(peerOf(another)).Watch(stays)
	if a.revokedCount() != 0 || a.isRevoked(aMember) || a.isTakenBack(aMember, before) {
		t.Error("revoked before anybody said so")
	}

	a.revoke(aMember, now, now.Add(time.Hour), false)
	if h.told.Load() != 1 || stays.told.Load() != 0 {
		t.Errorf("told %d times, its neighbour %d times", h.told.Load(), stays.told.Load())
	}
	if a.record(aMember) != nil || r.timer.Stop() {
		t.Error("the record or its timer is left")
	}
	for _, at := range []time.Time{before, now, after} {
		a.learn(made(at))
		if a.record(aMember) != nil || g.Grant(peerOf(aMember)).Allowed() || !a.isTakenBack(aMember, at) {
			t.Errorf("a credential made %v after the revocation is believed", at.Sub(now))
		}
	}
	if !a.isRevoked(aMember) || a.isRevoked(another) || a.isTakenBack(another, before) || a.revokedCount() != 1 {
		t.Error("who is revoked")
	}
	setPolicy(t, policies, policy.ByName("db"), `(!= subject.identifier "nobody")`)
	if g.Grant(peerOf(aMember)).Allowed() || !g.Grant(peerOf(numbered(50))).Allowed() {
		t.Error("a policy for everybody lets a revoked member in, or nobody")
	}
	policies.Delete(policy.ByName("db"))

	a.revoke(aMember, now, now.Add(time.Hour), true)
	a.learn(made(before))
	a.learn(made(now.Truncate(time.Second)))
	if a.record(aMember) != nil || !a.isTakenBack(aMember, before) || !a.isTakenBack(aMember, now) {
		t.Error("what was taken back is good again")
	}
	a.learn(made(after))
	if a.isRevoked(aMember) || a.isTakenBack(aMember, after) || a.revokedCount() != 0 || !g.Grant(peerOf(aMember)).Allowed() {
		t.Error("a restored member with a new credential is refused")
	}
	a.revoke(aMember, now, now.Add(time.Hour), true) // heard again
	if a.record(aMember) == nil || !g.Grant(peerOf(aMember)).Allowed() {
		t.Error("an old revocation takes a newer record")
	}
}

// TestRevocationEnds: it is forgotten when what it took back would have expired by itself.
func TestRevocationEnds(t *testing.T) {
	a := newAccess(policy.NewSet())
	now := time.Now()
	a.revoke(aMember, now, now.Add(-time.Second), false)
	if a.isRevoked(aMember) || a.isTakenBack(aMember, now.Add(-time.Hour)) || a.revokedCount() != 0 {
		t.Error("revoked after the end")
	}
	a.revoke(another, now, now.Add(time.Hour), false)
	for k := range 3 * minTidy { // those that have ended are forgotten sooner or later
		if a.revoke(numbered(1000+k), now, now.Add(-time.Second), false); len(a.revoked) > 2*minTidy {
			t.Fatalf("%d revocations are kept", len(a.revoked))
		}
	}
	if _, kept := a.revoked[aMember]; kept {
		t.Error("one that has ended long ago is kept")
	}
	a.revoke(numbered(9), now, now.Add(time.Hour), false)
	if a.revokedCount() != 2 {
		t.Error("a revocation that is in force was forgotten")
	}
}

// TestRevokedNodeServesNobody: a node that was itself taken back closes what it has open.
func TestRevokedNodeServesNobody(t *testing.T) {
	policies := policy.NewSet()
	a := newAccess(policies)
	a.self = theirs
	a.learn(credential(aMember, ours, time.Hour, nil))
	h, open := &holder{}, &holder{}
	a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false).Grant(peerOf(aMember)).Watch(h)
	free := a.portalGuard(policy.Own("tcp-outlet", "free"), policy.TCPOutlet, nil)
	free.Grant(peerOf(another)).Watch(open)
	a.revoke(theirs, time.Now(), time.Now().Add(time.Hour), false)
	if h.told.Load() != 1 || open.told.Load() != 1 || free.Grant(peerOf(another)).Allowed() {
		t.Errorf("told %d and %d times", h.told.Load(), open.told.Load())
	}
}

// TestOpenPortalIsOpenUntilThereIsAPolicy: with neither authority nor policy a portal is everybody's, also for peers without a channel; a policy of its
// name ends that for those that are connected too, and its end begins it again.
func TestOpenPortalIsOpenUntilThereIsAPolicy(t *testing.T) {
	policies := policy.NewSet()
	a := newAccess(policies)
	g := a.portalGuard(policy.Own("tcp-outlet", "db"), policy.TCPOutlet, nil)
	anyone, member := &holder{}, &holder{}
	if !g.isOpen() || !g.Grant(nil).Allowed() || !g.Grant(peerOf(aMember)).Allowed() {
		t.Fatal("not open")
	}
	g.Grant(nil).Watch(anyone)
	g.Grant(peerOf(aMember)).Watch(member)
	setPolicy(t, policies, policy.ByName("db"), `(= subject.identifier "`+another.String()+`")`)
	if g.isOpen() || g.Grant(nil).Allowed() || g.Grant(peerOf(aMember)).Allowed() || anyone.told.Load() != 1 || member.told.Load() != 1 {
		t.Errorf("open in spite of a policy; told %d and %d times", anyone.told.Load(), member.told.Load())
	}
	if !g.Grant(peerOf(another)).Allowed() {
		t.Error("whom the policy names is refused")
	}
	policies.Delete(policy.ByName("db"))
	if !g.Grant(nil).Allowed() || !g.Grant(peerOf(aMember)).Allowed() {
		t.Error("not open again")
	}
	closed := a.portalGuard(policy.Own("tcp-outlet", "closed"), policy.TCPOutlet, &ours)
	if closed.isOpen() || closed.Grant(nil).Allowed() || closed.Grant(peerOf(aMember)).Allowed() {
		t.Error("with an authority it is open")
	}
	setPolicy(t, policies, policy.ByName("named"), `(= subject.has_credential true)`)
	if named := a.portalGuard(policy.Own("tcp-outlet", "named"), policy.TCPOutlet, nil); named.Grant(nil).Allowed() || named.Grant(peerOf(aMember)).Allowed() {
		t.Error("a policy that came first is not asked")
	}
}

// TestMembersGuard: what is for members asks for a credential of the authority, whatever policies say.
func TestMembersGuard(t *testing.T) {
	policies := policy.NewSet()
	a := newAccess(policies)
	setPolicy(t, policies, policy.ByName("echo"), `(!= subject.identifier "nobody")`)
	g := newGuard(a, policy.ByName("echo"), policy.TCPOutlet, &ours)
	g.members = true
	a.add(g)
	a.learn(credential(aMember, ours, time.Hour, nil))
	a.learn(credential(another, theirs, time.Hour, nil))
	if !g.Grant(peerOf(aMember)).Allowed() || g.Grant(peerOf(another)).Allowed() || g.Grant(peerOf(numbered(50))).Allowed() || g.Grant(nil).Allowed() {
		t.Error("not for members, or not for them alone")
	}
	setPolicy(t, policies, policy.ByName("echo"), `(= subject.identifier "nobody")`)
	if !g.Grant(peerOf(aMember)).Allowed() {
		t.Error("a policy decides")
	}
}

// TestPolicyKnowsWithoutAuthority: where no authority is known, nobody has a credential and the policy is told so.
func TestPolicyKnowsWithoutAuthority(t *testing.T) {
	policies := policy.NewSet()
	a := newAccess(policies)
	setPolicy(t, policies, policy.ByName("db"), `(= subject.has_credential true)`)
	a.learn(credential(aMember, ours, time.Hour, nil))
	if a.guard(policy.ByName("db"), policy.TCPOutlet, nil, true).Grant(peerOf(aMember)).Allowed() {
		t.Error("a credential of an authority that the resource does not know counts")
	}
	if !a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, true).Grant(peerOf(aMember)).Allowed() {
		t.Error("that of its authority does not")
	}
}

// TestGrantsMadeRoomFor: at the bound a grant that nobody holds goes, and below it none does.
func TestGrantsMadeRoomFor(t *testing.T) {
	policies := policy.NewSet()
	a := newAccess(policies)
	setPolicy(t, policies, policy.ByName("db"), `(!= subject.identifier "nobody")`)
	g := a.guard(policy.ByName("db"), policy.TCPOutlet, &ours, false)
	g.room = 2
	first := g.Grant(peerOf(numbered(10)))
	second := g.Grant(peerOf(numbered(11)))
	if !first.Allowed() || !second.Allowed() || len(g.grants) != 2 {
		t.Error("forgotten below the bound")
	}
	g.Grant(peerOf(numbered(12)))
	if len(g.grants) != 2 || first.Allowed() == second.Allowed() {
		t.Errorf("%d grants are kept, %v %v", len(g.grants), first.Allowed(), second.Allowed())
	}
	if g.Grant(peerOf(numbered(12))) != g.grants[numbered(12)] {
		t.Error("a grant that is known is made again")
	}
}
