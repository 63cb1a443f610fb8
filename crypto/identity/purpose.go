package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"sallyport/crypto/vault"
)

// PurposeKey is a key of this side with its attestation.
type PurposeKey struct {
	// Handle names the key in the vault.
	Handle vault.Handle
	// Public is the key of a secure channel; zero for one that signs credentials.
	Public [32]byte
	// Attestation is encoded, as it is sent; not to be changed.
	Attestation          []byte
	CreatedAt, ExpiresAt Timestamp
}

// SecureChannelKey returns an identity's key for secure channels, and makes one if there is none that is valid for a while
// (docs/protocol/02 §3.2). It never outlives the primary key. The error matches ErrNotFound, ErrWrongSecretKey or ErrExpired if
// that is the cause.
func (m *Manager) SecureChannelKey(ctx context.Context, id Identifier) (*PurposeKey, error) {
	return m.purposeKey(ctx, id, SecureChannel, nil)
}

// CredentialKey is SecureChannelKey for the key that signs credentials. A key of another algorithm is replaced.
func (m *Manager) CredentialKey(ctx context.Context, id Identifier, a vault.KeyAlgorithm) (*PurposeKey, error) {
	return m.purposeKey(ctx, id, CredentialSigning, &a)
}

// purposeKey gets or makes a purpose key. a is the algorithm of a key for credentials; nil takes any.
func (m *Manager) purposeKey(ctx context.Context, id Identifier, p Purpose, a *vault.KeyAlgorithm) (*PurposeKey, error) {
	if k, err := m.storedKey(ctx, id, p, a); k != nil || err != nil {
		return k, err
	}
	// Of those who found none at the same time, one makes it: a handshake that asks twice gets the same key twice.
	select {
	case m.making <- struct{}{}:
		defer func() { <-m.making }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if k, err := m.storedKey(ctx, id, p, a); k != nil || err != nil {
		return k, err
	}
	return m.newKey(ctx, id, p, a)
}

// storedKey returns the stored key, nil if there is none, or one that is not to be used any more for whatever reason.
func (m *Manager) storedKey(ctx context.Context, id Identifier, p Purpose, algorithm *vault.KeyAlgorithm) (*PurposeKey, error) {
	raw, err := m.store.PurposeKey(ctx, id, p)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	a, i, err := m.verifyAttestation(ctx, raw, &id)
	if err != nil || a.Purpose != p || !m.fresh(a, i) {
		return nil, ctx.Err()
	}
	k := &PurposeKey{Attestation: raw, CreatedAt: a.CreatedAt, ExpiresAt: a.ExpiresAt, Public: a.X25519}
	if p == SecureChannel {
		k.Handle = vault.HandleOf(a.X25519[:])
		_, err = m.vault.PublicX25519(ctx, k.Handle)
	} else {
		if algorithm != nil && *algorithm != a.Key.Algorithm {
			return nil, nil
		}
		k.Handle = vault.HandleOf(a.Key.Bytes)
		_, err = m.vault.VerifyingKey(ctx, k.Handle)
	}
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrKey):
		return nil, nil
	}
	return nil, err // the key is there but not to be had now: making another one would not help
}

// fresh reports whether an attestation lasts for a while, or as long as the identity allows.
func (m *Manager) fresh(a *Attestation, i *Identity) bool {
	return a.ExpiresAt == i.Latest().ValidUntil || a.ExpiresAt > m.seconds()+Timestamp(attestationRenewal/time.Second)
}

// newKey makes a purpose key and its attestation, and stores both.
func (m *Manager) newKey(ctx context.Context, id Identifier, p Purpose, algorithm *vault.KeyAlgorithm) (*PurposeKey, error) {
	i, err := m.store.Identity(ctx, id)
	if err != nil {
		return nil, err
	}
	latest, now := i.Latest(), m.seconds()
	switch {
	case latest.ValidUntil <= now:
		return nil, fmt.Errorf("identity %s: its key %w; rotate it", id, ErrExpired)
	case latest.ValidFrom > now && latest.ValidFrom-now > futureTolerance:
		return nil, fmt.Errorf("%w: identity %s was made %d seconds in the future; is the clock right?", ErrAttestation, id, latest.ValidFrom-now)
	}
	a := &Attestation{Subject: id, ChangeHash: latest.Hash, Purpose: p, CreatedAt: max(now, latest.ValidFrom)}
	// Every verifier refuses an attestation that outlives the primary key.
	a.ExpiresAt = min(a.CreatedAt+Timestamp(AttestationTTL/time.Second), latest.ValidUntil)
	k := &PurposeKey{CreatedAt: a.CreatedAt, ExpiresAt: a.ExpiresAt}
	if p == SecureChannel {
		k.Handle, a.X25519, err = m.vault.GenerateX25519(ctx)
		k.Public = a.X25519
	} else {
		k.Handle, a.Key, err = m.signingKey(ctx, algorithm)
	}
	if err != nil {
		return nil, err
	}
	old := m.replaced(ctx, id, p)
	if err := m.attest(ctx, a, latest, k); err != nil {
		// Nothing refers to the key; the first error is the one to tell.
		_ = m.deleteKey(context.WithoutCancel(ctx), p, k.Handle)
		return nil, err
	}
	if old != "" && old != k.Handle {
		// Nobody presents it any more. A handshake under way that does fails, and is tried again with the new one.
		m.forgetOwn(id)
		_ = m.deleteKey(context.WithoutCancel(ctx), p, old)
	}
	return k, nil
}

