package dataplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deafListener listens where a connection is neither taken nor refused, as behind a firewall that drops: its queue is full.
func deafListener(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := fromSockaddr(sa)
	for range 8 {
		c, err := net.DialTimeout("tcp", at.String(), 200*time.Millisecond)
		if err != nil {
			return at
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the system takes connections beyond a listener's queue")
	return at
}

type dialed struct {
	c   *Conn
	err error
}

func dialAny(t *testing.T, l *Loop, timeout time.Duration, to ...netip.AddrPort) (dialed, time.Duration) {
	t.Helper()
	out := make(chan dialed, 2)
	began := time.Now()
	on(t, l, func() {
		l.DialAny(to, TCPOptions{NoDelay: true}, timeout, func(c *Conn, err error) {
			if c != nil {
				c.SetHandler(&drainer{drain: func() {}})
			}
			out <- dialed{c, err}
		})
	})
	select {
	case d := <-out:
		return d, time.Since(began)
	case <-time.After(2 * time.Minute):
		t.Fatal("done is not called")
	}
	return dialed{}, 0
}

func TestDialAny(t *testing.T) {
	l := newLoop(t)
	dead := deafListener(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	live := netip.MustParseAddrPort(ln.Addr().String())
	refused := []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), live.Port()), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.8"), live.Port())}
	for name, to := range map[string][]netip.AddrPort{
		"one":                   {live},
		"refused first":         {refused[0], live},
		"dead first":            {dead, live},
		"dead and refused":      {dead, refused[0], dead, refused[1], live},
		"the last of many dead": {dead, dead, dead, live},
	} {
		d, took := dialAny(t, l, time.Minute, to...)
		if d.err != nil {
			t.Errorf("%s: %v", name, d.err)
			continue
		}
		if took > 45*time.Second { // before the attempt at the dead one is given up
			t.Errorf("%s: connected after %v", name, took)
		}
		on(t, l, func() {
			if got := d.c.RemoteAddr(); got != live {
				t.Errorf("%s: connected to %s", name, got)
			}
			for _, p := range l.fds {
				if c, ok := p.(*Conn); ok && c.connect != nil {
					t.Errorf("%s: another attempt goes on", name)
				}
			}
			d.c.Abort()
		})
	}
	d, _ := dialAny(t, l, time.Minute, refused...)
	if !errors.Is(d.err, unix.ECONNREFUSED) || !strings.Contains(d.err.Error(), refused[0].String()) || !strings.Contains(d.err.Error(), refused[1].String()) {
		t.Errorf("all refused: %v", d.err)
	}
	d, _ = dialAny(t, l, 300*time.Millisecond, dead, dead, dead)
	if !errors.Is(d.err, os.ErrDeadlineExceeded) {
		t.Errorf("all dead: %v", d.err)
	}
	if d, _ = dialAny(t, l, 0); !errors.Is(d.err, ErrNoAddress) {
		t.Errorf("none: %v", d.err)
	}
}

// TestDialAnyBothAnswer: when two attempts run and both would succeed, one connection is left.
func TestDialAnyBothAnswer(t *testing.T) {
	l := newLoop(t)
	var list []netip.AddrPort
	accepted := make(chan net.Conn, 16)
	for i := range 2 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:0", i+1))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		list = append(list, netip.MustParseAddrPort(ln.Addr().String()))
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				accepted <- c
			}
		}()
	}
	d, took := dialAny(t, l, time.Minute, list...)
	if d.err != nil {
		t.Fatal(d.err)
	}
	late := took >= attemptDelay // on a busy machine: the second address had its turn too
	on(t, l, func() {
		if got := d.c.RemoteAddr(); got != list[0] && !late {
			t.Errorf("connected to %s, not to the first", got)
		}
		d.c.Abort()
	})
	(<-accepted).Close()
	if len(accepted) != 0 && !late {
		t.Error("the second address was connected to as well")
	}
}

// TestDialAnyLoopEnds: the end of the loop ends a race once.
func TestDialAnyLoopEnds(t *testing.T) {
	l := newLoop(t)
	dead := deafListener(t)
	out := make(chan error, 4)
	on(t, l, func() {
		l.DialAny([]netip.AddrPort{dead, dead, dead}, TCPOptions{}, 0, func(_ *Conn, err error) { out <- err })
	})
	l.Stop()
	<-l.Done()
	if err := <-out; err == nil {
		t.Error("no error")
	}
	if len(out) != 0 {
		t.Error("done was called again")
	}
}
