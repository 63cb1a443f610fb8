package vault

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// only returns the path of the one file in a vault.
func only(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 {
		t.Fatalf("%d files, want 1", len(entries))
	}
	return filepath.Join(dir, entries[0].Name())
}

func TestFilePermissions(t *testing.T) {
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "a", "vault")
	v, err := OpenFile(dir)
	must(t, err)
	h, _, err := v.GenerateSigningKey(ctx, Ed25519)
	must(t, err)
	path := only(t, dir)
	for p, want := range map[string]os.FileMode{dir: 0o700, path: 0o600} {
		info, err := os.Stat(p)
		must(t, err)
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", p, info.Mode().Perm(), want)
		}
	}

	for _, mode := range []os.FileMode{0o640, 0o604, 0o622, 0o601} {
		must(t, os.Chmod(path, mode))
		_, err = v.Sign(ctx, h, nil)
		wantIs(t, "a key that others have access to", err, ErrUnsafe)
		if msg := err.Error(); !strings.Contains(msg, path) || !strings.Contains(msg, "must be 0600") {
			t.Errorf("%q does not tell what to do", msg)
		}
	}
	must(t, os.Chmod(path, 0o600))
	_, err = v.Sign(ctx, h, nil)
	must(t, err)

	must(t, os.Chmod(dir, 0o750))
	_, err = OpenFile(dir)
	wantIs(t, "a directory that others have access to", err, ErrUnsafe)
	if err != nil && (!strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "must be 0700")) {
		t.Errorf("%q does not tell what to do", err)
	}
	must(t, os.Chmod(dir, 0o700))

	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dir, link))
	_, err = OpenFile(link)
	wantIs(t, "a link to a vault", err, ErrUnsafe)

	moved := filepath.Join(t.TempDir(), "key")
	must(t, os.Rename(path, moved))
	must(t, os.Symlink(moved, path))
	_, err = v.Sign(ctx, h, nil)
	wantIs(t, "a link to a key", err, ErrUnsafe)
}

// A file is used only if it is the key that its name says.
func TestDamagedFile(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir() + "/vault"
	v, err := OpenFile(dir)
	must(t, err)
	sign, _, err := v.GenerateSigningKey(ctx, Ed25519)
	must(t, err)
	path := only(t, dir)
	for _, content := range [][]byte{nil, make([]byte, 31), make([]byte, 33), make([]byte, 32)} {
		must(t, os.WriteFile(path, content, 0o600))
		_, err = v.Sign(ctx, sign, nil)
		wantIs(t, "damaged signing key", err, ErrKey)
	}
	must(t, os.Remove(path))
	agree, _, err := v.GenerateX25519(ctx)
	must(t, err)
	must(t, os.WriteFile(only(t, dir), make([]byte, 32), 0o600))
	_, err = v.DH(ctx, agree, [32]byte{9})
	wantIs(t, "damaged X25519 key", err, ErrKey)
	_, err = v.PublicX25519(ctx, agree)
	wantIs(t, "damaged X25519 key", err, ErrKey)
}

// Another process is another Software of the same directory, as a vault keeps nothing in memory.
func TestSharedDirectory(t *testing.T) {
	ctx := context.Background()
	parent := t.TempDir()
	a, b := openDir(t, parent), openDir(t, parent)
	h, key, err := a.GenerateSigningKey(ctx, P256)
	must(t, err)
	sig, err := b.Sign(ctx, h, []byte("x"))
	must(t, err)
	must(t, Verify(key, []byte("x"), sig))
	must(t, b.DeleteSigningKey(ctx, h))
	_, err = a.Sign(ctx, h, nil)
	wantIs(t, "deleted elsewhere", err, ErrNotFound)

	// One process deletes and imports a key over and over while the other one uses it: it works, or it is not there.
	secret := [32]byte{1, 2, 3}
	agree, _, err := a.ImportX25519(ctx, secret)
	must(t, err)
	want, err := a.DH(ctx, agree, [32]byte{9})
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 20 {
			if err := a.DeleteX25519(ctx, agree); err != nil {
				t.Error(err)
			}
			if _, _, err := a.ImportX25519(ctx, secret); err != nil {
				t.Error(err)
			}
		}
	})
	for range 200 {
		got, err := b.DH(ctx, agree, [32]byte{9})
		if err == nil && got != want {
			t.Fatalf("a wrong shared secret: %x", got)
		}
		if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrKey) {
			t.Error(err)
		}
	}
	wg.Wait()
}

// Deleting leaves no file, and no bytes of the secret in one that something else still holds open.
func TestDeleteWipes(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir() + "/vault"
	v, err := OpenFile(dir)
	must(t, err)
	h, _, err := v.GenerateX25519(ctx)
	must(t, err)
	f, err := os.Open(only(t, dir))
	must(t, err)
	defer f.Close()
	must(t, v.DeleteX25519(ctx, h))
	got := make([]byte, 32)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, 32)) {
		t.Errorf("%x, %v after deletion", got, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("%d files left, %v", len(entries), err)
	}
}

// Files that a crashed process left are removed when they are old, and only those.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir() + "/vault"
	v, err := OpenFile(dir)
	must(t, err)
	h, _, err := v.GenerateX25519(t.Context())
	must(t, err)
	key := only(t, dir)
	hourAgo := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(key, hourAgo, hourAgo))
	for _, name := range []string{newFile + "1", oldFile + "2", newFile + "now"} {
		must(t, os.WriteFile(filepath.Join(dir, name), make([]byte, 32), 0o600))
		if !strings.HasSuffix(name, "now") {
			must(t, os.Chtimes(filepath.Join(dir, name), hourAgo, hourAgo))
		}
	}
	v, err = OpenFile(dir)
	must(t, err)
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 2 || entries[0].Name() != newFile+"now" {
		t.Errorf("left: %v", entries)
	}
	_, err = v.PublicX25519(t.Context(), h)
	must(t, err)
}

// A vault that cannot be written says so and leaves nothing behind.
func TestUnwritable(t *testing.T) {
	_, err := OpenFile("/dev/null/vault")
	if err == nil {
		t.Error("a vault below a file was opened")
	}
	dir := t.TempDir() + "/vault"
	v, err := OpenFile(dir)
	must(t, err)
	must(t, os.Remove(dir))
	if _, _, err := v.GenerateX25519(t.Context()); err == nil {
		t.Error("a key was stored in a directory that is gone")
	}
}
