package identity

import (
	"crypto/sha256"
	"fmt"
	"time"

	"sallyport/crypto/vault"
)

// Purpose is what a purpose key is for; its number is the variant on the wire.
type Purpose uint8

// Purposes.
const (
	SecureChannel     Purpose = 0
	CredentialSigning Purpose = 1
)

func (p Purpose) String() string {
	switch p {
	case SecureChannel:
		return "secure channel"
	case CredentialSigning:
		return "credential signing"
	}
	return fmt.Sprintf("purpose %d", uint8(p))
}

// Attestation is a primary key's statement that a purpose key is the identity's (docs/protocol/02 §3).
type Attestation struct {
	Subject Identifier
	// ChangeHash is that of the change whose primary key signed.
	ChangeHash [32]byte
	Purpose    Purpose
	// X25519 is the key of SecureChannel, Key that of CredentialSigning.
	X25519 [32]byte
	Key    vault.VerifyingKey
	// Both times are included.
	CreatedAt, ExpiresAt Timestamp

	digest    [32]byte
	signature vault.Signature
}

// signed is [data, signature], taken apart.
func signed(raw []byte) (data []byte, sig vault.Signature, err error) {
	r := &reader{b: raw}
	r.fields(2, func(i int) {
		if i == 0 {
			data = r.bytes(-1)
		} else {
			sig = readSignature(r)
		}
	})
	return data, sig, r.err
}

func appendSigned(data []byte, sig vault.Signature) []byte {
	return sig.AppendCBOR(appendBytes(appendArray(nil, 2), data))
}

// decodeAttestation reads an attestation without verifying it.
func decodeAttestation(raw []byte) (*Attestation, error) {
	if len(raw) > maxAttestation {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrEncoding, len(raw), maxAttestation)
	}
	data, sig, err := signed(raw)
	if err != nil {
		return nil, err
	}
	content, err := versioned(data, typeAttestation)
	if err != nil {
		return nil, err
	}
	a := &Attestation{digest: sha256.Sum256(data), signature: sig}
	r := &reader{b: content}
	r.fields(5, func(i int) {
		switch i {
		case 0:
			copy(a.Subject[:], r.bytes(32))
		case 1:
			copy(a.ChangeHash[:], r.bytes(32))
		case 2:
			a.readKey(r)
		case 3:
			a.CreatedAt = Timestamp(r.uint(1<<64 - 1))
		case 4:
			a.ExpiresAt = Timestamp(r.uint(1<<64 - 1))
		}
	})
	return a, r.err
}

func (a *Attestation) readKey(r *reader) {
	r.variant(uint64(CredentialSigning), func(purpose uint64) {
		a.Purpose = Purpose(purpose)
		if a.Purpose == SecureChannel {
			copy(a.X25519[:], r.bytes(32))
		} else {
			a.Key = readKey(r)
		}
	})
}

// data encodes what is signed.
func (a *Attestation) data() []byte {
	b := appendArray(nil, 5)
	b = appendBytes(b, a.Subject[:])
	b = appendBytes(b, a.ChangeHash[:])
	b = appendArray(b, 2)
	b = appendUint(b, uint64(a.Purpose))
	b = appendArray(b, 1)
	if a.Purpose == SecureChannel {
		b = appendBytes(b, a.X25519[:])
	} else {
		b = a.Key.AppendCBOR(b)
	}
	b = appendUint(appendUint(b, uint64(a.CreatedAt)), uint64(a.ExpiresAt))
	return appendVersioned(nil, typeAttestation, b)
}

// verify checks an attestation against the history of its subject, in the order of docs/protocol/02 §3.3.
func (a *Attestation) verify(p *Proofs, i *Identity, now Timestamp) error {
	latest := i.Latest()
	switch {
	case a.ChangeHash != latest.Hash:
		return fmt.Errorf("%w: the identity's key is not the one that made it", ErrAttestation)
	case a.ExpiresAt > latest.ValidUntil:
		return fmt.Errorf("%w: it outlives the identity's key", ErrAttestation)
	case a.CreatedAt < latest.ValidFrom:
		return fmt.Errorf("%w: it is older than the identity's key", ErrAttestation)
	}
	if err := current(a.CreatedAt, a.ExpiresAt, now); err != nil {
		return fmt.Errorf("%w: %w", ErrAttestation, err)
	}
	if err := p.verify(latest.Key, a.digest[:], a.signature); err != nil {
		return fmt.Errorf("%w: %w", ErrAttestation, err)
	}
	return nil
}

// timeText is a time for people.
func timeText(t Timestamp) string { return time.Unix(int64(t), 0).UTC().Format(time.RFC3339) }

// current checks times against the clock: another clock may be ahead by futureTolerance, and what ends at this second is still
// valid.
func current(created, expires, now Timestamp) error {
	switch {
	case created > now && created-now > futureTolerance:
		return fmt.Errorf("%w: it was made %v in the future: set the clock here, which says %s, or there", ErrClock, time.Duration(created-now)*time.Second, timeText(now))
	case expires < now:
		return fmt.Errorf("it %w %d seconds ago by the clock here, which says %s", ErrExpired, now-expires, timeText(now))
	}
	return nil
}
