package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"sallyport/crypto/vault"
)

// PurposeKey is a key of this side with its attestation. It lives in this process alone.
type PurposeKey struct {
	// Handle names the key in the process's memory.
	Handle vault.Handle
	// Public is the key of a secure channel; zero for one that signs credentials.
	Public [32]byte
	// Attestation is encoded, as it is sent; not to be changed.
	Attestation          []byte
	CreatedAt, ExpiresAt Timestamp
}

// heldKey is a purpose key in use.
type heldKey struct {
	*PurposeKey
	algorithm vault.KeyAlgorithm // of one that signs
	change    [32]byte           // hash of the change whose primary key attests it
	made      Timestamp
	renewAt   Timestamp     // it is replaced from then on, while what attests can be reached
	span      time.Duration // how long what it signs has to last
	short     bool          // a keeper gave less time than was asked for
	failed    error         // why it could not be replaced
	since     Timestamp     // when that began
}

// retiredKey is a purpose key that was replaced. A handshake under way may still use it.
type retiredKey struct {
	p  Purpose
	h  vault.Handle
	at Timestamp
}

// retirement is for how long a replaced key is kept, in seconds: longer than a handshake may last.
const retirement = 60

// KeyState tells how an identity's key for secure channels stands.
type KeyState struct {
	// ValidUntil is how long new channels can be opened with it, whether or not the primary key can be reached; from RenewAt on it is
	// replaced.
	MadeAt, RenewAt, ValidUntil time.Time
	// Err is why it could not be replaced when it was due, since when; nil if it was not due or could.
	Err   error
	Since time.Time
}

// SecureChannelKey returns an identity's key for secure channels, and makes one in memory if there is none that is valid
// (docs/protocol/02 §3.2). It is attested for hours and never outlives the primary key. The error matches ErrNotFound, ErrWrongSecretKey,
// ErrExpired, ErrKeeperAway or ErrNotDelegate if that is the cause.
func (m *Manager) SecureChannelKey(ctx context.Context, id Identifier) (*PurposeKey, error) {
	return m.purposeKey(ctx, id, SecureChannel, nil, 0)
}

// CredentialKey is SecureChannelKey for the key that signs credentials. A key of another algorithm is replaced.
func (m *Manager) CredentialKey(ctx context.Context, id Identifier, a vault.KeyAlgorithm) (*PurposeKey, error) {
	return m.purposeKey(ctx, id, CredentialSigning, &a, 0)
}

// KeyState returns how an identity's key for secure channels stands; false if it has none yet.
func (m *Manager) KeyState(id Identifier) (s KeyState, ok bool) {
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	k := m.current[purposeOf{id, SecureChannel}]
	if k == nil {
		return s, false
	}
	at := func(t Timestamp) time.Time { return time.Unix(int64(t), 0) }
	s = KeyState{MadeAt: at(k.made), RenewAt: at(k.renewAt), ValidUntil: at(k.ExpiresAt), Err: k.failed}
	if k.failed != nil {
		s.Since = at(k.since)
	}
	return s, true
}

