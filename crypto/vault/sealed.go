package vault

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// An encrypted vault is a directory like that of OpenFile with one file more, the lock. It holds the vault's key, 32 random bytes, encrypted under
// what a passphrase or a key file gives. Each secret is encrypted under the vault's key, bound to its kind and handle. All is XChaCha20-Poly1305
// with random nonces. Numbers are big-endian.
//
//	lock     "SPVL" version(1)=1 kdf(1) time(4) memory(4, KiB) threads(1) salt(16) nonce(24) sealed key(48); what is before the sealed key is bound
//	secret   "SPVK" version(1)=1 nonce(24) sealed secret(48); "SPVK", version and the file's name are bound
const (
	lockFile    = "lock"
	lockMagic   = "SPVL"
	secretMagic = "SPVK"
	sealVersion = 1
	sealSize    = len(secretMagic) + 1 + chacha20poly1305.NonceSizeX + secretSize + chacha20poly1305.Overhead
	lockHead    = len(lockMagic) + 1 + 1 + 4 + 4 + 1 + saltSize + chacha20poly1305.NonceSizeX
	lockSize    = lockHead + secretSize + chacha20poly1305.Overhead
	saltSize    = 16
)

// Key derivation: RFC 9106's second choice for passphrases, and HKDF-SHA256 for key files, which are random already. A lock may ask for other
// numbers, within bounds.
const (
	kdfArgon2id = 1
	kdfHKDF     = 2

	argonTime    = 3
	argonMemory  = 64 << 10 // KiB
	argonThreads = 4

	maxArgonTime    = 64
	maxArgonMemory  = 1 << 20 // KiB
	maxArgonThreads = 16
)

var (
	// ErrLocked reports an encrypted vault that was opened without its passphrase or key.
	ErrLocked = errors.New("vault: it is encrypted")
	// ErrUnlock reports a passphrase or a key that does not open the vault.
	ErrUnlock = errors.New("vault: wrong passphrase, key or PIN")
	// ErrLock reports a lock that cannot be read.
	ErrLock = errors.New("vault: damaged lock")
)

// Secret opens an encrypted vault. Its bytes belong to the caller, who wipes them.
type Secret struct {
	Bytes []byte
	// Random tells that Bytes are random, at least 32 of them, and not a passphrase.
	Random bool
}

// MinKey is how many bytes a key file has at least.
const MinKey = 32

func (s Secret) check() error {
	switch {
	case s.Random && len(s.Bytes) < MinKey:
		return fmt.Errorf("%w: a key has at least %d random bytes, this one %d", ErrKey, MinKey, len(s.Bytes))
	case len(s.Bytes) == 0:
		return fmt.Errorf("%w: the passphrase is empty", ErrKey)
	}
	return nil
}

// lock is the content of a lock file.
type lock struct {
	kdf          byte
	time, memory uint32
	threads      byte
	salt         [saltSize]byte
	nonce        [chacha20poly1305.NonceSizeX]byte
	sealed       []byte
}

func (l *lock) head() []byte {
	b := append([]byte(lockMagic), sealVersion, l.kdf)
	b = binary.BigEndian.AppendUint32(b, l.time)
	b = binary.BigEndian.AppendUint32(b, l.memory)
	b = append(append(b, l.threads), l.salt[:]...)
	return append(b, l.nonce[:]...)
}

