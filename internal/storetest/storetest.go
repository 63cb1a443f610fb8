// Package storetest has the tests that every store of an authority must pass, whatever keeps its rows.
package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
)

// Now is what the tests take for the time.
var now = time.Unix(1_800_000_000, 0)

// member returns an identifier that has a number.
func member(n int) (id identity.Identifier) {
	binary.BigEndian.PutUint32(id[:], uint32(n)+1)
	return id
}

// code returns the hash of a code that has a number.
func code(n int) authority.CodeHash { return authority.Code{byte(n >> 8), byte(n), 1}.Hash() }

// at is a context of an actor at a time.
func at(t testing.TB, actor int, when time.Time) context.Context {
	return authority.WithOrigin(t.Context(), authority.Origin{Actor: member(actor), Source: "192.0.2.1", Time: when})
}

// check ends the test where something failed.
func check(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Run runs all tests, each on an empty store, which open makes and the test closes.
func Run(t *testing.T, open func(t testing.TB) authority.Store) {
	for name, test := range map[string]func(*testing.T, authority.Store){
		"Members": members, "Allow": allow, "Delete": remove, "PreTrusted": preTrusted, "Tickets": tickets, "Expiry": expiry, "RevokeTicket": revokeTicket,
		"Block": block, "Revocations": revocations, "Issued": issued, "TTL": ttl, "Trail": trail, "Context": cancelled,
		"OneUse": oneUse, "ManyUses": manyUses, "OneMember": oneMember, "Writers": writers, "Copy": duplicate, "Migrate": func(t *testing.T, s authority.Store) { migrate(t, s, open) },
		"Text": text,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			defer func() { check(t, s.Close()) }()
			test(t, s)
			Trail(t, s)
		})
	}
}

// Trail checks the chain of a store's trail from its beginning, and returns it.
func Trail(t testing.TB, s authority.Store) (all []authority.AuditEntry) {
	t.Helper()
	var chain authority.Chain
	for {
		list, err := s.Audit(t.Context(), chain.Last, 70)
		check(t, err)
		for _, e := range list {
			check(t, chain.Next(e))
		}
		if all = append(all, list...); len(list) == 0 {
			if len(all) > 0 && all[0].Seq != 1 {
				t.Errorf("the trail begins at %d", all[0].Seq)
			}
			return all
		}
	}
}

// events counts the entries of a trail.
func events(list []authority.AuditEntry) map[string]int {
	n := map[string]int{}
	for _, e := range list {
		n[e.Event]++
	}
	return n
}

// Same reports what differs between two members.
func same(a, b authority.Member) error {
	if a.ID != b.ID || !maps.Equal(a.Attributes, b.Attributes) || a.AddedBy != b.AddedBy || !a.AddedAt.Equal(b.AddedAt) || a.PreTrusted != b.PreTrusted || a.Blocked != b.Blocked ||
		a.Ticket != b.Ticket || !a.LastSeen.Equal(b.LastSeen) || !a.CredentialExpires.Equal(b.CredentialExpires) {
		return fmt.Errorf("%+v is not %+v", a, b)
	}
	return nil
}

