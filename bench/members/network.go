package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// All members are behind one address. With more than 14,000 connections to one port, those that have ended not long ago among them, the kernel needs a millisecond of processor time to find
// a port for one more: it has half of 28,000 for that, and looks through all. So with many members the program runs in a network of its own, which has more ports.
const (
	manyMembers = 4000
	ownNetwork  = "MEMBERS_OWN_NETWORK" // is in the environment there
	ports       = "2000 65535"
)

// errNoNetwork reports that the system gives this program no network of its own.
var errNoNetwork = errors.New("no network of its own")

// inOwnNetwork runs this program again, in a network of its own, and waits for its end.
func inOwnNetwork(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it cleans up
	cmd.Env = append(os.Environ(), ownNetwork+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Start(); err != nil {
		return errors.Join(errNoNetwork, err)
	}
	return cmd.Wait()
}

// openNetwork makes the network of this process usable.
func openNetwork() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(ports), 0)
}

// withRoom calls f in a network of its own where that takes more ports than there are.
func withRoom(many bool, f func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv(ownNetwork) != "" {
		if err := openNetwork(); err != nil {
			return err
		}
		return f(ctx)
	}
	if !many {
		return f(ctx)
	}
	err := inOwnNetwork(ctx)
	if errors.Is(err, errNoNetwork) {
		fmt.Fprintln(os.Stderr, "members:", err, "- with many members the kernel will look for ports for long")
		return f(ctx)
	}
	return err
}
