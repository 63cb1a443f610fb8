package portal

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

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
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if n, err := c.Read(make([]byte, 6)); n != 6 || err != nil {
			t.Errorf("client %d of the living: read %d, %v", i, n, err)
		}
	}
	if n := opened.Load(); n != 3 {
		t.Errorf("%d connections of the target for 3 living clients", n)
	}
}
