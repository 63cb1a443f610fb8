package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/project"
	"sallyport/state"
)

// TestHomeKeeps: what a node writes down is there at its next start, when it is to be kept; what is not there is nothing, and what is broken is an
// error.
func TestHomeKeeps(t *testing.T) {
	ctx := within(t)
	dir, err := state.Open(t.TempDir())
	if err == nil {
		_, err = dir.CreateNode(ctx, state.Node{Name: "n"})
	}
	if err == nil {
		_, err = dir.EnsureVault(ctx, "default")
	}
	named := identity.New(identity.Options{Vault: vault.NewMemory(), Store: dir.Store()})
	alice, aliceErr := named.Create(ctx, identity.CreateOptions{})
	if err = errors.Join(err, aliceErr); err == nil {
		_, err = dir.CreateNamed(ctx, "alice", alice.Identifier().String(), "default")
	}
	if err != nil {
		t.Fatal(err)
	}
	kept, lost := NewHome(dir, "n", true), NewHome(dir, "n", false)

	if id, err := kept.Identity(ctx, "alice"); err != nil || id != alice.Identifier() {
		t.Errorf("%v, %v", id, err)
	}
	if _, err := kept.Identity(ctx, "bob"); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("nobody: %v", err)
	}

	if raw, err := kept.Credential(ctx, ours, theirs, "s"); raw != nil || err != nil {
		t.Errorf("no credential: %q, %v", raw, err)
	}
	if err := kept.PutCredential(ctx, ours, theirs, "s", []byte("raw"), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if raw, err := kept.Credential(ctx, ours, theirs, "s"); string(raw) != "raw" || err != nil {
		t.Errorf("%q, %v", raw, err)
	}
	if raw, err := kept.Credential(ctx, ours, theirs, "other"); raw != nil || err != nil {
		t.Errorf("of another scope: %q, %v", raw, err)
	}

	list := []resource.Stored{stored(t, resource.KindHop, "hop", resource.Hop{Address: "hop"})}
	if err := lost.Save(list); err != nil {
		t.Fatal(err)
	}
	if got, err := kept.Load(); err != nil || len(got) != 0 {
		t.Errorf("what is not to be kept: %+v, %v", got, err)
	}
	if err := kept.Save(list); err != nil {
		t.Fatal(err)
	}
	if got, err := kept.Load(); err != nil || len(got) != 1 || got[0].Name != "hop" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := lost.Load(); err != nil || got != nil {
		t.Errorf("of a node that keeps nothing: %+v, %v", got, err)
	}

	by := numbered(3)
	for i, by := range []*identity.Identifier{&by, nil} {
		k := ExchangedKey{
			Address: hex.EncodeToString(bytes.Repeat([]byte{byte(i + 1)}, 16)), Self: ours, Peer: theirs, Key: [32]byte{4, 5}, Attributes: map[string]string{"a": "b"}, AttestedBy: by,
			Expires: time.Unix(1_900_000_000, 0).UTC(),
		}
		if err := lost.PutExchangedKey(ctx, k); err != nil {
			t.Fatal(err)
		}
		if got, err := kept.ExchangedKey(ctx, k.Address); got != nil || err != nil {
			t.Errorf("a key that is not to be kept: %+v, %v", got, err)
		}
		if err := kept.PutExchangedKey(ctx, k); err != nil {
			t.Fatal(err)
		}
		if got, err := kept.ExchangedKey(ctx, k.Address); err != nil || !reflect.DeepEqual(*got, k) {
			t.Errorf("%+v, %v, not %+v", got, err, k)
		}
		if got, err := lost.ExchangedKey(ctx, k.Address); got != nil || err != nil {
			t.Errorf("of a node that keeps nothing: %+v, %v", got, err)
		}
	}
	whole := state.KafkaKey{Self: ours.String(), Peer: theirs.String(), AttestedBy: by.String(), Key: make([]byte, 32)}
	n := 10
	for name, change := range map[string]func(*state.KafkaKey){
		"": func(*state.KafkaKey) {}, "short": func(k *state.KafkaKey) { k.Key = make([]byte, 31) }, "long": func(k *state.KafkaKey) { k.Key = make([]byte, 33) },
		"of nobody": func(k *state.KafkaKey) { k.Self = "x" }, "from nobody": func(k *state.KafkaKey) { k.Peer = "x" }, "attested by nobody": func(k *state.KafkaKey) { k.AttestedBy = "x" },
	} {
		n++
		k := changed(whole, change)
		k.Address = hex.EncodeToString(bytes.Repeat([]byte{byte(n)}, 16))
		if err := dir.PutKafkaKey(ctx, "n", k); err != nil {
			t.Fatal(err)
		}
		if _, err := kept.ExchangedKey(ctx, k.Address); (err == nil) != (name == "") {
			t.Errorf("a key that is %s: %v", name, err)
		}
	}

	if _, err := kept.Project(ctx, "p"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("no project: %v", err)
	}
}

