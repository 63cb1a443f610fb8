package state

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// A file of the state directory keeps some room of its disk, which is given up for the records of nodes that are there already when the disk is full:
// so that a node that ends still starts again, with what it has.
const (
	reserveName = "reserve"
	reserveMost = 64 << 10
	reserveUnit = 8 << 10
)

// fullBelow is how much room is left on a disk that counts as full.
const fullBelow = 64 << 10

// Full reports whether the disk of the state directory has no room, so that changes may not be remembered.
func (d *Dir) Full() bool {
	var s unix.Statfs_t
	return unix.Statfs(d.path, &s) == nil && int64(s.Bavail)*int64(s.Bsize) < fullBelow
}

// withReserve runs write, and again with the room of the reserve when the disk is full. Under the lock.
func (d *Dir) withReserve(write func() error) error {
	err := write()
	if errors.Is(err, unix.ENOSPC) && os.Remove(d.file(reserveName)) == nil {
		err = write()
	}
	d.keepReserve()
	return err
}

// keepReserve makes the reserve if it is not there, with as much room as there is.
func (d *Dir) keepReserve() {
	path := d.file(reserveName)
	if _, err := os.Lstat(path); err == nil {
		return
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	for size := int64(reserveMost); size >= reserveUnit; size /= 2 {
		if unix.Fallocate(int(f.Fd()), 0, 0, size) == nil {
			return
		}
		_ = f.Truncate(0)
	}
	_ = os.Remove(path)
}
