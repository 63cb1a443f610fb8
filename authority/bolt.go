package authority

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/fxamacker/cbor/v2"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"sallyport/crypto/identity"
)

// Buckets of the file. The two *Due buckets are indexes in order of time: big-endian milliseconds, then the code's hash.
var (
	bucketMeta     = []byte("meta")
	bucketMembers  = []byte("members")   // identifier -> boltMember
	bucketTokens   = []byte("tokens")    // code hash -> boltToken
	bucketTokenDue = []byte("token_due") // when a token expires
	bucketSpent    = []byte("spent")     // code hash -> boltSpent: used or expired
	bucketSpentDue = []byte("spent_due") // when a spent code is forgotten
	bucketAudit    = []byte("audit")     // of earlier versions: big-endian sequence number -> boltAudit
	bucketTrail    = []byte("trail")     // big-endian sequence number -> trailRecord
	bucketRevoked  = []byte("revoked")   // big-endian sequence number -> boltRevocation
)

const (
	storeVersion = 1
	// openTimeout is how long OpenStore waits for another process to let go of the file.
	openTimeout = time.Second
	// sweepLimit bounds how many old codes one transaction clears away, so that none takes long.
	sweepLimit = 1000
)

// The records. Keys are numbers, so that fields can be added later. rawID keeps the stored form of an identifier independent of the
// methods of its type.
type rawID [32]byte

type boltMember struct {
	Attributes Attributes `cbor:"1,keyasint"`
	AddedBy    rawID      `cbor:"2,keyasint"`
	AddedAt    int64      `cbor:"3,keyasint"` // Unix seconds
	PreTrusted bool       `cbor:"4,keyasint,omitempty"`

	Blocked           bool   `cbor:"5,keyasint,omitempty"`
	Ticket            string `cbor:"6,keyasint,omitempty"`
	LastSeen          int64  `cbor:"7,keyasint,omitempty"`  // Unix milliseconds
	CredentialExpires int64  `cbor:"8,keyasint,omitempty"`  // Unix seconds
	AuditedAt         int64  `cbor:"9,keyasint,omitempty"`  // when the trail last had an entry about its credentials, Unix milliseconds
	Issued            uint64 `cbor:"10,keyasint,omitempty"` // credentials since
}

type boltToken struct {
	Reference  string     `cbor:"1,keyasint"`
	Attributes Attributes `cbor:"2,keyasint"`
	IssuedBy   rawID      `cbor:"3,keyasint"`
	ExpiresAt  int64      `cbor:"4,keyasint"` // Unix milliseconds
	Uses       uint64     `cbor:"5,keyasint"`
	Hash       []byte     `cbor:"6,keyasint"`
	Used       uint64     `cbor:"7,keyasint,omitempty"`
	IssuedAt   int64      `cbor:"8,keyasint,omitempty"` // Unix milliseconds
}

type boltSpent struct {
	Reference string  `cbor:"1,keyasint"`
	Outcome   Outcome `cbor:"2,keyasint"`
}

type boltAudit struct {
	Time      int64   `cbor:"1,keyasint"` // Unix milliseconds
	Identity  rawID   `cbor:"2,keyasint"`
	Outcome   Outcome `cbor:"3,keyasint"`
	Reference string  `cbor:"4,keyasint,omitempty"`
}

type boltStore struct{ db *bolt.DB }

// OpenStore opens the store in a file, which is made with mode 0600 if it is not there, its directory with 0700. Only one process
// can have it open: ErrStoreBusy.
func OpenStore(path string) (Store, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	db, err := openBolt(path)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s", ErrStoreBusy, path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrStoreBroken, path, err)
	}
	s := &boltStore{db: db}
	if err := s.prepare(path, dir); err != nil {
		return nil, fmt.Errorf("authority: %s: %w", path, errors.Join(err, db.Close()))
	}
	return s, nil
}

