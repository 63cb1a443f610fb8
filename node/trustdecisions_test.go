package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/node/resource"
	"sallyport/policy"
	"sallyport/portal"
	"sallyport/routing"
	"sallyport/routing/control"
)

// TestWhomALateAuthorityLeaves: while nothing was heard of the authority for longer than the grace no member is trusted, and the authority itself and the
// project's nodes are; a member that was revoked never is. It is said once.
func TestWhomALateAuthorityLeaves(t *testing.T) {
	n := &Node{access: newAccess(policy.NewSet()), started: time.Now().Add(-3 * time.Minute), events: &events{}}
	n.log = slog.New(&eventHandler{inner: slog.NewTextHandler(io.Discard, nil), to: n.events})
	n.projectNodes.Store(theirs, struct{}{})
	if err := n.trusts(aMember); err != nil {
		t.Errorf("without an authority: %v", err)
	}
	n.opts.Trust.Authority = &ours
	r := &revocations{node: n}
	n.revoked = r
	for _, c := range []struct {
		what          string
		grace, silent time.Duration // silent 0: never heard
		state         string
		late          bool // and refused
	}{
		{"late", time.Minute, 2 * time.Minute, AuthorityUnreachable, true}, {"in time", time.Minute, 50 * time.Second, AuthorityUnreachable, false},
		{"one that does not tell", time.Minute, 2 * time.Minute, AuthoritySilent, false}, {"no grace was asked for", 0, 48 * time.Hour, AuthorityUnreachable, false},
		{"never heard", time.Minute, 0, AuthorityUnreachable, true}, {"never heard, not long ago", time.Hour, 0, AuthorityUnreachable, false},
	} {
		n.opts.Trust.Grace, r.state, r.heard = c.grace, c.state, time.Time{}
		if c.silent > 0 {
			r.heard = time.Now().Add(-c.silent)
		}
		before := n.counters.lateRefused.Load()
		err := n.trusts(aMember)
		if errors.Is(err, errLate) != c.late || (err != nil) != c.late || n.counters.lateRefused.Load()-before != map[bool]uint64{true: 1}[c.late] {
			t.Errorf("%s: %v, counted %d times", c.what, err, n.counters.lateRefused.Load()-before)
		}
		if a, b := n.trusts(ours), n.trusts(theirs); a != nil || b != nil {
			t.Errorf("%s: the authority %v, the project's node %v", c.what, a, b)
		}
		if s := n.AuthorityState(); c.grace > 0 && (s.Late != c.late || s.Grace != c.grace) {
			t.Errorf("%s: %+v", c.what, s)
		}
	}
	n.opts.Trust.Grace, r.heard = time.Minute, time.Now().Add(-time.Hour)
	for _, k := range []struct {
		heard time.Duration // ago
		said  int
	}{{time.Hour, 1}, {time.Hour, 1}, {0, 1}, {time.Hour, 2}} {
		r.heard = time.Now().Add(-k.heard)
		r.watch()
		said := 0
		for _, e := range n.Events() {
			said += e.Times
		}
		if said != k.said {
			t.Errorf("silent for %v: said %d times, want %d", k.heard, said, k.said)
		}
	}
	r.heard = time.Now()
	now := time.Now()
	n.access.revoke(aMember, now, now.Add(time.Hour), false)
	n.access.revoke(theirs, now, now.Add(time.Hour), false)
	if n.trusts(aMember) == nil || n.counters.revokedRefused.Load() != 1 || n.trusts(theirs) != nil || n.trusts(another) != nil {
		t.Errorf("whom it has revoked, %d refused", n.counters.revokedRefused.Load())
	}
}

// TestStoreIsCopied: the owner gets the authority's store as it is, whole; a node that has none says so.
func TestStoreIsCopied(t *testing.T) {
	n := &Node{log: slog.New(slog.DiscardHandler)}
	ask := func() *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		n.serveStore(rec, httptest.NewRequest(http.MethodGet, "/", nil))
		return rec
	}
	for _, o := range []*AuthorityOptions{nil, {}} {
		n.opts.Authority = o
		if got := ask(); got.Code != http.StatusNotFound {
			t.Errorf("%d %s", got.Code, got.Body)
		}
	}
	failing := errors.New("no room")
	path := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(path, []byte("the store, and more"), 0o600); err != nil {
		t.Fatal(err)
	}
	var given *os.File
	n.opts.Authority = &AuthorityOptions{Snapshot: func(context.Context) (*authority.Snapshot, error) {
		if failing != nil {
			return nil, failing
		}
		var err error
		given, err = os.Open(path)
		return &authority.Snapshot{File: given, Size: int64(len("the store"))}, err
	}}
	if got := ask(); got.Code < 400 || !strings.Contains(got.Body.String(), "no room") {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	failing = nil
	got := ask()
	if got.Code != http.StatusOK || got.Body.String() != "the store" || got.Header().Get("Content-Length") != "9" || got.Header().Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%d %q %v", got.Code, got.Body, got.Header())
	}
	if err := given.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the copy is open: %v", err)
	}
}