func members(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	if m, ok, err := s.Member(ctx, member(1)); ok || err != nil || m.Attributes != nil {
		t.Errorf("in an empty store: %+v, %v", m, err)
	}
	if all, err := s.Members(ctx); len(all) != 0 || err != nil {
		t.Errorf("in an empty store: %+v, %v", all, err)
	}
	want := []authority.Member{
		{ID: member(1), Attributes: authority.Attributes{"a": "b", "ü": "☃"}, AddedBy: member(2), AddedAt: now},
		{ID: member(2), AddedBy: member(2), AddedAt: now.Add(time.Second)},
		{ID: member(300), Attributes: authority.Attributes{authority.RoleAttribute: authority.RoleEnroller}, AddedBy: member(2), AddedAt: now},
	}
	for _, i := range []int{2, 0, 1} {
		check(t, s.PutMember(ctx, want[i], nil))
	}
	all, err := s.Members(ctx)
	check(t, err)
	if len(all) != len(want) {
		t.Fatalf("%+v", all)
	}
	for i, m := range want {
		got, ok, err := s.Member(ctx, m.ID)
		check(t, err, same(all[i], m), same(got, m))
		if !ok {
			t.Errorf("%d is not there", i)
		}
	}
	want[0].Attributes, want[0].AddedBy = authority.Attributes{"c": "d"}, member(3)
	check(t, s.PutMember(ctx, want[0], nil))
	got, _, err := s.Member(ctx, want[0].ID)
	check(t, err, same(got, want[0]))
	list := Trail(t, s)
	if n := events(list); n[authority.EventMemberAdded] != 3 || n[authority.EventMemberChanged] != 1 {
		t.Errorf("%v", n)
	}
	if e := list[0]; e.Actor != member(1) || e.Source != "192.0.2.1" || e.Subject != member(300) || e.Attributes[authority.RoleAttribute] != authority.RoleEnroller || !e.Time.Equal(now) {
		t.Errorf("%+v", e)
	}
}

// allow: a refusal inside the transaction comes back as it is, and leaves everything as it was.
func allow(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	no := errors.New("no")
	var seen []*authority.Member
	try := func(value string, refusal error) error {
		return s.PutMember(ctx, authority.Member{ID: member(1), AddedAt: now, Attributes: authority.Attributes{"v": value}}, func(old *authority.Member) error {
			seen = append(seen, old)
			return refusal
		})
	}
	if err := try("1", no); !errors.Is(err, no) {
		t.Error(err)
	}
	if _, ok, err := s.Member(ctx, member(1)); ok || err != nil {
		t.Errorf("a refused member is there: %v", err)
	}
	check(t, try("2", nil))
	if err := try("3", no); !errors.Is(err, no) {
		t.Error(err)
	}
	if seen[0] != nil || seen[len(seen)-1] == nil || seen[len(seen)-1].Attributes["v"] != "2" {
		t.Errorf("%+v", seen)
	}
	if err := s.Block(ctx, member(1), true, func(*authority.Member) error { return no }); !errors.Is(err, no) {
		t.Error(err)
	}
	if err := s.DeleteMembers(ctx, nil, func(*authority.Member) error { return no }); !errors.Is(err, no) {
		t.Error(err)
	}
	m, ok, err := s.Member(ctx, member(1))
	if err != nil || !ok || m.Blocked || m.Attributes["v"] != "2" {
		t.Errorf("%+v, %v", m, err)
	}
	if n := len(Trail(t, s)); n != 1 {
		t.Errorf("%d entries", n)
	}
}

func remove(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	for i := range 6 {
		check(t, s.PutMember(ctx, authority.Member{ID: member(i), AddedAt: now}, nil))
	}
	no := errors.New("no")
	keep := func(ids ...int) func(*authority.Member) error {
		return func(m *authority.Member) error {
			for _, i := range ids {
				if m.ID == member(i) {
					return no
				}
			}
			return nil
		}
	}
	check(t, s.DeleteMembers(ctx, []identity.Identifier{}, nil), s.DeleteMembers(ctx, []identity.Identifier{member(99)}, nil))
	check(t, s.DeleteMembers(ctx, []identity.Identifier{member(0), member(0), member(99)}, nil))
	if err := s.DeleteMembers(ctx, []identity.Identifier{member(1), member(2)}, keep(1)); !errors.Is(err, no) {
		t.Error(err)
	}
	left := func(want ...int) {
		t.Helper()
		all, err := s.Members(ctx)
		check(t, err)
		var got []identity.Identifier
		for _, m := range all {
			got = append(got, m.ID)
		}
		var ids []identity.Identifier
		for _, i := range want {
			ids = append(ids, member(i))
		}
		if !slices.Equal(got, ids) {
			t.Errorf("%v are left", got)
		}
	}
	left(1, 3, 4, 5)
	if err := s.DeleteMembers(ctx, nil, keep(4)); !errors.Is(err, no) {
		t.Error(err)
	}
	left(4)
	list, err := s.Revocations(ctx, 0, 100)
	check(t, err)
	if len(list.Entries) != 5 || list.Head != 5 || list.Entries[0].Subject != member(0) || list.Entries[0].Restored || !list.Entries[0].Time.Equal(now) {
		t.Errorf("%+v", list)
	}
}

