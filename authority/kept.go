package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"sallyport/crypto/identity"
)

// ErrNoTicket reports a ticket that is unknown, or used up or expired.
var ErrNoTicket = errors.New("authority: no such ticket")

func tokenOf(t boltToken) Token {
	out := Token{
		Reference: t.Reference, Attributes: t.Attributes, IssuedBy: identity.Identifier(t.IssuedBy), ExpiresAt: time.UnixMilli(t.ExpiresAt),
		Uses: max(t.Uses, 1), Used: t.Used,
	}
	copy(out.Hash[:], t.Hash)
	if t.IssuedAt != 0 {
		out.IssuedAt = time.UnixMilli(t.IssuedAt)
	}
	return out
}

func (s *boltStore) Tokens(ctx context.Context, now time.Time) (all []Token, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketTokens).ForEach(func(key, data []byte) error {
			var t boltToken
			if err := unmarshal(key, data, &t); err != nil {
				return err
			}
			if t.ExpiresAt > now.UnixMilli() {
				all = append(all, tokenOf(t))
			}
			return nil
		})
	})
	return all, err
}

func (s *boltStore) RevokeToken(ctx context.Context, reference string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error {
		o := originOf(ctx)
		var found *boltToken
		if err := tx.Bucket(bucketTokens).ForEach(func(key, data []byte) error {
			var t boltToken
			err := unmarshal(key, data, &t)
			if err == nil && t.Reference == reference && t.ExpiresAt > o.Time.UnixMilli() {
				found = &t
			}
			return err
		}); err != nil {
			return err
		}
		if found == nil {
			return fmt.Errorf("%w: %q", ErrNoTicket, reference)
		}
		return errors.Join(spend(tx, found.Hash, *found, CodeRevoked, o.Time.UnixMilli()), record(tx, AuditEntry{
			Time: o.Time, Event: EventTicketRevoked, Actor: o.Actor, Source: o.Source, Ticket: reference,
		}))
	})
}

// auditCredentials is how often the trail has an entry about one member's credentials.
const auditCredentials = 24 * time.Hour

func (s *boltStore) Issued(ctx context.Context, id identity.Identifier, attributes Attributes, expires time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Batch(func(tx *bolt.Tx) error {
		o := originOf(ctx)
		var r boltMember
		ok, err := get(tx.Bucket(bucketMembers), id[:], &r)
		if err != nil {
			return err
		}
		r.Issued++
		entry := AuditEntry{
			Time: o.Time, Event: EventCredential, Actor: id, Source: o.Source, Subject: id, Count: r.Issued, Attributes: attributes,
		}
		if !ok { // an account admin, who has no row
			entry.Count = 1
			return record(tx, entry)
		}
		var failure error
		if o.Time.Sub(time.UnixMilli(r.AuditedAt)) >= auditCredentials {
			r.Issued, r.AuditedAt = 0, o.Time.UnixMilli()
			failure = record(tx, entry)
		}
		r.LastSeen, r.CredentialExpires = o.Time.UnixMilli(), max(r.CredentialExpires, expires.Unix())
		return errors.Join(failure, put(tx.Bucket(bucketMembers), id[:], r))
	})
}

var keyTTL = []byte("credential_ttl")

func (s *boltStore) CredentialTTL(ctx context.Context) (ttl time.Duration, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		if text := tx.Bucket(bucketMeta).Get(keyTTL); text != nil {
			ttl, err = time.ParseDuration(string(text))
		}
		return err
	})
	return ttl, err
}

func (s *boltStore) SetCredentialTTL(ctx context.Context, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyTTL, []byte(ttl.String())) })
}
