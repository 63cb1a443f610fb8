package datagram

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// named is an outlet to a name with these addresses, and an inlet that leads to it.
func named(t *testing.T, list ...netip.AddrPort) (*Outlet, *Inlet) {
	t.Helper()
	s := newSite(t, 1)
	out := s.outlet(OutletOptions{Target: "dns.example:53", Resolve: func(context.Context, string) ([]netip.AddrPort, error) { return list, nil }})
	eventually(t, "the name is found", func() bool { return out.target.size() == len(list) })
	in := s.inlet(InletOptions{})
	in.SetPath(s.line(0, 1, 2).to("out"))
	return out, in
}

// nobodyAt is an address of this machine where nobody listens, with a port that a server has at another one.
func nobodyAt(host string, server netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(host), server.Port())
}

// TestNextAddress: where nobody listens at the first addresses of a name a flow goes on at the next one, those after it begin there, and a name that is
// looked for again does not change that.
func TestNextAddress(t *testing.T) {
	target := echoServer(t)
	out, in := named(t, nobodyAt("127.0.77.1", target), nobodyAt("127.0.77.2", target), target)
	in.newClient(t).ask("hello")
	if n := out.meter.Opened.Load(); n != 1 {
		t.Errorf("%d flows opened for one", n)
	}
	if n := out.meter.Sock.Refused.Load(); n < 2 {
		t.Errorf("%d refused", n)
	}
	for range 2 {
		if to, _ := out.target.use(); to != target || out.Failure() != nil {
			t.Errorf("the outlet uses %v, failure %v", to, out.Failure())
		}
		if _, answer, err := in.newClient(t).try("at once", 60*time.Second); err != nil || answer != "at once" {
			t.Errorf("the next flow: %q, %v", answer, err)
		}
		out.resolvedAt.Store(0)
		out.resolve()
		eventually(t, "the name is found again", func() bool { return out.resolvedAt.Load() != 0 && !out.resolving.Load() })
	}
}

// TestNoWayToAddress: an address that no socket can be connected to costs no datagram.
func TestNoWayToAddress(t *testing.T) {
	target := echoServer(t)
	out, in := named(t, netip.MustParseAddrPort("255.255.255.255:53"), target) // a broadcast needs a right of its own
	eventually(t, "the inlet has its path", func() bool {                      // until then a datagram is dropped
		_, answer, err := in.newClient(t).try("hello", 100*time.Millisecond)
		return err == nil && answer == "hello"
	})
	if n := out.meter.Dropped[DropTarget].Load(); n != 0 {
		t.Errorf("%d dropped", n)
	}
}

// TestNobodyListens: an outlet whose addresses all refuse says so, until one of them answers.
func TestNobodyListens(t *testing.T) {
	server := echoServer(t)
	first, second := nobodyAt("127.0.77.1", server), nobodyAt("127.0.77.2", server)
	out, in := named(t, first, second)
	c := in.newClient(t)
	eventually(t, "the outlet says that nobody is there", func() bool {
		_, _, _ = c.try("hello", time.Millisecond)
		return out.Failure() != nil
	})
	if text := out.Failure().Error(); !strings.Contains(text, first.String()) || !strings.Contains(text, second.String()) {
		t.Errorf("it says %q", text)
	}
	echoServerAt(t, second)
	c.ask("there you are")
	if out.Failure() != nil {
		t.Error(out.Failure())
	}
}

// TestServerBack: a flow that was answered waits for its server, and has the same port there afterwards.
func TestServerBack(t *testing.T) {
	other := echoServer(t)
	target, stop := echoServerAt(t, netip.MustParseAddrPort("127.0.77.3:0"))
	out, in := named(t, target, other)
	c := in.newClient(t)
	port := c.ask("hello")
	stop()
	eventually(t, "its server is away", func() bool {
		_, _, _ = c.try("are you there", time.Millisecond)
		return out.meter.Sock.Refused.Load() > 2
	})
	echoServerAt(t, target)
	if got := c.ask("there you are"); got != port {
		t.Errorf("port %d became %d", port, got)
	}
	if to, _ := out.target.use(); to != target {
		t.Errorf("the outlet uses %v", to)
	}
}

// TestTarget: which address is used, by a clock of the test's.
func TestTarget(t *testing.T) {
	a, b, c := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1"), netip.MustParseAddrPort("192.0.2.3:1")
	now := time.Unix(1000, 0)
	var tg target
	uses := func(want netip.AddrPort) {
		t.Helper()
		if got, ok := tg.use(); got != want || ok != want.IsValid() {
			t.Fatalf("it uses %v, want %v", got, want)
		}
	}
	refused := func(at, want netip.AddrPort) { // want is not valid if the flow stays
		t.Helper()
		tg.refused(at, now)
		if next, ok := tg.after(at, now); ok != want.IsValid() || ok && next != want {
			t.Fatalf("after %v comes %v, %v, want %v", at, next, ok, want)
		}
	}
	uses(netip.AddrPort{})
	refused(a, netip.AddrPort{})
	if tg.failure(now) != nil {
		t.Error("it has no address, and they refuse")
	}
	tg.set([]netip.AddrPort{a, b, c}, now)
	uses(a)
	tg.answers(a)
	tg.set([]netip.AddrPort{b, c, a}, now) // as servers of names do that spread their users
	uses(b)
	tg.answers(a)
	uses(b)
	tg.set([]netip.AddrPort{a, b, c}, now)
	refused(a, b)
	refused(a, b) // another flow, later
	uses(b)
	refused(b, c)
	now = now.Add(refusedAgain / 2)
	refused(c, netip.AddrPort{}) // a has refused a moment ago
	if tg.failure(now) == nil {
		t.Error("all refuse and nobody says it")
	}
	now = now.Add(refusedAgain / 2)
	refused(c, a)
	tg.answers(b) // somebody's flow had stayed there
	uses(b)
	if tg.failure(now) != nil {
		t.Error(tg.failure(now))
	}
	tg.set([]netip.AddrPort{a, c, b}, now.Add(time.Hour))
	uses(b) // it answers, and the others did not
	tg.set([]netip.AddrPort{a, c}, now)
	uses(a) // all have refused
	tg.set([]netip.AddrPort{b, a}, now)
	uses(b)
	refused(b, a)
	tg.set([]netip.AddrPort{b, a}, now.Add(refusedFor-1))
	uses(a)
	tg.set([]netip.AddrPort{b, a}, now.Add(refusedFor)) // a has not answered either
	uses(b)
	now = now.Add(refusedFor)
	refused(c, b) // a flow from before
	if tg.failure(now) != nil {
		t.Error("what was refused long ago is said for ever")
	}
	tg = target{}
	tg.set([]netip.AddrPort{a}, now)
	refused(a, netip.AddrPort{})
	uses(a)
	if tg.failure(now) == nil || tg.failure(now.Add(refusedFor)) != nil {
		t.Error("one address that refuses")
	}
}