func preTrusted(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	enroller := authority.Attributes{authority.RoleAttribute: authority.RoleEnroller}
	check(t, s.PutMember(ctx, authority.Member{ID: member(1), AddedAt: now}, nil))
	first := []authority.Member{{ID: member(2), Attributes: enroller, AddedBy: member(9), AddedAt: now}, {ID: member(3), AddedAt: now}, {ID: member(1), AddedAt: now}}
	check(t, s.ReplacePreTrusted(ctx, first))
	before := len(Trail(t, s))
	check(t, s.ReplacePreTrusted(at(t, 1, now.Add(time.Hour)), first))
	if n := len(Trail(t, s)); n != before {
		t.Errorf("the same ones again: %d entries more", n-before)
	}
	check(t, s.PutMember(ctx, authority.Member{ID: member(3), AddedAt: now, Attributes: enroller}, nil))
	if m, _, err := s.Member(ctx, member(3)); err != nil || !m.PreTrusted {
		t.Errorf("the mark has gone: %+v, %v", m, err)
	}
	check(t, s.PutMember(ctx, authority.Member{ID: member(4), AddedAt: now}, nil), s.ReplacePreTrusted(ctx, first[1:2]))
	for i, want := range []bool{false, false, false, true, true} {
		m, ok, err := s.Member(ctx, member(i))
		check(t, err)
		if ok != want || i == 3 && m.Attributes[authority.RoleAttribute] != "" {
			t.Errorf("%d: there %v, %+v", i, ok, m)
		}
	}
	list, err := s.Revocations(ctx, 0, 10)
	check(t, err)
	if len(list.Entries) != 2 {
		t.Errorf("%+v", list)
	}
}

func tickets(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	ticket := authority.Token{Hash: code(1), Reference: "R", Attributes: authority.Attributes{"c": "d"}, IssuedBy: member(2), ExpiresAt: now.Add(time.Hour), Uses: 2}
	other := authority.Token{Hash: code(2), Reference: "S", IssuedBy: member(2), ExpiresAt: now.Add(time.Hour)}
	check(t, s.AddToken(ctx, ticket, now), s.AddToken(ctx, other, now))
	redeem := func(n, who int, want authority.Redemption) {
		t.Helper()
		if r, err := s.Redeem(ctx, code(n), member(who), now); err != nil || r != want {
			t.Errorf("%+v, not %+v; %v", r, want, err)
		}
	}
	redeem(9, 5, authority.Redemption{Outcome: authority.CodeUnknown})
	redeem(1, 5, authority.Redemption{Outcome: authority.Redeemed, Reference: "R", Left: 1})
	redeem(1, 5, authority.Redemption{Outcome: authority.AlreadyMember})
	list, err := s.Tokens(ctx, now)
	check(t, err)
	i := slices.IndexFunc(list, func(k authority.Token) bool { return k.Reference == "R" })
	if len(list) != 2 || i < 0 || list[i].Uses != 1 || list[i].Used != 1 || !list[i].IssuedAt.Equal(now) || !list[i].ExpiresAt.Equal(ticket.ExpiresAt) || list[i].IssuedBy != member(2) ||
		list[i].Hash != code(1) || list[i].Attributes["c"] != "d" || list[1-i].Uses != 1 {
		t.Errorf("%+v", list)
	}
	redeem(1, 6, authority.Redemption{Outcome: authority.Redeemed, Reference: "R"})
	redeem(1, 7, authority.Redemption{Outcome: authority.CodeUsed, Reference: "R"})
	redeem(2, 7, authority.Redemption{Outcome: authority.Redeemed, Reference: "S"})
	m, ok, err := s.Member(ctx, member(6))
	check(t, err, same(m, authority.Member{ID: member(6), Attributes: ticket.Attributes, AddedBy: member(2), AddedAt: now, Ticket: "R"}))
	if list, err := s.Tokens(ctx, now); err != nil || len(list) != 0 || !ok {
		t.Errorf("%+v, %v", list, err)
	}
	trail := Trail(t, s)
	if n := events(trail); n[authority.EventTicketMade] != 2 || n[authority.EventTicketUsed] != 3 || n[authority.EventTicketRefused] != 1 || n[authority.EventMemberAdded] != 3 || len(trail) != 9 {
		t.Errorf("%v", n)
	}
}