// openBolt opens a file and reads all of it, so that damage shows now and not when a member comes: bbolt maps the file and panics, or faults,
// where it is cut or overwritten.
func openBolt(path string) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			// Whatever it holds stays open: closing it could block for ever.
			db, err = nil, fmt.Errorf("the file is damaged: %v", fault)
		}
	}()
	if db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: openTimeout, FreelistType: bolt.FreelistMapType}); err != nil {
		return nil, err
	}
	err = db.View(func(tx *bolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("the file is cut: it has %d of %d bytes", info.Size(), tx.Size())
		}
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			return b.ForEach(func(key, value []byte) error {
				if len(key) == 0 || value == nil {
					return fmt.Errorf("the file is damaged: bucket %q has an entry without key or value", name)
				}
				return nil
			})
		})
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// prepare corrects the mode of a file that was made by someone else, makes the buckets and checks the version.
func (s *boltStore) prepare(path, dir string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketMembers, bucketTokens, bucketTokenDue, bucketSpent, bucketSpentDue, bucketAudit, bucketTrail, bucketRevoked} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		if _, err := epoch(tx); err != nil {
			return err
		}
		if err := migrateAudit(tx); err != nil {
			return err
		}
		meta, key := tx.Bucket(bucketMeta), []byte("version")
		switch v := meta.Get(key); {
		case v == nil:
			return meta.Put(key, []byte{storeVersion})
		case len(v) != 1 || v[0] != storeVersion:
			return fmt.Errorf("written by another version: %x", v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// The file's name must survive a crash as well as its content.
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *boltStore) Close() error { return s.db.Close() }

func put(b *bolt.Bucket, key []byte, v any) error {
	data, err := cbor.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, data)
}

// get reads a record; ok is false if there is none.
func get(b *bolt.Bucket, key []byte, v any) (ok bool, err error) {
	data := b.Get(key)
	if data == nil {
		return false, nil
	}
	return true, unmarshal(key, data, v)
}

func unmarshal(key, data []byte, v any) error {
	if err := cbor.Unmarshal(data, v); err != nil {
		return fmt.Errorf("authority: damaged record %x: %w", key, err)
	}
	return nil
}

func getMember(tx *bolt.Tx, id identity.Identifier) (m Member, ok bool, err error) {
	var r boltMember
	if ok, err = get(tx.Bucket(bucketMembers), id[:], &r); !ok {
		return Member{}, false, err
	}
	return memberOf(id, r), true, nil
}

func memberOf(id identity.Identifier, r boltMember) Member {
	m := Member{
		ID: id, Attributes: r.Attributes, AddedBy: identity.Identifier(r.AddedBy), AddedAt: time.Unix(r.AddedAt, 0), PreTrusted: r.PreTrusted,
		Blocked: r.Blocked, Ticket: r.Ticket,
	}
	if r.LastSeen != 0 {
		m.LastSeen = time.UnixMilli(r.LastSeen)
	}
	if r.CredentialExpires != 0 {
		m.CredentialExpires = time.Unix(r.CredentialExpires, 0)
	}
	return m
}

// putMember writes a row. What the store notes of a member that is there stays.
func putMember(tx *bolt.Tx, m Member) error {
	var r boltMember
	if _, err := get(tx.Bucket(bucketMembers), m.ID[:], &r); err != nil {
		return err
	}
	r.Attributes, r.AddedBy, r.AddedAt, r.PreTrusted = m.Attributes, rawID(m.AddedBy), m.AddedAt.Unix(), m.PreTrusted
	r.Blocked = m.Blocked
	if m.Ticket != "" {
		r.Ticket = m.Ticket
	}
	return put(tx.Bucket(bucketMembers), m.ID[:], r)
}

func (s *boltStore) Member(ctx context.Context, id identity.Identifier) (m Member, ok bool, err error) {
	if err := ctx.Err(); err != nil {
		return Member{}, false, err
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		m, ok, err = getMember(tx, id)
		return err
	})
	return m, ok, err
}

