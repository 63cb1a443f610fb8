package storetest

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
)

// fill writes some of everything.
func fill(t testing.TB, s authority.Store) {
	ctx := at(t, 1, now)
	for i := range 30 {
		check(t, s.PutMember(ctx, authority.Member{ID: member(i), AddedBy: member(2), AddedAt: now, Attributes: authority.Attributes{"n": fmt.Sprint(i)}}, nil))
	}
	check(t, s.ReplacePreTrusted(ctx, []authority.Member{{ID: member(50), AddedAt: now}}), s.SetCredentialTTL(ctx, 20*time.Minute),
		s.DeleteMembers(ctx, []identity.Identifier{member(3), member(4)}, nil), s.Block(ctx, member(5), true, nil), s.Issued(ctx, member(6), nil, now.Add(time.Hour)))
	for i := range 5 {
		check(t, s.AddToken(ctx, authority.Token{Hash: code(i), Reference: fmt.Sprint("R", i), IssuedBy: member(1), ExpiresAt: now.Add(time.Hour), Uses: 2, Attributes: authority.Attributes{"t": "u"}}, now))
	}
	check(t, s.RevokeToken(ctx, "R1"))
	for _, who := range []int{60, 61} {
		_, err := s.Redeem(ctx, code(2), member(who), now)
		check(t, err)
	}
	_, err := s.Redeem(ctx, code(3), member(62), now)
	check(t, err)
}

// equal compares two stores.
func equal(t testing.TB, got, want authority.Store) {
	t.Helper()
	ctx := t.Context()
	a, err1 := got.Members(ctx)
	b, err2 := want.Members(ctx)
	check(t, err1, err2)
	if len(a) != len(b) {
		t.Fatalf("%d members, not %d", len(a), len(b))
	}
	for i := range a {
		check(t, same(a[i], b[i]))
	}
	x, y := Trail(t, got), Trail(t, want)
	if len(x) != len(y) || x[len(x)-1].Hash != y[len(y)-1].Hash {
		t.Errorf("%d entries, not %d", len(x), len(y))
	}
	c, err1 := got.Revocations(ctx, 0, 1000)
	d, err2 := want.Revocations(ctx, 0, 1000)
	check(t, err1, err2)
	if string(c.Name) != string(d.Name) || c.First != d.First || c.Head != d.Head || len(c.Entries) != len(d.Entries) {
		t.Errorf("%+v, not %+v", c, d)
	}
	k, err1 := got.Tokens(ctx, now)
	l, err2 := want.Tokens(ctx, now)
	check(t, err1, err2)
	if len(k) != len(l) {
		t.Fatalf("%d tickets, not %d", len(k), len(l))
	}
	for i := range k {
		if k[i].Hash != l[i].Hash || k[i].Uses != l[i].Uses || k[i].Used != l[i].Used || k[i].Reference != l[i].Reference || !maps.Equal(k[i].Attributes, l[i].Attributes) {
			t.Errorf("%+v, not %+v", k[i], l[i])
		}
	}
	m, err1 := got.CredentialTTL(ctx)
	n, err2 := want.CredentialTTL(ctx)
	check(t, err1, err2)
	if m != n {
		t.Errorf("%v, not %v", m, n)
	}
}

// continues checks that what a store knew before it was moved still counts, and that its numbers go on.
func continues(t testing.TB, s authority.Store) {
	t.Helper()
	for _, c := range []struct {
		n    int
		want authority.Outcome
	}{{1, authority.CodeRevoked}, {2, authority.CodeUsed}, {3, authority.Redeemed}, {3, authority.CodeUsed}, {4, authority.Redeemed}} {
		if r, err := s.Redeem(t.Context(), code(c.n), member(70+c.n+len(c.want)), now); err != nil || r.Outcome != c.want {
			t.Errorf("%d: %+v, %v", c.n, r, err)
		}
	}
	check(t, s.PutMember(at(t, 1, now), authority.Member{ID: member(3), AddedAt: now}, nil))
	if r, ok, err := s.RevocationOf(t.Context(), member(3)); err != nil || !ok || !r.Restored || r.Seq != 4 {
		t.Errorf("%+v, %v", r, err)
	}
	Trail(t, s)
}

// duplicate: a copy is an embedded store with the same rows.
func duplicate(t *testing.T, s authority.Store) {
	fill(t, s)
	snapshot, err := authority.TakeSnapshot(t.Context(), s, t.TempDir())
	check(t, err)
	path := filepath.Join(t.TempDir(), "copy.db")
	check(t, snapshot.Save(path), snapshot.Close())
	c, err := authority.OpenStore(path)
	check(t, err)
	defer func() { check(t, c.Close()) }()
	equal(t, c, s)
	continues(t, c)
}

// migrate: all rows move to another store, once.
func migrate(t *testing.T, s authority.Store, open func(testing.TB) authority.Store) {
	fill(t, s)
	file := func(name string) authority.Store {
		f, err := authority.OpenStore(filepath.Join(t.TempDir(), name))
		check(t, err)
		t.Cleanup(func() { check(t, f.Close()) })
		return f
	}
	there := file("there.db")
	moved, err := authority.Migrate(t.Context(), s, there)
	check(t, err)
	if moved.Members != 32 || moved.Tickets != 3 || moved.SpentCodes != 2 || moved.Revocations != 3 || moved.Entries != uint64(len(Trail(t, s))) {
		t.Errorf("%+v", moved)
	}
	equal(t, there, s)
	back := open(t)
	defer func() { check(t, back.Close()) }()
	_, err = authority.Migrate(t.Context(), there, back)
	check(t, err)
	equal(t, back, s)
	if _, err := authority.Migrate(t.Context(), s, back); !errors.Is(err, authority.ErrNotEmpty) {
		t.Errorf("into a store that is not empty: %v", err)
	}
	equal(t, back, s)
	continues(t, back)
	full := open(t)
	defer func() { check(t, full.Close()) }()
	check(t, full.Record(t.Context(), authority.AuditEntry{Time: now, Event: authority.EventStarted}))
	if _, err := authority.Migrate(t.Context(), there, full); !errors.Is(err, authority.ErrNotEmpty) {
		t.Errorf("into a store with a trail: %v", err)
	}
	equal(t, there, s) // the source is as it was
}
