package state

import (
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLockOfARemovedFile: who waited for a lock whose file a reset took away does not take the old file's lock for the new one's.
func TestLockOfARemovedFile(t *testing.T) {
	d := open(t)
	path := d.file(lockName)
	take := func(path string) *os.File {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		must(t, err)
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		return f
	}
	old := take(path)
	var inside atomic.Bool
	done := make(chan error, 1)
	go func() { done <- d.locked(t.Context(), func() error { inside.Store(true); return nil }) }()
	time.Sleep(5 * time.Millisecond) // it has probably opened the file by now; when not, it will find the new one
	now := take(path + ".new")       // held before anybody can find it: between a removal and a new file there is nobody's lock
	must(t, os.Rename(path+".new", path))
	must(t, old.Close()) // whoever holds the old file open could lock it now
	for range 50 {       // more than twice the longest pause between two attempts
		if inside.Load() {
			t.Fatal("two are inside at once")
		}
		time.Sleep(time.Millisecond)
	}
	must(t, now.Close())
	must(t, <-done)
	if !inside.Load() {
		t.Error("it did not run")
	}
}

// TestFirstIsOneAtATime: what is made at first use is made by one, the kinds apart.
func TestFirstIsOneAtATime(t *testing.T) {
	d := open(t)
	other, err := Open(d.Path())
	must(t, err)
	release, err := d.LockFirst(t.Context(), "node")
	must(t, err)
	must(t, other.First(t.Context(), "identity", func() error { return nil }))
	var inside atomic.Bool
	done := make(chan error, 1)
	go func() { done <- other.First(t.Context(), "node", func() error { inside.Store(true); return nil }) }()
	for range 50 {
		if inside.Load() {
			t.Fatal("two are inside at once")
		}
		time.Sleep(time.Millisecond)
	}
	must(t, d.locked(t.Context(), func() error { return nil })) // a change of the state needs not wait for it
	release()
	release()
	must(t, <-done)
}
