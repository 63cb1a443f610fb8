package dataplane

import (
	"net"
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
			client, err := net.Dial("tcp", to)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			raw, err := server.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := c.do(client.(*net.TCPConn)); err != nil {
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

// TestOwnersAtOtherAddresses: the kernel is asked, too, of a connection within this machine whose ends have different addresses, or an address that others
// can reach.
func TestOwnersAtOtherAddresses(t *testing.T) {
	pairs := [][2]string{{"127.0.0.1", "127.0.0.2"}}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			pairs = append(pairs, [2]string{n.IP.String(), n.IP.String()})
			break
		}
	}
	for _, p := range pairs {
		l, err := net.Listen("tcp", net.JoinHostPort(p[0], "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p[1])}}
		client, err := d.DialContext(limited(t), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		raw, err := server.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if got := PeerOwners([]int{int(fd)})[0]; got != Owned {
				t.Errorf("%v: %d", p, got)
			}
		})
	}
}