func (s *boltStore) Members(ctx context.Context) (all []Member, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		all, err = allMembers(tx)
		return err
	})
	return all, err
}

func allMembers(tx *bolt.Tx) (all []Member, err error) {
	err = tx.Bucket(bucketMembers).ForEach(func(key, _ []byte) error {
		var id identity.Identifier
		if copy(id[:], key) != len(id) {
			return fmt.Errorf("authority: damaged key %x", key)
		}
		m, _, err := getMember(tx, id)
		all = append(all, m)
		return err
	})
	return all, err
}

func (s *boltStore) PutMember(ctx context.Context, m Member, allow func(old *Member) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		m := m
		old, ok, err := getMember(tx, m.ID)
		if err != nil {
			return err
		}
		row := &old
		if !ok {
			row = nil
		}
		if allow != nil {
			if err := allow(row); err != nil {
				return err
			}
		}
		m.PreTrusted = m.PreTrusted || old.PreTrusted
		m.Blocked = old.Blocked
		return admitMember(ctx, tx, m, ok)
	})
}

// admitMember writes the row of a member that was added or changed, and takes back its revocation if it had been deleted.
func admitMember(ctx context.Context, tx *bolt.Tx, m Member, known bool) error {
	o := originOf(ctx)
	event := EventMemberChanged
	if !known {
		event = EventMemberAdded
		revoked, _, err := isRevoked(tx, m.ID)
		if err != nil {
			return err
		}
		if revoked {
			if err := revoke(tx, m.ID, true, o.Time, m.until(tx, o.Time)); err != nil {
				return err
			}
		}
	}
	return errors.Join(putMember(tx, m), record(tx, AuditEntry{
		Time: o.Time, Event: event, Actor: o.Actor, Source: o.Source, Subject: m.ID, Ticket: m.Ticket, Attributes: m.Attributes,
	}))
}

func (s *boltStore) DeleteMembers(ctx context.Context, ids []identity.Identifier, allow func(old *Member) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var refused error
	err := s.db.Update(func(tx *bolt.Tx) error {
		var targets []Member
		if ids == nil {
			var err error
			if targets, err = allMembers(tx); err != nil {
				return err
			}
		}
		for _, id := range ids {
			m, ok, err := getMember(tx, id)
			if err != nil {
				return err
			}
			if ok {
				targets = append(targets, m)
			}
		}
		for _, m := range targets {
			if allow != nil {
				if err := allow(&m); err != nil {
					if refused == nil {
						refused = err
					}
					continue
				}
			}
			o := originOf(ctx)
			if err := errors.Join(tx.Bucket(bucketMembers).Delete(m.ID[:]), revoke(tx, m.ID, false, o.Time, m.until(tx, o.Time)),
				record(tx, AuditEntry{Time: o.Time, Event: EventMemberDeleted, Actor: o.Actor, Source: o.Source, Subject: m.ID})); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return refused
}

func (s *boltStore) ReplacePreTrusted(ctx context.Context, members []Member) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		all, err := allMembers(tx)
		if err != nil {
			return err
		}
		o := originOf(ctx)
		stay := map[identity.Identifier]bool{}
		for _, m := range members {
			stay[m.ID] = true
		}
		for _, m := range all {
			if !m.PreTrusted || stay[m.ID] {
				continue
			}
			if err := errors.Join(tx.Bucket(bucketMembers).Delete(m.ID[:]), revoke(tx, m.ID, false, o.Time, m.until(tx, o.Time)),
				record(tx, AuditEntry{Time: o.Time, Event: EventMemberDeleted, Actor: o.Actor, Subject: m.ID})); err != nil {
				return err
			}
		}
		for _, m := range members {
			m.PreTrusted = true
			old, known, err := getMember(tx, m.ID)
			if err != nil {
				return err
			}
			m.Blocked = old.Blocked
			if known && old.PreTrusted && maps.Equal(old.Attributes, m.Attributes) {
				continue // as it was at the last start
			}
			if err := admitMember(ctx, tx, m, known); err != nil {
				return err
			}
		}
		return nil
	})
}

