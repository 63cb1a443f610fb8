package portal

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/routing"
)

// TestWaitingClientsLeave: a client that has gone while it waited for a path leaves its place to the next one, first those that were
// reset, then those that have sent their last byte; living ones keep theirs.
func TestWaitingClientsLeave(t *testing.T) {
	var opened atomic.Int64
	target := serve(t, func(c net.Conn) {
		opened.Add(1)
		_, _ = c.Read(make([]byte, 1))
		_, _ = c.Write([]byte("answer"))
	})
	a, b := newNode(t, 2, Limits{HoldClients: 3}), newNode(t, 1, Limits{})
	ctx := context.Background()
	if _, err := NewOutlet(ctx, b.env, b.router, OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{b.ln.Flow}}); err != nil {
		t.Fatal(err)
	}
	in, err := NewInlet(ctx, a.env, a.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	left := func() uint64 { return a.env.Stats.Ended[ReasonReset].Load() }
	client := func(held int64) *net.TCPConn {
		c := dial(t, in)
		eventually(t, "the client waits", func() bool { return a.env.Stats.Held.Load() == held })
		return c
	}
	reset := client(1)
	ended := client(2)  // asks, and ends: it may have gone, or wait for the answer
	halved := client(3) // the same
	for _, c := range []*net.TCPConn{ended, halved} {
		if _, err := c.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
	}
	_ = reset.SetLinger(0)
	reset.Close()
	accepted := func(gone uint64) *net.TCPConn {
		c := dial(t, in)
		eventually(t, "another has left", func() bool { return left() == gone })
		if _, err := c.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		return c
	}
	fourth := accepted(1) // in the place of the one that was reset
	fifth := accepted(2)  // in that of the first that has ended
	if n, err := ended.Read(make([]byte, 1)); err == nil {
		t.Errorf("the first that has ended: read %d", n)
	}
	c, err := a.tcp.Connect(ctx, b.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	in.SetPath(routing.NewRoute(c.Sender.Address(), routing.LocalAddress("outlet")))
	for i, c := range []*net.TCPConn{halved, fourth, fifth} {
		_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
		if n, err := c.Read(make([]byte, 6)); n != 6 || err != nil {
			t.Errorf("client %d of the living: read %d, %v", i, n, err)
		}
	}
	if n := opened.Load(); n != 3 {
		t.Errorf("%d connections of the target for 3 living clients", n)
	}
}

// TestGoneClientsOpenNoTarget: a client that closed its socket while it waited, or whose process ended, frees its place and no connection to the
// target is opened for it, whatever it had sent; one that has only ended its sending direction is served, as is every other.
func TestGoneClientsOpenNoTarget(t *testing.T) {
	var opened atomic.Int64
	target := serve(t, func(c net.Conn) {
		opened.Add(1)
		_, _ = c.Write([]byte("answer"))
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	})
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(listen, func(t *testing.T) {
			a, b := newNode(t, 2, Limits{}), newNode(t, 1, Limits{})
			ctx := context.Background()
			if _, err := NewOutlet(ctx, b.env, b.router, OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{b.ln.Flow}}); err != nil {
				t.Fatal(err)
			}
			in, err := NewInlet(ctx, a.env, a.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort(listen)})
			if err != nil {
				t.Skip(err)
			}
			before, waiting := opened.Load(), int64(0)
			client := func(request string, then func(*net.TCPConn) error) *net.TCPConn {
				t.Helper()
				c := dial(t, in)
				waiting++
				eventually(t, "the client waits", func() bool { return a.env.Stats.Opened.Load() == 0 && a.env.Stats.Held.Load() == waiting })
				if _, err := c.Write([]byte(request)); err != nil {
					t.Fatal(err)
				}
				if err := then(c); err != nil {
					t.Fatal(err)
				}
				return c
			}
			stay := func(*net.TCPConn) error { return nil }
			living := []*net.TCPConn{
				client("", stay), client("request", stay), client("", (*net.TCPConn).CloseWrite), client("request", (*net.TCPConn).CloseWrite),
			}
			gone := func(request string) {
				client(request, (*net.TCPConn).Close)
				waiting--
				eventually(t, "its place is free", func() bool { return a.env.Stats.Held.Load() == waiting })
			}
			gone("")
			gone("request")
			// One that goes in the moment in which there is a path.
			last := client("request", stay)
			last.Close()
			c, err := a.tcp.Connect(ctx, b.ln.Bound.String())
			if err != nil {
				t.Fatal(err)
			}
			in.SetPath(routing.NewRoute(c.Sender.Address(), routing.LocalAddress("outlet")))
			for i, c := range living {
				_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
				if _, err := io.ReadFull(c, make([]byte, 6)); err != nil {
					t.Errorf("client %d of the living: %v", i, err)
				}
			}
			if n := opened.Load() - before; n != int64(len(living)) {
				t.Errorf("%d connections of the target for %d living clients", n, len(living))
			}
			if n := a.env.Stats.Ended[ReasonReset].Load(); n != 3 {
				t.Errorf("%d clients are known to have gone", n)
			}
		})
	}
}

