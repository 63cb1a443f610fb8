package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/authority"
)

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

// oneMember: an identity that presents a code many times, as one does that did not hear the answer, spends one use, and is told each time that it is a member. What is left is for others.
func oneMember(t *testing.T, s authority.Store) {
	for who, uses := range []uint64{5, 1} {
		check(t, s.AddToken(t.Context(), authority.Token{Hash: code(who), ExpiresAt: now.Add(time.Hour), Uses: uses}, now))
		outcomes := make([]authority.Outcome, 20)
		var all sync.WaitGroup
		for i := range outcomes {
			all.Go(func() {
				r, err := s.Redeem(t.Context(), code(who), member(who), now)
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
			t.Errorf("%d uses: %v", uses, count)
		}
		want := authority.Redemption{Outcome: authority.Redeemed, Left: uses - 2}
		if uses == 1 {
			want = authority.Redemption{Outcome: authority.CodeUsed}
		}
		if r, err := s.Redeem(t.Context(), code(who), member(100+who), now); err != nil || r != want {
			t.Errorf("%d uses, to somebody else: %+v, %v", uses, r, err)
		}
	}
}
