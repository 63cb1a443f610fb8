package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"sallyport/crypto/vault"
)

// Lifetimes (docs/protocol/02 §2.5, §3.2) and the tolerance for clocks that run ahead (§3.3).
const (
	DefaultLifetime    = 10 * 365 * 24 * time.Hour
	AttestationTTL     = 5 * 365 * 24 * time.Hour
	futureTolerance    = 60
	attestationRenewal = 24 * time.Hour // an attestation that ends sooner is made anew
)

// Store keeps change histories and purpose key attestations.
type Store interface {
	// Identity returns the known history; ErrNotFound if there is none.
	Identity(ctx context.Context, id Identifier) (*Identity, error)
	// PutIdentity stores a history if it is new or newer than the known one; an equal one changes nothing, an older or
	// conflicting one is ErrConsistency. It is atomic: of two at once, none overwrites the other's newer history.
	PutIdentity(ctx context.Context, i *Identity) error
	// PurposeKey returns the stored attestation; ErrNotFound if there is none.
	PurposeKey(ctx context.Context, id Identifier, p Purpose) ([]byte, error)
	// PutPurposeKey replaces it.
	PutPurposeKey(ctx context.Context, id Identifier, p Purpose, attestation []byte) error
}

// Options configure a Manager.
type Options struct {
	Vault vault.Vault
	Store Store
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Manager creates identities and works with their keys. It is safe for concurrent use.
type Manager struct {
	vault vault.Vault
	store Store
	now   func() time.Time
}

// New makes a Manager.
func New(o Options) *Manager {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Manager{vault: o.Vault, store: o.Store, now: o.Now}
}

func (m *Manager) seconds() Timestamp { return Timestamp(m.now().Unix()) }

// CreateOptions are the properties of a new identity.
type CreateOptions struct {
	Algorithm vault.KeyAlgorithm
	// Lifetime is how long its key may attest; default DefaultLifetime.
	Lifetime time.Duration
	// Key is a signing key already in the vault; empty makes one.
	Key vault.Handle
}

// Create makes an identity with a key in the vault.
func (m *Manager) Create(ctx context.Context, o CreateOptions) (*Identity, error) {
	return m.change(ctx, nil, o)
}

// Rotate gives an identity a new primary key, signed by the old one, which is then deleted. Its purpose keys have to be attested
// anew, which happens when they are next used.
func (m *Manager) Rotate(ctx context.Context, id Identifier) (*Identity, error) {
	known, err := m.store.Identity(ctx, id)
	if err != nil {
		return nil, err
	}
	rotated, err := m.change(ctx, known, CreateOptions{Algorithm: known.Latest().Key.Algorithm})
	if err != nil {
		return nil, err
	}
	// The identity works without the old key; that it could not be deleted is for the caller to log.
	if err := m.vault.DeleteSigningKey(ctx, vault.HandleOf(known.Latest().Key.Bytes)); err != nil {
		return rotated, fmt.Errorf("old key not deleted: %w", err)
	}
	return rotated, nil
}

// change appends a change to a history, or begins one.
func (m *Manager) change(ctx context.Context, known *Identity, o CreateOptions) (*Identity, error) {
	if o.Lifetime == 0 {
		o.Lifetime = DefaultLifetime
	}
	handle := o.Key
	var key vault.VerifyingKey
	var err error
	if handle == "" {
		handle, key, err = m.vault.GenerateSigningKey(ctx, o.Algorithm)
	} else {
		key, err = m.vault.VerifyingKey(ctx, handle)
	}
	if err != nil {
		return nil, err
	}
	from := m.seconds()
	b := appendArray(nil, 5)
	if known == nil {
		b = append(b, 0xf6)
	} else {
		b = appendBytes(b, known.Latest().Hash[:])
		from = max(from, known.Latest().ValidFrom)
	}
	b = appendKey(b, key)
	b = appendBool(b, false)
	b = appendUint(appendUint(b, uint64(from)), uint64(from)+uint64(o.Lifetime/time.Second))
	data := appendVersioned(nil, typeChange, b)
	digest := sha256.Sum256(data)
	sig, err := m.vault.Sign(ctx, handle, digest[:])
	if err != nil {
		return nil, err
	}
	change := appendSignature(appendBytes(nil, data), sig)
	var history []byte
	if known == nil {
		history = append(append(appendArray(nil, 1), 0x82), change...)
	} else {
		previous, err := m.vault.Sign(ctx, vault.HandleOf(known.Latest().Key.Bytes), digest[:])
		if err != nil {
			return nil, err
		}
		r := &reader{b: known.raw}
		_, n, _ := r.head()
		history = append(appendArray(nil, int(n)+1), known.raw[r.at:]...)
		history = appendSignature(append(append(history, 0x83), change...), previous)
	}
	i, err := Import(history, nil)
	if err != nil {
		return nil, err
	}
	return i, m.store.PutIdentity(ctx, i)
}

// Import verifies a history and stores it strictly: an older or conflicting one is ErrConsistency.
func (m *Manager) Import(ctx context.Context, raw []byte, expected *Identifier) (*Identity, error) {
	i, err := Import(raw, expected)
	if err != nil {
		return nil, err
	}
	return i, m.store.PutIdentity(ctx, i)
}

// ImportIgnoreOlder is Import that keeps the known history silently when the one given is older.
func (m *Manager) ImportIgnoreOlder(ctx context.Context, raw []byte) (*Identity, error) {
	i, err := Import(raw, nil)
	if err != nil {
		return nil, err
	}
	known, err := m.store.Identity(ctx, i.id)
	if err == nil && Compare(known, i) == Older {
		return known, nil
	}
	return i, m.store.PutIdentity(ctx, i)
}

// Identity returns a known identity.
func (m *Manager) Identity(ctx context.Context, id Identifier) (*Identity, error) {
	return m.store.Identity(ctx, id)
}

// History returns the encoded history of a known identity.
func (m *Manager) History(ctx context.Context, id Identifier) ([]byte, error) {
	i, err := m.store.Identity(ctx, id)
	if err != nil {
		return nil, err
	}
	return i.raw, nil
}

// PurposeKey is a key of this side with its attestation.
type PurposeKey struct {
	Handle vault.Handle
	// Public is the key of a secure channel.
	Public      [32]byte
	Attestation []byte
	ExpiresAt   Timestamp
}

// SecureChannelKey returns an identity's key for secure channels, making one if there is none that is valid.
func (m *Manager) SecureChannelKey(ctx context.Context, id Identifier) (*PurposeKey, error) {
	return m.purposeKey(ctx, id, SecureChannel)
}

// purposeKey gets or makes a purpose key (docs/protocol/02 §3.2).
func (m *Manager) purposeKey(ctx context.Context, id Identifier, p Purpose) (*PurposeKey, error) {
	if raw, err := m.store.PurposeKey(ctx, id, p); err == nil {
		if a, err := m.VerifyAttestation(ctx, raw, &id); err == nil && a.Purpose == p && m.fresh(a) {
			k := &PurposeKey{Attestation: raw, ExpiresAt: a.ExpiresAt, Public: a.X25519}
			if p == SecureChannel {
				k.Handle = vault.HandleOf(a.X25519[:])
				_, err = m.vault.PublicX25519(ctx, k.Handle)
			} else {
				k.Handle = vault.HandleOf(a.Key.Bytes)
				_, err = m.vault.VerifyingKey(ctx, k.Handle)
			}
			if err == nil {
				return k, nil
			}
		}
	} else if !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	return m.newPurposeKey(ctx, id, p)
}

// fresh reports whether an attestation lasts for a while, or as long as the identity allows.
func (m *Manager) fresh(a *Attestation) bool {
	return int64(a.ExpiresAt)-int64(m.seconds()) > int64(attestationRenewal/time.Second)
}

func (m *Manager) newPurposeKey(ctx context.Context, id Identifier, p Purpose) (*PurposeKey, error) {
	i, err := m.store.Identity(ctx, id)
	if err != nil {
		return nil, err
	}
	latest := i.Latest()
	now := m.seconds()
	if latest.ValidUntil <= now {
		return nil, fmt.Errorf("identity %s: its key %w; rotate it", id, ErrExpired)
	}
	a := &Attestation{Subject: id, ChangeHash: latest.Hash, Purpose: p, CreatedAt: max(now, latest.ValidFrom)}
	// Every verifier refuses an attestation that outlives the primary key.
	a.ExpiresAt = min(a.CreatedAt+Timestamp(AttestationTTL/time.Second), latest.ValidUntil)
	k := &PurposeKey{ExpiresAt: a.ExpiresAt}
	if p == SecureChannel {
		k.Handle, a.X25519, err = m.vault.GenerateX25519(ctx)
		k.Public = a.X25519
	} else {
		k.Handle, a.Key, err = m.vault.GenerateSigningKey(ctx, vault.Ed25519)
		if errors.Is(err, vault.ErrAlgorithm) { // a KMS has P-256 only
			k.Handle, a.Key, err = m.vault.GenerateSigningKey(ctx, vault.P256)
		}
	}
	if err != nil {
		return nil, err
	}
	data := a.data()
	digest := sha256.Sum256(data)
	sig, err := m.vault.Sign(ctx, vault.HandleOf(latest.Key.Bytes), digest[:])
	if err != nil {
		if errors.Is(err, vault.ErrNotFound) {
			err = fmt.Errorf("%w: %s", ErrWrongSecretKey, id)
		}
		return nil, err
	}
	k.Attestation = appendSigned(data, sig)
	return k, m.store.PutPurposeKey(ctx, id, p, k.Attestation)
}

// DH computes a shared secret with a purpose key for secure channels.
func (m *Manager) DH(ctx context.Context, k *PurposeKey, peer [32]byte) ([32]byte, error) {
	return m.vault.DH(ctx, k.Handle, peer)
}

// VerifyAttestation verifies an attestation against the subject's known history (docs/protocol/02 §3.3).
func (m *Manager) VerifyAttestation(ctx context.Context, raw []byte, subject *Identifier) (*Attestation, error) {
	a, err := decodeAttestation(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAttestation, err)
	}
	fail := func(format string, args ...any) (*Attestation, error) {
		return nil, fmt.Errorf("%w: %s", ErrAttestation, fmt.Sprintf(format, args...))
	}
	if subject != nil && *subject != a.Subject {
		return fail("it is of %s, not of %s", a.Subject, *subject)
	}
	i, err := m.store.Identity(ctx, a.Subject)
	if err != nil {
		return nil, fmt.Errorf("%w: subject %s: %w", ErrAttestation, a.Subject, err)
	}
	latest := i.Latest()
	now := m.seconds()
	switch {
	case a.ChangeHash != latest.Hash:
		return fail("the identity's key has changed since")
	case a.ExpiresAt > latest.ValidUntil:
		return fail("it outlives the identity's key")
	case a.CreatedAt < latest.ValidFrom:
		return fail("it is older than the identity's key")
	case a.CreatedAt > now && a.CreatedAt-now > futureTolerance:
		return fail("it was made %d seconds in the future", a.CreatedAt-now)
	case a.ExpiresAt < now:
		return nil, fmt.Errorf("%w: it %w %d seconds ago", ErrAttestation, ErrExpired, now-a.ExpiresAt)
	}
	if err := vault.Verify(latest.Key, a.digest[:], a.signature); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAttestation, err)
	}
	return a, nil
}