// TestLook: of a client whose owner the kernel does not tell, an end with nothing before it says that it has gone, and an end behind a request does not.
func TestLook(t *testing.T) {
	for name, c := range map[string]struct {
		request string
		then    func(c *net.UnixConn) error
		want    left
	}{
		"it stays":                      {"", func(*net.UnixConn) error { return nil }, 0},
		"it has asked, and stays":       {"request", func(*net.UnixConn) error { return nil }, 0},
		"an end":                        {"", (*net.UnixConn).CloseWrite, gone},
		"an end behind what it asked":   {"request", (*net.UnixConn).CloseWrite, halfClosed},
		"it has closed":                 {"", (*net.UnixConn).Close, gone},
		"it has closed behind its word": {"request", (*net.UnixConn).Close, gone},
	} {
		fd, own := giving(t)
		if _, err := own.Write([]byte(c.request)); err != nil {
			t.Fatal(err)
		}
		if err := c.then(own.(*net.UnixConn)); err != nil {
			t.Fatal(err)
		}
		staying, other := giving(t)
		if got := look([]waiting{{fd: staying}, {fd: fd}, {fd: staying}}); len(got) != 3 || got[0] != 0 || got[1] != c.want || got[2] != 0 {
			t.Errorf("%s: %v, want %v for the second", name, got, c.want)
		}
		_, _, _ = unix.Close(fd), unix.Close(staying), other.Close()
	}
}

// pathless returns a node with an inlet that has no path yet, and one with an outlet whose target answers and ends.
func pathless(t *testing.T) (a, b *node, in *Inlet) {
	t.Helper()
	target := serve(t, func(c net.Conn) {
		_, _ = c.Write([]byte("answer"))
		_ = c.Close()
	})
	a, b = newNode(t, 1, Limits{}), newNode(t, 1, Limits{})
	ctx := context.Background()
	if _, err := NewOutlet(ctx, b.env, b.router, OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{b.ln.Flow}}); err != nil {
		t.Fatal(err)
	}
	in, err := NewInlet(ctx, a.env, a.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	return a, b, in
}

// TestPathBrokenAMomentAgo: a client that comes when its path has broken and nobody has said so yet waits for the next one, like those that come later.
func TestPathBrokenAMomentAgo(t *testing.T) {
	a, b, in := pathless(t)
	ctx := context.Background()
	// The connection that the path begins with is not there.
	in.SetPath(routing.NewRoute(routing.LocalAddress("00000000000000000000000000000001"), routing.LocalAddress("outlet")))
	client := dial(t, in)
	eventually(t, "the client waits", func() bool { return a.env.Stats.Held.Load() == 1 })
	c, err := a.tcp.Connect(ctx, b.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	in.SetPath(routing.NewRoute(c.Sender.Address(), routing.LocalAddress("outlet")))
	_ = client.SetReadDeadline(time.Now().Add(60 * time.Second))
	if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestHeldMeetsAPath: a client that is to wait just when another path has come is given to that one; one whose path is still the broken one waits.
func TestHeldMeetsAPath(t *testing.T) {
	a, b, in := pathless(t)
	ctx := context.Background()
	c, err := a.tcp.Connect(ctx, b.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	in.SetPath(routing.NewRoute(c.Sender.Address(), routing.LocalAddress("outlet")))
	there := in.path.Load()
	for name, broken := range map[string]*path{"another path was broken": {}, "the path that there is was broken": there} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		file, err := accepted.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Dup(int(file.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.SetNonblock(fd, true)
		file.Close()
		accepted.Close()
		ln.Close()
		in.hold(broken, fd, offer{})
		if broken == there {
			if n := a.env.Stats.Held.Load(); n != 1 {
				t.Errorf("%s: %d wait", name, n)
			}
			in.SetPath(there.route)
		} else if n := a.env.Stats.Held.Load(); n != 0 {
			t.Errorf("%s: %d wait", name, n)
		}
		_ = client.SetReadDeadline(time.Now().Add(60 * time.Second))
		if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
		client.Close()
	}
}
