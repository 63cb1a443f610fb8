package upgrade

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"sallyport/internal/await"
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
	f, err := Write(sample{[]byte("very secret"), 7})
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
	f, err := Write("a text, not a sample")
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
	f, err := Write(map[int]any{1: []byte("secret"), 2: 7, 99: map[string]int{"later": 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got sample
	if err := Read(duplicate(t, f), &got); err != nil || got.Number != 7 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestStateOfTheReleaseBefore: what nobody may write to, as that release shows it to a program that it asks, can be read.
func TestStateOfTheReleaseBefore(t *testing.T) {
	b, err := cbor.Marshal(map[int]any{2: 7})
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "state")
	defer f.Close()
	if _, err = f.Write(b); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	}
	if err != nil {
		t.Fatal(err)
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
	f, err := Write(sample{Number: 7})
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

// TestCheckTalks: what a program says that is none of ours is cut, without what a terminal would obey; one that goes on talking is not waited for.
func TestCheckTalks(t *testing.T) {
	f, err := Write(sample{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	check := func(script string) (Answer, string) {
		t.Helper()
		a, err := Check(context.Background(), "/bin/sh", []string{"-c", script}, f)
		if err == nil {
			return a, ""
		}
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", script, err)
		}
		return a, err.Error()
	}
	if _, why := check(`printf '\033[31m\033]0;title\007 boom\n' >&2; exit 1`); !strings.HasSuffix(why, " [31m]0;title boom") {
		t.Errorf("%q", why)
	}
	long := `$(head -c 5000 /dev/zero | tr '\0' a)`
	for script, want := range map[string]string{
		"echo " + long + " >&2; exit 1":                       "aaa...",
		"while :; do echo " + long + "; done":                 "does not know the question",
		"while :; do echo " + long + " >&2; done":             "does not know the question",
		`echo '{"error": "'` + long + `'"}'`:                  "aaa...",
		`echo '{"format": 1, "version": "x"}'; kill -SEGV $$`: "segmentation fault",
	} {
		if _, why := check(script); !strings.HasSuffix(why, want) || len(why) > 2*maxText {
			t.Errorf("%s: %q", script, why)
		}
	}
	if a, why := check(`echo '{"format": 1, "version": "1\u001b[2J"}'`); why != "" || a.Version != "1[2J" {
		t.Errorf("%+v, %q", a, why)
	}
}

// TestCheckHangs: a program that does not answer is killed, and what it waits for too.
func TestCheckHangs(t *testing.T) {
	f, err := Write(sample{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path := filepath.Join(t.TempDir(), "waits") // has a writer as long as one of them is there
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	alone := make(chan error, 1)
	go func() {
		r, err := os.Open(path)
		if err != nil {
			alone <- err
			return
		}
		defer r.Close()
		_, err = io.ReadFull(r, make([]byte, 3))
		cancel()
		if err == nil {
			_, err = io.ReadAll(r)
		}
		alone <- err
	}()
	_, err = Check(ctx, "/bin/sh", []string{"-c", "(exec 9>" + path + "; echo up >&9; exec sleep 1000) & wait"}, f)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "in time") {
		t.Errorf("%v", err)
	}
	select {
	case err := <-alone:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("what the program has started is still there")
	}
}

// TestReap: a child that the program before has started, and nobody waits for, is gone when it has ended.
func TestReap(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	child, err := os.StartProcess(cat, []string{cat}, &os.ProcAttr{Files: []*os.File{r, null, null}})
	_ = r.Close()
	if err != nil {
		t.Fatal(err)
	}
	pid := child.Pid
	if err := child.Release(); err != nil {
		t.Fatal(err)
	}
	Reap()
	if err := unix.Kill(pid, 0); err != nil {
		t.Fatalf("it does not wait for its end: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	await.True(t, "the child is gone", func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) })
}
