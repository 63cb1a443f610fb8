package authority

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"sallyport/crypto/identity"
)

// Revocation says that credentials of a member that were issued at Time or before are not to be believed, and, unless Restored, that the
// member is not to be given a channel.
type Revocation struct {
	Seq      uint64 // from 1, without gaps
	Subject  identity.Identifier
	Time     time.Time // to the second
	Restored bool      // the member may come back, with a credential that is newer than Time
	Until    time.Time // after it no credential that it is about can be valid
}

type boltRevocation struct {
	Subject  rawID `cbor:"1,keyasint"`
	Time     int64 `cbor:"2,keyasint"` // Unix seconds
	Restored bool  `cbor:"3,keyasint,omitempty"`
	Until    int64 `cbor:"4,keyasint"`
}

// maxRevocations bounds those that are kept.
const maxRevocations = 100_000

// epochSize is how long the random name of a store's list of revocations is, in bytes.
const epochSize = 8

var keyEpoch = []byte("epoch")

// epoch returns the name of the list, which another store does not have.
func epoch(tx *bolt.Tx) ([]byte, error) {
	meta := tx.Bucket(bucketMeta)
	if e := meta.Get(keyEpoch); len(e) == epochSize {
		return append([]byte(nil), e...), nil
	}
	e := make([]byte, epochSize)
	_, _ = rand.Read(e)
	return e, meta.Put(keyEpoch, e)
}

// revoke appends a revocation, and forgets those that are about credentials that have expired.
func revoke(tx *bolt.Tx, id identity.Identifier, restored bool, now, until time.Time) error {
	b := tx.Bucket(bucketRevoked)
	n, err := b.NextSequence()
	if err != nil {
		return err
	}
	if err := put(b, binary.BigEndian.AppendUint64(nil, n), boltRevocation{rawID(id), now.Unix(), restored, until.Unix()}); err != nil {
		return err
	}
	c := b.Cursor()
	for key, data := c.First(); key != nil; key, data = c.Next() {
		var r boltRevocation
		if err := unmarshal(key, data, &r); err != nil {
			return err
		}
		if at := binary.BigEndian.Uint64(key); at+maxRevocations > n && (r.Until >= now.Unix() || at == n) {
			break // those before it have gone; those behind it wait for their turn
		}
		if err := b.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// isRevoked reports whether the last word about a member is that it is revoked.
func isRevoked(tx *bolt.Tx, id identity.Identifier) (revoked bool, at time.Time, err error) {
	c := tx.Bucket(bucketRevoked).Cursor()
	for key, data := c.Last(); key != nil; key, data = c.Prev() {
		var r boltRevocation
		if err := unmarshal(key, data, &r); err != nil {
			return false, time.Time{}, err
		}
		if identity.Identifier(r.Subject) == id {
			return !r.Restored, time.Unix(r.Time, 0), nil
		}
	}
	return false, time.Time{}, nil
}

func (s *boltStore) Revocations(ctx context.Context) (name []byte, head uint64, list []Revocation, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, nil, err
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		name = append([]byte(nil), tx.Bucket(bucketMeta).Get(keyEpoch)...)
		b := tx.Bucket(bucketRevoked)
		head = b.Sequence()
		return b.ForEach(func(key, data []byte) error {
			var r boltRevocation
			if err := unmarshal(key, data, &r); err != nil {
				return err
			}
			list = append(list, Revocation{
				Seq: binary.BigEndian.Uint64(key), Subject: identity.Identifier(r.Subject), Time: time.Unix(r.Time, 0), Restored: r.Restored,
				Until: time.Unix(r.Until, 0),
			})
			return nil
		})
	})
	return name, head, list, err
}

func (s *boltStore) LastRevocation(ctx context.Context) (name []byte, head uint64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		name, head = append([]byte(nil), tx.Bucket(bucketMeta).Get(keyEpoch)...), tx.Bucket(bucketRevoked).Sequence()
		return nil
	})
	return name, head, err
}

func (s *boltStore) Block(ctx context.Context, id identity.Identifier, blocked bool, allow func(old *Member) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		m, ok, err := getMember(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: %s", ErrNoMember, id)
		}
		if allow != nil {
			if err := allow(&m); err != nil {
				return err
			}
		}
		if m.Blocked == blocked {
			return nil
		}
		o := originOf(ctx)
		m.Blocked = blocked
		event := EventMemberBlocked
		if !blocked {
			event = EventMemberUnblocked
		}
		return errors.Join(putMember(tx, m), revoke(tx, id, !blocked, o.Time, m.until(tx, o.Time)),
			record(tx, AuditEntry{Time: o.Time, Event: event, Actor: o.Actor, Source: o.Source, Subject: id}))
	})
}

// until returns when the last credential of a member can end that the authority issued, whether it could be noted or not.
func (m *Member) until(tx *bolt.Tx, now time.Time) time.Time {
	longest := ReferenceTTL
	if text := tx.Bucket(bucketMeta).Get(keyTTL); text != nil {
		if ttl, err := time.ParseDuration(string(text)); err == nil {
			longest = max(longest, ttl)
		}
	}
	if end := now.Add(longest); end.After(m.CredentialExpires) {
		return end
	}
	return m.CredentialExpires
}

// ErrNoMember reports an identity that is no member.
var ErrNoMember = errors.New("authority: no such member")
