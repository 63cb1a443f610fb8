package records

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// errRotated reports that the file was written, and could not make way for a new one.
var errRotated = errors.New("the file of records grows on")

// FileOptions configure a File.
type FileOptions struct {
	// Path is the file that is written. Older ones are named like it with .1, .2 and so on at the end.
	Path string
	// Size is after how many bytes a new one is begun; default 16 MiB.
	Size int64
	// Files is how many are kept, with the one that is written; default 8.
	Files int
	// Head, if set, makes what every file begins with.
	Head func() []byte
}

// File is a Sink: a file of JSON lines that makes way for a new one when it is large. All together take Size times Files at most.
type File struct {
	o    FileOptions
	f    *os.File
	size int64
}

// OpenFile opens the file, or makes it with mode 0600.
func OpenFile(o FileOptions) (*File, error) {
	if o.Size <= 0 {
		o.Size = 16 << 20
	}
	if o.Files <= 0 {
		o.Files = 8
	}
	f := &File{o: o}
	return f, f.open(os.O_APPEND)
}

// CheckFile reports what would keep OpenFile from opening the file at a path, and changes nothing.
func CheckFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := unix.Access(filepath.Dir(path), unix.W_OK|unix.X_OK); err != nil {
			return &fs.PathError{Op: "create", Path: path, Err: err}
		}
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

func (f *File) open(how int) (err error) {
	f.size = 0
	if f.f, err = os.OpenFile(f.o.Path, os.O_CREATE|os.O_RDWR|how, 0o600); err != nil {
		return err
	}
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	if f.size = info.Size(); f.size > 0 {
		f.endLine()
	}
	if f.o.Head != nil {
		return f.write(f.o.Head())
	}
	return nil
}

// endLine ends the last line of a program that was killed while it wrote.
func (f *File) endLine() {
	var last [1]byte
	if _, err := f.f.ReadAt(last[:], f.size-1); err == nil && last[0] != '\n' {
		_ = f.write([]byte{'\n'})
	}
}

func (f *File) write(b []byte) error {
	n, err := f.f.Write(b)
	f.size += int64(n)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// Write implements Sink.
func (f *File) Write(_ []*Record, lines []byte) error {
	rotated := error(nil)
	if f.f == nil || f.size > 0 && f.size+int64(len(lines)) > f.o.Size {
		if err := f.rotate(); err != nil {
			if f.f == nil {
				return err
			}
			rotated = fmt.Errorf("%w: %w", errRotated, err)
		}
	}
	if err := f.write(lines); err != nil {
		return err
	}
	return rotated
}

// rotate begins a new file. On error the old one is written on.
func (f *File) rotate() error {
	name := func(i int) string {
		if i == 0 {
			return f.o.Path
		}
		return f.o.Path + "." + strconv.Itoa(i)
	}
	for i := f.o.Files - 1; i > 0; i-- {
		if err := os.Rename(name(i-1), name(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	old := f.f
	if err := f.open(os.O_TRUNC); err != nil {
		f.f = old
		return err
	}
	if old != nil {
		_ = old.Close()
	}
	return nil
}

// Close implements Sink.
func (f *File) Close() error {
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}
