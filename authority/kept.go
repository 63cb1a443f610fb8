package authority

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"sallyport/crypto/identity"
)

// ErrNoTicket reports a ticket that is unknown, or used up or expired.
var ErrNoTicket = errors.New("authority: no such ticket")

// sweepLimit bounds how many old codes one transaction clears away, so that none takes long.
const sweepLimit = 1000

func (s *store) AddToken(ctx context.Context, t Token, now time.Time) error {
	return s.batch(ctx, func(tx Tx) error {
		if err := sweep(tx, now); err != nil {
			return err
		}
		t := t
		t.IssuedAt, t.Used = now, 0
		if err := record(tx, AuditEntry{
			Time: now, Event: EventTicketMade, Actor: t.IssuedBy, Source: originOf(ctx).Source, Ticket: t.Reference, Count: t.Uses, Attributes: t.Attributes,
		}); err != nil {
			return err
		}
		return tx.PutToken(t)
	})
}

func (s *store) Tokens(ctx context.Context, now time.Time) (all []Token, err error) {
	err = s.view(ctx, func(tx Tx) error {
		all = nil
		return tx.Tokens(func(t Token) error {
			if t.ExpiresAt.UnixMilli() > now.UnixMilli() {
				t.Uses = max(t.Uses, 1)
				all = append(all, t)
			}
			return nil
		})
	})
	return all, err
}

func (s *store) RevokeToken(ctx context.Context, reference string) error {
	return s.update(ctx, func(tx Tx) error {
		o := originOf(ctx)
		t, ok, err := tx.TokenNamed(reference)
		if err != nil {
			return err
		}
		if !ok || t.ExpiresAt.UnixMilli() <= o.Time.UnixMilli() {
			return fmt.Errorf("%w: %q", ErrNoTicket, reference)
		}
		if err := spend(tx, t, CodeRevoked, o.Time); err != nil {
			return err
		}
		return record(tx, AuditEntry{Time: o.Time, Event: EventTicketRevoked, Actor: o.Actor, Source: o.Source, Ticket: reference})
	})
}

func (s *store) Redeem(ctx context.Context, hash CodeHash, who identity.Identifier, now time.Time) (Redemption, error) {
	// A member that enrolls again, perhaps at every start, and a stranger who guesses, cost no write.
	result := Redemption{Outcome: CodeUnknown}
	var known bool
	err := s.view(ctx, func(tx Tx) error {
		_, ok, err := tx.Member(who)
		if ok {
			result.Outcome = AlreadyMember
		}
		if err != nil || ok {
			return err
		}
		// A ticket that is spent between the two looks is found by the second.
		if _, known, err = tx.Token(hash); err == nil && !known {
			_, known, err = tx.SpentCode(hash)
		}
		return err
	})
	if err != nil {
		return Redemption{}, err
	}
	if !known {
		return result, nil
	}
	err = s.batch(ctx, func(tx Tx) (err error) {
		source := originOf(ctx).Source
		result, err = redeem(tx, hash, who, source, now)
		if err != nil || result.Outcome == AlreadyMember || result.Outcome == CodeUnknown {
			return err
		}
		e := AuditEntry{Time: now, Event: EventTicketUsed, Actor: who, Source: source, Subject: who, Ticket: result.Reference}
		if result.Outcome != Redeemed {
			e.Event, e.Reason = EventTicketRefused, string(result.Outcome)
		}
		return record(tx, e)
	})
	if err != nil {
		return Redemption{}, err
	}
	return result, nil
}

func redeem(tx Tx, hash CodeHash, who identity.Identifier, source string, now time.Time) (Redemption, error) {
	if _, ok, err := tx.Member(who); err != nil || ok {
		return Redemption{Outcome: AlreadyMember}, err
	}
	if err := sweep(tx, now); err != nil {
		return Redemption{}, err
	}
	if spent, ok, err := tx.SpentCode(hash); err != nil || ok {
		return Redemption{Outcome: spent.Outcome, Reference: spent.Reference}, err
	}
	// The index compares hashes, of which a guesser controls no prefix; the comparison that admits takes constant time.
	t, ok, err := tx.Token(hash)
	if err != nil {
		return Redemption{}, err
	}
	if !ok || subtle.ConstantTimeCompare(t.Hash[:], hash[:]) != 1 {
		return Redemption{Outcome: CodeUnknown}, nil
	}
	if t.ExpiresAt.UnixMilli() <= now.UnixMilli() {
		// Expired but not yet swept, because there were more than one sweep takes.
		return Redemption{Outcome: CodeExpired, Reference: t.Reference}, spend(tx, t, CodeExpired, now)
	}
	result := Redemption{Outcome: Redeemed, Reference: t.Reference}
	if t.Uses <= 1 {
		err = spend(tx, t, CodeUsed, now)
	} else {
		t.Uses--
		t.Used++
		result.Left = t.Uses
		err = tx.PutToken(t)
	}
	if err != nil {
		return Redemption{}, err
	}
	m := Member{ID: who, Attributes: t.Attributes, AddedBy: t.IssuedBy, AddedAt: now, Ticket: t.Reference}
	return result, admitMember(tx, Origin{Actor: who, Source: source, Time: now}, m, false)
}

// spend turns a token into a spent code, without what it granted.
func spend(tx Tx, t Token, why Outcome, now time.Time) error {
	if err := tx.DeleteToken(t); err != nil {
		return err
	}
	return tx.PutSpentCode(SpentCode{t.Hash, t.Reference, why, now.Add(SpentRetention)})
}

// sweep clears away codes whose time has come: expired ones become spent, spent ones are forgotten.
func sweep(tx Tx, now time.Time) error {
	expired, err := tx.ExpiredTokens(now, sweepLimit)
	if err != nil {
		return err
	}
	for _, t := range expired {
		if err := spend(tx, t, CodeExpired, now); err != nil {
			return err
		}
	}
	return tx.ForgetSpentCodes(now, sweepLimit)
}

// auditCredentials is how often the trail has an entry about one member's credentials.
const auditCredentials = 24 * time.Hour

func (s *store) Issued(ctx context.Context, id identity.Identifier, attributes Attributes, expires time.Time) error {
	return s.batch(ctx, func(tx Tx) error {
		o := originOf(ctx)
		r, ok, err := tx.Member(id)
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
		if r.AuditedAt.IsZero() || o.Time.Sub(r.AuditedAt) >= auditCredentials {
			r.Issued, r.AuditedAt = 0, o.Time
			if err := record(tx, entry); err != nil {
				return err
			}
		}
		r.LastSeen = o.Time
		if expires.After(r.CredentialExpires) {
			r.CredentialExpires = expires
		}
		return tx.PutMember(r)
	})
}

func (s *store) CredentialTTL(ctx context.Context) (ttl time.Duration, err error) {
	err = s.view(ctx, func(tx Tx) error {
		ttl, err = tx.CredentialTTL()
		return err
	})
	return ttl, err
}

func (s *store) SetCredentialTTL(ctx context.Context, ttl time.Duration) error {
	return s.update(ctx, func(tx Tx) error { return tx.SetCredentialTTL(ttl) })
}
