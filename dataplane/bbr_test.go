package dataplane

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSearchAgain: BBR begins its search anew, and a connection with another congestion control keeps it.
func TestSearchAgain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			peer, err := ln.Accept()
			if err != nil {
				return
			}
			defer peer.Close()
			go func() {
				buf := make([]byte, 4096)
				for {
					if _, err := peer.Read(buf); err != nil {
						return
					}
				}
			}()
		}
	}()
	for _, control := range []string{plainControl, bbrName} {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			conn := &Conn{fd: int(fd)}
			if errno := rawSetsockoptString(conn.fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, control); errno != 0 {
				t.Skipf("this kernel has no %s, or not for us: %v", control, errno)
			}
			if control == plainControl {
				if b, ok := conn.BBR(); ok || conn.SearchAgain() {
					t.Errorf("%s counts as BBR: %+v", control, b)
				}
				return
			}
			for k := 0; ; k++ { // until the search over the little that is sent has ended
				if b, ok := conn.BBR(); !ok {
					t.Fatal("BBR does not say how far it is")
				} else if !b.Begins {
					break
				}
				if k > 20_000 {
					t.Fatal("the search does not end")
				}
				if _, err := unix.Write(conn.fd, make([]byte, 4096)); err != nil && err != unix.EAGAIN {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Microsecond)
			}
			if !conn.SearchAgain() {
				t.Error("the search does not begin anew")
			}
			if b, ok := conn.BBR(); !ok || !b.Begins || b.Rate != 0 {
				t.Errorf("after that: %+v, %v", b, ok)
			}
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("it goes on")); err != nil {
			t.Error(err)
		}
	}
}