// dueKey is the key of a code in an index.
func dueKey(milliseconds int64, hash []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(milliseconds)), hash...)
}

func (s *boltStore) AddToken(ctx context.Context, t Token, now time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Batch(func(tx *bolt.Tx) error {
		if err := sweep(tx, now.UnixMilli()); err != nil {
			return err
		}
		r := boltToken{
			Reference: t.Reference, Attributes: t.Attributes, IssuedBy: rawID(t.IssuedBy), ExpiresAt: t.ExpiresAt.UnixMilli(), Uses: t.Uses,
			Hash: t.Hash[:], IssuedAt: now.UnixMilli(),
		}
		if err := record(tx, AuditEntry{
			Time: now, Event: EventTicketMade, Actor: t.IssuedBy, Source: originOf(ctx).Source, Ticket: t.Reference, Count: t.Uses, Attributes: t.Attributes,
		}); err != nil {
			return err
		}
		if err := put(tx.Bucket(bucketTokens), t.Hash[:], r); err != nil {
			return err
		}
		return tx.Bucket(bucketTokenDue).Put(dueKey(r.ExpiresAt, t.Hash[:]), nil)
	})
}

func (s *boltStore) Redeem(ctx context.Context, hash CodeHash, who identity.Identifier, now time.Time) (Redemption, error) {
	// A member that enrolls again, perhaps at every start, and a stranger who guesses, cost no write.
	if _, ok, err := s.Member(ctx, who); err != nil || ok {
		return Redemption{Outcome: AlreadyMember}, err
	}
	var known bool
	if err := s.db.View(func(tx *bolt.Tx) error {
		known = tx.Bucket(bucketTokens).Get(hash[:]) != nil || tx.Bucket(bucketSpent).Get(hash[:]) != nil
		return nil
	}); err != nil || !known {
		return Redemption{Outcome: CodeUnknown}, err
	}
	var result Redemption
	// Batch joins simultaneous attempts in one transaction, and may run the function more than once.
	err := s.db.Batch(func(tx *bolt.Tx) (err error) {
		result, err = redeem(ctx, tx, hash, who, now)
		if err != nil || result.Outcome == AlreadyMember || result.Outcome == CodeUnknown {
			return err
		}
		e := AuditEntry{Time: now, Event: EventTicketUsed, Actor: who, Source: originOf(ctx).Source, Subject: who, Ticket: result.Reference}
		if result.Outcome != Redeemed {
			e.Event, e.Reason = EventTicketRefused, string(result.Outcome)
		}
		return record(tx, e)
	})
	return result, err
}