// purposeKey gets or makes a purpose key. algorithm is that of a key for credentials; nil takes any. What it signs lasts for span.
func (m *Manager) purposeKey(ctx context.Context, id Identifier, p Purpose, algorithm *vault.KeyAlgorithm, span time.Duration) (*PurposeKey, error) {
	if k, err := m.usable(ctx, id, p, algorithm, span); k != nil || err != nil {
		return k, err
	}
	// Of those who found none at the same time, one makes it: a handshake that asks twice gets the same key twice.
	unlock, err := m.lockMaking(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if k, err := m.usable(ctx, id, p, algorithm, span); k != nil || err != nil {
		return k, err
	}
	k, err := m.newKey(ctx, id, p, algorithm, span)
	if err != nil && m.keeper != nil {
		// What a delegate signs may end sooner while its keeper is away.
		if old, _ := m.usable(ctx, id, p, algorithm, 0); old != nil {
			return old, nil
		}
	}
	return k, err
}

func (m *Manager) lockMaking(ctx context.Context) (unlock func(), err error) {
	select {
	case m.making <- struct{}{}:
		return func() { <-m.making }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// usable returns the key in use, nil if there is none that a peer would accept.
func (m *Manager) usable(ctx context.Context, id Identifier, p Purpose, algorithm *vault.KeyAlgorithm, span time.Duration) (*PurposeKey, error) {
	m.keysMu.Lock()
	k := m.current[purposeOf{id, p}]
	m.keysMu.Unlock()
	if k == nil {
		return nil, nil
	}
	i, err := m.store.Identity(ctx, id)
	if err != nil {
		return nil, err
	}
	now := m.seconds()
	switch {
	case k.change != i.Latest().Hash, algorithm != nil && *algorithm != k.algorithm, current(k.CreatedAt, k.ExpiresAt, now) != nil:
		return nil, nil
	case k.ExpiresAt < now+Timestamp(span/time.Second) && k.ExpiresAt < i.Latest().ValidUntil && !(k.short && k.span >= span):
		return nil, nil // what it signs would have to end too early
	}
	return k.PurposeKey, nil
}

// newKey makes a purpose key and its attestation, in place of the one in use.
func (m *Manager) newKey(ctx context.Context, id Identifier, p Purpose, algorithm *vault.KeyAlgorithm, span time.Duration) (*PurposeKey, error) {
	i, err := m.store.Identity(ctx, id)
	if err != nil {
		return nil, err
	}
	of := purposeOf{id, p}
	if err := m.mayAsk(of); err != nil {
		return nil, err
	}
	held := &heldKey{PurposeKey: &PurposeKey{}, made: m.seconds(), span: span}
	r := AttestationRequest{Subject: id, Purpose: p, Lifetime: m.life + span}
	if p == SecureChannel {
		held.Handle, r.X25519, err = m.keys.GenerateX25519(ctx)
		held.Public = r.X25519
	} else {
		if algorithm != nil {
			held.algorithm = *algorithm
		}
		held.Handle, r.Key, err = m.keys.GenerateSigningKey(ctx, held.algorithm)
	}
	if err != nil {
		return nil, err
	}
	i, a, raw, err := m.attested(ctx, i, r)
	m.asked(of, err)
	if err != nil {
		m.wipeKey(p, held.Handle)
		return nil, err
	}
	held.change, held.CreatedAt, held.ExpiresAt, held.Attestation = i.Latest().Hash, a.CreatedAt, a.ExpiresAt, raw
	held.renewIn(m.life, m.keeper != nil)
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	if old := m.current[of]; old != nil {
		m.retired = append(m.retired, retiredKey{p, old.Handle, held.made})
	}
	m.current[of] = held
	m.forgetOwn(id)
	return held.PurposeKey, nil
}

// renewIn sets when the key is replaced: after half of the time for which it is attested, without that which is for what it signs; a little later, so that
// nodes that began together do not ask together. A keeper may have given less time than was asked for.
func (k *heldKey) renewIn(life time.Duration, given bool) {
	seconds := uint64(life / time.Second)
	if given {
		span := uint64(k.span / time.Second)
		whole := uint64(k.ExpiresAt - min(k.ExpiresAt, k.made))
		k.short = whole < seconds+span
		if seconds = min(seconds, whole); whole > span {
			seconds = min(seconds, whole-span)
		}
	}
	half := seconds / 2
	k.renewAt = k.made + Timestamp(half+rand.Uint64N(half/5+1))
}

// RenewKeys replaces the purpose keys that are due, and wipes those that were replaced a minute ago. A key that cannot be replaced is used
// on until it ends: the error, which KeyState tells too, is no reason to stop. Who keeps a Manager for long calls it every minute.
func (m *Manager) RenewKeys(ctx context.Context) error {
	now := m.seconds()
	m.keysMu.Lock()
	var due []purposeOf
	for of, k := range m.current {
		if now >= k.renewAt {
			due = append(due, of)
		}
	}
	m.retired = slices.DeleteFunc(m.retired, func(k retiredKey) bool {
		if now-min(now, k.at) < retirement {
			return false
		}
		m.wipeKey(k.p, k.h)
		return true
	})
	m.keysMu.Unlock()
	var failures []error
	for _, of := range due {
		if err := m.renew(ctx, of); err != nil {
			failures = append(failures, fmt.Errorf("%s key of %s: %w", of.p, of.id, err))
		}
	}
	return errors.Join(failures...)
}

func (m *Manager) renew(ctx context.Context, of purposeOf) error {
	unlock, err := m.lockMaking(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	m.keysMu.Lock()
	k := m.current[of]
	m.keysMu.Unlock()
	if k == nil || m.seconds() < k.renewAt { // somebody was faster
		return nil
	}
	var algorithm *vault.KeyAlgorithm
	if of.p == CredentialSigning {
		algorithm = &k.algorithm
	}
	_, err = m.newKey(ctx, of.id, of.p, algorithm, k.span)
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	if err != nil && k.failed == nil {
		k.since = m.seconds()
	}
	k.failed = err
	return err
}

// wipeKeys forgets the purpose keys of an identity.
func (m *Manager) wipeKeys(id Identifier) {
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	for of, k := range m.current {
		if of.id == id {
			m.wipeKey(of.p, k.Handle)
			delete(m.current, of)
		}
	}
}

// wipeKey wipes a key in memory, which cannot fail.
func (m *Manager) wipeKey(p Purpose, h vault.Handle) {
	if p == SecureChannel {
		_ = m.keys.DeleteX25519(context.Background(), h)
	} else {
		_ = m.keys.DeleteSigningKey(context.Background(), h)
	}
}

// signPrimary signs with the key of a change.
func (m *Manager) signPrimary(ctx context.Context, id Identifier, c *Change, digest []byte) (vault.Signature, error) {
	sig, err := m.vault.Sign(ctx, vault.HandleOf(c.Key.Bytes), digest)
	if errors.Is(err, vault.ErrNotFound) {
		err = fmt.Errorf("%w: %s: %w", ErrWrongSecretKey, id, err)
	}
	if err == nil { // what a machine of others signed is looked at before anybody sees it
		err = vault.Verify(c.Key, digest, sig)
	}
	return sig, err
}

// DH computes a shared secret with a purpose key for secure channels.
func (m *Manager) DH(ctx context.Context, k *PurposeKey, peer [32]byte) ([32]byte, error) {
	return m.keys.DH(ctx, k.Handle, peer)
}

// AttestedKey returns the purpose and the handle of the key that an attestation is of. It verifies nothing.
func AttestedKey(raw []byte) (Purpose, vault.Handle, error) {
	a, err := decodeAttestation(raw)
	if err != nil {
		return 0, "", err
	}
	if a.Purpose == SecureChannel {
		return a.Purpose, vault.HandleOf(a.X25519[:]), nil
	}
	return a.Purpose, vault.HandleOf(a.Key.Bytes), nil
}

// VerifyAttestation verifies an attestation against the subject's known history (docs/protocol/02 §3.3). subject, if not nil, is
// whose it must be. The error matches ErrAttestation, and where it applies ErrNotFound, ErrExpired, ErrVersion, ErrDataType or
// ErrEncoding.
func (m *Manager) VerifyAttestation(ctx context.Context, raw []byte, subject *Identifier) (*Attestation, error) {
	a, err := decodeAttestation(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAttestation, err)
	}
	if subject != nil && *subject != a.Subject {
		return nil, fmt.Errorf("%w: it is of %s, not of %s", ErrAttestation, a.Subject, *subject)
	}
	i, err := m.store.Identity(ctx, a.Subject)
	if err != nil {
		return nil, fmt.Errorf("%w: subject %s: %w", ErrAttestation, a.Subject, err)
	}
	if err := a.verify(&m.proofs, i, m.seconds()); err != nil {
		return nil, err
	}
	return a, nil
}
