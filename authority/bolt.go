package authority

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

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
	bucketNamed    = []byte("named")     // a token's reference, 0, code hash: by what people call it
	bucketSpent    = []byte("spent")     // code hash -> boltSpent: used or expired
	bucketSpentDue = []byte("spent_due") // when a spent code is forgotten
	bucketAudit    = []byte("audit")     // of earlier versions: big-endian sequence number -> boltAudit
	bucketTrail    = []byte("trail")     // big-endian sequence number -> trailRecord
	bucketRevoked  = []byte("revoked")   // big-endian sequence number -> boltRevocation
	bucketRevokee  = []byte("revokee")   // identifier -> big-endian sequence number of the last revocation about it
)

const (
	storeVersion = 1
	// openTimeout is how long OpenStore waits for another process to let go of the file.
	openTimeout = time.Second
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

type boltRevocation struct {
	Subject  rawID `cbor:"1,keyasint"`
	Time     int64 `cbor:"2,keyasint"` // Unix seconds
	Restored bool  `cbor:"3,keyasint,omitempty"`
	Until    int64 `cbor:"4,keyasint"`
}

type boltDatabase struct{ db *bolt.DB }

// OpenStore opens the store in a file as OpenDatabase does.
func OpenStore(path string) (Store, error) {
	db, err := OpenDatabase(path)
	if err != nil {
		return nil, err
	}
	return NewStore(db), nil
}

// OpenDatabase opens the embedded database in a file, which is made with mode 0600 if it is not there, its directory with 0700. Only one
// process can have it open: ErrStoreBusy.
func OpenDatabase(path string) (Database, error) {
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
	s := &boltDatabase{db: db}
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
func (s *boltDatabase) prepare(path, dir string) error {
	if err := os.Chmod(path, 0o600); err != nil {
		return err
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketMembers, bucketTokens, bucketTokenDue, bucketNamed, bucketSpent, bucketSpentDue, bucketAudit, bucketTrail, bucketRevoked, bucketRevokee} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		t := &boltTx{tx}
		if list := tx.Bucket(bucketMeta).Get(keyEpoch); len(list) != epochSize {
			if err := tx.Bucket(bucketMeta).Put(keyEpoch, NewListName()); err != nil {
				return err
			}
		}
		if err := t.indexRevocations(); err != nil {
			return err
		}
		if err := t.indexTokens(); err != nil {
			return err
		}
		if err := t.migrateAudit(); err != nil {
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

func (s *boltDatabase) Close() error { return s.db.Close() }

func (s *boltDatabase) View(_ context.Context, f func(Tx) error) error {
	return s.db.View(func(tx *bolt.Tx) error { return f(&boltTx{tx}) })
}

func (s *boltDatabase) Snapshot(ctx context.Context, f func(Tx) error) error { return s.View(ctx, f) }

func (s *boltDatabase) Update(_ context.Context, f func(Tx) error) error {
	return s.db.Update(func(tx *bolt.Tx) error { return f(&boltTx{tx}) })
}

func (s *boltDatabase) Load(ctx context.Context, f func(Tx) error) error { return s.Update(ctx, f) }

func (s *boltDatabase) Batch(_ context.Context, f func(Tx) error) error {
	return s.db.Batch(func(tx *bolt.Tx) error { return f(&boltTx{tx}) })
}

// migrateAudit moves the entries of earlier versions, which are not chained, to the beginning of the trail.
func (t *boltTx) migrateAudit() error {
	old := t.tx.Bucket(bucketAudit)
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
		return record(t, entry)
	}); err != nil {
		return err
	}
	if err := t.tx.DeleteBucket(bucketAudit); err != nil {
		return err
	}
	_, err := t.tx.CreateBucket(bucketAudit)
	return err
}
