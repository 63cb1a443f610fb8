package authority

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	bolt "go.etcd.io/bbolt"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/routing/rpc"
)

// ask sends a credential request to a path and returns the lifetime of what was issued.
func (f *fixture) ask(t *testing.T, who identity.Identifier, path string) time.Duration {
	t.Helper()
	f.issuer.ttl = 0
	res := f.services[CredentialIssuer].Serve(t.Context(), &who, rpc.NewRequest(rpc.Post, path, nil))
	if res == nil || res.Status != rpc.OK {
		t.Fatalf("%+v", res)
	}
	return f.issuer.ttl
}

// TestCredentialLifetime: an hour for who renews, thirty days for members of the reference; what was configured is for all, and is kept.
func TestCredentialLifetime(t *testing.T) {
	f := withRoles(t, false, false)
	if ttl := f.ask(t, plain, PathRenewing); ttl != time.Hour {
		t.Errorf("for who renews: %v", ttl)
	}
	if ttl := f.ask(t, plain, "/"); ttl != 30*24*time.Hour {
		t.Errorf("for the reference's: %v", ttl)
	}
	again := func(ttl time.Duration) *fixture {
		o := f.o
		o.CredentialTTL = ttl
		a, err := New(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return &fixture{Authority: a, store: f.store, issuer: f.issuer, services: a.Services()}
	}
	for _, path := range []string{"/", PathRenewing} {
		if ttl := again(20*time.Minute).ask(t, plain, path); ttl != 20*time.Minute {
			t.Errorf("configured: %v", ttl)
		}
		if ttl := again(0).ask(t, plain, path); ttl != 20*time.Minute {
			t.Errorf("after the next start: %v", ttl)
		}
	}
}

// TestAskingWithoutPause: who asks again at once gets the same credential, and who has changed another one.
func TestAskingWithoutPause(t *testing.T) {
	f := withRoles(t, false, false)
	if f.ask(t, plain, "/") == 0 {
		t.Fatal("nothing issued")
	}
	for range 100 {
		if f.ask(t, plain, "/") != 0 {
			t.Fatal("another one was issued at once")
		}
	}
	if f.ask(t, enroller, "/") == 0 || f.ask(t, plain, PathRenewing) == 0 {
		t.Error("another member, or another lifetime, gets nothing of its own")
	}
	if err := f.client(enroller).AddMember(t.Context(), plain, Attributes{"new": "1"}); err != nil {
		t.Fatal(err)
	}
	if f.ask(t, plain, "/") == 0 {
		t.Error("the attributes have changed")
	}
	f.now = f.now.Add(recentFor + time.Second)
	if f.ask(t, plain, "/") == 0 {
		t.Error("nothing new after a while")
	}
}

// TestTicketsAfterTheyWereMade lists, finds and revokes tickets.
func TestTicketsAfterTheyWereMade(t *testing.T) {
	f := withRoles(t, true, true)
	ctx, c := t.Context(), f.client(enroller)
	code, err := c.CreateToken(ctx, Attributes{"company": "acme"}, time.Hour, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.client(some(20)).Redeem(ctx, code); err != nil {
		t.Fatal(err)
	}
	list, err := c.Tickets(ctx)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	hash := code.Hash()
	if i := list[0]; !bytes.Equal(i.Hash, hash[:]) || i.Left != 2 || i.Used != 1 || i.Attributes["company"] != "acme" || !bytes.Equal(i.IssuedBy, enroller[:]) ||
		i.IssuedAt != f.now.Unix() || i.ExpiresAt != f.now.Add(time.Hour).Unix() || len(i.Reference) != referenceSize {
		t.Errorf("%+v", i)
	}
	for who, text := range map[identity.Identifier]string{plain: "administer", stranger: "administer"} {
		_, err := f.client(who).Tickets(ctx)
		refused(t, "listing", err, textNotEnroller+text+" the authority")
		refused(t, "revoking", f.client(who).RevokeTicket(ctx, list[0].Reference), textNotEnroller+text+" the authority")
	}
	if m, err := c.MemberInfo(ctx, some(20)); err != nil || m.Ticket != list[0].Reference || !bytes.Equal(m.AddedBy, enroller[:]) || m.LastSeen != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if err := c.RevokeTicket(ctx, list[0].Reference); err != nil {
		t.Fatal(err)
	}
	_, err = f.client(some(21)).Redeem(ctx, code)
	refused(t, "a revoked ticket", err, "Unknown enrollment token")
	if f.counts.n["ticket revoked"] != 1 {
		t.Error("not counted as revoked")
	}
	if _, found, _ := f.store.Member(ctx, some(20)); !found {
		t.Error("the member that came with it has gone")
	}
	if list, err = c.Tickets(ctx); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	var status *rpc.StatusError
	if err := c.RevokeTicket(ctx, "nothing"); !errors.As(err, &status) || status.Status != rpc.NotFound {
		t.Errorf("an unknown one: %v", err)
	}
	// A ticket for an enroller is the admin's alone.
	if _, err := f.client(accountAdmin).CreateToken(ctx, Attributes{RoleAttribute: RoleEnroller}, time.Hour, 1); err != nil {
		t.Fatal(err)
	}
	list, err = f.client(accountAdmin).Tickets(ctx)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	refused(t, "an enroller's ticket", c.RevokeTicket(ctx, list[0].Reference), "Not admin is trying to revoke an enrollment token for an enroller")
	if err := f.client(accountAdmin).RevokeTicket(ctx, list[0].Reference); err != nil {
		t.Error(err)
	}
	f.now = f.now.Add(time.Hour)
	if _, err := c.CreateToken(ctx, nil, time.Minute, 1); err != nil {
		t.Fatal(err)
	}
	f.now = f.now.Add(time.Minute)
	if list, err = c.Tickets(ctx); err != nil || len(list) != 0 {
		t.Errorf("an expired one is listed: %v, %v", list, err)
	}
}

// newsFixture is an authority with real keys, and a node that knows it.
func newsFixture(t *testing.T) (f *fixture, reader *identity.Manager) {
	t.Helper()
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := ids.Create(t.Context(), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	reader = identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	if _, err := reader.Import(t.Context(), self.History(), nil); err != nil {
		t.Fatal(err)
	}
	f = newFixture(t, func(o *Options) {
		o.Identities, o.Self = ids, self.Identifier()
		o.TrustedIdentities = map[identity.Identifier]map[string]string{preTrusted: {RoleAttribute: RoleEnroller}}
	})
	f.rows(t)
	return f, reader
}

// since asks for news and verifies all of them.
func (f *fixture) since(t *testing.T, reader *identity.Manager, q Query) (n News, list []Revocation) {
	t.Helper()
	n, err := f.News(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if n, err = DecodeNews(n.Encode()); err != nil {
		t.Fatal(err)
	}
	for _, raw := range n.Statements {
		r, err := VerifyRevocation(t.Context(), reader, raw, f.o.Self, n.List)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return n, list
}

// signing counts what an authority signs.
type signing struct {
	*identity.Manager
	n int
}

func (s *signing) SignStatement(ctx context.Context, issuer identity.Identifier, content []byte, until time.Time) ([]byte, error) {
	s.n++
	return s.Manager.SignStatement(ctx, issuer, content, until)
}

// TestNewsNamesItsKey: news names the key that signed it, so that nodes notice another one. What is signed is kept while the key stays, and signed anew by the next.
func TestNewsNamesItsKey(t *testing.T) {
	f, reader := newsFixture(t)
	ids := &signing{Manager: f.o.Identities.(*identity.Manager)}
	f.o.Identities = ids
	if err := f.client(enroller).DeleteMember(t.Context(), plain); err != nil {
		t.Fatal(err)
	}
	expect := func(when string, signed int) News {
		t.Helper()
		history, err := ids.History(t.Context(), f.o.Self)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := reader.Import(t.Context(), history, nil); err != nil {
			t.Fatal(err)
		}
		n, list := f.since(t, reader, Query{})
		if want := KeyName(history); len(list) != 1 || !bytes.Equal(n.Key, want[:]) || ids.n != signed {
			t.Errorf("%s: %d statements, key %x (want %x), signed %d times", when, len(list), n.Key, want, ids.n)
		}
		return n
	}
	first := expect("at first", 1)
	if again := expect("asked again", 1); !bytes.Equal(again.Statements[0], first.Statements[0]) {
		t.Error("another statement with the same key")
	}
	if _, err := ids.Rotate(t.Context(), f.o.Self, identity.RotateOptions{}); err != nil {
		t.Fatal(err)
	}
	if next := expect("with another key", 2); bytes.Equal(next.Key, first.Key) || bytes.Equal(next.Statements[0], first.Statements[0]) {
		t.Error("the next key signs what the first one has signed")
	}
	expect("asked again", 2)
}

// TestRevocations: deleting, blocking, unblocking and coming back are told, numbered and signed.
func TestRevocations(t *testing.T) {
	f, reader := newsFixture(t)
	ctx, c := t.Context(), f.client(enroller)
	n, list := f.since(t, reader, Query{})
	if n.Head != 0 || len(list) != 0 || len(n.List) != epochSize {
		t.Fatalf("%+v", n)
	}
	step := func(what string, do func() error, want ...Revocation) {
		t.Helper()
		changed := f.Changed()
		if err := do(); err != nil {
			t.Fatal(what, err)
		}
		select {
		case <-changed:
		default:
			if len(want) > 0 {
				t.Error(what, "was not told")
			}
		}
		got, list := f.since(t, reader, Query{List: n.List, Since: n.Head})
		if len(list) != len(want) || got.From != n.Head {
			t.Fatalf("%s: %+v", what, list)
		}
		for i, w := range want {
			if r := list[i]; r.Seq != n.Head+uint64(i)+1 || r.Subject != w.Subject || r.Restored != w.Restored || !r.Time.Equal(f.now) || r.Until.Before(f.now.Add(ReferenceTTL)) {
				t.Errorf("%s: %+v", what, r)
			}
		}
		n = got
		f.now = f.now.Add(time.Minute)
	}
	step("delete", func() error { return c.DeleteMember(ctx, plain) }, Revocation{Subject: plain})
	step("delete again", func() error { return c.DeleteMember(ctx, plain) })
	step("come back", func() error { return c.AddMember(ctx, plain, nil) }, Revocation{Subject: plain, Restored: true})
	step("change", func() error { return c.AddMember(ctx, plain, Attributes{"a": "b"}) })
	step("block", func() error { return c.Block(ctx, plain) }, Revocation{Subject: plain})
	step("block again", func() error { return c.Block(ctx, plain) })
	step("change while blocked", func() error { return c.AddMember(ctx, plain, Attributes{"a": "c"}) })
	if m, err := c.MemberInfo(ctx, plain); err != nil || !m.Blocked {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := f.client(plain).Credential(ctx); err == nil || f.counts.n["credential blocked"] != 1 {
		t.Errorf("a blocked member gets a credential: %v", err)
	}
	step("unblock", func() error { return c.Unblock(ctx, plain) }, Revocation{Subject: plain, Restored: true})
	if m, err := c.MemberInfo(ctx, plain); err != nil || m.Blocked {
		t.Errorf("%+v, %v", m, err)
	}
	code, err := c.CreateToken(ctx, nil, time.Hour, 5)
	if err != nil {
		t.Fatal(err)
	}
	step("delete once more", func() error { return c.DeleteMember(ctx, plain) }, Revocation{Subject: plain})
	step("come back with a ticket", func() error { _, err := f.client(plain).Redeem(ctx, code); return err }, Revocation{Subject: plain, Restored: true})
	step("all", func() error { return c.DeleteMembers(ctx) }, Revocation{Subject: otherEnroller}, Revocation{Subject: plain})
	// A node that knows nothing, or another list, gets all.
	for _, q := range []Query{{}, {List: []byte("another!"), Since: 4}, {List: n.List, Since: n.Head + 10}} {
		if got, list := f.since(t, reader, q); got.From != 0 || len(list) != int(n.Head) {
			t.Errorf("%+v: %d of %d", q, len(list), n.Head)
		}
	}
	// Not of another list, and not from somebody else.
	raw := f.raw(t)
	if _, err := VerifyRevocation(ctx, reader, raw, f.o.Self, []byte("another!")); err == nil {
		t.Error("taken from another list")
	}
	if _, err := VerifyRevocation(ctx, reader, raw, some(1), n.List); !errors.Is(err, identity.ErrUnknownAuthority) {
		t.Errorf("from somebody else: %v", err)
	}
	raw[len(raw)/2] ^= 1
	if _, err := VerifyRevocation(ctx, reader, raw, f.o.Self, n.List); err == nil {
		t.Error("changed on its way")
	}
}

func (f *fixture) raw(t *testing.T) []byte {
	t.Helper()
	n, err := f.News(t.Context(), Query{})
	if err != nil || len(n.Statements) == 0 {
		t.Fatal(n, err)
	}
	return slices.Clone(n.Statements[0])
}

// TestWhoMayBlock: as who may delete.
func TestWhoMayBlock(t *testing.T) {
	f := withRoles(t, true, true)
	ctx := t.Context()
	refused(t, "a member", f.client(plain).Block(ctx, otherEnroller), textNotEnroller+"administer the authority")
	refused(t, "a pre-trusted one", f.client(enroller).Block(ctx, preTrusted), "Enroller is trying to delete a pre trusted identity")
	refused(t, "an enroller", f.client(enroller).Block(ctx, otherEnroller), "Not admin is trying to delete an enroller")
	refused(t, "oneself", f.client(enroller).Block(ctx, enroller), "An enroller is trying to block itself")
	if err := f.client(accountAdmin).Block(ctx, otherEnroller); err != nil {
		t.Error(err)
	}
	refused(t, "a blocked enroller", f.client(otherEnroller).Block(ctx, plain), textNotEnroller+"administer the authority")
	var status *rpc.StatusError
	if err := f.client(enroller).Block(ctx, some(77)); !errors.As(err, &status) || status.Status != rpc.NotFound {
		t.Errorf("a stranger: %v", err)
	}
	// Without the member service there is none of this either.
	g := newFixture(t, func(o *Options) { o.NoDirectAuthentication = true })
	g.rows(t)
	if err := g.client(enroller).Block(ctx, plain); err == nil {
		t.Error("members are managed although the authority has no service for it")
	}
	if _, err := g.client(enroller).Tickets(ctx); err != nil {
		t.Error(err)
	}
}

// TestNewCredentialIsNewerThanItsRevocation: a member that was deleted and comes back in the same second.
func TestNewCredentialIsNewerThanItsRevocation(t *testing.T) {
	f := newFixture(t, func(o *Options) { o.Now = time.Now })
	f.now = time.Now()
	f.rows(t)
	ctx, c := t.Context(), f.client(enroller)
	if err := errors.Join(c.DeleteMember(ctx, plain), c.AddMember(ctx, plain, nil)); err != nil {
		t.Fatal(err)
	}
	revocations, err := f.store.Revocations(ctx, 0, 10)
	list := revocations.Entries
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	if _, err := f.client(plain).Credential(ctx); err != nil {
		t.Fatal(err)
	}
	if now := time.Now().Unix(); now <= list[1].Time.Unix() {
		t.Errorf("issued at %d, revoked at %d", now, list[1].Time.Unix())
	}
}

// TestAuditChain: a trail that was changed anywhere does not verify.
func TestAuditChain(t *testing.T) {
	f := withRoles(t, false, false)
	ctx, c := t.Context(), f.client(enroller)
	for i := range byte(20) {
		if err := c.AddMember(ctx, some(100+i), Attributes{"n": fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	verify := func() (chain Chain, err error) {
		entries, err := c.Audit(ctx, 0)
		if err != nil {
			return chain, err
		}
		for _, e := range entries {
			if err := chain.Next(e); err != nil {
				return chain, err
			}
		}
		return chain, nil
	}
	chain, err := verify()
	if err != nil || chain.First != 1 || chain.Entries < 25 {
		t.Fatalf("%+v, %v", chain, err)
	}
	entries, err := c.Audit(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	if e := entries[len(entries)-2]; e.Event != EventMemberAdded || e.Actor != enroller || e.Subject != some(119) || e.Attributes["n"] != "19" || !e.Time.Equal(f.now) {
		t.Errorf("%+v", e)
	}
	if next, err := c.Audit(ctx, entries[4].Seq); err != nil || next[0].Seq != entries[5].Seq {
		t.Errorf("%v", err)
	}
	db := boltOf(f.store)
	key := func(n int) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, byte(n)} }
	for name, change := range map[string]func(b *bolt.Bucket) error{
		"content": func(b *bolt.Bucket) error {
			var r trailRecord
			var e trailEntry
			if err := errors.Join(cbor.Unmarshal(b.Get(key(10)), &r), cbor.Unmarshal(r.Content, &e)); err != nil {
				return err
			}
			e.Actor = plain[:]
			r.Content, _ = cbor.Marshal(e)
			return put(b, key(10), r)
		},
		"deleted": func(b *bolt.Bucket) error { return b.Delete(key(10)) },
		"moved": func(b *bolt.Bucket) error {
			return errors.Join(b.Put(key(10), slices.Clone(b.Get(key(11)))), b.Delete(key(11)))
		},
		"beginning": func(b *bolt.Bucket) error {
			var r trailRecord
			if err := cbor.Unmarshal(b.Get(key(1)), &r); err != nil {
				return err
			}
			r.Previous = bytes.Repeat([]byte{1}, 32)
			return put(b, key(1), r)
		},
		"junk": func(b *bolt.Bucket) error { return b.Put(key(10), []byte{0xff}) },
	} {
		tx, err := db.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		if err := change(tx.Bucket(bucketTrail)); err != nil {
			t.Fatal(name, err)
		}
		// What is seen inside the transaction, which is then undone.
		var chain Chain
		var failure error
		if err := tx.Bucket(bucketTrail).ForEach(func(key, data []byte) error {
			e, err := readTrail(key, data)
			if err == nil {
				err = chain.Next(e)
			}
			failure = err
			return err
		}); !errors.Is(err, ErrTrail) {
			t.Errorf("%s: %v, %v", name, err, failure)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
	for _, who := range []identity.Identifier{plain, stranger} {
		_, err := f.client(who).Audit(ctx, 0)
		refused(t, "reading", err, textNotEnroller+"administer the authority")
	}
	g := withRoles(t, true, true)
	_, err = g.client(enroller).Audit(ctx, 0)
	refused(t, "an enroller that is no admin", err, "Not admin is trying to read the audit trail")
	if _, err := g.client(accountAdmin).Audit(ctx, 0); err != nil {
		t.Error(err)
	}
}

// TestGuessesDoNotFillTheTrail tries many codes from one address, and one of another that is good.
func TestGuessesDoNotFillTheTrail(t *testing.T) {
	f := withRoles(t, false, false)
	good, err := f.client(enroller).CreateToken(t.Context(), nil, time.Hour, 2)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(source string, who identity.Identifier, code Code) *rpc.Response {
		ctx := rpc.WithSource(t.Context(), source)
		return f.services[EnrollmentTokenAcceptor].Serve(ctx, &who, rpc.NewRequest(rpc.Post, "/", encodeCode(code)))
	}
	var held []*rpc.Response
	immediate, slowed, unlooked := 0, 0, 0
	const tries = 10_500
	for i := range tries {
		res := ask("192.0.2.1", some(byte(100+i%100)), Code{1, byte(i >> 8), byte(i)})
		if res.Status != rpc.Forbidden {
			t.Fatalf("%+v", res)
		}
		switch {
		case res.Delay > 0:
			slowed++
			held = append(held, res)
		case bytes.Contains(res.Body, []byte(textSlowed)):
			unlooked++
		default:
			immediate++
		}
	}
	if immediate != freeGuesses || slowed != guessesWaiting || unlooked != tries-immediate-slowed {
		t.Errorf("%d at once, %d slowed, %d not looked at", immediate, slowed, unlooked)
	}
	// Others do not notice, and neither does somebody behind the same address when the held answers are out.
	if res := ask("192.0.2.2", some(50), good); res.Status != rpc.OK {
		t.Errorf("%+v", res)
	}
	for _, res := range held {
		res.Done()
	}
	if res := ask("192.0.2.1", some(51), good); res.Status != rpc.OK {
		t.Errorf("%+v", res)
	}
	f.now = f.now.Add(denialPause)
	entries, err := f.client(enroller).Audit(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	count, unknown := uint64(0), 0
	for _, e := range entries {
		if e.Reason == ReasonUnknown {
			unknown++
			count += e.Count
			if e.Source != "192.0.2.1" {
				t.Errorf("%+v", e)
			}
		}
	}
	if unknown != 2 || count != tries {
		t.Errorf("%d entries about %d of %d unknown codes", unknown, count, tries)
	}
	// Time gives some back.
	f.now = f.now.Add(guessRefill)
	if res := ask("192.0.2.1", some(9), Code{9}); res.Delay != 0 {
		t.Error("slowed down for ever")
	}
}

// TestDenialsAreBounded comes from more addresses than are counted apart.
func TestDenialsAreBounded(t *testing.T) {
	var d denials
	var g guesses
	now := time.Unix(1_800_000_000, 0)
	entries := 0
	for i := range 5 * maxDenials {
		if d.add(denial{EventTicketRefused, ReasonUnknown, fmt.Sprint(i)}, Origin{Time: now}) != nil {
			entries++
		}
		g.unknown(fmt.Sprint(i), now)
	}
	if entries != maxDenials+1 || len(d.counts) != maxDenials+1 || len(g.sources) > maxDenials {
		t.Errorf("%d entries, %d kinds, %d sources", entries, len(d.counts), len(g.sources))
	}
	if rest := d.flush(now.Add(denialPause)); len(rest) != 1 || rest[0].Count != 4*maxDenials-1 {
		t.Errorf("%+v", rest)
	}
	d.flush(now.Add(4 * denialPause))
	if d.flush(now.Add(8 * denialPause)); len(d.counts) != 0 {
		t.Errorf("%d kinds are left", len(d.counts))
	}
}

// TestOldTrailIsKept opens a store of the version before trails were chained.
func TestOldTrailIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	store, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := boltOf(store).Update(func(tx *bolt.Tx) error {
		return errors.Join(put(tx.Bucket(bucketAudit), []byte{0, 0, 0, 0, 0, 0, 0, 5}, boltAudit{Time: 1000, Identity: rawID(some(1)), Outcome: Redeemed, Reference: "R"}),
			put(tx.Bucket(bucketAudit), []byte{0, 0, 0, 0, 0, 0, 0, 6}, boltAudit{Time: 2000, Identity: rawID(some(2)), Outcome: CodeUsed, Reference: "R"}))
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
		if store, err = OpenStore(path); err != nil {
			t.Fatal(err)
		}
		entries, err := store.Audit(context.Background(), 0, 10)
		if err != nil || len(entries) != 2 || entries[0].Event != EventTicketUsed || entries[1].Reason != "used" || entries[1].Actor != some(2) {
			t.Errorf("%+v, %v", entries, err)
		}
	}
	_ = store.Close()
}
