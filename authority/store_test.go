package authority

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"sallyport/crypto/identity"
)

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

// A code with n uses admits exactly n of many simultaneous callers, and each of them is a member afterwards.
func TestConcurrentRedemption(t *testing.T) {
	f := newFixture(t, nil)
	ctx := t.Context()
	const uses, callers = 17, 64
	var code Code
	token := Token{Hash: code.Hash(), Reference: "many", ExpiresAt: f.now.Add(time.Minute), Uses: uses}
	if err := f.store.AddToken(ctx, token, f.now); err != nil {
		t.Fatal(err)
	}
	results := make([]Redemption, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { results[i], errs[i] = f.store.Redeem(ctx, code.Hash(), some(byte(i+1)), f.now) })
	}
	wg.Wait()
	count := map[Outcome]int{}
	left := map[uint64]bool{}
	for i, r := range results {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		count[r.Outcome]++
		_, ok, err := f.store.Member(ctx, some(byte(i+1)))
		if err != nil || ok != (r.Outcome == Redeemed) {
			t.Errorf("caller %d: %+v, member %v, %v", i, r, ok, err)
		}
		if r.Outcome == Redeemed {
			left[r.Left] = true
		}
	}
	if count[Redeemed] != uses || count[CodeUsed] != callers-uses || len(left) != uses {
		t.Errorf("%v, %d different counts", count, len(left))
	}
	entries, err := f.store.Audit(ctx, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]int{}
	for _, e := range entries {
		used[e.Event]++
	}
	if used[EventTicketUsed] != uses || used[EventTicketRefused] != callers-uses || used[EventMemberAdded] != uses {
		t.Errorf("audit: %v", used)
	}
}

// The same identity at the same time: one use is spent.
func TestConcurrentRedemptionByOne(t *testing.T) {
	f := newFixture(t, nil)
	ctx := t.Context()
	var code Code
	if err := f.store.AddToken(ctx, Token{Hash: code.Hash(), ExpiresAt: f.now.Add(time.Minute), Uses: 5}, f.now); err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan Redemption, 8)
	for range cap(outcomes) {
		go func() {
			r, err := f.store.Redeem(ctx, code.Hash(), some(1), f.now)
			if err != nil {
				r.Outcome = Outcome(err.Error())
			}
			outcomes <- r
		}()
	}
	count := map[Outcome]int{}
	for range cap(outcomes) {
		count[(<-outcomes).Outcome]++
	}
	if count[Redeemed] != 1 || count[AlreadyMember] != cap(outcomes)-1 {
		t.Errorf("%v", count)
	}
	if r, err := f.store.Redeem(ctx, code.Hash(), some(2), f.now); err != nil || r.Left != 3 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAuditIsBounded(t *testing.T) {
	f := newFixture(t, nil)
	db := f.store.(*boltStore).db
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
			if err := record(tx, AuditEntry{Time: time.UnixMilli(i), Event: EventStarted}); err != nil {
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
	db := f.store.(*boltStore).db
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
		if err := db.Update(func(tx *bolt.Tx) error { return sweep(tx, later.UnixMilli()) }); err != nil {
			t.Error(err)
		}
	}
	if err := db.Update(func(tx *bolt.Tx) error { return sweep(tx, later.UnixMilli()) }); err != nil {
		t.Error(err)
	}
	if got := size(); got["tokens"]+got["token_due"]+got["spent"]+got["spent_due"] != 0 {
		t.Errorf("in the end: %v", got)
	}
}

func TestStoreHonoursContext(t *testing.T) {
	f := newFixture(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err1 := f.store.Member(ctx, some(1))
	_, err2 := f.store.Members(ctx)
	_, err3 := f.store.Redeem(ctx, CodeHash{}, some(1), f.now)
	_, err4 := f.store.Audit(ctx, 0, 1)
	for i, err := range []error{
		err1, err2, err3, err4, f.store.PutMember(ctx, Member{}, nil), f.store.DeleteMembers(ctx, nil, nil),
		f.store.ReplacePreTrusted(ctx, nil), f.store.AddToken(ctx, Token{}, f.now),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%d: %v", i, err)
		}
	}
}

// A refusal inside the transaction leaves everything as it was.
func TestPutMemberRefusal(t *testing.T) {
	f := newFixture(t, nil)
	ctx := t.Context()
	no := errors.New("no")
	var seen []*Member
	try := func(a string, err error) error {
		return f.store.PutMember(ctx, Member{ID: some(1), Attributes: Attributes{"v": a}}, func(old *Member) error {
			seen = append(seen, old)
			return err
		})
	}
	if err := try("1", no); !errors.Is(err, no) {
		t.Error(err)
	}
	if err := errors.Join(try("2", nil)); err != nil {
		t.Error(err)
	}
	if err := try("3", no); !errors.Is(err, no) {
		t.Error(err)
	}
	m, ok, err := f.store.Member(ctx, some(1))
	if err != nil || !ok || m.Attributes["v"] != "2" {
		t.Errorf("%+v, %v, %v", m, ok, err)
	}
	if seen[0] != nil || seen[1] != nil || seen[2] == nil || seen[2].Attributes["v"] != "2" {
		t.Errorf("%v", seen)
	}
	var left []identity.Identifier
	if err := f.store.DeleteMembers(ctx, []identity.Identifier{some(1), some(9)}, func(m *Member) error {
		left = append(left, m.ID)
		return no
	}); !errors.Is(err, no) || len(left) != 1 {
		t.Errorf("%v, %v", err, left)
	}
}