// TestProjectOf: what a node takes of a project, and what it refuses, each thing by itself.
func TestProjectOf(t *testing.T) {
	ctx := within(t)
	ids, self := newIdentities(t)
	history, err := ids.History(ctx, self)
	if err != nil {
		t.Fatal(err)
	}
	whole := project.Project{
		ID: "1", Name: "p", AccessRoute: "/ip4/127.0.0.1/tcp/1/service/api", Identity: ours.String(), Expects: []string{theirs.String(), another.String()},
		AuthorityAccessRoute: "/ip4/127.0.0.1/tcp/2/service/api", AuthorityChangeHistory: hex.EncodeToString(history),
	}
	p, err := ProjectOf(&whole)
	if err != nil || p.Route.String() != whole.AccessRoute || p.Identifier != ours || p.Authority == nil || *p.Authority != self || !reflect.DeepEqual(p.Expects, []identity.Identifier{theirs, another}) {
		t.Errorf("%+v, %v", p, err)
	}
	trust, err := TrustOf(&whole)
	if err != nil || trust.Authority == nil || *trust.Authority != self || trust.Route.String() != whole.AuthorityAccessRoute || trust.Scope != whole.CredentialScope() {
		t.Errorf("%+v, %v", trust, err)
	}
	without := changed(whole, func(p *project.Project) { p.AuthorityChangeHistory, p.AuthorityAccessRoute = "", "nonsense" })
	if p, err := ProjectOf(&without); err != nil || p.Authority != nil {
		t.Errorf("without an authority: %+v, %v", p, err)
	}
	if trust, err := TrustOf(&without); err != nil || trust.Authority != nil || trust.Scope != "" {
		t.Errorf("without an authority: %+v, %v", trust, err)
	}
	for name, change := range map[string]func(*project.Project){
		"access route": func(p *project.Project) { p.AccessRoute = "nonsense" }, "project p": func(p *project.Project) { p.Identity = "x" },
		"expects": func(p *project.Project) { p.Expects[1] = "x" }, "authority": func(p *project.Project) { p.AuthorityChangeHistory = "00" },
	} {
		one := whole
		one.Expects = append([]string(nil), whole.Expects...)
		change(&one)
		if _, err := ProjectOf(&one); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := TrustOf(&one); err == nil {
			t.Errorf("%s: trusted", name)
		}
	}
	one := changed(whole, func(p *project.Project) { p.AuthorityAccessRoute = "nonsense" })
	if _, err := TrustOf(&one); err == nil || !strings.Contains(err.Error(), "authority access route") {
		t.Errorf("%v", err)
	}

	other, _ := newIdentities(t)
	if id, err := AuthorityHistory(ctx, other, hex.EncodeToString(history)); err != nil || id != self {
		t.Errorf("%v, %v", id, err)
	}
	if raw, err := other.History(ctx, self); err != nil || !bytes.Equal(raw, history) {
		t.Errorf("the history is not known: %v", err)
	}
	if _, err := AuthorityHistory(ctx, other, "xyz"); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("no hex: %v", err)
	}
	if _, err := AuthorityHistory(ctx, other, "00"); err == nil {
		t.Error("no history")
	}
}

