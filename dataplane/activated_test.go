package dataplane

import (
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// at puts copies of descriptors at numbers that follow each other, as a service manager does, and returns the first one.
func at(t *testing.T, fds ...int) int {
	t.Helper()
	first, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD, 400)
	if err != nil {
		t.Fatal(err)
	}
	for n, fd := range fds {
		if err := unix.Dup3(fd, first+n, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(first + n) })
	}
	return first
}

// TestActivated: the sockets of a service manager are known by where they are bound; one that it has accepted itself is refused.
func TestActivated(t *testing.T) {
	tcp, boundTCP, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(tcp)
	udp, boundUDP, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(udp)
	first := at(t, tcp, udp)
	got, err := activated(first, 2)
	want := []Inherited{{"tcp", boundTCP.String(), first}, {"udp", boundUDP.String(), first + 1}}
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	for n := range got {
		if flags, err := unix.FcntlInt(uintptr(first+n), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("other programs get socket %d: %x, %v", n, flags, err)
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	path := filepath.Join(t.TempDir(), "s")
	local, err := ListenUnix(UnixSocket{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(local)
	if _, err := activated(at(t, local), 1); err == nil || !strings.Contains(err.Error(), "neither TCP nor UDP") {
		t.Errorf("a Unix socket: %v", err)
	}
	if _, err := activated(at(t, pair[0]), 1); err == nil || !strings.Contains(err.Error(), "Accept=no") {
		t.Errorf("a connection: %v", err)
	}
}

// TestActivatedForAnother: variables that are meant for another process are not believed, and are gone for those that this one starts.
func TestActivatedForAnother(t *testing.T) {
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "3")
	if got, err := Activated(); got != nil || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if pid, ok := unix.Getenv("LISTEN_PID"); ok {
		t.Errorf("LISTEN_PID=%s is still there", pid)
	}
}

// TestKept: where a service manager listens a node can listen again and again, also the next program in its process.
func TestKept(t *testing.T) {
	fd, bound, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	in := NewInheritance(nil, Inherited{"tcp", bound.String(), fd})
	group := Group{Inherited: in}
	for range 2 {
		copied, _, err := group.ListenTCP(bound)
		if err != nil || copied == fd {
			t.Fatalf("%d, %v", copied, err)
		}
		ln, err := FileListener(copied, bound.String())
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", bound.String())
		if err != nil {
			t.Fatal(err)
		}
		served, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = served.Close()
		_ = c.Close()
		_ = ln.Close()
	}
	if left := in.Close(); len(left) != 0 || !isOpen(fd) {
		t.Errorf("closed with what nobody wanted: %v", left)
	}
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 500) // a number that nobody else gets meanwhile
	if err != nil {
		t.Fatal(err)
	}
	next := NewInheritance([]Inherited{{"tcp", bound.String(), copied}}, in.Kept()...)
	if isOpen(copied) {
		t.Error("the copy of the program before is still open")
	}
	again, ok := next.Take("tcp", bound.String())
	if !ok || again == fd {
		t.Errorf("%d, %v", again, ok)
	}
	_ = unix.Close(again)
	_ = unix.Close(fd)
}
