package portal

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"sallyport/routing"
)

// TestSilentWithoutChannel: a connection without a secure channel, whose client's node is behind another one, stays for as long as its node
// sends something or pings, and is reset at both ends when it has fallen silent. One whose node is next to the outlet's is not judged: its
// TCP connection tells.
func TestSilentWithoutChannel(t *testing.T) {
	kinds(t, func(t *testing.T, plain bool) {
		target, ch := served(t)
		l := newLink(t, target, plain, Limits{}, Limits{})
		ctx := limited(t)
		between := newNode(t, 1, Limits{})
		toIt, err := l.a.tcp.Connect(ctx, between.ln.Bound.String())
		if err != nil {
			t.Fatal(err)
		}
		on1, err := between.tcp.Connect(ctx, l.b.ln.Bound.String())
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "both connections are there", func() bool { return len(between.tcp.Connections()) == 2 })
		for _, c := range between.tcp.Connections() { // what comes from one may go to the other
			flow := on1.Flow
			if c == on1 {
				flow = between.ln.Flow
			}
			if err := between.router.AddConsumer(ctx, c.Sender.Text(), flow); err != nil {
				t.Fatal(err)
			}
		}
		way := routing.NewRoute(toIt.Sender.Address(), on1.Sender.Address())
		l.in.SetPath(way.Concat(routing.LocalRoute("outlet")))
		echo := func(*routing.Shard) routing.Worker { return routing.Echo(nil, l.b.env.Heard) }
		if err := l.b.router.StartNamed(ctx, routing.EchoService, echo, l.b.ln.Flow); err != nil {
			t.Fatal(err)
		}
		s := l.b.router.Shards()[0]
		on := func(f func(*bareWays)) {
			t.Helper()
			if err := s.Do(ctx, func() { f(l.b.env.bareWays(s)) }); err != nil {
				t.Fatal(err)
			}
		}
		setHeard := func(at time.Time) {
			on(func(b *bareWays) {
				if len(b.ways) != 1 {
					t.Fatalf("%d ways are watched", len(b.ways))
				}
				for _, w := range b.ways {
					w.heard = at
				}
			})
		}
		alive := func(why string) {
			t.Helper()
			on(func(b *bareWays) { b.endSilent(time.Now().Add(-time.Minute)) })
			if n := l.b.env.Stats.Active.Load(); n != 1 {
				t.Fatalf("%s: %d connections", why, n)
			}
		}
		c := dial(t, l.in)
		far := next(t, ch)
		expectEcho(t, c, far)
		long := time.Now().Add(-time.Hour)
		setHeard(long)
		if _, err := l.a.router.Request(ctx, way.Concat(routing.LocalRoute(routing.EchoService)), nil); err != nil {
			t.Fatal(err)
		}
		alive("after a ping")
		setHeard(long)
		expectEcho(t, c, far)
		alive("after data")
		setHeard(long)
		on(func(b *bareWays) { b.endSilent(time.Now().Add(-time.Minute)) })
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target's end: %v", err)
		}
		on(func(b *bareWays) {
			if len(b.ways) != 0 {
				t.Errorf("%d ways are left", len(b.ways))
			}
		})

		// Without anything in between.
		in, err := NewInlet(ctx, l.a.env, l.a.router, InletOptions{Name: "direct", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Plain: plain})
		if err != nil {
			t.Fatal(err)
		}
		in.SetPath(routing.NewRoute(l.conn.Sender.Address(), routing.LocalAddress("outlet")))
		c = dial(t, in)
		expectEcho(t, c, next(t, ch))
		on(func(b *bareWays) {
			if len(b.ways) != 0 {
				t.Errorf("%d ways are watched that need none", len(b.ways))
			}
		})
	})
}
