package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/internal/brokendisk"
)

// TestWhatIsNotOnDiskIsNotDone: a change that the disk does not keep is an error, and the file is as it was.
func TestWhatIsNotOnDiskIsNotDone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nodes.json")
	must(t, writeFile(path, []byte("old")))
	brokendisk.NoSync(t, func() {
		if err := writeFile(path, []byte("new")); !errors.Is(err, unix.EIO) {
			t.Errorf("written: %v", err)
		}
		if err := writeFile(filepath.Join(dir, "other.json"), []byte("new")); !errors.Is(err, unix.EIO) {
			t.Errorf("made: %v", err)
		}
		if err := removeFile(path + ".none"); err != nil {
			t.Errorf("what is not there: %v", err)
		}
		if err := mkdir(filepath.Join(dir, "sub")); !errors.Is(err, unix.EIO) {
			t.Errorf("a directory: %v", err)
		}
	})
	list, err := os.ReadDir(dir)
	must(t, err)
	if text, err := os.ReadFile(path); err != nil || string(text) != "old" || len(list) != 2 {
		t.Errorf("%q, %v; %v", text, err, list)
	}
	brokendisk.NoSync(t, func() {
		if err := removeFile(path); !errors.Is(err, unix.EIO) {
			t.Errorf("removed: %v", err)
		}
	})
}

// TestNameThatIsNotOnDisk: a rename lasts when its directory is on the disk, not before.
func TestNameThatIsNotOnDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nodes.json")
	must(t, writeFile(path, []byte("old")))
	brokendisk.NoDirectorySync(t, dir, func() {
		if err := writeFile(path, []byte("new")); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("written: %v", err)
		}
		if err := removeFile(path); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("removed: %v", err)
		}
		if err := mkdir(filepath.Join(dir, "sub")); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("a directory: %v", err)
		}
	})
	must(t, writeFile(path, []byte("newer")))
}

// TestOneInsideWhileTheLockIsRemoved: however often a reset takes the lock's file away, two are never inside at once.
func TestOneInsideWhileTheLockIsRemoved(t *testing.T) {
	d := open(t)
	path := d.file(lockName)
	var inside, twice atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 150 {
				f, err := d.lockFile(t.Context(), path)
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					twice.Add(1)
				}
				inside.Add(-1)
				if err := os.Remove(path); err != nil { // as a reset does, holding it
					twice.Add(1)
				}
				_ = f.Close()
			}
		})
	}
	all.Wait()
	if n := twice.Load(); n != 0 {
		t.Errorf("%d times two were inside at once", n)
	}
}
