package tcp

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestConnectAgain: a connect whose first packets get no answer is begun again, and not left to the kernel's growing pauses; what answers last is closed.
func TestConnectAgain(t *testing.T) {
	a := newNode(t, 1, Options{})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	full, err := net.Dial("tcp", at.String()) // takes the only place in the queue: who comes now is not answered
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		c, err := a.tcp.Connect(ctx, at.String())
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	time.Sleep(2 * askAgain)                    // several attempts are under way; none of them has got through
	if err := unix.Listen(fd, 16); err != nil { // from now on all of them do
		t.Fatal(err)
	}
	for range 3 { // the one that filled the queue, and two attempts: the kernel's repetition is of one socket
		conn, _, err := unix.Accept(fd)
		for err == unix.EINTR { // the runtime's signals; the kernel does not go on by itself where there is a bound
			conn, _, err = unix.Accept(fd)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(conn)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
