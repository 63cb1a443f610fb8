package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
)

// secrets is where a software vault keeps secret bytes, by kind and handle.
type secrets interface {
	put(kind string, h Handle, secret []byte) error
	// get returns a copy of 32 bytes, which the caller wipes.
	get(kind string, h Handle) ([]byte, error)
	del(kind string, h Handle) error
}

// Kinds of secrets: the first part of a file's name.
const (
	kindEd25519 = "ed25519"
	kindP256    = "p256"
	kindX25519  = "x25519"
)

// secretSize is the length of every kind of secret: seed, scalar, scalar.
const secretSize = 32

var signingKinds = map[KeyAlgorithm]string{Ed25519: kindEd25519, P256: kindP256}

var _ Vault = (*Software)(nil)

// Software is a Vault whose keys are used by this process.
type Software struct{ s secrets }

// NewMemory makes a vault that lives as long as the process.
func NewMemory() *Software { return &Software{s: &memory{m: map[string][]byte{}}} }

// OpenFile makes a vault of a directory with one file a key, and creates the directory. Several processes may use it at the
// same time. A directory or key file that others could read or change is refused (ErrUnsafe), and so is an encrypted one (ErrLocked).
func OpenFile(dir string) (*Software, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	if locked, err := IsLocked(dir); err != nil || locked {
		return nil, errors.Join(err, ErrLocked)
	}
	files(dir).tidy()
	return &Software{s: files(dir)}, nil
}

func (v *Software) store(a KeyAlgorithm, secret []byte) (Handle, VerifyingKey, error) {
	pub, err := publicOf(a, secret)
	if err != nil {
		return "", VerifyingKey{}, err
	}
	h := HandleOf(pub.Bytes)
	return h, pub, v.s.put(signingKinds[a], h, secret)
}

// GenerateSigningKey implements Vault.
func (v *Software) GenerateSigningKey(_ context.Context, a KeyAlgorithm) (Handle, VerifyingKey, error) {
	secret, err := newSecret(a)
	if err != nil {
		return "", VerifyingKey{}, err
	}
	defer clear(secret)
	return v.store(a, secret)
}

// ImportSigningKey stores a secret: the 32-byte seed of Ed25519, the 32-byte scalar of P-256.
func (v *Software) ImportSigningKey(_ context.Context, a KeyAlgorithm, secret []byte) (Handle, VerifyingKey, error) {
	return v.store(a, secret)
}

// secret finds a signing key, whose algorithm only its file's name tells. The caller wipes it. A secret that does not belong to the
// handle is never used: its file was damaged, or was being deleted while it was read.
func (v *Software) secret(h Handle) (VerifyingKey, []byte, error) {
	for _, a := range []KeyAlgorithm{Ed25519, P256} {
		secret, err := v.s.get(signingKinds[a], h)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return VerifyingKey{}, nil, err
		}
		pub, err := publicOf(a, secret)
		if err == nil && HandleOf(pub.Bytes) != h {
			err = fmt.Errorf("%w: the secret stored for %s is of another key", ErrKey, h)
		}
		if err != nil {
			clear(secret)
			return VerifyingKey{}, nil, err
		}
		return pub, secret, nil
	}
	return VerifyingKey{}, nil, fmt.Errorf("%w: signing key %s", ErrNotFound, h)
}

// VerifyingKey implements Vault.
func (v *Software) VerifyingKey(_ context.Context, h Handle) (VerifyingKey, error) {
	pub, secret, err := v.secret(h)
	clear(secret)
	return pub, err
}

// Sign implements Vault.
func (v *Software) Sign(_ context.Context, h Handle, data []byte) (Signature, error) {
	pub, secret, err := v.secret(h)
	if err != nil {
		return Signature{}, err
	}
	defer clear(secret)
	return sign(pub.Algorithm, secret, data)
}

// DeleteSigningKey implements Vault.
func (v *Software) DeleteSigningKey(_ context.Context, h Handle) error {
	for _, kind := range signingKinds {
		if err := v.s.del(kind, h); err != nil {
			return err
		}
	}
	return nil
}

// GenerateX25519 makes a key for secure channels.
func (v *Software) GenerateX25519(ctx context.Context) (Handle, [32]byte, error) {
	var secret [32]byte
	if _, err := rand.Read(secret[:]); err != nil {
		return "", [32]byte{}, err
	}
	defer clear(secret[:])
	return v.ImportX25519(ctx, secret)
}

// ImportX25519 stores a 32-byte scalar.
func (v *Software) ImportX25519(_ context.Context, secret [32]byte) (Handle, [32]byte, error) {
	pub := publicX25519(&secret)
	h := HandleOf(pub[:])
	return h, pub, v.s.put(kindX25519, h, secret[:])
}

// x25519 finds a key, which the caller wipes; like secret it refuses one that does not belong to the handle.
func (v *Software) x25519(h Handle) (secret, pub [32]byte, err error) {
	b, err := v.s.get(kindX25519, h)
	if err != nil {
		return secret, pub, err
	}
	defer clear(b)
	secret = [secretSize]byte(b)
	pub = publicX25519(&secret)
	if HandleOf(pub[:]) != h {
		err = fmt.Errorf("%w: the secret stored for %s is of another key", ErrKey, h)
	}
	if err != nil {
		clear(secret[:])
	}
	return secret, pub, err
}

// PublicX25519 returns the public key. ErrNotFound if the vault does not hold it.
func (v *Software) PublicX25519(_ context.Context, h Handle) ([32]byte, error) {
	secret, pub, err := v.x25519(h)
	clear(secret[:])
	if err != nil {
		return [32]byte{}, err
	}
	return pub, nil
}

// DH computes the shared secret with a peer's public key. A result of all zeros is an error.
func (v *Software) DH(_ context.Context, h Handle, peer [32]byte) ([32]byte, error) {
	secret, _, err := v.x25519(h)
	if err != nil {
		return [32]byte{}, err
	}
	defer clear(secret[:])
	return dh(&secret, peer)
}

// DeleteX25519 forgets a key; it is no error if there is none.
func (v *Software) DeleteX25519(_ context.Context, h Handle) error { return v.s.del(kindX25519, h) }

// memory keeps secrets in a map.
type memory struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (s *memory) put(kind string, h Handle, secret []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[kind+string(h)] = append([]byte(nil), secret...)
	return nil
}

func (s *memory) get(kind string, h Handle) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.m[kind+string(h)]
	if !ok {
		return nil, fmt.Errorf("%w: %s key %s", ErrNotFound, kind, h)
	}
	return append([]byte(nil), b...), nil
}

func (s *memory) del(kind string, h Handle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.m[kind+string(h)])
	delete(s.m, kind+string(h))
	return nil
}