func redeem(ctx context.Context, tx *bolt.Tx, hash CodeHash, who identity.Identifier, now time.Time) (Redemption, error) {
	if _, ok, err := getMember(tx, who); err != nil || ok {
		return Redemption{Outcome: AlreadyMember}, err
	}
	milliseconds := now.UnixMilli()
	if err := sweep(tx, milliseconds); err != nil {
		return Redemption{}, err
	}
	var spent boltSpent
	if ok, err := get(tx.Bucket(bucketSpent), hash[:], &spent); err != nil || ok {
		return Redemption{Outcome: spent.Outcome, Reference: spent.Reference}, err
	}
	var t boltToken
	// The tree compares hashes, of which a guesser controls no prefix; the comparison that admits takes constant time.
	ok, err := get(tx.Bucket(bucketTokens), hash[:], &t)
	if err != nil {
		return Redemption{}, err
	}
	if !ok || subtle.ConstantTimeCompare(t.Hash, hash[:]) != 1 {
		return Redemption{Outcome: CodeUnknown}, nil
	}
	if t.ExpiresAt <= milliseconds {
		// Expired but not yet swept, because there were more than one sweep takes.
		return Redemption{Outcome: CodeExpired, Reference: t.Reference}, spend(tx, hash[:], t, CodeExpired, milliseconds)
	}
	result := Redemption{Outcome: Redeemed, Reference: t.Reference}
	if t.Uses <= 1 {
		err = spend(tx, hash[:], t, CodeUsed, milliseconds)
	} else {
		t.Uses--
		t.Used++
		result.Left = t.Uses
		err = put(tx.Bucket(bucketTokens), hash[:], t)
	}
	if err != nil {
		return Redemption{}, err
	}
	m := Member{ID: who, Attributes: t.Attributes, AddedBy: identity.Identifier(t.IssuedBy), AddedAt: now, Ticket: t.Reference}
	ctx = WithOrigin(ctx, Origin{Actor: who, Source: originOf(ctx).Source, Time: now})
	return result, admitMember(ctx, tx, m, false)
}

// spend turns a token into a spent code, without what it granted.
func spend(tx *bolt.Tx, hash []byte, t boltToken, why Outcome, milliseconds int64) error {
	return errors.Join(
		tx.Bucket(bucketTokens).Delete(hash),
		tx.Bucket(bucketTokenDue).Delete(dueKey(t.ExpiresAt, hash)),
		put(tx.Bucket(bucketSpent), hash, boltSpent{t.Reference, why}),
		tx.Bucket(bucketSpentDue).Put(dueKey(milliseconds+SpentRetention.Milliseconds(), hash), nil),
	)
}

// sweep clears away codes whose time has come: expired ones become spent, spent ones are forgotten.
func sweep(tx *bolt.Tx, milliseconds int64) error {
	for _, key := range due(tx.Bucket(bucketTokenDue), milliseconds) {
		hash := key[8:]
		var t boltToken
		ok, err := get(tx.Bucket(bucketTokens), hash, &t)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("authority: the index names a code that is not there: %x", hash)
		}
		if err := spend(tx, hash, t, CodeExpired, milliseconds); err != nil {
			return err
		}
	}
	for _, key := range due(tx.Bucket(bucketSpentDue), milliseconds) {
		if err := errors.Join(tx.Bucket(bucketSpent).Delete(key[8:]), tx.Bucket(bucketSpentDue).Delete(key)); err != nil {
			return err
		}
	}
	return nil
}

// due returns up to sweepLimit keys of an index whose time has come.
func due(index *bolt.Bucket, milliseconds int64) (keys [][]byte) {
	c := index.Cursor()
	for key, _ := c.First(); len(key) > 8 && len(keys) < sweepLimit; key, _ = c.Next() {
		if binary.BigEndian.Uint64(key) > uint64(milliseconds) {
			break
		}
		keys = append(keys, append([]byte(nil), key...))
	}
	return keys
}

// migrateAudit moves the entries of earlier versions, which are not chained, to the beginning of the trail.
func migrateAudit(tx *bolt.Tx) error {
	old := tx.Bucket(bucketAudit)
	if key, _ := old.Cursor().First(); key == nil {
		return nil
	}
	if err := old.ForEach(func(key, data []byte) error {
		var e boltAudit
		if err := unmarshal(key, data, &e); err != nil {
			return err
		}
		entry := AuditEntry{Time: time.UnixMilli(e.Time), Event: EventTicketUsed, Actor: identity.Identifier(e.Identity), Ticket: e.Reference}
		if e.Outcome != Redeemed {
			entry.Event, entry.Reason = EventTicketRefused, string(e.Outcome)
		}
		return record(tx, entry)
	}); err != nil {
		return err
	}
	if err := tx.DeleteBucket(bucketAudit); err != nil {
		return err
	}
	_, err := tx.CreateBucket(bucketAudit)
	return err
}
