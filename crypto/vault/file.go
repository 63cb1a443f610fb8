package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sallyport/internal/wholefile"
)

// files keeps each secret in a file of a directory, named by kind and handle.
type files string

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

// read reads a file of ours that nobody else has access to, of at most so many bytes.
func (dir files) read(path string, size int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a symbolic link", ErrUnsafe, path)
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
	if !info.Mode().IsRegular() || info.Size() > int64(size) {
		return nil, fmt.Errorf("%w: %s has %d bytes, must be a file of %d", ErrKey, path, info.Size(), size)
	}
	b := make([]byte, info.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		clear(b)
		return nil, fmt.Errorf("vault: %s: %w", path, err)
	}
	return b, nil
}

// write writes a temporary file, syncs it and renames it: the content is there as a whole or not at all.
func (dir files) write(path string, content []byte) error {
	err := wholefile.Write(path, newFile+"*", 0o600, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

func (dir files) put(kind string, h Handle, secret []byte) error {
	return dir.write(dir.path(kind, h), secret)
}

func (dir files) path(kind string, h Handle) string {
	return filepath.Join(string(dir), kind+"-"+string(h))
}

func syncDir(dir string) error {
	if err := wholefile.SyncDir(dir); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

// load reads the file of a key, of at most so many bytes; ErrNotFound if there is none.
func (dir files) load(kind string, h Handle, size int) (path string, b []byte, err error) {
	if !h.valid() {
		return "", nil, fmt.Errorf("%w: %q is no handle", ErrNotFound, string(h))
	}
	path = dir.path(kind, h)
	if b, err = dir.read(path, size); errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %s key %s", ErrNotFound, kind, h)
	}
	return path, b, err
}

func (dir files) get(kind string, h Handle) ([]byte, error) {
	path, b, err := dir.load(kind, h, secretSize)
	if err != nil {
		return nil, err
	}
	if len(b) != secretSize {
		clear(b)
		return nil, fmt.Errorf("%w: %s has %d bytes, must be a file of %d", ErrKey, path, len(b), secretSize)
	}
	return b, nil
}

// Names of files that hold a secret for a moment only: one being written, one being deleted.
const (
	newFile = ".new-"
	oldFile = ".old-"
	// A file of these names that is older than this was left by a process that ended between two steps.
	leftover = time.Minute
)

// del takes the key away under its name first, so that no other process reads it half overwritten, and overwrites the file before
// it is removed. On a journaling or flash file system old blocks may stay; that is the disk's encryption to cover.
func (dir files) del(kind string, h Handle) error {
	if !h.valid() {
		return nil
	}
	old := filepath.Join(string(dir), oldFile+kind+"-"+string(h))
	if err := os.Rename(dir.path(kind, h), old); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	if err := wipeFile(old); err != nil {
		return err
	}
	return syncDir(string(dir))
}

// wipeFile overwrites a file and removes it; it is no error if another process was faster.
func wipeFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err == nil {
		_, err = f.Write(make([]byte, sealSize))
		err = errors.Join(err, f.Sync(), f.Close())
	} else {
		err = nil // removing it is what counts
	}
	if removeErr := os.Remove(path); !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}

// tidy removes what crashed processes left. A failure is not worth refusing the vault.
func (dir files) tidy() {
	entries, err := os.ReadDir(string(dir))
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), newFile) && !strings.HasPrefix(e.Name(), oldFile) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > leftover {
			_ = wipeFile(filepath.Join(string(dir), e.Name()))
		}
	}
}
