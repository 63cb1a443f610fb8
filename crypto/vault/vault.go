// Package vault keeps secret keys and works with them: signing keys (Ed25519, ECDSA P-256) of identities, in files or in a machine of their
// own, and in memory also X25519 keys for secure channels. Callers name a key by its handle and never see its secret (docs/protocol/01 §8).
//
// Secrets are kept in files that only their owner can read, encrypted or as they are, and the bytes read for one operation are wiped after it.
// What the standard library derives from them, such as an ECDSA key, is left to the garbage collector.
package vault

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
)

// KeyAlgorithm is a signature algorithm; its number is the variant on the wire.
type KeyAlgorithm uint8

// Algorithms.
const (
	Ed25519 KeyAlgorithm = 0
	P256    KeyAlgorithm = 1
)

func (a KeyAlgorithm) String() string {
	switch a {
	case Ed25519:
		return "EdDSACurve25519"
	case P256:
		return "ECDSASHA256CurveP256"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

var (
	// ErrNotFound reports a handle without a key in the vault.
	ErrNotFound = errors.New("vault: no such key")
	// ErrAlgorithm reports an algorithm that is unknown, or not the one of the key.
	ErrAlgorithm = errors.New("vault: wrong key algorithm")
	// ErrKey reports bytes that are no key.
	ErrKey = errors.New("vault: malformed key")
	// ErrSignature reports a signature that does not verify.
	ErrSignature = errors.New("vault: signature does not verify")
	// ErrAway reports that the machine with the keys cannot be reached, or does not answer; it may be back later.
	ErrAway = errors.New("vault: its keys are away")
	// ErrRefused reports that the machine with the keys refuses, and will as long as somebody does not change that.
	ErrRefused = errors.New("vault: refused")
	// ErrUnsafe reports a key file or directory that others could read or change.
	ErrUnsafe = errors.New("vault: others have access")
)

// VerifyingKey is a public key: 32 bytes for Ed25519, 65 bytes (04, x, y) for P-256.
type VerifyingKey struct {
	Algorithm KeyAlgorithm
	Bytes     []byte
}

// Signature is 64 bytes: RFC 8032 for Ed25519, r and s big-endian for P-256.
type Signature struct {
	Algorithm KeyAlgorithm
	Bytes     [64]byte
}

// Handle names a key: SHA-256 of its public key, as hex.
type Handle string

// HandleOf returns the handle of a public key.
func HandleOf(public []byte) Handle {
	sum := sha256.Sum256(public)
	return Handle(hex.EncodeToString(sum[:]))
}

// valid reports whether h looks like what HandleOf makes. Handles come from users too, and become names of files.
func (h Handle) valid() bool {
	if len(h) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(h) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Vault holds the primary keys of identities, which sign seldom. Implementations are safe for concurrent use; a key may be in a machine of
// its own, so every method takes a context and may take seconds, or fail because the machine is away.
type Vault interface {
	// GenerateSigningKey makes a key. ErrAlgorithm if the vault has none of this kind.
	GenerateSigningKey(ctx context.Context, a KeyAlgorithm) (Handle, VerifyingKey, error)
	// VerifyingKey returns the public key. ErrNotFound if the vault does not hold it.
	VerifyingKey(ctx context.Context, h Handle) (VerifyingKey, error)
	// Sign signs data: Ed25519 over data itself, P-256 over its SHA-256.
	Sign(ctx context.Context, h Handle, data []byte) (Signature, error)
	// DeleteSigningKey forgets a key; it is no error if there is none.
	DeleteSigningKey(ctx context.Context, h Handle) error
}

// Verify checks a signature over data. A key and a signature of different algorithms are an error of their own
// (docs/protocol/02 §2.3).
func Verify(key VerifyingKey, data []byte, sig Signature) error {
	if key.Algorithm != sig.Algorithm {
		return fmt.Errorf("%w: key %s, signature %s", ErrAlgorithm, key.Algorithm, sig.Algorithm)
	}
	switch key.Algorithm {
	case Ed25519:
		if len(key.Bytes) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: %d bytes", ErrKey, len(key.Bytes))
		}
		if !ed25519.Verify(key.Bytes, data, sig.Bytes[:]) {
			return ErrSignature
		}
		return nil
	case P256:
		pub, err := parseP256(key.Bytes)
		if err != nil {
			return err
		}
		digest := sha256.Sum256(data)
		r, s := new(big.Int).SetBytes(sig.Bytes[:32]), new(big.Int).SetBytes(sig.Bytes[32:])
		if !ecdsa.Verify(pub, digest[:], r, s) {
			return ErrSignature
		}
		return nil
	}
	return fmt.Errorf("%w: %d", ErrAlgorithm, key.Algorithm)
}

func parseP256(b []byte) (*ecdsa.PublicKey, error) {
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return pub, nil
}

// CheckPublic refuses a public key that is not of its algorithm.
func CheckPublic(key VerifyingKey) error {
	switch {
	case key.Algorithm > P256:
		return fmt.Errorf("%w: %d", ErrAlgorithm, key.Algorithm)
	case len(key.Bytes) != key.Algorithm.publicSize():
		return fmt.Errorf("%w: %s key of %d bytes, must be %d", ErrKey, key.Algorithm, len(key.Bytes), key.Algorithm.publicSize())
	case key.Algorithm == P256:
		_, err := parseP256(key.Bytes)
		return err
	}
	return nil
}