// TestAuthorityEventsAreCounted: each under its own name, with the reason where there is one.
func TestAuthorityEventsAreCounted(t *testing.T) {
	e := &AuthorityEvents{}
	e.TicketIssued()
	e.TicketRedeemed()
	e.TicketRedeemed()
	e.TicketRefused("expired")
	e.CredentialIssued()
	e.CredentialRefused("no_member")
	e.SignIn("")
	e.SignIn("other_domain")
	got := map[string]uint64{}
	e.each(func(event, reason string, count uint64) { got[event+" "+reason] = count })
	if want := map[string]uint64{
		"ticket_issued ": 1, "ticket_redeemed ": 2, "ticket_refused expired": 1, "credential_issued ": 1, "credential_refused no_member": 1, "signed_in ": 1, "sign_in_refused other_domain": 1,
	}; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// TestGreetingIsWritten: a target gets it first, with its own address where that is one of TCP; without a greeting it gets nothing.
func TestGreetingIsWritten(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(t.TempDir(), "s")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	peer := [32]byte(aMember)
	for _, l := range []net.Listener{l, local} {
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		var to netip.AddrPort
		if err := greeting(nil).write(c, portal.Origin{}); err != nil {
			t.Error(err)
		}
		if err := greeting(func(from portal.Origin, at netip.AddrPort) []byte {
			if to = at; from.Peer == nil || *from.Peer != peer {
				t.Errorf("for %v", from.Peer)
			}
			return []byte("hello")
		}).write(c, portal.Origin{Peer: &peer}); err != nil {
			t.Error(err)
		}
		_ = c.Close()
		got, err := io.ReadAll(s)
		if err != nil || string(got) != "hello" || to.IsValid() != (l.Addr().Network() == "tcp") || to.IsValid() && to.String() != l.Addr().String() {
			t.Errorf("%q for %v, %v", got, to, err)
		}
		_ = s.Close()
		if greeting(func(portal.Origin, netip.AddrPort) []byte { return []byte("late") }).write(c, portal.Origin{}) == nil {
			t.Error("written to a connection that is closed")
		}
	}
}

// TestUnixTarget: an outlet's target at a Unix socket gets the greeting first, and one that is not there is told of.
func TestUnixTarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if p, err := unixDialer(path, nil)(within(t), portal.Origin{}); err == nil {
		t.Errorf("%+v", p)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, begin := range []greeting{nil, func(portal.Origin, netip.AddrPort) []byte { return []byte("first ") }} {
		p, err := unixDialer(path, begin)(within(t), portal.Origin{})
		if err != nil || !p.Direct {
			t.Fatalf("%+v, %v", p, err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(p.FD, []byte("then")); err != nil {
			t.Error(err)
		}
		_ = unix.Close(p.FD)
		want := map[bool]string{true: "then", false: "first then"}[begin == nil]
		if got, err := io.ReadAll(s); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
		_ = s.Close()
	}
}

// TestAttributesOfNode: what the node's own authority attests, and nothing where there is none.
func TestAttributesOfNode(t *testing.T) {
	n := &Node{access: newAccess(policy.NewSet())}
	n.access.learn(credential(aMember, ours, time.Hour, identity.Attributes{"a": "b"}))
	if got := n.Attributes(aMember); got != nil {
		t.Errorf("without an authority: %v", got)
	}
	n.opts.Trust.Authority = &ours
	if got := n.Attributes(aMember); got["a"] != "b" {
		t.Errorf("%v", got)
	}
	if got := n.Attributes(another); got != nil {
		t.Errorf("of a stranger: %v", got)
	}
	n.opts.Trust.Authority = &theirs
	if got := n.Attributes(aMember); got != nil {
		t.Errorf("of another authority: %v", got)
	}
}

// TestWhoIsPinned: who answers an inlet through a project is kept, unless it was said who is to; of a command's route only who is behind a channel.
func TestWhoIsPinned(t *testing.T) {
	n := &Node{}
	for _, c := range []struct {
		to, authorized  string
		inlet, commands bool
	}{
		{"/project/p/service/forward_to_x/secure/api/service/db", "", true, true}, {"/project/p/service/forward_to_x/secure/api/service/db", "somebody", false, true},
		{"/project/p/service/forward_to_x/service/db", "", true, false}, {"/ip4/127.0.0.1/tcp/1/secure/api/service/db", "", false, false}, {"", "", false, false},
	} {
		var to = mustRoute(t, "/service/x")[:0]
		if c.to != "" {
			to = mustRoute(t, c.to)
		}
		p := n.pinOf(&resource.Inlet{Alias: "in", Authorized: c.authorized}, to)
		if (p != nil) != c.inlet || p != nil && (p.name != "in "+c.to || p.inlet != "in" || !strings.Contains(p.accept, "tcp-inlet accept in")) {
			t.Errorf("%+v: %+v", c, p)
		}
		if p := n.pinOfCommands(to); (p != nil) != c.commands || p != nil && (p.name != c.to || p.inlet != "") {
			t.Errorf("%+v: of commands %+v", c, p)
		}
	}
	list := []identity.Identifier{ours, theirs, aMember, another, numbered(5)}
	for k, want := range []string{
		"", ours.String(), ours.String() + " or " + theirs.String(), ours.String() + " or " + theirs.String() + " or " + aMember.String(),
		ours.String() + " or " + theirs.String() + " or " + aMember.String() + " or 1 others", ours.String() + " or " + theirs.String() + " or " + aMember.String() + " or 2 others",
	} {
		if got := joinIdentifiers(list[:k]); got != want {
			t.Errorf("%d: %s", k, got)
		}
	}
}

// TestUsableCredential: when the node's own credential may be presented, at the bounds of each condition.
func TestUsableCredential(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	route := mustRoute(t, "/ip4/127.0.0.1/tcp/1/service/api")
	for _, c := range []struct {
		what       string
		o          ownCredential
		notBefore  time.Time
		alone, yes bool // alone: there is no way to get another one
	}{
		{"good", ownCredential{raw: []byte{1}, created: now.Add(-time.Hour), expires: now.Add(time.Hour)}, time.Time{}, false, true},
		{"none", ownCredential{created: now.Add(-time.Hour), expires: now.Add(time.Hour)}, time.Time{}, false, false},
		{"of an old key", ownCredential{raw: []byte{1}, created: now.Add(-time.Hour), expires: now.Add(time.Hour), stale: true}, time.Time{}, false, false},
		{"taken back", ownCredential{raw: []byte{1}, created: now.Add(-time.Hour), expires: now.Add(time.Hour)}, now.Add(-time.Hour), false, false},
		{"made after", ownCredential{raw: []byte{1}, created: now.Add(-time.Hour), expires: now.Add(time.Hour)}, now.Add(-time.Hour - 1), false, true},
		{"near its end", ownCredential{raw: []byte{1}, created: now.Add(-95 * time.Second), expires: now.Add(5 * time.Second)}, time.Time{}, false, false},
		{"near its end, the only one", ownCredential{raw: []byte{1}, created: now.Add(-95 * time.Second), expires: now.Add(5 * time.Second)}, time.Time{}, true, true},
		{"at the margin", ownCredential{raw: []byte{1}, created: now.Add(-90 * time.Second), expires: now.Add(10 * time.Second)}, time.Time{}, false, false},
		{"before the margin", ownCredential{raw: []byte{1}, created: now.Add(-90*time.Second + 1), expires: now.Add(10*time.Second + 1)}, time.Time{}, false, true},
		{"at its end, the only one", ownCredential{raw: []byte{1}, created: now.Add(-time.Hour), expires: now}, time.Time{}, true, false},
	} {
		cr := newCredentials(&Node{})
		cr.notBefore = c.notBefore
		if !c.alone {
			cr.node.opts.Trust.Route = route
		}
		if got := cr.usable(&c.o, now); got != c.yes {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	long := ownCredential{created: now, expires: now.Add(24 * 365 * time.Hour)}
	if long.margin() != credentialMargin {
		t.Errorf("a margin of %v", long.margin())
	}
	o := ownCredential{created: now, expires: now.Add(time.Hour)}
	for random, want := range map[float64]time.Duration{0: 37 * time.Minute, 0.5: 40 * time.Minute, 1: 43 * time.Minute} {
		if got := o.renewal(random).Sub(now); got != want {
			t.Errorf("renewed after %v, want %v", got, want)
		}
	}
}

// TestAwaitGone: a node is asked again while what it was asked for is there, until it says that the process has ended or that it does not know the question.
func TestAwaitGone(t *testing.T) {
	a, b := newMember(t), newMember(t)
	ctx := within(t)
	c, err := a.connect(ctx, mustRoute(t, b.route()+"/secure/api"), connectOptions{self: a.self})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	name := "x"
	var asked atomic.Int64
	await := func(ctx context.Context) bool {
		asked.Store(0)
		return a.awaitGone(ctx, func() (routing.Route, string) { return c.route, name })
	}
	for _, k := range []struct {
		says []control.Status
		want bool
	}{
		{[]control.Status{control.StatusGone}, true}, {[]control.Status{control.StatusUnknown}, false},
		{[]control.Status{control.StatusOK, control.StatusOK, control.StatusOK, control.StatusGone}, true}, {[]control.Status{control.StatusOK, control.StatusUnknown}, false},
	} {
		b.control.Handle(control.OpGone, func(c *control.Call) {
			c.Answer(k.says[min(int(asked.Add(1)), len(k.says))-1], control.Fields{})
		})
		if got := await(ctx); got != k.want || int(asked.Load()) != len(k.says) {
			t.Errorf("%v: %v, asked %d times", k.says, got, asked.Load())
		}
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if await(over) || asked.Load() != 0 {
		t.Error("asked though nobody waits any more")
	}
	if name = ""; await(ctx) || asked.Load() != 0 {
		t.Error("asked for nobody")
	}
}
