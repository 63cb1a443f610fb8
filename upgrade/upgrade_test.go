package upgrade

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

type sample struct {
	Secret []byte `cbor:"1,keyasint"`
	Number int    `cbor:"2,keyasint"`
}

// raw is what the memory of f holds now.
func raw(t *testing.T, f *os.File) string {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// duplicate returns another descriptor of f, for Read to close.
func duplicate(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestState: what is written comes back, has no name, cannot grow or shrink, and is wiped when it has been read.
func TestState(t *testing.T) {
	f, err := Write(sample{[]byte("very secret"), 7}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !strings.Contains(raw(t, f), "very secret") {
		t.Fatal("the state is not there")
	}
	if err := f.Truncate(1 << 20); !errors.Is(err, unix.EPERM) {
		t.Errorf("it can grow: %v", err)
	}
	if err := f.Truncate(1); !errors.Is(err, unix.EPERM) {
		t.Errorf("it can shrink: %v", err)
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("other programs get it: flags %x, %v", flags, err)
	}
	var got sample
	if err := Read(duplicate(t, f), &got); err != nil {
		t.Fatal(err)
	}
	if string(got.Secret) != "very secret" || got.Number != 7 {
		t.Errorf("got %+v", got)
	}
	if strings.Trim(raw(t, f), "\x00") != "" {
		t.Error("it was not wiped")
	}
}

// TestStateBroken: what cannot be read is an error, and is wiped too.
func TestStateBroken(t *testing.T) {
	f, err := Write("a text, not a sample", false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got sample
	if err := Read(duplicate(t, f), &got); err == nil {
		t.Error("a text was read as a sample")
	}
	if strings.Trim(raw(t, f), "\x00") != "" {
		t.Error("it was not wiped")
	}
	plain, err := os.CreateTemp(t.TempDir(), "state")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := Read(duplicate(t, plain), &got); err == nil {
		t.Error("a file was read as a state")
	}
}

// TestStateNewer: fields of a later version are skipped.
func TestStateNewer(t *testing.T) {
	f, err := Write(map[int]any{1: []byte("secret"), 2: 7, 99: map[string]int{"later": 1}}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("what is final can be written to: %v", err)
	}
	var got sample
	if err := Read(duplicate(t, f), &got); err != nil || got.Number != 7 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestExecFails: where a program cannot be executed, descriptors are kept from others as before.
func TestExecFails(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	if err := Exec("/nonexistent/program", []string{"program"}, nil, []int{fd}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v", flags, err)
	}
	if err := Exec(os.Args[0], []string{"program"}, nil, []int{fd, 1 << 20}); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v", err)
	}
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %x, %v", flags, err)
	}
}

// TestCheckGivesState: the program that is asked finds the state at its descriptor.
func TestCheckGivesState(t *testing.T) {
	f, err := Write(sample{Number: 7}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, err := Check(context.Background(), "/bin/sh", []string{"-c", `[ -s /proc/self/fd/3 ] && echo '{"format": 2, "version": "v"}'`}, f)
	if err != nil || a.Format != 2 || a.Version != "v" {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := Check(context.Background(), "/bin/sh", []string{"-c", "exit 0"}, f); !errors.Is(err, ErrRefused) {
		t.Errorf("silence is taken for a yes: %v", err)
	}
}
