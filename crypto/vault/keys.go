package vault

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/cloudflare/circl/dh/x25519"
)

// newSecret makes the secret bytes of a signing key.
func newSecret(a KeyAlgorithm) ([]byte, error) {
	switch a {
	case Ed25519:
		seed := make([]byte, ed25519.SeedSize)
		_, err := rand.Read(seed)
		return seed, err
	case P256:
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return k.Bytes()
	}
	return nil, fmt.Errorf("%w: %d", ErrAlgorithm, a)
}

// publicOf returns the public key of a signing secret.
func publicOf(a KeyAlgorithm, secret []byte) (VerifyingKey, error) {
	if len(secret) != secretSize {
		return VerifyingKey{}, fmt.Errorf("%w: a secret has %d bytes, not %d", ErrKey, secretSize, len(secret))
	}
	switch a {
	case Ed25519:
		k := ed25519.NewKeyFromSeed(secret)
		defer clear(k)
		return VerifyingKey{Algorithm: a, Bytes: append([]byte(nil), k[32:]...)}, nil
	case P256:
		k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
		if err != nil {
			return VerifyingKey{}, fmt.Errorf("%w: %w", ErrKey, err)
		}
		b, err := k.PublicKey.Bytes()
		return VerifyingKey{Algorithm: a, Bytes: b}, err
	}
	return VerifyingKey{}, fmt.Errorf("%w: %d", ErrAlgorithm, a)
}

// sign signs data with a secret.
func sign(a KeyAlgorithm, secret, data []byte) (Signature, error) {
	sig := Signature{Algorithm: a}
	switch a {
	case Ed25519:
		k := ed25519.NewKeyFromSeed(secret)
		copy(sig.Bytes[:], ed25519.Sign(k, data))
		clear(k)
		return sig, nil
	case P256:
		k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
		if err != nil {
			return sig, fmt.Errorf("%w: %w", ErrKey, err)
		}
		digest := sha256.Sum256(data)
		r, s, err := ecdsa.Sign(rand.Reader, k, digest[:])
		if err != nil {
			return sig, err
		}
		r.FillBytes(sig.Bytes[:32])
		s.FillBytes(sig.Bytes[32:])
		return sig, nil
	}
	return sig, fmt.Errorf("%w: %d", ErrAlgorithm, a)
}

// publicX25519 returns the public key of a scalar.
func publicX25519(secret *[32]byte) (pub [32]byte) {
	x25519.KeyGen((*x25519.Key)(&pub), (*x25519.Key)(secret))
	return pub
}

// dh computes a shared secret; all zeros, from a peer's key of small order, are refused.
func dh(secret *[32]byte, peer [32]byte) (out [32]byte, err error) {
	if !x25519.Shared((*x25519.Key)(&out), (*x25519.Key)(secret), (*x25519.Key)(&peer)) {
		clear(out[:])
		return out, fmt.Errorf("%w: peer's key is of small order", ErrKey)
	}
	return out, nil
}
