package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

func isNotFound(err error) bool { return errors.Is(err, ErrNotFound) }

// private refuses what belongs to somebody else or that others have access to.
func private(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return checkPrivate(path, info)
}

func checkPrivate(path string, info fs.FileInfo) error {
	if info.Mode()&fs.ModeSymlink != 0 {
		return fmt.Errorf("%w: %s is a symbolic link", ErrUnsafe, path)
	}
	if extra := info.Mode().Perm() & 0o077; extra != 0 {
		want := info.Mode().Perm() &^ 0o077
		return fmt.Errorf("%w: %s has mode %04o; it must be %04o (chmod %o %s)", ErrUnsafe, path, info.Mode().Perm(), want, want, path)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%w: %s belongs to user %d", ErrUnsafe, path, st.Uid)
	}
	return nil
}

// put writes a temporary file and renames it: the key is there as a whole or not at all.
func (dir files) put(kind string, h Handle, secret []byte) error {
	path := dir.path(kind, h)
	f, err := os.CreateTemp(string(dir), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	_, err = f.Write(secret)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("vault: %w", err)
	}
	return syncDir(string(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

func (dir files) get(kind string, h Handle) ([]byte, error) {
	path := dir.path(kind, h)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s key %s", ErrNotFound, kind, h)
	}
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	if err := checkPrivate(path, info); err != nil {
		return nil, err
	}
	if info.Size() != 32 {
		return nil, fmt.Errorf("%w: %s has %d bytes, must be 32", ErrKey, path, info.Size())
	}
	b := make([]byte, 32)
	if _, err := io.ReadFull(f, b); err != nil {
		clear(b)
		return nil, fmt.Errorf("vault: %s: %w", path, err)
	}
	return b, nil
}

// del overwrites the file before it is removed. On a journaling or flash file system old blocks may stay; that is the disk's
// encryption to cover.
func (dir files) del(kind string, h Handle) error {
	path := dir.path(kind, h)
	if f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW, 0); err == nil {
		_, err = f.Write(make([]byte, 32))
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("vault: %w", err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}
