package dataplane

import (
	"net"
	"net/netip"
	"testing"
)

// TestAddresses: both addresses of a connection are those of the sockets, of either family, without an allocation: the library's calls ask the kernel more, in calls that
// the scheduler is told of. A Unix socket has none.
func TestAddresses(t *testing.T) {
	l := newLoop(t)
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := net.Listen("tcp", at)
		if err != nil {
			t.Logf("%s: %v", at, err) // a machine without IPv6
			continue
		}
		defer ln.Close()
		target := ln.Addr().(*net.TCPAddr).AddrPort()
		made := make(chan *Conn, 1)
		on(t, l, func() {
			l.Dial(target, TCPOptions{}, 0, func(c *Conn, err error) {
				if err != nil {
					t.Errorf("%s: %v", target, err)
				}
				made <- c
			})
		})
		c := <-made
		if c == nil {
			continue
		}
		peer, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		on(t, l, func() {
			var local, remote netip.AddrPort
			if n := testing.AllocsPerRun(100, func() { local, remote = c.LocalAddr(), c.RemoteAddr() }); n != 0 {
				t.Errorf("%v allocations", n)
			}
			if want := peer.RemoteAddr().(*net.TCPAddr).AddrPort(); local != want || remote != target {
				t.Errorf("from %s to %s, want from %s to %s", local, remote, want, target)
			}
			c.Abort()
		})
	}
	fd, _ := pair(t, "unix")
	on(t, l, func() {
		c, err := l.Adopt(fd, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if c.LocalAddr().IsValid() || c.RemoteAddr().IsValid() {
			t.Errorf("a Unix socket from %s to %s", c.LocalAddr(), c.RemoteAddr())
		}
		c.Abort()
	})
}
