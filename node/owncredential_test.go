package node

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// credentialStore is a Store that has one credential, or cannot read it.
type credentialStore struct {
	forgetful
	raw []byte
	err error
	put []byte
}

func (s *credentialStore) Credential(context.Context, identity.Identifier, identity.Identifier, string) ([]byte, error) {
	return s.raw, s.err
}

func (s *credentialStore) PutCredential(_ context.Context, _, _ identity.Identifier, _ string, raw []byte, _ time.Time) error {
	s.put = raw
	return nil
}

// subject is an identity with credentials of an authority, outside of any network.
type subject struct {
	authorities, ids *identity.Manager
	authority, self  identity.Identifier
}

func newSubject(t *testing.T) *subject {
	t.Helper()
	s := &subject{}
	s.authorities, s.authority = newIdentities(t)
	s.ids, s.self = newIdentities(t)
	s.tell(t)
	history, err := s.ids.History(t.Context(), s.self)
	if err == nil {
		_, err = s.authorities.Import(t.Context(), history, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tell has the subject know the authority as it is now.
func (s *subject) tell(t *testing.T) {
	t.Helper()
	history, err := s.authorities.History(t.Context(), s.authority)
	if err == nil {
		_, err = s.ids.ImportIgnoreOlder(t.Context(), history)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (s *subject) credential(t *testing.T, of identity.Identifier) []byte {
	t.Helper()
	raw, err := s.authorities.IssueCredential(t.Context(), s.authority, of, identity.Attributes{"side": "x"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// node is a node that was not started, with no way to its authority.
func (s *subject) node(t *testing.T, store Store) *Node {
	t.Helper()
	n := &Node{log: testLog, ctx: t.Context(), opts: Options{Self: s.self, Identities: s.ids, Store: store, Trust: Trust{Authority: &s.authority, Scope: "p"}}}
	n.creds = newCredentials(n)
	return n
}

// fetchNow has a credential fetched, and returns whether run is told to look again.
func (c *credentials) fetchNow() (woken bool) {
	flight := make(chan struct{})
	c.flight = flight
	c.fetch(flight)
	<-flight
	return c.isWoken()
}

func (c *credentials) isWoken() bool {
	select {
	case <-c.wake:
		return true
	default:
		return false
	}
}

// TestCredentialFromTheStore: a stored credential is the node's own if the authority issued it for the node; where there is no way to the authority nothing else
// is, and it is said what is wrong. The next attempt has to wait for a while.
func TestCredentialFromTheStore(t *testing.T) {
	s := newSubject(t)
	strangers, stranger := newIdentities(t)
	history, err := strangers.History(t.Context(), stranger)
	if err == nil {
		_, err = s.authorities.Import(t.Context(), history, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	good := s.credential(t, s.self)
	failing := errors.New("disk")
	for _, c := range []struct {
		what  string
		store credentialStore
		want  error // nil: it is used
	}{
		{"its own", credentialStore{raw: good}, nil}, {"none", credentialStore{}, errNoCredential}, {"another's", credentialStore{raw: s.credential(t, stranger)}, errNoCredential},
		{"junk", credentialStore{raw: []byte("junk")}, errNoCredential}, {"a store that fails", credentialStore{err: failing}, failing},
	} {
		n := s.node(t, &c.store)
		woken := n.creds.fetchNow()
		raw, err := n.creds.get(t.Context())
		if !errors.Is(err, c.want) || (c.want == nil) != (string(raw) == string(good)) || woken != (c.want == nil) || c.store.put != nil || n.creds.flight != nil {
			t.Errorf("%s: %x, %v, woken %v", c.what, raw, err, woken)
		}
		if want := map[bool]time.Duration{false: credentialRetry}[c.want == nil]; n.creds.pause != want {
			t.Errorf("%s: a pause of %v", c.what, n.creds.pause)
		}
		if life := n.creds.life(time.Minute); life != map[bool]time.Duration{true: time.Hour, false: time.Minute}[c.want == nil] {
			t.Errorf("%s: a life of %v", c.what, life)
		}
		if c.want == nil && (!n.creds.held(good) || n.creds.held(nil) || n.creds.renewAt.Sub(n.creds.own.created) < 37*time.Minute) {
			t.Errorf("renewed at %v", n.creds.renewAt)
		}
	}
	// One that is valid, and that the authority has taken back.
	back := s.node(t, &credentialStore{raw: good})
	back.creds.takenBack(time.Now().Add(time.Minute))
	back.creds.fetchNow()
	if raw, err := back.creds.get(t.Context()); !errors.Is(err, errNoCredential) || back.creds.own.raw != nil {
		t.Errorf("taken back: %x, %v", raw, err)
	}
	// One that is in use and has to be replaced is not taken from the store again.
	n := s.node(t, &credentialStore{raw: good})
	n.creds.fetchNow()
	n.creds.fetchNow()
	if _, err := n.creds.get(t.Context()); err != nil || !errors.Is(n.creds.failure, errNoCredential) {
		t.Errorf("%v, %v", err, n.creds.failure)
	}
}

// TestCredentialIsWaitedFor: while there is none who needs it waits for the attempt under way; after one that failed, and after one whose credential has ended
// at once, nobody asks again before the pause is over.
func TestCredentialIsWaitedFor(t *testing.T) {
	s := newSubject(t)
	n := s.node(t, &credentialStore{})
	c := n.creds
	c.flight = make(chan struct{})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.get(over); !errors.Is(err, context.Canceled) || !c.fetched.IsZero() {
		t.Errorf("an attempt is under way: %v", err)
	}
	failed := errors.New("it failed")
	c.failure = failed
	close(c.flight)
	if _, err := c.get(t.Context()); !errors.Is(err, failed) {
		t.Errorf("the attempt under way failed: %v", err)
	}
	c.flight, c.fetched, c.pause = nil, time.Now(), time.Hour
	if _, err := c.get(t.Context()); !errors.Is(err, failed) || c.flight != nil {
		t.Errorf("within the pause: %v", err)
	}
	c.failure = nil
	if _, err := c.get(t.Context()); err == nil || !strings.Contains(err.Error(), "asked again in") || c.flight != nil {
		t.Errorf("within the pause: %v", err)
	}
	c.fetched = time.Now().Add(-time.Hour)
	if _, err := c.get(t.Context()); !errors.Is(err, errNoCredential) || time.Since(c.fetched) > time.Minute {
		t.Errorf("after the pause: %v", err)
	}
}

// TestCredentialTakenBack: what the authority took back is replaced at once, what it made after is kept.
func TestCredentialTakenBack(t *testing.T) {
	made := time.Now().Add(-time.Minute)
	for _, c := range []struct {
		what    string
		own     ownCredential
		at      time.Time
		replace bool
	}{
		{"made before", ownCredential{raw: []byte{1}, created: made}, made.Add(time.Second), true}, {"made then", ownCredential{raw: []byte{1}, created: made}, made, true},
		{"made after", ownCredential{raw: []byte{1}, created: made}, made.Add(-time.Second), false}, {"none", ownCredential{created: made}, made, false},
	} {
		cr := newCredentials(&Node{})
		later := time.Now().Add(time.Hour)
		cr.own, cr.renewAt, cr.pause = c.own, later, time.Minute
		for range 2 { // also where run has been told already
			cr.takenBack(c.at)
		}
		if replace := cr.renewAt.Before(later) && cr.pause == 0; replace != c.replace || cr.notBefore != c.at || !cr.isWoken() {
			t.Errorf("%s: at once %v, in %v with a pause of %v", c.what, replace, time.Until(cr.renewAt), cr.pause)
		}
	}
}

// TestCredentialOfAnOldKey: when the authority has another primary key the node's own credential is replaced and not presented meanwhile, unless the key vouches
// for it, or there is no way to get another one.
func TestCredentialOfAnOldKey(t *testing.T) {
	s := newSubject(t)
	before := s.credential(t, s.self)
	if _, err := s.authorities.Rotate(t.Context(), s.authority, identity.RotateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.tell(t)
	after := s.credential(t, s.self)
	route := mustRoute(t, "/ip4/127.0.0.1/tcp/1/service/api")
	for _, c := range []struct {
		what  string
		raw   []byte
		alone bool
		stale bool
	}{
		{"of the old key", before, false, true}, {"of the new key", after, false, false}, {"of the old key, the only one", before, true, false}, {"none", nil, false, false},
		{"another's", s.credential(t, s.authority), false, false}, // not valid for another reason
	} {
		n := s.node(t, &credentialStore{})
		if !c.alone {
			n.opts.Trust.Route = route
		}
		later := time.Now().Add(time.Hour)
		n.creds.own.raw, n.creds.renewAt, n.creds.pause = c.raw, later, time.Minute
		n.creds.outdated(t.Context())
		if !n.creds.held(c.raw) {
			t.Errorf("%s: it is another one", c.what)
		}
		if got := n.creds.own.stale; got != c.stale || n.creds.renewAt.Before(later) != c.stale || (n.creds.pause == 0) != c.stale || n.creds.isWoken() != c.stale {
			t.Errorf("%s: replaced %v, in %v with a pause of %v", c.what, got, time.Until(n.creds.renewAt), n.creds.pause)
		}
	}
}

// TestCredentialIsRenewed: when it is time, and not sooner, the node gets another credential and presents it on all its channels; not on those in the name of
// another identity.
func TestCredentialIsRenewed(t *testing.T) {
	p := newProject(t, 0)
	m, other := newMember(t), p.join(authority.Attributes{"side": "other"}, "p")
	ctx := within(t)
	history, err := p.ids.History(ctx, p.self)
	if err == nil {
		_, err = m.ids.Import(ctx, history, nil)
	}
	if err == nil {
		err = p.client().AddMember(ctx, m.self, authority.Attributes{"side": "new"})
	}
	if own, ownErr := m.ids.History(ctx, m.self); err == nil && ownErr == nil {
		_, err = p.ids.Import(ctx, own, nil)
	}
	old, issueErr := p.ids.IssueCredential(ctx, p.self, m.self, identity.Attributes{"side": "old"}, time.Hour)
	if err = errors.Join(err, issueErr); err != nil {
		t.Fatal(err)
	}
	m.trust = Trust{Authority: &p.self}
	m.restart()
	m.opts.Trust.Route, m.opts.Trust.Scope, m.creds = p.route(), "p", newCredentials(m.Node) // nobody else renews it
	c := m.creds
	later := time.Now().Add(time.Hour)
	set := func(renewAt, fetched time.Time) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.own = ownCredential{raw: old, created: time.Now().Add(-time.Second), expires: later}
		c.renewAt, c.fetched, c.pause, c.failure = renewAt, fetched, time.Minute, nil
	}
	set(later, time.Now())
	to := mustRoute(t, other.route()+"/secure/api")
	ch, err := m.connect(ctx, to, connectOptions{self: m.self})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ch.close)
	foreign, err := m.ids.Create(ctx, identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	beside, err := m.connect(ctx, to, connectOptions{self: foreign.Identifier()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(beside.close)
	side := func() string {
		if r := other.access.record(m.self); r != nil {
			return r.attributes["side"]
		}
		return ""
	}
	settles(t, "the old one is believed", func() bool { return side() == "old" })
	due := time.Now().Add(-time.Second)
	for what, s := range map[string][2]time.Time{"not yet time": {later, due.Add(-time.Hour)}, "asked a moment ago": {due, time.Now()}} {
		if set(s[0], s[1]); !c.held(old) {
			t.Fatal(what)
		}
		c.renew(ctx)
		c.mu.Lock()
		if c.flight != nil || string(c.own.raw) != string(old) {
			t.Errorf("%s: asked all the same", what)
		}
		c.mu.Unlock()
	}
	under := make(chan struct{})
	set(due, due.Add(-time.Hour))
	c.mu.Lock()
	c.flight = under
	c.mu.Unlock()
	over, cancel := context.WithCancel(ctx)
	cancel()
	c.renew(over) // it has nothing to wait for any more
	close(under)
	c.renew(ctx) // the attempt under way is not this one's, and it brought nothing
	c.mu.Lock()
	if c.flight != under || string(c.own.raw) != string(old) {
		t.Error("asked beside an attempt that was under way")
	}
	c.flight = nil
	c.mu.Unlock()
	c.renew(ctx)
	if c.held(old) || c.pause != credentialPause {
		t.Errorf("not renewed, or with a pause of %v", c.pause)
	}
	settles(t, "the new one is presented", func() bool { return side() == "new" })
	if n := other.counters.credentialsRefused.Load(); n != 0 || other.access.record(foreign.Identifier()) != nil {
		t.Errorf("it was presented in the name of another identity; %d refused", n)
	}
	c.mu.Lock()
	c.own.raw, c.renewAt, c.pause = nil, due, 0
	c.mu.Unlock()
	c.renew(ctx) // nobody has asked for one
	if !c.held(nil) {
		t.Error("fetched though there was none to renew")
	}
}

// TestCredentialIsRenewedByItself: a node that runs does so when it is time.
func TestCredentialIsRenewedByItself(t *testing.T) {
	p := newProject(t, 0)
	m := p.join(authority.Attributes{"side": "new"}, "p")
	if _, err := m.creds.get(within(t)); err != nil {
		t.Fatal(err)
	}
	old := []byte("old")
	m.creds.mu.Lock()
	m.creds.own.raw, m.creds.renewAt, m.creds.pause = old, time.Now(), 0
	m.creds.mu.Unlock()
	m.creds.takenBack(time.Now().Add(-2 * time.Hour)) // has it look again
	settles(t, "it is renewed", func() bool { return !m.creds.held(old) })
}

// TestAuthorityThatLosesTheWay: an authority whose path ends before it has answered is asked again, one that refuses is not.
func TestAuthorityThatLosesTheWay(t *testing.T) {
	s := newSubject(t)
	var of *Node
	var asked atomic.Int64
	var err error
	of, err = Start(t.Context(), Options{
		Name: "authority", Self: s.authority, Identities: s.authorities, Listen: "127.0.0.1:0", Shards: 1, Log: testLog, Store: forgetful{},
		Authority: &AuthorityOptions{Services: map[string]rpc.Server{authority.CredentialIssuer: serverFunc(func(_ context.Context, req *rpc.Request) *rpc.Response {
			if asked.Add(1); req.Path == "/refused" {
				return rpc.ErrorResponse(req, rpc.Forbidden, "no")
			}
			if asked.Load() > 1 {
				return rpc.NewResponse(req, rpc.OK, []byte("word"))
			}
			for _, ch := range of.channels.List() {
				ch.Close()
			}
			return nil
		})}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(of.Stop)
	n := plainNodeOf(t, "n", "127.0.0.1:0", s.ids, s.self)
	n.opts.Trust.Authority, n.opts.Trust.Route = &s.authority, mustRoute(t, tcpRoute(t, of)+"/service/api")
	ask := func(path string) (*rpc.Response, error) {
		asked.Store(0)
		return n.AskAuthority(within(t), s.self, authority.CredentialIssuer, rpc.NewRequest(rpc.Post, path, nil))
	}
	if resp, err := ask("/"); err != nil || string(resp.Body) != "word" || asked.Load() != 2 {
		t.Errorf("%+v, %v, asked %d times", resp, err, asked.Load())
	}
	var refused *rpc.StatusError
	if _, err := ask("/refused"); !errors.As(err, &refused) || asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

// TestAuthorityGivesNonsense: what the authority has made is verified like all else, and neither used nor kept if it is not the node's.
func TestAuthorityGivesNonsense(t *testing.T) {
	s := newSubject(t)
	type given struct {
		body   []byte
		status rpc.Status
	}
	var gives atomic.Pointer[given]
	of, err := Start(t.Context(), Options{
		Name: "authority", Self: s.authority, Identities: s.authorities, Listen: "127.0.0.1:0", Shards: 1, Log: testLog, Store: forgetful{},
		Authority: &AuthorityOptions{Services: map[string]rpc.Server{authority.CredentialIssuer: serverFunc(func(_ context.Context, req *rpc.Request) *rpc.Response {
			g := gives.Load()
			return rpc.NewResponse(req, g.status, g.body)
		})}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(of.Stop)
	store := &credentialStore{}
	m, err := Start(t.Context(), Options{
		Name: "n", Self: s.self, Identities: s.ids, Listen: "127.0.0.1:0", Shards: 1, Log: testLog, Store: store,
		Trust: Trust{Authority: &s.authority, Scope: "p", Route: mustRoute(t, tcpRoute(t, of)+"/service/api")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	for _, c := range []struct {
		what  string
		gives []byte
		says  rpc.Status
		good  bool
		pause time.Duration
	}{
		{"junk", []byte("junk"), rpc.OK, false, credentialRetry}, {"another's", s.credential(t, s.authority), rpc.OK, false, credentialRetry},
		{"a refusal", nil, rpc.Forbidden, false, credentialPause}, {"the node's", s.credential(t, s.self), rpc.OK, true, credentialPause},
	} {
		gives.Store(&given{c.gives, c.says})
		m.creds.mu.Lock()
		m.creds.pause = 0
		m.creds.mu.Unlock()
		raw, err := m.creds.get(within(t))
		if (err == nil) != c.good || (store.put != nil) != c.good || c.good && (string(raw) != string(c.gives) || string(store.put) != string(raw)) || m.creds.pause != c.pause {
			t.Errorf("%s: %v, stored %v, a pause of %v", c.what, err, store.put != nil, m.creds.pause)
		}
	}
	// Whoever has only just got one that has expired has a wrong clock, or the authority has.
	if err := NewlyMade(identity.ErrExpired); !errors.Is(err, identity.ErrClock) || !errors.Is(err, identity.ErrExpired) {
		t.Error(err)
	}
	if err := NewlyMade(identity.ErrAttestation); errors.Is(err, identity.ErrClock) || !errors.Is(err, identity.ErrAttestation) {
		t.Error(err)
	}
}

// TestWhatSeveralAuthoritiesAreAsked: what can be asked twice without an effect, and nothing else.
func TestWhatSeveralAuthoritiesAreAsked(t *testing.T) {
	for _, c := range []struct {
		service string
		method  rpc.Method
		want    bool
	}{
		{authority.CredentialIssuer, rpc.Post, true}, {authority.EnrollmentTokenAcceptor, rpc.Post, true}, {authority.Administration, rpc.Get, true},
		{authority.Administration, rpc.Post, false}, {authority.Administration, rpc.Delete, false}, {authority.EnrollmentTokenIssuer, rpc.Post, false},
	} {
		if got := repeatable(c.service, rpc.NewRequest(c.method, "/", nil)); got != c.want {
			t.Errorf("%s, method %v: %v", c.service, c.method, got)
		}
	}
	n := &Node{}
	if _, err := n.askAuthority(t.Context(), ours, authority.CredentialIssuer, rpc.NewRequest(rpc.Post, "/", nil), 0); err == nil || !strings.Contains(err.Error(), "no authority is known") {
		t.Errorf("without an authority: %v", err)
	}
	n.opts.Trust.Authority = &ours
	if _, err := n.askAuthority(t.Context(), ours, authority.CredentialIssuer, rpc.NewRequest(rpc.Post, "/", nil), 0); err == nil || !strings.Contains(err.Error(), "no authority is known") {
		t.Errorf("without a route to it: %v", err)
	}
}
