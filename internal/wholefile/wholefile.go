// Package wholefile writes files that are there as a whole or not at all, also after a crash.
package wholefile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Write makes the file path with mode, or replaces it, by what fill writes: whoever reads the file finds what it had before, or all of it, and so does
// who looks after a crash. Until then it has another name in the same directory, which temp makes as [os.CreateTemp] does. After an error the file is
// what it was, and nothing else is left.
func Write(path, temp string, mode fs.FileMode, fill func(w io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), temp) // mode 0600
	if err != nil {
		return err
	}
	if err = fill(f); err == nil && mode != 0o600 {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes durable what was made, renamed or removed in the directory path.
func SyncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