// expiry: what has expired is told from what is unknown for a while.
func expiry(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	for i := range 3 {
		check(t, s.AddToken(ctx, authority.Token{Hash: code(i), Reference: fmt.Sprint("T", i), ExpiresAt: now.Add(time.Duration(i+1) * time.Minute), Uses: 1}, now))
	}
	for _, c := range []struct {
		n    int
		when time.Duration
		want authority.Outcome
	}{
		{0, time.Minute - time.Millisecond, authority.Redeemed}, {1, 2 * time.Minute, authority.CodeExpired}, {0, 2 * time.Minute, authority.CodeUsed},
		{2, time.Hour, authority.CodeExpired}, {2, authority.SpentRetention, authority.CodeExpired},
	} {
		r, err := s.Redeem(ctx, code(c.n), member(100+c.n+int(c.when)), now.Add(c.when))
		if err != nil || r.Outcome != c.want || r.Reference != fmt.Sprint("T", c.n) {
			t.Errorf("%d after %v: %+v, %v", c.n, c.when, r, err)
		}
	}
	if list, err := s.Tokens(ctx, now.Add(90*time.Second)); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	later := now.Add(authority.SpentRetention + 2*time.Hour)
	check(t, s.AddToken(ctx, authority.Token{Hash: code(7), ExpiresAt: later.Add(time.Hour), Uses: 1}, later)) // clears away
	if r, err := s.Redeem(ctx, code(2), member(200), later); err != nil || r != (authority.Redemption{Outcome: authority.CodeUnknown}) {
		t.Errorf("%+v, %v", r, err)
	}
}

func revokeTicket(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	check(t, s.AddToken(ctx, authority.Token{Hash: code(1), Reference: "R", ExpiresAt: now.Add(time.Hour), Uses: 5}, now),
		s.AddToken(ctx, authority.Token{Hash: code(2), Reference: "S", ExpiresAt: now.Add(time.Second), Uses: 5}, now))
	for _, reference := range []string{"", "Q"} {
		if err := s.RevokeToken(ctx, reference); !errors.Is(err, authority.ErrNoTicket) {
			t.Errorf("%q: %v", reference, err)
		}
	}
	check(t, s.RevokeToken(ctx, "R"))
	for _, c := range []struct {
		reference string
		when      time.Time
	}{{"R", now}, {"S", now.Add(time.Second)}} {
		if err := s.RevokeToken(at(t, 1, c.when), c.reference); !errors.Is(err, authority.ErrNoTicket) {
			t.Errorf("%s: %v", c.reference, err)
		}
	}
	if r, err := s.Redeem(ctx, code(1), member(1), now); err != nil || r != (authority.Redemption{Outcome: authority.CodeRevoked, Reference: "R"}) {
		t.Errorf("%+v, %v", r, err)
	}
	if e := Trail(t, s); len(e) != 4 || e[2].Event != authority.EventTicketRevoked || e[2].Ticket != "R" || e[2].Actor != member(1) || e[3].Event != authority.EventTicketRefused ||
		e[3].Reason != string(authority.CodeRevoked) {
		t.Errorf("%+v", e)
	}
}