// parseLock reads a lock. What it allocates does not depend on what is in it.
func parseLock(b []byte) (*lock, error) {
	switch {
	case len(b) < len(lockMagic)+1 || !bytes.HasPrefix(b, []byte(lockMagic)):
		return nil, fmt.Errorf("%w: it is not one", ErrLock)
	case b[len(lockMagic)] != sealVersion:
		return nil, fmt.Errorf("%w: version %d is of a later program", ErrLock, b[len(lockMagic)])
	case len(b) != lockSize:
		return nil, fmt.Errorf("%w: %d bytes, must be %d", ErrLock, len(b), lockSize)
	}
	l := &lock{kdf: b[5], time: binary.BigEndian.Uint32(b[6:]), memory: binary.BigEndian.Uint32(b[10:]), threads: b[14]}
	copy(l.salt[:], b[15:])
	copy(l.nonce[:], b[15+saltSize:])
	l.sealed = bytes.Clone(b[lockHead:])
	switch l.kdf {
	case kdfArgon2id:
		if l.time == 0 || l.time > maxArgonTime || l.memory < 8<<10 || l.memory > maxArgonMemory || l.threads == 0 || l.threads > maxArgonThreads {
			return nil, fmt.Errorf("%w: its key derivation is out of bounds", ErrLock)
		}
	case kdfHKDF:
	default:
		return nil, fmt.Errorf("%w: key derivation %d is unknown", ErrLock, l.kdf)
	}
	return l, nil
}

// wrapping returns the cipher that the vault's key is encrypted with.
func (l *lock) wrapping(s Secret) (cipher.AEAD, error) {
	if s.Random != (l.kdf == kdfHKDF) {
		if s.Random {
			return nil, fmt.Errorf("%w: it has a passphrase, not a key file", ErrUnlock)
		}
		return nil, fmt.Errorf("%w: it has a key file, not a passphrase", ErrUnlock)
	}
	var key []byte
	var err error
	if l.kdf == kdfHKDF {
		key, err = hkdf.Key(sha256.New, s.Bytes, l.salt[:], "sallyport vault lock", chacha20poly1305.KeySize)
	} else {
		key = argon2.IDKey(s.Bytes, l.salt[:], l.time, l.memory, l.threads, chacha20poly1305.KeySize)
	}
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return chacha20poly1305.NewX(key)
}

// newLock encrypts a vault's key.
func newLock(s Secret, key []byte) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	l := &lock{kdf: kdfHKDF}
	if !s.Random {
		l.kdf, l.time, l.memory, l.threads = kdfArgon2id, argonTime, argonMemory, argonThreads
	}
	if _, err := rand.Read(l.salt[:]); err != nil {
		return nil, err
	}
	if _, err := rand.Read(l.nonce[:]); err != nil {
		return nil, err
	}
	a, err := l.wrapping(s)
	if err != nil {
		return nil, err
	}
	head := l.head()
	return a.Seal(head[:len(head):len(head)], l.nonce[:], key, head), nil
}

// open decrypts the vault's key, which the caller wipes.
func (l *lock) open(s Secret) ([]byte, error) {
	a, err := l.wrapping(s)
	if err != nil {
		return nil, err
	}
	key, err := a.Open(nil, l.nonce[:], l.sealed, l.head())
	if err != nil {
		return nil, ErrUnlock
	}
	return key, nil
}

