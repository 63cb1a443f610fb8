package wire

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. One made with New has no name and goes with its last user.
type Namespace struct{ file *os.File }

// New makes a network namespace in which the loopback interface is up. It needs root.
func New() (*Namespace, error) {
	n := &Namespace{}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		var err error
		if n.file, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())); err != nil {
			return err
		}
		return command("ip", "link", "set", "lo", "up")
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Open opens the namespace at path, for example /run/netns/NAME or /proc/PID/ns/net.
func Open(path string) (*Namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Namespace{f}, nil
}

// Close gives n up.
func (n *Namespace) Close() error { return n.file.Close() }

// Do runs f on a thread within n. What f starts with os/exec runs within n too; goroutines that it starts do not.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// Run runs a short command within n.
func (n *Namespace) Run(name string, args ...string) error {
	return n.Do(func() error { return command(name, args...) })
}

// onThread runs f on a thread of its own, which ends with it: a thread that has changed its namespace must not serve others.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
