// Package storetest has the tests that every store of an authority must pass, whatever keeps its rows.
package storetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
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