// IsLocked reports whether the vault in a directory is encrypted.
func IsLocked(dir string) (bool, error) {
	_, err := os.Lstat(filepath.Join(dir, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// OpenLocked opens an encrypted vault. The error matches ErrUnlock if the secret is not the vault's. Keys that are not encrypted yet, since Lock
// did not get to its end, are encrypted now.
func OpenLocked(dir string, s Secret) (*Software, error) {
	key, err := unlock(dir, s)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	sealed, err := newSealed(files(dir), key)
	if err != nil {
		return nil, err
	}
	files(dir).tidy()
	if err := sealed.sealAll(); err != nil {
		return nil, err
	}
	return &Software{s: sealed}, nil
}

// unlock returns the vault's key, which the caller wipes.
func unlock(dir string, s Secret) ([]byte, error) {
	if err := private(dir); err != nil {
		return nil, err
	}
	b, err := files(dir).read(filepath.Join(dir, lockFile), lockSize)
	if err != nil {
		return nil, err
	}
	l, err := parseLock(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, lockFile), err)
	}
	return l.open(s)
}

// Lock encrypts the vault in a directory, which is made if need be, with the keys that it has. One that is encrypted already gets another lock:
// old opens it then. The lock is replaced as a whole, before any key: a crash leaves a vault that OpenLocked opens.
func Lock(dir string, old *Secret, s Secret) error {
	if err := s.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	if err := private(dir); err != nil {
		return err
	}
	locked, err := IsLocked(dir)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	key := make([]byte, secretSize)
	defer clear(key)
	switch {
	case locked && old == nil:
		return ErrLocked
	case locked:
		opened, err := unlock(dir, *old)
		if err != nil {
			return err
		}
		copy(key, opened)
		clear(opened)
	default:
		if _, err := rand.Read(key); err != nil {
			return err
		}
	}
	b, err := newLock(s, key)
	if err != nil {
		return err
	}
	if err := files(dir).write(filepath.Join(dir, lockFile), b); err != nil {
		return err
	}
	sealed, err := newSealed(files(dir), key)
	if err != nil {
		return err
	}
	return sealed.sealAll()
}

// sealed keeps encrypted secrets in files.
type sealed struct {
	files
	mu   sync.Mutex
	aead cipher.AEAD
}

func newSealed(dir files, key []byte) (*sealed, error) {
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLock, err)
	}
	return &sealed{files: dir, aead: a}, nil
}

// bound is what a secret's encryption is bound to.
func bound(kind string, h Handle) []byte {
	return append(append([]byte(secretMagic), sealVersion), kind+"-"+string(h)...)
}

func (s *sealed) put(kind string, h Handle, secret []byte) error {
	b := make([]byte, len(secretMagic)+1+chacha20poly1305.NonceSizeX, sealSize)
	n := copy(b, secretMagic)
	b[n] = sealVersion
	nonce := b[n+1:]
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	return s.write(s.path(kind, h), s.aead.Seal(b, nonce, secret, bound(kind, h)))
}

func (s *sealed) get(kind string, h Handle) ([]byte, error) {
	path, b, err := s.load(kind, h, sealSize)
	if err != nil {
		return nil, err
	}
	return s.openSecret(path, kind, h, b)
}

// openSecret decrypts the content of a file.
func (s *sealed) openSecret(path, kind string, h Handle, b []byte) ([]byte, error) {
	head := len(secretMagic) + 1
	if len(b) != sealSize || !bytes.HasPrefix(b, []byte(secretMagic)) || b[head-1] != sealVersion {
		return nil, fmt.Errorf("%w: %s is no encrypted secret", ErrKey, path)
	}
	nonce := b[head : head+chacha20poly1305.NonceSizeX]
	secret, err := s.aead.Open(nil, nonce, b[head+len(nonce):], bound(kind, h))
	if err != nil {
		return nil, fmt.Errorf("%w: %s was changed, or is of another vault", ErrKey, path)
	}
	return secret, nil
}

// sealAll encrypts what is not encrypted, and overwrites it.
func (s *sealed) sealAll() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(string(s.files))
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	for _, e := range entries {
		kind, handle, ok := strings.Cut(e.Name(), "-")
		h := Handle(handle)
		info, err := e.Info()
		if !ok || !h.valid() || err != nil || !info.Mode().IsRegular() || info.Size() != secretSize {
			continue
		}
		secret, err := s.files.get(kind, h)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err == nil {
			err = s.replace(kind, h, secret)
			clear(secret)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replace puts an encrypted secret in place of the plain one, whose blocks are overwritten first through a second name.
func (s *sealed) replace(kind string, h Handle, secret []byte) error {
	path := s.path(kind, h)
	old := filepath.Join(string(s.files), oldFile+kind+"-"+string(h))
	_ = os.Remove(old) // of a run that did not get to its end
	if err := os.Link(path, old); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	if err := s.put(kind, h, secret); err != nil {
		return err
	}
	return wipeFile(old)
}
