package portal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"

	"sallyport/routing"
)

// TestOutletAsksTheSystem: an outlet that was not told who resolves names asks the system, for a name too.
func TestOutletAsksTheSystem(t *testing.T) {
	target := netip.MustParseAddrPort(serve(t, func(c net.Conn) {
		defer c.Close()
		io.Copy(c, c)
	}))
	l := newLink(t, "", false, Limits{}, Limits{})
	if _, err := NewOutlet(limited(t), l.b.env, l.b.router, OutletOptions{
		Name: "outlet", Target: fmt.Sprintf("localhost:%d", target.Port()), Flows: []*routing.Flow{l.b.ln.Flow},
	}); err != nil {
		t.Fatal(err)
	}
	c := dial(t, l.in)
	c.Write([]byte("hello"))
	c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
}

// TestTargetWithSeveralAddresses: an outlet tries all addresses of its target's name, goes first to the one that answered, and asks again
// when none does.
func TestTargetWithSeveralAddresses(t *testing.T) {
	target := netip.MustParseAddrPort(serve(t, func(c net.Conn) {
		defer c.Close()
		io.Copy(c, c)
	}))
	dead := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.7"), target.Port())
	var asked atomic.Int32
	var moved atomic.Bool
	moved.Store(true)
	l := newLink(t, "", false, Limits{}, Limits{})
	out, err := NewOutlet(limited(t), l.b.env, l.b.router, OutletOptions{Name: "outlet", Target: "db.example:5", Flows: []*routing.Flow{l.b.ln.Flow},
		Resolve: func(context.Context, string) ([]netip.AddrPort, error) {
			asked.Add(1)
			if moved.Load() {
				return []netip.AddrPort{dead, dead}, nil
			}
			return []netip.AddrPort{dead, target}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", l.in.Bound().String()); err == nil { // it may be reset before Dial has ended
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("all addresses refuse: the client read %v", err)
		}
		c.Close()
	}
	eventually(t, "refused", func() bool { return l.a.env.Stats.Ended[ReasonRefused].Load() == 1 })
	moved.Store(false)
	for range 3 {
		c := dial(t, l.in)
		c.Write([]byte("hello"))
		c.CloseWrite()
		if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the name was asked for %d times, not once for each move", n)
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	if len(out.resolved) != 2 || out.resolved[0] != target {
		t.Errorf("the next connection would go to %v first", out.resolved)
	}
}