func block(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	if err := s.Block(ctx, member(1), true, nil); !errors.Is(err, authority.ErrNoMember) {
		t.Error(err)
	}
	m := authority.Member{ID: member(1), AddedAt: now, Attributes: authority.Attributes{"a": "b"}}
	check(t, s.PutMember(ctx, m, nil), s.Block(ctx, member(1), true, nil), s.Block(ctx, member(1), true, nil))
	m.Blocked = true
	got, _, err := s.Member(ctx, m.ID)
	check(t, err, same(got, m))
	check(t, s.PutMember(ctx, authority.Member{ID: member(1), AddedAt: now}, nil))
	if got, _, err = s.Member(ctx, m.ID); err != nil || !got.Blocked {
		t.Errorf("a changed member is not blocked any more: %v", err)
	}
	check(t, s.Block(ctx, member(1), false, nil))
	if got, _, err = s.Member(ctx, m.ID); err != nil || got.Blocked {
		t.Errorf("blocked: %v", err)
	}
	list, err := s.Revocations(ctx, 0, 10)
	check(t, err)
	if len(list.Entries) != 2 || list.Entries[0].Restored || !list.Entries[1].Restored {
		t.Errorf("%+v", list)
	}
}

// revocations are numbered without holes, are in order, are forgotten when they have ended, and the number goes on.
func revocations(t *testing.T, s authority.Store) {
	list, err := s.Revocations(t.Context(), 0, 10)
	check(t, err)
	if len(list.Name) == 0 || list.First != 0 || list.Head != 0 || len(list.Entries) != 0 {
		t.Errorf("%+v", list)
	}
	name := list.Name
	const n = 45
	for i := range n {
		ctx := at(t, 1, now.Add(time.Duration(i)*time.Second))
		check(t, s.PutMember(ctx, authority.Member{ID: member(i), AddedAt: now}, nil), s.DeleteMembers(ctx, []identity.Identifier{member(i)}, nil))
	}
	for _, c := range []struct{ after, limit, first, count int }{{0, 10, 1, 10}, {0, 100, 1, n}, {40, 100, 41, 5}, {n, 10, 0, 0}, {3, 0, 0, 0}, {200, 10, 0, 0}} {
		list, err := s.Revocations(t.Context(), uint64(c.after), c.limit)
		check(t, err)
		if string(list.Name) != string(name) || list.Head != n || list.First != 1 || len(list.Entries) != c.count {
			t.Fatalf("%+v: %+v", c, list)
		}
		for i, r := range list.Entries {
			if k := c.first + i; r.Seq != uint64(k) || r.Subject != member(k-1) || !r.Time.Equal(now.Add(time.Duration(k-1)*time.Second)) || r.Restored || !r.Until.Equal(r.Time.Add(authority.ReferenceTTL)) {
				t.Errorf("%+v: %d: %+v", c, i, r)
			}
		}
	}
	ctx := at(t, 1, now.Add(time.Minute))
	if r, ok, err := s.RevocationOf(ctx, member(6)); err != nil || !ok || r.Seq != 7 {
		t.Errorf("%+v, %v, %v", r, ok, err)
	}
	if r, ok, err := s.RevocationOf(ctx, member(n)); err != nil || ok {
		t.Errorf("%+v, %v, %v", r, ok, err)
	}
	check(t, s.PutMember(ctx, authority.Member{ID: member(6), AddedAt: now}, nil)) // comes back
	if r, ok, err := s.RevocationOf(ctx, member(6)); err != nil || !ok || r.Seq != n+1 || !r.Restored {
		t.Errorf("%+v, %v, %v", r, ok, err)
	}
	// When the first ones have ended they go with the next one.
	end := now.Add(authority.ReferenceTTL + 30*time.Second)
	check(t, s.DeleteMembers(at(t, 1, end), []identity.Identifier{member(6)}, nil))
	list, err = s.Revocations(ctx, 0, 100)
	check(t, err)
	if list.First != 31 || list.Head != n+2 || len(list.Entries) != n+2-30 || list.Entries[0].Seq != 31 {
		t.Errorf("from %d to %d, %d kept", list.First, list.Head, len(list.Entries))
	}
	if _, ok, err := s.RevocationOf(ctx, member(3)); ok || err != nil {
		t.Errorf("a forgotten one is known: %v", err)
	}
	end = end.Add(10 * authority.ReferenceTTL)
	check(t, s.PutMember(at(t, 1, end), authority.Member{ID: member(3), AddedAt: end}, nil), s.Block(at(t, 1, end), member(3), true, nil))
	if list, err = s.Revocations(ctx, 0, 100); err != nil || list.Head != n+3 || list.First != n+3 || len(list.Entries) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

func issued(t *testing.T, s authority.Store) {
	check(t, s.PutMember(at(t, 1, now), authority.Member{ID: member(1), AddedAt: now, Attributes: authority.Attributes{"a": "b"}}, nil))
	for i := range 30 {
		when := now.Add(time.Duration(i) * time.Hour)
		check(t, s.Issued(at(t, 1, when), member(1), authority.Attributes{"x": "y"}, when.Add(time.Hour)))
	}
	last := now.Add(29 * time.Hour)
	check(t, s.Issued(at(t, 1, last), member(1), nil, now)) // an earlier end does not replace a later one
	m, _, err := s.Member(t.Context(), member(1))
	check(t, err, same(m, authority.Member{ID: member(1), AddedAt: now, Attributes: authority.Attributes{"a": "b"}, LastSeen: last, CredentialExpires: last.Add(time.Hour)}))
	check(t, s.Issued(at(t, 1, now), member(2), nil, now)) // an account admin
	if _, ok, err := s.Member(t.Context(), member(2)); ok || err != nil {
		t.Errorf("who has no row has one: %v", err)
	}
	list := Trail(t, s)
	if len(list) != 4 || list[1].Event != authority.EventCredential || list[1].Count != 1 || list[2].Count != 24 || list[2].Attributes["x"] != "y" || list[3].Subject != member(2) {
		t.Errorf("%+v", list)
	}
	check(t, s.DeleteMembers(at(t, 1, last), []identity.Identifier{member(1)}, nil))
	if r, ok, err := s.RevocationOf(t.Context(), member(1)); err != nil || !ok || !r.Until.Equal(last.Add(authority.ReferenceTTL)) {
		t.Errorf("%+v, %v", r, err)
	}
}

func ttl(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	if d, err := s.CredentialTTL(ctx); d != 0 || err != nil {
		t.Errorf("%v, %v", d, err)
	}
	for _, want := range []time.Duration{90 * time.Minute, 100 * 365 * 24 * time.Hour, time.Millisecond} {
		check(t, s.SetCredentialTTL(ctx, want))
		if d, err := s.CredentialTTL(ctx); d != want || err != nil {
			t.Errorf("%v, not %v; %v", d, want, err)
		}
	}
	long := 2 * authority.ReferenceTTL
	check(t, s.SetCredentialTTL(ctx, long), s.PutMember(ctx, authority.Member{ID: member(1), AddedAt: now}, nil), s.Block(ctx, member(1), true, nil))
	if r, _, err := s.RevocationOf(ctx, member(1)); err != nil || !r.Until.Equal(now.Add(long)) {
		t.Errorf("%+v, %v", r, err)
	}
}

func trail(t *testing.T, s authority.Store) {
	full := authority.AuditEntry{Time: now.Add(123 * time.Millisecond), Event: authority.EventSignedIn, Actor: member(1), Subject: member(2), Ticket: "R", Reason: authority.ReasonClaims,
		Source: "2001:db8::1", Count: 7, Attributes: authority.Attributes{"a": "b"}}
	check(t, s.Record(t.Context(), authority.AuditEntry{Time: now, Event: authority.EventStarted}), s.Record(t.Context(), full))
	for i := range 20 {
		check(t, s.Record(t.Context(), authority.AuditEntry{Time: now.Add(time.Duration(i) * time.Second), Event: authority.EventRoleUsed}))
	}
	list := Trail(t, s)
	if len(list) != 22 || list[0].Event != authority.EventStarted || list[0].Attributes != nil {
		t.Fatalf("%+v", list)
	}
	e := list[1]
	if e.Seq != 2 || !e.Time.Equal(full.Time) || e.Event != full.Event || e.Actor != full.Actor || e.Subject != full.Subject || e.Ticket != full.Ticket || e.Reason != full.Reason ||
		e.Source != full.Source || e.Count != full.Count || !maps.Equal(e.Attributes, full.Attributes) {
		t.Errorf("%+v", e)
	}
	if part, err := s.Audit(t.Context(), 20, 100); err != nil || len(part) != 2 || part[0].Seq != 21 {
		t.Errorf("%+v, %v", part, err)
	}
	if part, err := s.Audit(t.Context(), 22, 100); err != nil || len(part) != 0 {
		t.Errorf("%+v, %v", part, err)
	}
}

func cancelled(t *testing.T, s authority.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err1 := s.Member(ctx, member(1))
	_, err2 := s.Members(ctx)
	_, err3 := s.Redeem(ctx, code(1), member(1), now)
	_, err4 := s.Audit(ctx, 0, 1)
	_, err5 := s.Tokens(ctx, now)
	_, err6 := s.Revocations(ctx, 0, 1)
	_, _, err7 := s.RevocationOf(ctx, member(1))
	_, err8 := s.CredentialTTL(ctx)
	for i, err := range []error{
		err1, err2, err3, err4, err5, err6, err7, err8, s.PutMember(ctx, authority.Member{}, nil), s.DeleteMembers(ctx, nil, nil), s.ReplacePreTrusted(ctx, nil),
		s.AddToken(ctx, authority.Token{}, now), s.RevokeToken(ctx, "R"), s.Issued(ctx, member(1), nil, now), s.Block(ctx, member(1), true, nil), s.SetCredentialTTL(ctx, 1),
		s.Record(ctx, authority.AuditEntry{}), s.Copy(ctx, &strings.Builder{}),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if n := len(Trail(t, s)); n != 0 {
		t.Errorf("%d entries", n)
	}
}

// Redeem has many redeem a code at once, through each of several stores in turn, and counts the outcomes. Each error is a failure of the test.
func Redeem(t testing.TB, stores []authority.Store, hash authority.CodeHash, first, callers int, when time.Time) map[authority.Outcome]int {
	t.Helper()
	results, errs := make([]authority.Redemption, callers), make([]error, callers)
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			<-begin
			results[i], errs[i] = stores[i%len(stores)].Redeem(t.Context(), hash, member(first+i), when)
		})
	}
	close(begin)
	all.Wait()
	check(t, errs...)
	count := map[authority.Outcome]int{}
	for i, r := range results {
		count[r.Outcome]++
		for k, s := range stores {
			if _, ok, err := s.Member(t.Context(), member(first+i)); err != nil || ok != (r.Outcome == authority.Redeemed) {
				t.Errorf("caller %d is %+v, a member of store %d: %v, %v", i, r, k, ok, err)
			}
		}
	}
	return count
}

