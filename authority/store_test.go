package authority

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"sallyport/crypto/identity"
)

// boltOf is the file of a store.
func boltOf(s Store) *bolt.DB { return s.(*store).db.(*boltDatabase).db }

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStorePersists(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "new", "authority.db")
	store, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	var code Code
	code[5] = 7
	member := Member{ID: some(1), Attributes: Attributes{"a": "b"}, AddedBy: some(2), AddedAt: now}
	trusted := Member{ID: some(3), Attributes: Attributes{RoleAttribute: RoleEnroller}, AddedBy: some(4), AddedAt: now, PreTrusted: true}
	token := Token{Hash: code.Hash(), Reference: "R", Attributes: Attributes{"c": "d"}, IssuedBy: some(2), ExpiresAt: now.Add(time.Hour), Uses: 3}
	err = errors.Join(store.PutMember(ctx, member, nil), store.ReplacePreTrusted(ctx, []Member{trusted}), store.AddToken(ctx, token, now))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := store.Redeem(ctx, code.Hash(), some(5), now); err != nil || r != (Redemption{Redeemed, "R", 2}) {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := OpenStore(path); !errors.Is(err, ErrStoreBusy) {
		t.Errorf("opened twice: %v", err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): os.ModeDir | 0o700} {
		if info, err := os.Stat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v", file, info.Mode(), err)
		}
	}
	if content, err := os.ReadFile(path); err != nil || bytes.Contains(content, code[:]) {
		t.Errorf("the code itself is in the file (%v)", err)
	}

	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if store, err = OpenStore(path); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode after opening again: %v, %v", info.Mode(), err)
	}
	joined := Member{ID: some(5), Attributes: Attributes{"c": "d"}, AddedBy: some(2), AddedAt: now, Ticket: "R"}
	all, err := store.Members(ctx)
	if err != nil || !reflect.DeepEqual(all, []Member{member, trusted, joined}) {
		t.Errorf("%+v, %v", all, err)
	}
	for n, want := range map[byte]Redemption{5: {Outcome: AlreadyMember}, 6: {Redeemed, "R", 1}} {
		if r, err := store.Redeem(ctx, code.Hash(), some(n), now); err != nil || r != want {
			t.Errorf("%d: %+v, %v", n, r, err)
		}
	}
	entries, err := store.Audit(ctx, 0, 100)
	if err != nil || len(entries) != 7 || entries[6].Actor != some(6) || entries[6].Event != EventTicketUsed {
		t.Errorf("%+v, %v", entries, err)
	}
	// The next start with other pre-trusted identities.
	if err := store.ReplacePreTrusted(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := store.Member(ctx, some(3)); ok || err != nil {
		t.Errorf("the pre-trusted row stays: %v", err)
	}
	if _, ok, err := store.Member(ctx, some(1)); !ok || err != nil {
		t.Errorf("another row went: %v", err)
	}
}

func TestStoreRefusesForeignFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, bytes.Repeat([]byte("not a database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(path); err == nil {
		t.Error("opened something that is not a store")
	}
	path = filepath.Join(t.TempDir(), "v")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket(bucketMeta)
		return errors.Join(err, b.Put([]byte("version"), []byte{storeVersion + 1}))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(path); err == nil {
		t.Error("opened a store of another version")
	}
}