// IssueCredential makes a credential with its attestation. The subject's history must be known; an end beyond that of the
// issuer's key is brought forward to it.
func (m *Manager) IssueCredential(ctx context.Context, issuer, subject Identifier, attributes Attributes, ttl time.Duration) ([]byte, error) {
	i, err := m.store.Identity(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("subject %s: %w", subject, err)
	}
	key, err := m.purposeKey(ctx, issuer, CredentialSigning)
	if err != nil {
		return nil, err
	}
	created := m.seconds()
	expires := min(created+Timestamp(ttl/time.Second), key.ExpiresAt)
	data := encodeCredentialData(subject, i.Latest().Hash, attributes, created, expires)
	digest := sha256.Sum256(data)
	sig, err := m.vault.Sign(ctx, key.Handle, digest[:])
	if err != nil {
		return nil, err
	}
	return append(append(appendArray(nil, 2), appendSigned(data, sig)...), key.Attestation...), nil
}

// VerifyCredential verifies a credential (docs/protocol/02 §4.3). subject, if not nil, is whom it must be for; issuers are who
// may have issued it.
func (m *Manager) VerifyCredential(ctx context.Context, raw []byte, subject *Identifier, issuers []Identifier) (*Credential, error) {
	c, err := decodeCredential(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	a, err := m.VerifyAttestation(ctx, c.attestation, nil)
	if err != nil {
		return nil, err
	}
	accepted := false
	for _, id := range issuers {
		accepted = accepted || id == a.Subject
	}
	if !accepted {
		return nil, fmt.Errorf("%w: it is from %s", ErrUnknownAuthority, a.Subject)
	}
	if a.Purpose != CredentialSigning {
		return nil, fmt.Errorf("%w: %s", ErrKeyType, a.Purpose)
	}
	if err := vault.Verify(a.Key, c.digest[:], c.signature); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredential, err)
	}
	fail := func(format string, args ...any) (*Credential, error) {
		return nil, fmt.Errorf("%w: %s", ErrCredential, fmt.Sprintf(format, args...))
	}
	now := m.seconds()
	switch {
	case !c.hasSubject:
		return fail("it has no subject")
	case subject != nil && *subject != c.Subject:
		return fail("it is for %s, not for %s", c.Subject, *subject)
	case c.CreatedAt < a.CreatedAt:
		return fail("it is older than its issuer's key")
	case c.ExpiresAt > a.ExpiresAt:
		return fail("it outlives its issuer's key")
	case c.CreatedAt > now && c.CreatedAt-now > futureTolerance:
		return fail("it was made %d seconds in the future", c.CreatedAt-now)
	case c.ExpiresAt < now:
		return nil, fmt.Errorf("%w: it %w %d seconds ago", ErrCredential, ErrExpired, now-c.ExpiresAt)
	}
	c.Issuer = a.Subject
	return &c.Credential, nil
}

