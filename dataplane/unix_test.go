package dataplane

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketDir is a directory whose sockets have short paths.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// TestUnixSockets: who may connect is said by the socket's permissions and owner from its beginning; what a killed process left is replaced, and nothing
// else is.
func TestUnixSockets(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "s")
	me, group := os.Getuid(), os.Getgid()
	for _, c := range []struct {
		u    UnixSocket
		want fs.FileMode
	}{
		{UnixSocket{Path: path, UID: -1, GID: -1}, 0o600}, {UnixSocket{Path: path, Mode: 0o666, UID: -1, GID: -1}, 0o666}, {UnixSocket{Path: path, Mode: 0o620, UID: me, GID: -1}, 0o620},
		{UnixSocket{Path: path, Mode: fs.ModeSetuid | 0o606, UID: -1, GID: group}, 0o606},
	} {
		fd, err := ListenUnix(c.u) // in the place of the one before, on which nobody listens any more
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != fs.ModeSocket|c.want {
			t.Errorf("%+v: %v, %v", c.u, info.Mode(), err)
		}
		if other, err := ListenUnix(c.u); !errors.Is(err, unix.EADDRINUSE) || other != -1 {
			t.Errorf("where somebody listens: %d, %v", other, err)
		}
		_ = unix.Close(fd)
	}
	if os.Getuid() == 0 {
		fd, err := ListenUnix(UnixSocket{Path: path, UID: 7, GID: 8})
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Uid != 7 || st.Gid != 8 {
			t.Errorf("owned by %d:%d, %v", st.Uid, st.Gid, err)
		}
		_ = unix.Close(fd)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, at := range map[string]string{
		"a file": file, "no directory": filepath.Join(dir, "none", "s"), "below a file": filepath.Join(file, "s"), "nothing": "", "too long": "/" + strings.Repeat("x", MaxUnixPath),
	} {
		if fd, err := ListenUnix(UnixSocket{Path: at, UID: -1, GID: -1}); err == nil || fd != -1 {
			t.Errorf("%s: %d, %v", what, fd, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("the file has %q, %v", b, err)
	}
	for at, abstract := range map[string]bool{"@a": true, "/a": false, "": false} {
		if (UnixSocket{Path: at}).Abstract() != abstract {
			t.Errorf("%q is abstract: %v", at, !abstract)
		}
	}
}

// TestUnixListens: a loop accepts at a path and at an abstract name, and removes the path when it ends; a client is told why it does not come through.
func TestUnixListens(t *testing.T) {
	l, path := newLoop(t), filepath.Join(socketDir(t), "s")
	for _, at := range []string{path, "@sallyport-test-" + filepath.Base(filepath.Dir(path))} {
		fd, err := (&Group{}).ListenUnix(UnixSocket{Path: at, UID: -1, GID: -1})
		if err != nil {
			t.Fatal(err)
		}
		accepted := make(chan int, 1)
		var ln *Listener
		on(t, l, func() { ln, err = l.Accept(fd, func(fd int, _ netip.AddrPort) { accepted <- fd }) })
		if err != nil {
			t.Fatal(err)
		}
		client, err := DialUnix(limited(t), at)
		if err != nil {
			t.Fatal(err)
		}
		server := <-accepted
		if n, err := unix.Write(client, []byte("hi")); n != 2 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		b := make([]byte, 3)
		if n, err := unix.Read(server, b); n != 2 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		_, _ = unix.Close(client), unix.Close(server)
		on(t, l, ln.Close)
		if _, err := os.Lstat(at); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("left after its end: %v", err)
		}
		if fd, err := DialUnix(limited(t), at); !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) || fd != -1 {
			t.Errorf("nobody listens: %d, %v", fd, err)
		}
	}
	// The queue of those who want a connection is full: who comes then waits until there is room, or for as long as it likes.
	fd, err := ListenUnix(UnixSocket{Path: path, UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	var queued []int
	defer func() {
		for _, fd := range queued {
			_ = unix.Close(fd)
		}
	}()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 3*busyPause)
		one, err := DialUnix(ctx, path)
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) || one != -1 || len(queued) == 0 {
				t.Errorf("%d, %v after %d", one, err, len(queued))
			}
			break
		}
		if queued = append(queued, one); len(queued) > 100 {
			t.Fatal("the queue has no end")
		}
	}
	come := make(chan int, 1)
	go func() {
		fd, err := DialUnix(limited(t), path)
		if err != nil {
			t.Error(err)
		}
		come <- fd
	}()
	for done := false; !done; {
		if server, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC); err == nil {
			queued = append(queued, server)
		}
		select {
		case fd := <-come:
			queued, done = append(queued, fd), true
		case <-time.After(time.Millisecond):
		}
	}
}

// TestUnixInherited: a Unix socket that a program before left is taken, once.
func TestUnixInherited(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	u := UnixSocket{Path: path, UID: -1, GID: -1}
	fd, err := ListenUnix(u)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	g := newGroup(t)
	g.Inherited = NewInheritance([]Inherited{{"unix", path, fd}})
	if got, err := g.ListenUnix(u); got != fd || err != nil {
		t.Errorf("%d, %v; want %d", got, err, fd)
	}
	if _, err := g.ListenUnix(u); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("taken twice: %v", err)
	}
	l := g.Loop(0)
	on(t, l, func() {
		if _, err = l.Accept(copyOf(t, fd), func(fd int, _ netip.AddrPort) { _ = unix.Close(fd) }); err != nil {
			t.Error(err)
		}
	})
	release, err := g.Halt(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	if s := g.Sockets(); len(s) != 1 || s[0].Network != "unix" || s[0].Address != path {
		t.Errorf("%+v", s)
	}
	release()
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		_ = c.Close()
	}
}
