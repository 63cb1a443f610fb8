package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// UnixSocket is a Unix socket to listen on.
type UnixSocket struct {
	// Path is a path, or an @ and a name of the abstract name space, which has no permissions: every process of the network name space may connect.
	Path string
	// Mode are the permissions; 0 is 0600. Whoever may write may connect.
	Mode fs.FileMode
	// UID and GID own it; below zero they are those of the process.
	UID, GID int
}

// Abstract reports whether the socket has no path.
func (u UnixSocket) Abstract() bool { return u.Path != "" && u.Path[0] == '@' }

// MaxUnixPath is the longest path of a Unix socket, in bytes (struct sockaddr_un).
const MaxUnixPath = 107

// ListenUnix opens a listening Unix socket, as ListenTCP does. A socket on which nobody listens any more, as a process that was killed leaves, is
// replaced; it never can be connected to by others than it is meant for.
func ListenUnix(u UnixSocket) (fd int, err error) {
	fail := func(err error) error { return fmt.Errorf("listen on unix:%s: %w", u.Path, err) }
	if len(u.Path) == 0 || len(u.Path) > MaxUnixPath {
		return -1, fail(fmt.Errorf("the path must have from 1 to %d bytes", MaxUnixPath))
	}
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fail(os.NewSyscallError("socket", err))
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
			fd = -1
		}
	}()
	if !u.Abstract() {
		if err := removeStale(u.Path); err != nil {
			return fd, fail(err)
		}
		// bind gives the file the permissions of the socket: nobody else can connect before it has its owner.
		if err := unix.Fchmod(fd, 0o600); err != nil {
			return fd, fail(os.NewSyscallError("fchmod", err))
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: u.Path}); err != nil {
		return fd, fail(os.NewSyscallError("bind", err))
	}
	if !u.Abstract() {
		if err := u.permit(); err != nil {
			return fd, fail(errors.Join(err, os.Remove(u.Path)))
		}
	}
	if err := unix.Listen(fd, 4096); err != nil {
		return fd, fail(os.NewSyscallError("listen", err))
	}
	return fd, nil
}

// permit sets owner and permissions.
func (u UnixSocket) permit() error {
	if u.UID >= 0 || u.GID >= 0 {
		if err := os.Lchown(u.Path, u.UID, u.GID); err != nil {
			return err
		}
	}
	mode := u.Mode.Perm()
	if mode == 0 {
		mode = 0o600
	}
	return os.Chmod(u.Path, mode)
}

// removeStale removes a socket on which nobody listens.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w, and is no socket", unix.EADDRINUSE)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); !errors.Is(err, unix.ECONNREFUSED) {
		return unix.EADDRINUSE
	}
	return os.Remove(path)
}

// ListenUnix is ListenUnix, for a socket that was inherited too.
func (g *Group) ListenUnix(u UnixSocket) (fd int, err error) {
	if fd, ok := g.Inherited.Take("unix", u.Path); ok {
		return fd, nil
	}
	return ListenUnix(u)
}

// busyPause is how long a connection to a Unix socket waits where the queue of those who want one is full.
const busyPause = 10 * time.Millisecond

// DialUnix connects to a Unix socket, by path or with an @ by abstract name, and returns a non-blocking descriptor, which is the caller's.
func DialUnix(ctx context.Context, path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for {
		err := unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		switch {
		case err == nil:
			return fd, nil
		case err != unix.EAGAIN && err != unix.EINTR:
			_ = unix.Close(fd)
			return -1, fmt.Errorf("connect to unix:%s: %w", path, err)
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			_ = unix.Close(fd)
			return -1, fmt.Errorf("connect to unix:%s: %w", path, ctx.Err())
		}
	}
}

// unixName returns what a Unix socket is bound to, "" for another kind.
func unixName(sa unix.Sockaddr) string {
	if u, ok := sa.(*unix.SockaddrUnix); ok {
		return u.Name
	}
	return ""
}