// TestAccountAdmins: the last credential of the account's authority says for how long one is an administrator of this project, and no other says
// anything.
func TestAccountAdmins(t *testing.T) {
	ctx := within(t)
	a := NewAccountAdmins(theirs, "mine")
	is := func(n int, want bool) {
		t.Helper()
		if got := a.Is(ctx, numbered(n)); got != want {
			t.Errorf("%d is an administrator: %v", n, got)
		}
	}
	is(5, false)
	a.learn(credential(numbered(5), theirs, time.Hour, identity.Attributes{projectAttribute: "mine"}))
	a.learn(credential(numbered(6), theirs, time.Hour, identity.Attributes{projectAttribute: "another"}))
	a.learn(credential(numbered(7), theirs, -time.Second, identity.Attributes{projectAttribute: "mine"}))
	is(5, true)
	is(6, false)
	is(7, false)
	a.learn(credential(numbered(6), theirs, time.Hour, identity.Attributes{projectAttribute: "mine"}))
	is(6, true)
	is(5, true)
	if n := len(a.until); n != 2 {
		t.Errorf("%d are kept, with one whose time is over", n)
	}
	a.learn(credential(numbered(5), theirs, time.Hour, nil))
	is(5, false)
	is(6, true)

	// What peers of an authority present is verified first.
	account, accountID := newIdentities(t)
	m := newMember(t)
	admins := NewAccountAdmins(accountID, "mine")
	history, err := account.History(ctx, accountID)
	if err == nil {
		_, err = m.ids.Import(ctx, history, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	peers, peer := newIdentities(t)
	for _, ids := range []*identity.Manager{account, m.ids} {
		if raw, err := peers.History(ctx, peer); err != nil || second(ids.Import(ctx, raw, nil)) != nil {
			t.Fatal(err)
		}
	}
	issue := func(ids *identity.Manager, issuer, subject identity.Identifier) []byte {
		t.Helper()
		raw, err := ids.IssueCredential(ctx, issuer, subject, identity.Attributes{projectAttribute: "mine"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	accept := m.acceptAdmins(admins)
	for name, c := range map[string]struct {
		list    [][]byte
		want    bool
		refused uint64
	}{
		"nothing":                          {nil, false, 0},
		"no credential":                    {[][]byte{[]byte("x")}, false, 1},
		"of somebody else":                 {[][]byte{issue(account, accountID, accountID)}, false, 1},
		"of another authority":             {[][]byte{issue(m.ids, m.self, peer)}, false, 1},
		"its own, beside one that is none": {[][]byte{[]byte("x"), issue(account, accountID, peer)}, true, 1},
	} {
		before := m.counters.credentialsRefused.Load()
		accept(ctx, peer, c.list)
		if got := admins.Is(ctx, peer); got != c.want {
			t.Errorf("%s: an administrator: %v", name, got)
		}
		if got := m.counters.credentialsRefused.Load() - before; got != c.refused {
			t.Errorf("%s: %d refused", name, got)
		}
		admins.until = map[identity.Identifier]time.Time{}
	}
}

// TestAdministratorsOfAnAccountReachTheAuthority: an authority listens to what its account's administrators present when they connect.
func TestAdministratorsOfAnAccountReachTheAuthority(t *testing.T) {
	ctx := within(t)
	account, accountID := newIdentities(t)
	history, err := account.History(ctx, accountID)
	if err != nil {
		t.Fatal(err)
	}
	ids, self := newIdentities(t)
	if _, err := ids.Import(ctx, history, nil); err != nil {
		t.Fatal(err)
	}
	admins := NewAccountAdmins(accountID, "mine")
	n, err := Start(ctx, Options{
		Name: "authority", Self: self, Identities: ids, Listen: "127.0.0.1:0", Shards: 1, Log: testLog, Store: NewHome(nil, "authority", false),
		Authority: &AuthorityOptions{AccountAdmins: admins},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Stop)
	m := newMember(t)
	if raw, err := m.ids.History(ctx, m.self); err != nil || second(account.Import(ctx, raw, nil)) != nil {
		t.Fatal(err)
	}
	raw, err := account.IssueCredential(ctx, accountID, m.self, identity.Attributes{projectAttribute: "mine"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.connect(ctx, mustRoute(t, "/ip4/127.0.0.1/tcp/"+portOf(n.Listening())+"/secure/api/service/echo"), connectOptions{
		self: m.self, credential: func(context.Context) ([]byte, error) { return raw, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	settles(t, "who is an administrator is known", func() bool { return admins.Is(ctx, m.self) })
}
