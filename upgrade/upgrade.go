// Package upgrade puts another program in the place of this one, in the same process: what goes on is written to memory that has a descriptor and
// no name, and the new program is executed with that descriptor and the sockets that stay open. See docs/upgrade.md.
package upgrade

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"
)

// CheckFD is the descriptor on which a program that is asked whether it can go on finds a copy of the state, without what belongs to connections.
const CheckFD = 3

// checkTimeout is how long it may take to say so.
const checkTimeout = 10 * time.Second

// maxAnswer bounds what it says, and maxText how much of a text in it is repeated to people.
const (
	maxAnswer = 64 << 10
	maxText   = 300
)

// maxState bounds a state, in bytes.
const maxState = 4 << 30

// ErrRefused is returned when the new program cannot go on from here.
var ErrRefused = errors.New("the new program cannot take over")

// decoding reads what this or the release before has written: fields that are not known are skipped.
var decoding = func() cbor.DecMode {
	m, err := cbor.DecOptions{MaxArrayElements: 1 << 24, MaxMapPairs: 1 << 20}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// Write writes v to memory that has no name, whose size can never change and which the reader wipes.
// The descriptor is closed in other programs unless it is passed to Exec.
func Write(v any) (*os.File, error) {
	b, err := cbor.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write the state: %w", err)
	}
	defer clear(b)
	fd, err := unix.MemfdCreate("sallyport-state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("sallyport-state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("write the state: %w", os.NewSyscallError("memfd_create", err))
	}
	f := os.NewFile(uintptr(fd), "state")
	if _, err = f.Write(b); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write the state: %w", err)
	}
	return f, nil
}

// Size returns how many bytes memory of Write has.
func Size(fd int) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("read the state: descriptor %d: %w", fd, err)
	}
	return st.Size, nil
}

// Wipe overwrites memory of Write.
func Wipe(f *os.File) error {
	b, err := mapped(f, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	clear(b)
	return unix.Munmap(b)
}

func mapped(f *os.File, protection int) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() <= 0 || info.Size() > maxState {
		return nil, fmt.Errorf("a state of %d bytes", info.Size())
	}
	kind := unix.MAP_SHARED
	if protection&unix.PROT_WRITE == 0 {
		kind = unix.MAP_PRIVATE
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), protection, kind)
	return b, os.NewSyscallError("mmap", err)
}

// Read fills v from memory of Write, which it wipes, whether it could be read or not. The release before lets nobody write to what it shows to a program that it asks: that
// has no secrets and stays. The descriptor is closed.
func Read(fd int, v any) (err error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "state")
	if f == nil {
		return fmt.Errorf("read the state: descriptor %d: %w", fd, unix.EBADF)
	}
	defer f.Close()
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("read the state: %w", os.NewSyscallError("seals", err))
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		return errors.New("read the state: the memory is not sealed")
	}
	b, err := mapped(f, unix.PROT_READ)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	if err = decoding.Unmarshal(b, v); err != nil {
		err = fmt.Errorf("read the state: %w", err)
	}
	err = errors.Join(err, unix.Munmap(b))
	if seals&unix.F_SEAL_WRITE == 0 {
		err = errors.Join(err, Wipe(f))
	}
	return err
}

// Answer is what a program says that was asked whether it can go on.
type Answer struct {
	Format  int    `json:"format"` // the newest that it reads
	Version string `json:"version"`
	Error   string `json:"error,omitempty"` // why it cannot
}

// Check runs the program with args and a copy of the state, which it may have overwritten afterwards, and returns what it answers. What does not answer in time is killed, with all that it has started
// in its process group. Errors match ErrRefused.
func Check(ctx context.Context, program string, args []string, state *os.File) (a Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.ExtraFiles = []*os.File{state} // CheckFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, complaint limited
	cmd.Stdout, cmd.Stderr = &out, &complaint
	ran := cmd.Run()
	if json.Unmarshal(bytes.TrimSpace(out.b), &a) != nil || a.Format == 0 && a.Error == "" {
		why := lastLine(complaint.b)
		switch {
		case ctx.Err() != nil:
			why = "it did not answer in time"
		case out.full || complaint.full || ran == nil && why == "":
			why = "it does not know the question"
		case why == "":
			why = ran.Error()
		}
		return a, fmt.Errorf("%w: %s: %s", ErrRefused, program, why)
	}
	a.Version, a.Error = printable(a.Version), printable(a.Error)
	if a.Error != "" {
		return a, fmt.Errorf("%w: %s", ErrRefused, a.Error)
	}
	if ran != nil {
		return a, fmt.Errorf("%w: %s: %w", ErrRefused, program, ran)
	}
	return a, nil
}

// lastLine is the last line that says anything.
func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return printable(lines[len(lines)-1])
}

// printable is the beginning of a text that another program has written, without what a terminal would take for a command.
func printable(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text))
	if list := []rune(text); len(list) > maxText {
		return string(list[:maxText]) + "..."
	}
	return text
}

// errTooMuch ends a program that does not stop to talk: nobody reads what it writes any more.
var errTooMuch = errors.New("it says too much")

// limited takes the first bytes that are written to it.
type limited struct {
	b    []byte
	full bool
}

func (l *limited) Write(p []byte) (int, error) {
	if n := maxAnswer - len(l.b); len(p) > n {
		l.full = true
		return 0, errTooMuch
	}
	l.b = append(l.b, p...)
	return len(p), nil
}

var _ io.Writer = (*limited)(nil)

// Exec executes the program with args, the first of which is its name, in the place of this one. Of this program's descriptors it gets those of fds,
// and the first three. It returns only when that is not possible: then all is as before.
func Exec(program string, args, env []string, fds []int) error {
	syscall.ForkLock.Lock() // a child that is started now must not get them
	defer syscall.ForkLock.Unlock()
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			keep(fds)
			return fmt.Errorf("pass descriptor %d on: %w", fd, err)
		}
	}
	err := syscall.Exec(program, args, env)
	keep(fds)
	return fmt.Errorf("execute %s: %w", program, err)
}

// Reap waits, beside what follows, for the children that the program before has left: they are this process's, and nobody else knows of them. It is called before any
// other program is started. Where the kernel does not list children nothing is waited for.
func Reap() {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		b, _ := os.ReadFile(list) // a thread may have ended
		for _, text := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(text); err == nil {
				go func() {
					if p, err := os.FindProcess(pid); err == nil {
						_, _ = p.Wait() // what it ended with is of no use any more
					}
				}()
			}
		}
	}
}

// keep has descriptors closed in other programs.
func keep(fds []int) {
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
}

// Now is a time that goes on from one program to the next, and while the machine sleeps.
func Now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