// oneUse: of a hundred who redeem a one-time code at once one wins.
func oneUse(t *testing.T, s authority.Store) {
	for round := range 3 {
		check(t, s.AddToken(t.Context(), authority.Token{Hash: code(round), Reference: "R", ExpiresAt: now.Add(time.Hour), Uses: 1}, now))
		if n := Redeem(t, []authority.Store{s}, code(round), 1000*round, 100, now); n[authority.Redeemed] != 1 || n[authority.CodeUsed] != 99 {
			t.Errorf("%v", n)
		}
	}
}

func manyUses(t *testing.T, s authority.Store) {
	check(t, s.AddToken(t.Context(), authority.Token{Hash: code(1), Reference: "R", ExpiresAt: now.Add(time.Hour), Uses: 17}, now))
	if n := Redeem(t, []authority.Store{s}, code(1), 0, 64, now); n[authority.Redeemed] != 17 || n[authority.CodeUsed] != 47 {
		t.Errorf("%v", n)
	}
	if n := events(Trail(t, s)); n[authority.EventTicketUsed] != 17 || n[authority.EventTicketRefused] != 47 || n[authority.EventMemberAdded] != 17 {
		t.Errorf("audit: %v", n)
	}
}

// oneMember: an identity that redeems a code several times at once spends one use.
func oneMember(t *testing.T, s authority.Store) {
	check(t, s.AddToken(t.Context(), authority.Token{Hash: code(1), ExpiresAt: now.Add(time.Hour), Uses: 5}, now))
	outcomes := make([]authority.Outcome, 20)
	var all sync.WaitGroup
	for i := range outcomes {
		all.Go(func() {
			r, err := s.Redeem(t.Context(), code(1), member(1), now)
			if outcomes[i] = r.Outcome; err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	count := map[authority.Outcome]int{}
	for _, o := range outcomes {
		count[o]++
	}
	if count[authority.Redeemed] != 1 || count[authority.AlreadyMember] != len(outcomes)-1 {
		t.Errorf("%v", count)
	}
	if r, err := s.Redeem(t.Context(), code(1), member(2), now); err != nil || r.Left != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Write has many writers do all kinds of things at once, through each of several stores in turn, and checks that trail and revocations are in
// order and without holes in all of them.
func Write(t testing.TB, stores []authority.Store, writers, rounds int) {
	t.Helper()
	var all sync.WaitGroup
	for w := range writers {
		s := stores[w%len(stores)]
		all.Go(func() {
			for i := range rounds {
				id := member(1_000_000 + w*1000 + i)
				ctx := at(t, w, now.Add(time.Duration(i)*time.Second))
				steps := []func() error{
					func() error { return s.PutMember(ctx, authority.Member{ID: id, AddedAt: now}, nil) },
					func() error { return s.Record(ctx, authority.AuditEntry{Time: now, Event: authority.EventRoleUsed}) },
					func() error { return s.Block(ctx, id, true, nil) },
					func() error { return s.Issued(ctx, id, nil, now) },
					func() error { return s.DeleteMembers(ctx, []identity.Identifier{id}, nil) },
				}
				for k, step := range steps {
					if err := step(); err != nil {
						t.Errorf("writer %d, step %d: %v", w, k, err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	for _, s := range stores {
		list, err := s.Revocations(t.Context(), 0, 10*writers*rounds)
		check(t, err)
		if list.Head != uint64(len(list.Entries)) || len(list.Entries) != 2*writers*rounds {
			t.Errorf("%d revocations, the last is %d", len(list.Entries), list.Head)
		}
		for i, r := range list.Entries {
			if r.Seq != uint64(i+1) {
				t.Fatalf("at %d is number %d", i, r.Seq)
			}
		}
		n := events(Trail(t, s))
		for _, event := range []string{authority.EventMemberAdded, authority.EventRoleUsed, authority.EventMemberBlocked, authority.EventCredential, authority.EventMemberDeleted} {
			if n[event] != writers*rounds {
				t.Errorf("%d of %d entries %s", n[event], writers*rounds, event)
			}
		}
	}
}

func writers(t *testing.T, s authority.Store) { Write(t, []authority.Store{s}, 8, 4) }

// text: attributes are whatever text somebody sends.
func text(t *testing.T, s authority.Store) {
	ctx := at(t, 1, now)
	for i, value := range []string{"", "\x00", "a\x00b", "'; drop table members; --", `\u0000"`, strings.Repeat("ü", 10_000)} {
		m := authority.Member{ID: member(i), AddedAt: now, Attributes: authority.Attributes{"v": value, value: "v"}}
		check(t, s.PutMember(ctx, m, nil))
		got, _, err := s.Member(ctx, m.ID)
		check(t, err, same(got, m))
	}
	check(t, s.Record(ctx, authority.AuditEntry{Time: now, Event: authority.EventSignInRefused, Reason: "a\x00b"}))
	if err := s.RevokeToken(ctx, "a\x00b"); !errors.Is(err, authority.ErrNoTicket) {
		t.Error(err)
	}
}

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