// Payload builds this side's identity payload for a handshake, with the key that it attests.
func (m *Manager) Payload(ctx context.Context, id Identifier, credentials [][]byte) ([]byte, *PurposeKey, error) {
	history, err := m.History(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	key, err := m.SecureChannelKey(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	return EncodePayload(Payload{History: history, Attestation: key.Attestation, Credentials: credentials}), key, nil
}

// Peer is the verified other side of a handshake. Its credentials are raw and not verified.
type Peer struct {
	Identity    *Identity
	Credentials [][]byte
}

// VerifyPeer verifies a peer's identity payload and that it attests the static key used in the handshake
// (docs/protocol/01 §7.8, steps 1 to 3).
func (m *Manager) VerifyPeer(ctx context.Context, payload []byte, static [32]byte) (*Peer, error) {
	p, err := DecodePayload(payload)
	if err != nil {
		return nil, fmt.Errorf("identity payload: %w", err)
	}
	i, err := m.Import(ctx, p.History, nil)
	if err != nil {
		return nil, err
	}
	id := i.Identifier()
	a, err := m.VerifyAttestation(ctx, p.Attestation, &id)
	if err != nil {
		return nil, err
	}
	if a.Purpose != SecureChannel {
		return nil, fmt.Errorf("%w: %s", ErrKeyType, a.Purpose)
	}
	if subtle.ConstantTimeCompare(a.X25519[:], static[:]) != 1 {
		return nil, ErrKeyData
	}
	credentials := make([][]byte, len(p.Credentials))
	for k, c := range p.Credentials {
		credentials[k] = append([]byte(nil), c...)
	}
	return &Peer{Identity: i, Credentials: credentials}, nil
}
