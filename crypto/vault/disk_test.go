package vault

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/internal/brokendisk"
)

// TestKeyThatIsNotOnDisk: a key that the disk does not keep is none: whoever made it is told, and nothing is left of it.
func TestKeyThatIsNotOnDisk(t *testing.T) {
	ctx, parent := t.Context(), t.TempDir()
	v := openDir(t, parent)
	kept, _, err := v.GenerateSigningKey(ctx, Ed25519)
	must(t, err)
	brokendisk.NoSync(t, func() {
		if _, _, err := v.GenerateSigningKey(ctx, Ed25519); !errors.Is(err, unix.EIO) {
			t.Errorf("a signing key: %v", err)
		}
		if _, _, err := v.GenerateX25519(ctx); !errors.Is(err, unix.EIO) {
			t.Errorf("a key for channels: %v", err)
		}
	})
	list, err := os.ReadDir(parent + "/vault")
	must(t, err)
	if len(list) != 1 {
		t.Errorf("left in the vault: %v", list)
	}
	brokendisk.NoSync(t, func() {
		if err := v.DeleteSigningKey(ctx, kept); !errors.Is(err, unix.EIO) {
			t.Errorf("deleted: %v", err)
		}
	})
}

// TestKeyWhoseNameIsNotOnDisk: the same for the directory that has its name.
func TestKeyWhoseNameIsNotOnDisk(t *testing.T) {
	ctx, parent := t.Context(), t.TempDir()
	v := openDir(t, parent)
	kept, _, err := v.GenerateSigningKey(ctx, Ed25519)
	must(t, err)
	brokendisk.NoDirectorySync(t, parent+"/vault", func() {
		if _, _, err := v.GenerateSigningKey(ctx, Ed25519); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a signing key: %v", err)
		}
		if err := v.DeleteSigningKey(ctx, kept); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("deleted: %v", err)
		}
	})
}

// TestHandleThatIsNoName: a handle comes from users too. What is not 64 lower-case hexadecimal digits names no file, in the vault or elsewhere, even where there
// is one.
func TestHandleThatIsNoName(t *testing.T) {
	ctx, parent := t.Context(), t.TempDir()
	v := openDir(t, parent)
	h, _, err := v.GenerateSigningKey(ctx, Ed25519)
	must(t, err)
	key, err := filepath.Glob(parent + "/vault/*" + string(h))
	must(t, err)
	if len(key) != 1 || !h.valid() {
		t.Fatal(key)
	}
	secret, err := os.ReadFile(key[0])
	must(t, err)
	kind := strings.TrimSuffix(key[0], string(h))
	for _, bad := range []Handle{
		"", h[:63], h + "0", "g" + h[1:], h[:63] + "`", h[:63] + ":", h[:63] + "/", Handle(strings.ToUpper(string(h))), Handle(strings.Repeat("A", 64)),
	} {
		if bad.valid() {
			t.Errorf("%q is a handle", bad)
		}
		path := kind + string(bad)
		if strings.HasSuffix(path, "/") || bad == Handle(strings.ToUpper(string(h))) && bad == h {
			continue
		}
		must(t, os.WriteFile(path, secret, 0o600))
		_, err := v.Sign(ctx, bad, nil)
		wantIs(t, string(bad), err, ErrNotFound)
		must(t, v.DeleteSigningKey(ctx, bad))
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []Handle{Handle(strings.Repeat("0", 64)), Handle(strings.Repeat("9a", 32)), Handle(strings.Repeat("f", 64))} {
		if !good.valid() {
			t.Errorf("%q is no handle", good)
		}
	}
}

// TestNoDescriptorIsLeft: a vault that is at work for long holds no files open.
func TestNoDescriptorIsLeft(t *testing.T) {
	ctx := t.Context()
	v := openDir(t, t.TempDir())
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(list)
	}
	before := open()
	for range 30 {
		h, _, err := v.GenerateSigningKey(ctx, Ed25519)
		must(t, err)
		_, err = v.Sign(ctx, h, make([]byte, 32))
		must(t, err)
		must(t, v.DeleteSigningKey(ctx, h))
	}
	if n := open() - before; n > 10 {
		t.Errorf("%d descriptors more than before", n)
	}
}
