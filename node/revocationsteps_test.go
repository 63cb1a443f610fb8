package node

import (
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/policy"
)

// revocationsKept is a Store that keeps what was revoked, and counts how often.
type revocationsKept struct {
	forgetful
	data []byte
	puts int
}

func (s *revocationsKept) PutRevoked(data []byte) error { s.data = data; s.puts++; return nil }
func (s *revocationsKept) Revoked() ([]byte, error)     { return s.data, nil }

func (s *revocationsKept) kept(t *testing.T) (k keptRevocations) {
	t.Helper()
	if err := cbor.Unmarshal(s.data, &k); err != nil {
		t.Fatal(err)
	}
	return k
}

// revoking is an authority outside of any network, and members of it.
type revoking struct {
	t    *testing.T
	ids  *identity.Manager
	self identity.Identifier
	*authority.Authority
}

func newRevoking(t *testing.T, ids *identity.Manager, self identity.Identifier) *revoking {
	t.Helper()
	store, err := authority.OpenStore(filepath.Join(t.TempDir(), "authority.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	a, err := authority.New(t.Context(), authority.Options{Store: store, Identities: ids, Self: self, ProjectID: "p", TrustedIdentities: map[identity.Identifier]map[string]string{
		ours: {authority.RoleAttribute: authority.RoleEnroller},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return &revoking{t, ids, self, a}
}

func (a *revoking) client() *authority.Client {
	p := testProject{auth: a.Authority, admin: ours}
	return p.client()
}

// revoke adds members and takes them back.
func (a *revoking) revoke(members ...identity.Identifier) {
	a.t.Helper()
	for _, id := range members {
		err := a.client().AddMember(a.t.Context(), id, nil)
		if err == nil {
			err = a.client().DeleteMember(a.t.Context(), id)
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
}

// news is all that there is.
func (a *revoking) news() authority.News {
	a.t.Helper()
	all, err := a.News(a.t.Context(), authority.Query{})
	if err != nil {
		a.t.Fatal(err)
	}
	return all
}

// told is a node that was not started, which is told by an authority.
func (a *revoking) told(store Store) *revocations {
	a.t.Helper()
	ids, self := newIdentities(a.t)
	history, err := a.ids.History(a.t.Context(), a.self)
	if err == nil {
		_, err = ids.Import(a.t.Context(), history, nil)
	}
	if err != nil {
		a.t.Fatal(err)
	}
	n := plainNodeOf(a.t, "n", "127.0.0.1:0", ids, self)
	n.opts.Store, n.opts.Trust.Authority = store, &a.self
	return &revocations{node: n, state: AuthorityUnreachable}
}

// TestRevocationsAreKept: what was revoked is known after a restart, as the authority signed it, and since when nothing was heard of it, if that can be. What has
// ended is not kept.
func TestRevocationsAreKept(t *testing.T) {
	ids, self := newIdentities(t)
	a := newRevoking(t, ids, self)
	store := &revocationsKept{}
	r := a.told(store)
	a.revoke(numbered(100), numbered(101))
	if err := r.take(t.Context(), a.news(), false); err != nil || r.state != AuthorityUp || r.since != 2 || store.puts != 1 {
		t.Fatalf("%v, state %s, %d known, kept %d times", err, r.state, r.since, store.puts)
	}
	if got := r.node.counters.revoked.Load(); got != 2 || r.node.access.revokedCount() != 2 {
		t.Errorf("%d counted, %d revoked", got, r.node.access.revokedCount())
	}
	if err := r.take(t.Context(), a.news(), false); err != nil || store.puts != 1 || r.node.counters.revoked.Load() != 2 {
		t.Errorf("told of the same again: %v, kept %d times, %d counted", err, store.puts, r.node.counters.revoked.Load())
	}
	heard := r.heard
	for what, c := range map[string]struct {
		heard int64
		want  time.Time
	}{
		"as it was": {heard.Unix(), time.Unix(heard.Unix(), 0)}, "never": {0, time.Time{}}, "by a clock that was set back": {heard.Add(time.Hour).Unix(), time.Time{}},
	} {
		k := store.kept(t)
		k.Heard = c.heard
		raw, err := cbor.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		before := &revocationsKept{data: raw}
		next := a.told(before)
		next.load(t.Context())
		if string(next.list) != string(r.list) || next.since != 2 || next.node.access.revokedCount() != 2 || len(next.known) != 2 || before.puts != 0 || next.state != AuthorityUnreachable {
			t.Errorf("%s: list %x, %d known, %d revoked, kept %d times, state %s", what, next.list, next.since, next.node.access.revokedCount(), before.puts, next.state)
		}
		if !next.heard.Equal(c.want) || !next.kept.Equal(c.want) {
			t.Errorf("%s: heard %v, not %v", what, next.heard, c.want)
		}
		if history, err := next.node.opts.Identities.History(t.Context(), self); err != nil || next.key != authority.KeyName(history) {
			t.Errorf("%s: the authority's key is not known: %v", what, err)
		}
	}
	// What somebody else wrote there is not believed.
	others, other := newIdentities(t)
	forged := newRevoking(t, others, other)
	forged.revoke(numbered(102))
	raw, err := cbor.Marshal(keptRevocations{List: forged.news().List, Since: 1, Statements: forged.news().Statements})
	if err != nil {
		t.Fatal(err)
	}
	next := a.told(&revocationsKept{data: raw})
	next.load(t.Context())
	if next.since != 0 || next.node.access.revokedCount() != 0 {
		t.Errorf("%d known, %d revoked, by somebody else", next.since, next.node.access.revokedCount())
	}
	// The first one's time is over; of those that are kept it is not the last, so a hole is left.
	a.revoke(numbered(103))
	r.known[1].until = time.Now().Add(-time.Second)
	if err := r.take(t.Context(), a.news(), false); err != nil || store.puts != 2 {
		t.Fatalf("%v, kept %d times", err, store.puts)
	}
	if k := store.kept(t); len(k.Statements) != 2 || k.Since != 3 || k.Heard != r.heard.Unix() || len(r.known) != 2 {
		t.Errorf("%d statements are kept, to %d", len(k.Statements), k.Since)
	}
	next = a.told(store)
	next.load(t.Context())
	if next.since != 3 || next.node.access.revokedCount() != 2 || !next.node.access.isRevoked(numbered(103)) {
		t.Errorf("%d known, %d revoked", next.since, next.node.access.revokedCount())
	}
}

// TestNewListOfRevocations: an authority whose store was replaced counts anew, and what the one before revoked stays revoked; so does one whose store went back.
func TestNewListOfRevocations(t *testing.T) {
	ids, self := newIdentities(t)
	first, second := newRevoking(t, ids, self), newRevoking(t, ids, self)
	first.revoke(numbered(100), numbered(101))
	second.revoke(numbered(102))
	store := &revocationsKept{}
	r := first.told(store)
	take := func(what string, news authority.News, since uint64, known, revoked int) {
		t.Helper()
		err := r.take(t.Context(), news, false)
		if err != nil || string(r.list) != string(news.List) || r.since != since || len(r.known) != known || r.node.access.revokedCount() != revoked {
			t.Errorf("%s: %v, list %x, %d known (%d statements), %d revoked", what, err, r.list, r.since, len(r.known), r.node.access.revokedCount())
		}
	}
	take("the first", first.news(), 2, 2, 2)
	take("another list", second.news(), 1, 1, 3)
	before := first.news()
	take("the first again", before, 2, 2, 3)
	before.Head, before.Statements = 1, before.Statements[:1]
	take("a store that went back", before, 1, 1, 3)
	if k := store.kept(t); k.Since != 1 || len(k.Statements) != 1 {
		t.Errorf("kept: %d statements, to %d", len(k.Statements), k.Since)
	}
	// All that it said has ended: it is not asked for again and again.
	ended := second.news()
	ended.Head, ended.Statements = 7, nil
	take("a list of which nothing is left", ended, 7, 0, 3)
	// A part is not written down before the rest has come.
	puts := store.puts
	part := first.news()
	part.Statements = part.Statements[:1]
	take("a part", part, 1, 1, 3)
	if store.puts != puts {
		t.Error("a part is kept")
	}
	rest := first.news()
	rest.From, rest.Statements = 1, rest.Statements[1:]
	take("the rest", rest, 2, 2, 3)
	if store.puts != puts+1 {
		t.Errorf("kept %d times", store.puts-puts)
	}
	// One that may come back.
	if err := first.client().AddMember(t.Context(), numbered(100), nil); err != nil {
		t.Fatal(err)
	}
	take("one was restored", first.news(), 3, 3, 2)
	if r.node.access.isRevoked(numbered(100)) || !r.node.access.isTakenBack(numbered(100), time.Now().Add(-time.Hour)) {
		t.Errorf("the restored member is revoked: %v", r.node.access.isRevoked(numbered(100)))
	}
}

// TestHeardIsKept: with --authority-grace a restart does not begin the time anew: when the authority was heard is written down from time to time.
func TestHeardIsKept(t *testing.T) {
	ids, self := newIdentities(t)
	a := newRevoking(t, ids, self)
	for _, c := range []struct {
		grace, kept time.Duration
		puts        int
	}{{time.Hour, 16 * time.Minute, 1}, {time.Hour, 14 * time.Minute, 0}, {0, time.Hour, 0}} {
		store := &revocationsKept{}
		r := a.told(store)
		r.node.opts.Trust.Grace, r.kept, r.late = c.grace, time.Now().Add(-c.kept), true
		if err := r.take(t.Context(), a.news(), false); err != nil || store.puts != c.puts || time.Since(r.heard) > time.Minute || r.late || r.state != AuthorityUp {
			t.Errorf("%+v: %v, kept %d times, heard %v, late %v", c, err, store.puts, r.heard, r.late)
		}
		if store.puts > 0 && r.kept != r.heard {
			t.Error("it is kept again with the next word")
		}
	}
}

// TestChannelsOfTheRevokedEnd: when a member is revoked its channels end and no others, not that of a project's node, which needs no membership. The node's own
// credential is replaced where it is the one.
func TestChannelsOfTheRevokedEnd(t *testing.T) {
	ids, self := newIdentities(t)
	a := newRevoking(t, ids, self)
	r := a.told(&revocationsKept{})
	n := r.node
	n.creds = newCredentials(n)
	n.creds.own = ownCredential{raw: []byte{1}, created: time.Now().Add(-time.Hour), expires: time.Now().Add(time.Hour)}
	ends := map[string]*connection{}
	var gone []identity.Identifier
	for _, name := range []string{"revoked", "stays", "project"} {
		peer := plainNode(t, name, "127.0.0.1:0")
		c, err := n.connect(t.Context(), mustRoute(t, tcpRoute(t, peer)+"/secure/api"), connectOptions{self: n.opts.Self})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.close)
		if ends[name] = c; name != "stays" {
			gone = append(gone, peer.opts.Self)
		}
		if name == "project" {
			n.projectNodes.Store(peer.opts.Self, struct{}{})
		}
	}
	open := func(name string) bool {
		select {
		case <-ends[name].done():
			return false
		default:
			return true
		}
	}
	a.revoke(gone...)
	if err := r.take(t.Context(), a.news(), false); err != nil {
		t.Fatal(err)
	}
	settles(t, "the channel of the one that was revoked ends", func() bool { return !open("revoked") })
	if !open("stays") || !open("project") {
		t.Errorf("a neighbour's channel is open %v, that of the project's node %v", open("stays"), open("project"))
	}
	if !n.creds.notBefore.IsZero() {
		t.Error("another member's credential was taken back, not the node's")
	}
	a.revoke(n.opts.Self)
	if err := r.take(t.Context(), a.news(), false); err != nil || n.creds.notBefore.IsZero() || n.creds.renewAt.IsZero() || !n.access.isRevoked(n.opts.Self) {
		t.Errorf("%v: the node's own credential, taken back, is good", err)
	}
}

// TestAuthorityHasAnotherKey: what waits for a new primary key of the authority is looked at when it has one, and not sooner, if it has not waited for too long.
// Only what nobody known vouches for waits, the last of each peer.
func TestAuthorityHasAnotherKey(t *testing.T) {
	s := newSubject(t)
	n := s.node(t, forgetful{})
	n.creds, n.access = nil, newAccess(policy.NewSet())
	r := &revocations{node: n}
	n.revoked = r
	if err := r.follow(t.Context()); err != nil || r.key == [32]byte{} {
		t.Fatalf("%v, %x", err, r.key)
	}
	before := r.key
	if _, err := s.authorities.Rotate(t.Context(), s.authority, identity.RotateOptions{}); err != nil {
		t.Fatal(err)
	}
	raw := s.credential(t, s.self)
	n.acceptCredential(t.Context(), s.self, []byte("junk"))
	if len(r.pending) != 0 {
		t.Error("junk waits")
	}
	for range 2 {
		n.acceptCredential(t.Context(), s.self, raw)
	}
	if len(r.pending) != 1 || n.counters.credentialsRefused.Load() != 3 || n.access.record(s.self) != nil {
		t.Errorf("%d wait, %d were refused", len(r.pending), n.counters.credentialsRefused.Load())
	}
	if err := r.follow(t.Context()); err != nil || r.key != before || len(r.pending) != 1 {
		t.Errorf("before the key is known: %v, %d wait", err, len(r.pending))
	}
	s.tell(t)
	r.pending[0].at = time.Now().Add(-pendingFor - time.Second)
	if err := r.follow(t.Context()); err != nil || r.key == before || len(r.pending) != 0 || n.access.record(s.self) != nil {
		t.Errorf("what has waited for too long: %v, %d wait, known %v", err, len(r.pending), n.access.record(s.self))
	}
	r.key = before
	r.wait(s.self, raw)
	if err := r.follow(t.Context()); err != nil || len(r.pending) != 0 || n.access.record(s.self) == nil {
		t.Errorf("what waited: %v, %d wait", err, len(r.pending))
	}
	// The first time nothing is new: the node has just learned of the key that there is.
	r.key = [32]byte{}
	r.wait(s.self, raw)
	if err := r.follow(t.Context()); err != nil || r.key == [32]byte{} || len(r.pending) != 1 {
		t.Errorf("the first time: %v, %d wait", err, len(r.pending))
	}
	for k := range maxPending + 5 {
		r.wait(numbered(100+k), raw)
	}
	if k := len(r.pending); k != maxPending || r.pending[0].peer != numbered(105) || r.pending[k-1].peer != numbered(100+maxPending+4) {
		t.Errorf("%d wait, from %s to %s", k, r.pending[0].peer, r.pending[k-1].peer)
	}
	n.opts.Trust.Authority = &another
	if err := r.follow(t.Context()); err == nil {
		t.Error("an authority of which nothing is known")
	}
}

// TestWhenAnotherKeyIsAskedFor: at once when the authority names one that is not known, then with growing pauses, and at once again for yet another.
func TestWhenAnotherKeyIsAskedFor(t *testing.T) {
	var o otherKey
	now := time.Unix(1_000_000, 0)
	if !o.due([]byte("one"), now) || o.due([]byte("one"), now.Add(2*newsRetry-1)) || !o.due([]byte("one"), now.Add(2*newsRetry)) {
		t.Error("the first pause")
	}
	now = now.Add(2 * newsRetry)
	if o.due([]byte("one"), now.Add(4*newsRetry-1)) || !o.due([]byte("one"), now.Add(4*newsRetry)) {
		t.Error("the pause does not grow")
	}
	if !o.due([]byte("two"), now) || o.due([]byte("two"), now.Add(2*newsRetry-1)) {
		t.Error("another one")
	}
	for range 20 {
		now = now.Add(2 * newsForeign)
		if !o.due([]byte("two"), now) {
			t.Fatal("not asked any more")
		}
	}
	if o.pause != newsForeign {
		t.Errorf("a pause of %v", o.pause)
	}
}

// TestCredentialAfterRevocation: a credential that was made before its member was revoked is refused, also when it is valid.
func TestCredentialAfterRevocation(t *testing.T) {
	s := newSubject(t)
	n := s.node(t, forgetful{})
	n.access, n.log = newAccess(policy.NewSet()), slog.New(slog.NewTextHandler(io.Discard, nil))
	raw := s.credential(t, s.self)
	n.access.revoke(s.self, time.Now(), time.Now().Add(time.Hour), true) // and restored
	n.acceptCredential(t.Context(), s.self, raw)
	if n.access.record(s.self) != nil || n.counters.credentialsRefused.Load() != 1 {
		t.Errorf("%d refused", n.counters.credentialsRefused.Load())
	}
	n.access.revoke(s.self, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), true)
	n.acceptCredential(t.Context(), s.self, raw)
	if n.access.record(s.self) == nil || n.counters.credentialsRefused.Load() != 1 {
		t.Errorf("one that was made after: %d refused", n.counters.credentialsRefused.Load())
	}
}

// TestGraceThatNobodyAskedFor: without --authority-grace the authority may be silent for as long as credentials last: the node's own, or else as they do by default.
func TestGraceThatNobodyAskedFor(t *testing.T) {
	n := &Node{access: newAccess(policy.NewSet()), started: time.Now().Add(-time.Second)}
	if s := n.AuthorityState(); s != (AuthorityState{}) {
		t.Errorf("without an authority: %+v", s)
	}
	n.revoked = &revocations{node: n, state: AuthorityUnreachable}
	expect := func(what string, grace time.Duration, late bool) {
		t.Helper()
		if s := n.AuthorityState(); s.Grace != grace || s.Late != late || s.Revoked != 1 || s.Silence < time.Second {
			t.Errorf("%s: %+v", what, s)
		}
	}
	n.access.revoke(aMember, time.Now(), time.Now().Add(time.Hour), false)
	expect("no credential of its own", authority.DefaultCredentialTTL, false)
	n.creds = newCredentials(n)
	expect("none yet", authority.DefaultCredentialTTL, false)
	n.creds.own = ownCredential{raw: []byte{1}, created: time.Unix(0, 0), expires: time.Unix(7200, 0)}
	expect("one for two hours", 2*time.Hour, false)
	n.started = time.Now().Add(-3 * time.Hour)
	expect("silent for longer", 2*time.Hour, true)
	n.opts.Trust.Grace = 4 * time.Hour
	expect("more was asked for", 4*time.Hour, false)
}
