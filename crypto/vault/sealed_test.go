package vault

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func randomKey(fill byte) Secret {
	return Secret{Bytes: bytes.Repeat([]byte{fill}, MinKey), Random: true}
}

func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = b
	}
	return all
}

// TestLock: a vault with keys is encrypted, opened, gets another passphrase, and shows no secret on the way.
func TestLock(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "v")
	plain, err := OpenFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	h, key, err := plain.GenerateSigningKey(ctx, P256)
	if err != nil {
		t.Fatal(err)
	}
	secret := contents(t, dir)["p256-"+string(h)]
	for range 2 {
		if _, _, err := plain.GenerateSigningKey(ctx, Ed25519); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, dir)
	first, second := Secret{Bytes: []byte("correct horse")}, randomKey(7)
	if err := Lock(dir, nil, first); err != nil {
		t.Fatal(err)
	}
	for name, b := range contents(t, dir) {
		for of, secret := range before {
			if bytes.Contains(b, secret) {
				t.Errorf("%s holds %s in clear when Lock has returned", name, of)
			}
		}
	}
	check := func(s Secret) *Software {
		t.Helper()
		v, err := OpenLocked(dir, s)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := v.Sign(ctx, h, []byte("text"))
		if err != nil {
			t.Fatal(err)
		}
		if err := Verify(key, []byte("text"), sig); err != nil {
			t.Error(err)
		}
		for name, b := range contents(t, dir) {
			if bytes.Contains(b, secret) {
				t.Errorf("%s holds the secret in clear", name)
			}
		}
		return v
	}
	v := check(first)
	if _, _, err := v.GenerateSigningKey(ctx, Ed25519); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Secret{{Bytes: []byte("correct horsf")}, second, {Bytes: []byte{}}, randomKey(8)} {
		if _, err := OpenLocked(dir, bad); !errors.Is(err, ErrUnlock) {
			t.Errorf("%q: %v", bad.Bytes, err)
		}
		if err := Lock(dir, &bad, second); !errors.Is(err, ErrUnlock) {
			t.Errorf("%q: %v", bad.Bytes, err)
		}
	}
	if _, err := OpenFile(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("opened without a passphrase: %v", err)
	}
	if err := Lock(dir, nil, second); !errors.Is(err, ErrLocked) {
		t.Errorf("locked again without the passphrase: %v", err)
	}
	for _, weak := range []Secret{{}, {Random: true, Bytes: make([]byte, MinKey-1)}} {
		if err := Lock(dir, &first, weak); !errors.Is(err, ErrKey) {
			t.Errorf("%+v: %v", weak, err)
		}
	}
	if err := Lock(dir, &first, second); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLocked(dir, first); !errors.Is(err, ErrUnlock) {
		t.Errorf("the old passphrase: %v", err)
	}
	v = check(second)
	if err := v.DeleteSigningKey(ctx, h); err != nil {
		t.Fatal(err)
	}
	if _, err := v.VerifyingKey(ctx, h); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// TestLockInterrupted: a process that ended between the lock and the keys leaves keys in clear, which the next one encrypts.
func TestLockInterrupted(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "v")
	s := randomKey(1)
	if err := Lock(dir, nil, s); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "plain")
	plain, err := OpenFile(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := plain.GenerateSigningKey(ctx, Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	name := "ed25519-" + string(h)
	secret := contents(t, elsewhere)[name]
	for _, at := range []string{name, oldFile + name} { // also the second name of one that was being replaced
		if err := os.WriteFile(filepath.Join(dir, at), secret, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v, err := OpenLocked(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.VerifyingKey(ctx, h); err != nil {
		t.Error(err)
	}
	for at, b := range contents(t, dir) {
		if bytes.Contains(b, secret) {
			t.Errorf("%s is in clear", at)
		}
	}
}

// TestLockDamage: no byte of a lock or of a secret can be changed, and no secret moved, without being noticed.
func TestLockDamage(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "v")
	s := randomKey(1)
	if err := Lock(dir, nil, s); err != nil {
		t.Fatal(err)
	}
	v, err := OpenLocked(dir, s)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for range 2 {
		h, _, err := v.GenerateSigningKey(ctx, Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, string(h))
	}
	good := contents(t, dir)
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := "ed25519-" + names[0]
	for i := range good[at] {
		b := bytes.Clone(good[at])
		b[i] ^= 0x40
		write(at, b)
		if _, err := v.Sign(ctx, Handle(names[0]), nil); !errors.Is(err, ErrKey) {
			t.Errorf("byte %d of a secret: %v", i, err)
		}
	}
	write(at, good["ed25519-"+names[1]])
	if _, err := v.Sign(ctx, Handle(names[0]), nil); !errors.Is(err, ErrKey) {
		t.Errorf("the secret of another: %v", err)
	}
	write(at, good[at])
	for i := range good[lockFile] {
		b := bytes.Clone(good[lockFile])
		b[i] ^= 0x40
		write(lockFile, b)
		if _, err := OpenLocked(dir, s); !errors.Is(err, ErrUnlock) && !errors.Is(err, ErrLock) {
			t.Errorf("byte %d of the lock: %v", i, err)
		}
		write(lockFile, good[lockFile][:i])
		if _, err := OpenLocked(dir, s); !errors.Is(err, ErrLock) {
			t.Errorf("%d bytes of the lock: %v", i, err)
		}
	}
	write(lockFile, good[lockFile])
	if err := os.Chmod(filepath.Join(dir, lockFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLocked(dir, s); !errors.Is(err, ErrUnsafe) {
		t.Errorf("a lock for everybody: %v", err)
	}
}

// TestLockBounds: a lock cannot ask for hours or for all memory.
func TestLockBounds(t *testing.T) {
	good, err := newLock(Secret{Bytes: []byte("p")}, make([]byte, secretSize))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseLock(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(b []byte){
		"time":       func(b []byte) { b[6] = 1 },
		"no time":    func(b []byte) { copy(b[6:10], make([]byte, 4)) },
		"memory":     func(b []byte) { b[10] = 1 },
		"no memory":  func(b []byte) { copy(b[10:14], make([]byte, 4)) },
		"no threads": func(b []byte) { b[14] = 0 },
		"threads":    func(b []byte) { b[14] = 255 },
		"kdf":        func(b []byte) { b[5] = 3 },
		"version":    func(b []byte) { b[4] = 2 },
	} {
		b := bytes.Clone(good)
		change(b)
		if _, err := parseLock(b); !errors.Is(err, ErrLock) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseLock(append(bytes.Clone(good[:4]), 2)); err == nil || !strings.Contains(err.Error(), "later program") {
		t.Error(err)
	}
}

func FuzzLock(f *testing.F) {
	for _, s := range []Secret{{Bytes: []byte("p")}, randomKey(1)} {
		b, err := newLock(s, make([]byte, secretSize))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLock(b)
		if err != nil {
			return
		}
		if again := append(l.head(), l.sealed...); !bytes.Equal(again, b) && l.kdf == kdfArgon2id {
			t.Errorf("%x is read as %x", b, again)
		}
		if l.kdf == kdfHKDF {
			_, _ = l.open(randomKey(1))
		}
	})
}