// replaced returns the handle of the stored key that a new one is to replace, empty if there is none.
func (m *Manager) replaced(ctx context.Context, id Identifier, p Purpose) vault.Handle {
	raw, err := m.store.PurposeKey(ctx, id, p)
	if err != nil {
		return ""
	}
	a, err := decodeAttestation(raw)
	if err != nil || a.Subject != id || a.Purpose != p {
		return ""
	}
	if p == SecureChannel {
		return vault.HandleOf(a.X25519[:])
	}
	return vault.HandleOf(a.Key.Bytes)
}

// signingKey makes a key that signs credentials: Ed25519 unless asked for another one, P-256 if the vault, a KMS, has no other.
func (m *Manager) signingKey(ctx context.Context, algorithm *vault.KeyAlgorithm) (vault.Handle, vault.VerifyingKey, error) {
	if algorithm != nil {
		return m.vault.GenerateSigningKey(ctx, *algorithm)
	}
	h, key, err := m.vault.GenerateSigningKey(ctx, vault.Ed25519)
	if errors.Is(err, vault.ErrAlgorithm) {
		return m.vault.GenerateSigningKey(ctx, vault.P256)
	}
	return h, key, err
}

// attest signs and stores an attestation.
func (m *Manager) attest(ctx context.Context, a *Attestation, latest *Change, k *PurposeKey) error {
	data := a.data()
	digest := sha256.Sum256(data)
	sig, err := m.signPrimary(ctx, a.Subject, latest, digest[:])
	if err != nil {
		return err
	}
	k.Attestation = appendSigned(data, sig)
	return m.store.PutPurposeKey(ctx, a.Subject, a.Purpose, k.Attestation)
}

// signPrimary signs with the key of a change.
func (m *Manager) signPrimary(ctx context.Context, id Identifier, c *Change, digest []byte) (vault.Signature, error) {
	sig, err := m.vault.Sign(ctx, vault.HandleOf(c.Key.Bytes), digest)
	if errors.Is(err, vault.ErrNotFound) {
		err = fmt.Errorf("%w: %s: %w", ErrWrongSecretKey, id, err)
	}
	return sig, err
}

func (m *Manager) deleteKey(ctx context.Context, p Purpose, h vault.Handle) error {
	if p == SecureChannel {
		return m.vault.DeleteX25519(ctx, h)
	}
	return m.vault.DeleteSigningKey(ctx, h)
}

// DH computes a shared secret with a purpose key for secure channels.
func (m *Manager) DH(ctx context.Context, k *PurposeKey, peer [32]byte) ([32]byte, error) {
	return m.vault.DH(ctx, k.Handle, peer)
}

// VerifyAttestation verifies an attestation against the subject's known history (docs/protocol/02 §3.3). subject, if not nil, is
// whose it must be. The error matches ErrAttestation, and where it applies ErrNotFound, ErrExpired, ErrVersion, ErrDataType or
// ErrEncoding.
func (m *Manager) VerifyAttestation(ctx context.Context, raw []byte, subject *Identifier) (*Attestation, error) {
	a, _, err := m.verifyAttestation(ctx, raw, subject)
	return a, err
}

func (m *Manager) verifyAttestation(ctx context.Context, raw []byte, subject *Identifier) (*Attestation, *Identity, error) {
	a, err := decodeAttestation(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrAttestation, err)
	}
	if subject != nil && *subject != a.Subject {
		return nil, nil, fmt.Errorf("%w: it is of %s, not of %s", ErrAttestation, a.Subject, *subject)
	}
	i, err := m.store.Identity(ctx, a.Subject)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: subject %s: %w", ErrAttestation, a.Subject, err)
	}
	if err := a.verify(i, m.seconds()); err != nil {
		return nil, nil, err
	}
	return a, i, nil
}