func TestAuditIsBounded(t *testing.T) {
	f := newFixture(t, nil)
	db := boltOf(f.store)
	const extra = 25
	err := db.Update(func(tx *bolt.Tx) error {
		// Entries of which all but the last are only there to be numbered.
		if err := tx.Bucket(bucketTrail).SetSequence(AuditEntries - 1); err != nil {
			return err
		}
		for i := range uint64(extra) {
			if err := put(tx.Bucket(bucketTrail), binary.BigEndian.AppendUint64(nil, i+1), trailRecord{}); err != nil {
				return err
			}
		}
		for i := range int64(extra) {
			if err := record(&boltTx{tx}, AuditEntry{Time: time.UnixMilli(i), Event: EventStarted}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := f.store.Audit(t.Context(), extra, 2*AuditEntries)
	if err != nil || len(entries) != extra || entries[0].Seq != AuditEntries || entries[extra-1].Seq != AuditEntries+extra-1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	if err := db.View(func(tx *bolt.Tx) error {
		key, _ := tx.Bucket(bucketTrail).Cursor().First()
		if n := binary.BigEndian.Uint64(key); n != extra {
			t.Errorf("the oldest entry is %d", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// More codes expire than one transaction clears: none of them is good any more, and later transactions clear the rest.
func TestSweepIsBounded(t *testing.T) {
	f := newFixture(t, nil)
	db := boltOf(f.store)
	const codes = sweepLimit + 10
	hash := func(i int) (h CodeHash) {
		binary.BigEndian.PutUint32(h[:], uint32(i))
		return h
	}
	err := db.Update(func(tx *bolt.Tx) error {
		for i := range codes {
			h := hash(i)
			due := f.now.UnixMilli() + int64(i)
			err := errors.Join(put(tx.Bucket(bucketTokens), h[:], boltToken{Reference: "x", ExpiresAt: due, Uses: 1, Hash: h[:]}),
				tx.Bucket(bucketTokenDue).Put(dueKey(due, h[:]), nil))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	size := func() (n map[string]int) {
		n = map[string]int{}
		err := db.View(func(tx *bolt.Tx) error {
			for _, name := range [][]byte{bucketTokens, bucketTokenDue, bucketSpent, bucketSpentDue} {
				n[string(name)] = tx.Bucket(name).Stats().KeyN
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	later := f.now.Add(time.Hour)
	if r, err := f.store.Redeem(t.Context(), hash(codes-1), some(1), later); err != nil || r.Outcome != CodeExpired {
		t.Errorf("%+v, %v", r, err)
	}
	if got := size(); got["tokens"] != 9 || got["token_due"] != 9 || got["spent"] != sweepLimit+1 {
		t.Errorf("after one: %v", got)
	}
	for range 2 {
		later = later.Add(SpentRetention + time.Hour)
		if err := db.Update(func(tx *bolt.Tx) error { return sweep(&boltTx{tx}, later) }); err != nil {
			t.Error(err)
		}
	}
	if err := db.Update(func(tx *bolt.Tx) error { return sweep(&boltTx{tx}, later) }); err != nil {
		t.Error(err)
	}
	if got := size(); got["tokens"]+got["token_due"]+got["spent"]+got["spent_due"] != 0 {
		t.Errorf("in the end: %v", got)
	}
}

// TestRevocationsAreIndexed: what an earlier version, which has no index, wrote of revocations is found.
func TestRevocationsAreIndexed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s, err := OpenStore(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for i := range byte(3) {
		if err := errors.Join(s.PutMember(ctx, Member{ID: some(i), AddedAt: time.Now()}, nil), s.DeleteMembers(ctx, []identity.Identifier{some(i)}, nil)); err != nil {
			t.Fatal(err)
		}
	}
	if err := boltOf(s).Update(func(tx *bolt.Tx) error {
		// The earlier version knew two of them, and wrote the third.
		index := tx.Bucket(bucketRevokee)
		id := some(2)
		return errors.Join(index.Delete(id[:]), index.SetSequence(2))
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenStore(path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range byte(4) {
		r, ok, err := s.RevocationOf(ctx, some(i))
		if err != nil || ok != (i < 3) || ok && r.Seq != uint64(i+1) {
			t.Errorf("%d: %+v, %v, %v", i, r, ok, err)
		}
	}
}

// TestTokensAreIndexed: tickets that an earlier version, which has no index of references, made or spent are found, or not.
func TestTokensAreIndexed(t *testing.T) {
	kept, spent, made := CodeHash{1}, CodeHash{2}, CodeHash{3}
	for name, earlier := range map[string]func(tx *bolt.Tx) error{
		"spent one": func(tx *bolt.Tx) error { return tx.Bucket(bucketTokens).Delete(spent[:]) },
		"made one":  func(tx *bolt.Tx) error { return tx.Bucket(bucketNamed).Delete(namedKey("made", made[:])) },
		"both": func(tx *bolt.Tx) error {
			return errors.Join(tx.Bucket(bucketTokens).Delete(spent[:]), tx.Bucket(bucketNamed).Delete(namedKey("made", made[:])))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			s, err := OpenStore(path)
			if err != nil {
				t.Fatal(err)
			}
			ctx, now := t.Context(), time.Now()
			for reference, hash := range map[string]CodeHash{"kept": kept, "kep": {4}, "spent": spent, "made": made} {
				if err := s.AddToken(ctx, Token{Hash: hash, Reference: reference, ExpiresAt: now.Add(time.Hour), Uses: 1}, now); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(boltOf(s).Update(earlier), s.Close()); err != nil {
				t.Fatal(err)
			}
			if s, err = OpenStore(path); err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for reference, there := range map[string]bool{"kept": true, "kep": true, "ke": false, "spent": name == "made one", "made": true, "": false} {
				if err := s.RevokeToken(ctx, reference); there && err != nil || !there && !errors.Is(err, ErrNoTicket) {
					t.Errorf("%q: %v", reference, err)
				}
			}
			if err := boltOf(s).View(func(tx *bolt.Tx) error {
				if n := tx.Bucket(bucketNamed).Stats().KeyN; n != 0 {
					t.Errorf("%d references are left", n)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}
