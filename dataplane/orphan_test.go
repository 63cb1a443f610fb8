package dataplane

import (
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPeerOwners: the kernel tells a client that has only ended its sending direction from one that is gone, in both address families; of a
// socket that is no TCP connection it says nothing.
func TestPeerOwners(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Logf("%s: %v", listen, err)
			continue
		}
		defer l.Close()
		to := l.Addr().String()
		if listen == "[::]:0" { // an IPv4 client of an IPv6 socket
			_, port, _ := net.SplitHostPort(to)
			to = net.JoinHostPort("127.0.0.1", port)
		}
		for _, c := range []struct {
			name string
			do   func(*net.TCPConn) error
			want Owner
		}{
			{"open", func(*net.TCPConn) error { return nil }, Owned},
			{"half-closed", (*net.TCPConn).CloseWrite, Owned},
			{"closed", (*net.TCPConn).Close, Orphaned},
		} {
			client, raw := ownedPair(t, l, &net.Dialer{}, to)
			if err := c.do(client); err != nil {
				t.Fatal(err)
			}
			got, end := OwnerUnknown, time.Now().Add(90*time.Second)
			for got != c.want && time.Now().Before(end) { // the FIN is on its way
				_ = raw.Control(func(fd uintptr) { got = PeerOwners([]int{int(fd)})[0] })
			}
			if got != c.want {
				t.Errorf("%s %s: %d, want %d", listen, c.name, got, c.want)
			}
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if got := PeerOwners([]int{pair[0], -1}); got[0] != OwnerUnknown || got[1] != OwnerUnknown {
		t.Errorf("%v", got)
	}
}

// TestOwnersAtOtherAddresses: the kernel is asked, too, of a connection within this machine whose ends have different addresses.
func TestOwnersAtOtherAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, raw := ownedPair(t, l, &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}, l.Addr().String())
	_ = raw.Control(func(fd uintptr) {
		if got := PeerOwners([]int{int(fd)})[0]; got != Owned {
			t.Errorf("%d", got)
		}
	})
}

// ownedPair connects to a listener; it returns the client, and the socket of the server's end.
func ownedPair(t *testing.T, l net.Listener, d *net.Dialer, to string) (*net.TCPConn, syscall.RawConn) {
	t.Helper()
	client, err := d.DialContext(limited(t), "tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	raw, err := server.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return client.(*net.TCPConn), raw
}
