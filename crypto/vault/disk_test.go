package vault

import (
	"errors"
	"io/fs"
	"os"
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
