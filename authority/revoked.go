package authority

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

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

// RevocationList is a store's list of revocations, or a part of it.
type RevocationList struct {
	Name    []byte // random; another store has another one
	First   uint64 // the number of the oldest that is kept, 0 if none is
	Head    uint64 // the number of the last that there was, 0 if there was none
	Entries []Revocation
}

// maxRevocations bounds those that are kept.
const maxRevocations = 100_000

// epochSize is how long the random name of a store's list of revocations is, in bytes.
const epochSize = 8

// NewListName returns a name for a list of revocations.
func NewListName() []byte {
	name := make([]byte, epochSize)
	_, _ = rand.Read(name) // never fails: it ends the program instead
	return name
}

// revoke appends a revocation, and forgets those that are about credentials that have expired.
func revoke(tx Tx, m *Member, restored bool, now time.Time) error {
	ttl, err := tx.CredentialTTL()
	if err != nil {
		return err
	}
	list, err := tx.Revocations(0, 0)
	if err != nil {
		return err
	}
	n := list.Head + 1
	if err := tx.PutRevocation(Revocation{n, m.ID, now, restored, m.until(ttl, now)}); err != nil {
		return err
	}
	const step = 20
	for {
		list, err := tx.Revocations(0, step)
		if err != nil {
			return err
		}
		last := uint64(0)
		for _, r := range list.Entries {
			if r.Seq+maxRevocations > n && (r.Until.Unix() >= now.Unix() || r.Seq == n) {
				break // those before it go; those behind it wait for their turn
			}
			last = r.Seq
		}
		if last == 0 {
			return nil
		}
		if err := tx.DeleteRevocations(last); err != nil {
			return err
		}
	}
}

// until returns when the last credential of a member can end that the authority issued, whether it could be noted or not. ttl is the lifetime
// of credentials that the store has.
func (m *Member) until(ttl time.Duration, now time.Time) time.Time {
	if end := now.Add(max(ReferenceTTL, ttl)); end.After(m.CredentialExpires) {
		return end
	}
	return m.CredentialExpires
}

func (s *store) Revocations(ctx context.Context, after uint64, limit int) (list RevocationList, err error) {
	err = s.view(ctx, func(tx Tx) error {
		list, err = tx.Revocations(after, limit)
		return err
	})
	return list, err
}

func (s *store) RevocationOf(ctx context.Context, id identity.Identifier) (r Revocation, ok bool, err error) {
	err = s.view(ctx, func(tx Tx) error {
		r, ok, err = tx.RevocationOf(id)
		return err
	})
	return r, ok, err
}

// ErrNoMember reports an identity that is no member.
var ErrNoMember = errors.New("authority: no such member")
