package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"sallyport/crypto/vault"
)

// Errors of a Keeper.
var (
	// ErrKeeperAway reports a keeper that cannot be reached now: a purpose key that is valid is used on until it ends.
	ErrKeeperAway = errors.New("identity: the keeper of the primary key cannot be reached")
	// ErrNotDelegate reports a keeper that attests no keys for this node, or not any more: the keys there are are not used any more either.
	ErrNotDelegate = errors.New("identity: the keeper of the primary key attests no keys for this node")
)

// Keeper has an identity's primary key, and attests purpose keys of nodes that act as the identity without having that key. A Manager whose
// vault has the key is one.
type Keeper interface {
	// Attest attests a purpose key, for as long as is asked for or less, and returns the encoded attestation and the encoded history of the
	// subject as the keeper knows it. Errors match ErrKeeperAway or ErrNotDelegate if that is the cause.
	Attest(ctx context.Context, r AttestationRequest) (attestation, history []byte, err error)
}

var _ Keeper = (*Manager)(nil)

// Delegate makes a Manager with the same Store and clock that acts as identities whose purpose keys k attests.
func (m *Manager) Delegate(k Keeper) *Manager {
	return New(Options{Store: m.store, Keeper: k, Now: m.now, PurposeLife: m.life})
}

// AttestationRequest says which purpose key is to be attested.
type AttestationRequest struct {
	// Subject is whose key it is.
	Subject Identifier
	Purpose Purpose
	// X25519 is the public key of SecureChannel, Key that of CredentialSigning.
	X25519 [32]byte
	Key    vault.VerifyingKey
	// Lifetime is for how long, from now, in whole seconds.
	Lifetime time.Duration
}

// keeperFirst and keeperPause are how long a Manager waits before it asks a keeper again that did not attest, at first and at most: strangers begin
// handshakes, each of which asks for the key.
const (
	keeperFirst = 250 * time.Millisecond
	keeperPause = 5 * time.Second
)

// Attest implements Keeper with the vault's primary key.
func (m *Manager) Attest(ctx context.Context, r AttestationRequest) (attestation, history []byte, err error) {
	i, err := m.store.Identity(ctx, r.Subject)
	if err != nil {
		return nil, nil, err
	}
	a, err := m.newAttestation(i, r)
	if err != nil {
		return nil, nil, err
	}
	attestation, err = m.signAttestation(ctx, i, a)
	return attestation, i.raw, err
}

// newAttestation makes what is signed.
func (m *Manager) newAttestation(i *Identity, r AttestationRequest) (*Attestation, error) {
	latest, now := i.Latest(), m.seconds()
	switch {
	case r.Lifetime < time.Second:
		return nil, fmt.Errorf("%w: a lifetime of %v is less than a second", ErrAttestation, r.Lifetime)
	case r.Purpose != SecureChannel && r.Purpose != CredentialSigning:
		return nil, fmt.Errorf("%w: %s", ErrKeyType, r.Purpose)
	case latest.ValidUntil < now:
		return nil, fmt.Errorf("identity %s: its key %w; rotate it: sallyport identity rotate", i.id, ErrExpired)
	case latest.ValidFrom > now && latest.ValidFrom-now > futureTolerance:
		return nil, fmt.Errorf("%w: identity %s was made %d seconds in the future; is the clock right?", ErrAttestation, i.id, latest.ValidFrom-now)
	}
	a := &Attestation{Subject: i.id, ChangeHash: latest.Hash, Purpose: r.Purpose, X25519: r.X25519, Key: r.Key}
	// A peer whose clock is behind accepts it all the same.
	a.CreatedAt = max(now-min(now, Timestamp(attestationSlack/time.Second)), latest.ValidFrom)
	// Every verifier refuses an attestation that outlives the primary key.
	a.ExpiresAt = min(now+Timestamp(r.Lifetime/time.Second), latest.ValidUntil)
	return a, nil
}

func (m *Manager) signAttestation(ctx context.Context, i *Identity, a *Attestation) ([]byte, error) {
	data := a.data()
	digest := sha256.Sum256(data)
	sig, err := m.signPrimary(ctx, i.id, i.Latest(), digest[:])
	if err != nil {
		return nil, err
	}
	return appendSigned(data, sig), nil
}

// attested has a purpose key attested: by the vault's primary key, or by the keeper, whose answer is verified as a peer does.
func (m *Manager) attested(ctx context.Context, i *Identity, r AttestationRequest) (*Identity, *Attestation, []byte, error) {
	if m.keeper == nil {
		a, err := m.newAttestation(i, r)
		if err != nil {
			return nil, nil, nil, err
		}
		raw, err := m.signAttestation(ctx, i, a)
		return i, a, raw, err
	}
	raw, history, err := m.keeper.Attest(ctx, r)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(history) > 0 { // the keeper may have rotated the identity
		known, err := Import(history, &r.Subject)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("the keeper's history: %w", err)
		}
		if i, err = m.ImportIgnoreOlder(ctx, known.raw); err != nil {
			return nil, nil, nil, fmt.Errorf("the keeper's history: %w", err)
		}
	}
	a, err := decodeAttestation(raw)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("the keeper's answer: %w: %w", ErrAttestation, err)
	}
	switch {
	case a.Subject != r.Subject:
		return nil, nil, nil, fmt.Errorf("the keeper's answer: %w: it is of %s, not of %s", ErrAttestation, a.Subject, r.Subject)
	case a.Purpose != r.Purpose:
		return nil, nil, nil, fmt.Errorf("the keeper's answer: %w: %s", ErrKeyType, a.Purpose)
	case a.X25519 != r.X25519 || a.Key.Algorithm != r.Key.Algorithm || string(a.Key.Bytes) != string(r.Key.Bytes):
		return nil, nil, nil, fmt.Errorf("the keeper's answer: %w", ErrKeyData)
	}
	if err := a.verify(&m.proofs, i, m.seconds()); err != nil {
		return nil, nil, nil, fmt.Errorf("the keeper's answer: %w", err)
	}
	return i, a, raw, nil
}

// Ready reports whether channels can be opened as an identity without asking a keeper for a key first, which may take its time.
func (m *Manager) Ready(id Identifier) bool {
	if m.keeper == nil {
		return true
	}
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	k := m.current[purposeOf{id, SecureChannel}]
	return k != nil && current(k.CreatedAt, k.ExpiresAt, m.seconds()) == nil
}

// mayAsk returns the last failure of a keeper that is not asked again so soon.
func (m *Manager) mayAsk(of purposeOf) error {
	if m.keeper == nil {
		return nil
	}
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	f, ok := m.refusals[of]
	if now := m.now(); !ok || now.Before(f.at) || now.Sub(f.at) >= f.pause {
		return nil
	}
	return f.err
}

// refusal is the last failure of a keeper.
type refusal struct {
	at    time.Time
	pause time.Duration // before it is asked again
	err   error
}

// asked notes how a keeper has answered. Whoever is no delegate any more keeps no key.
func (m *Manager) asked(of purposeOf, err error) {
	if m.keeper == nil {
		return
	}
	if errors.Is(err, ErrNotDelegate) {
		m.wipeKeys(of.id)
		m.forgetOwn(of.id)
	}
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	if err == nil {
		delete(m.refusals, of)
		return
	}
	m.refusals[of] = refusal{m.now(), min(max(2*m.refusals[of].pause, keeperFirst), keeperPause), err}
}
