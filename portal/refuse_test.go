package portal

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"sallyport/routing"
)

// TestRefuse: while it is known that nobody serves them, clients are closed at once, also those that wait for a path; afterwards they wait
// again.
func TestRefuse(t *testing.T) {
	n := newNode(t, 1, Limits{})
	in, err := NewInlet(limited(t), n.env, n.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(limited(t)) }()
	client := func() net.Conn {
		c, err := net.Dial("tcp", in.Bound().String())
		if errors.Is(err, syscall.ECONNRESET) {
			return nil // the reset was faster than the connecting
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	closed := func(c net.Conn, within time.Duration) bool {
		if c == nil {
			return true
		}
		_ = c.SetReadDeadline(time.Now().Add(within))
		_, err := c.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	waits := client()
	if closed(waits, 50*time.Millisecond) {
		t.Fatal("a client without a path does not wait")
	}
	in.Refuse("there is no such outlet")
	if !closed(waits, 90*time.Second) || !closed(client(), 90*time.Second) {
		t.Error("a client is not closed")
	}
	in.Refuse("")
	if closed(client(), 50*time.Millisecond) {
		t.Error("a client is closed although nothing is refused any more")
	}
}

// TestNothingAtOwnNode: a client of an inlet to a worker of its own node is closed at once while there is none, and served when there is.
func TestNothingAtOwnNode(t *testing.T) {
	for name, prefix := range map[string]routing.Route{"alone": {}, "behind an interceptor": routing.LocalRoute("between")} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, 2, Limits{OpenTimeout: time.Hour})
			in, err := NewInlet(limited(t), n.env, n.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Prefix: prefix})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = in.Close(limited(t)) }()
			pass := routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
				m.PopOnward()
				s.Deliver(m)
			})
			if err := n.router.StartNamed(limited(t), "between", func(*routing.Shard) routing.Worker { return pass }); err != nil {
				t.Fatal(err)
			}
			in.SetPath(routing.LocalRoute("nothing"))
			if c, err := net.Dial("tcp", in.Bound().String()); err == nil { // the reset may be faster than the connecting
				_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("a client of nothing: %v", err)
				}
				_ = c.Close()
			}
			eventually(t, "refused", func() bool { return n.env.Stats.Ended[ReasonRefused].Load() == 1 })
			target := serve(t, func(c net.Conn) { _, _ = c.Write([]byte("hello")); _ = c.Close() })
			if _, err := NewOutlet(limited(t), n.env, n.router, OutletOptions{Name: "nothing", Target: target}); err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", in.Bound().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
			if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
				t.Errorf("now there is something: %q, %v", b, err)
			}
		})
	}
}

// TestRandomAddressAtOwnNode: what is at a random address is not known, so it is asked.
func TestRandomAddressAtOwnNode(t *testing.T) {
	n := newNode(t, 2, Limits{})
	in, err := NewInlet(limited(t), n.env, n.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(limited(t)) }()
	asked := make(chan struct{}, 1)
	s := n.router.Shards()[1]
	var at routing.WireAddress
	if err := s.Do(limited(t), func() {
		at = s.Start(routing.WorkerFunc(func(*routing.Shard, *routing.Message) { asked <- struct{}{} }))
	}); err != nil {
		t.Fatal(err)
	}
	in.SetPath(routing.RouteOf(at))
	c, err := net.Dial("tcp", in.Bound().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case <-asked:
	case <-limited(t).Done():
		t.Error("nobody was asked")
	}
}

// TestRefuseUnanswered: a client that the outlet has not answered is refused when it is known that nobody will, also one whose turn comes just then; one that is
// served stays.
func TestRefuseUnanswered(t *testing.T) {
	n := newNode(t, 1, Limits{OpenTimeout: time.Hour})
	in, err := NewInlet(limited(t), n.env, n.router, InletOptions{Name: "in", Given: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(limited(t)) }()
	target, servers := served(t)
	if _, err := NewOutlet(limited(t), n.env, n.router, OutletOptions{Name: "outlet", Target: target}); err != nil {
		t.Fatal(err)
	}
	in.SetPath(routing.LocalRoute("outlet"))
	var open, waits, late watched
	fd, own := giving(t)
	in.Give(fd, open.watch())
	server := next(t, servers)
	expectEcho(t, own, server)
	asked := make(chan struct{}, 1)
	silent := routing.WorkerFunc(func(*routing.Shard, *routing.Message) { asked <- struct{}{} })
	if err := n.router.StartNamed(limited(t), "silent", func(*routing.Shard) routing.Worker { return silent }); err != nil {
		t.Fatal(err)
	}
	in.SetPath(routing.LocalRoute("silent"))
	fd, _ = giving(t)
	in.Give(fd, waits.watch())
	<-asked
	in.Refuse("it has gone")
	waits.await(t, "it had no answer", ReasonRefused, 0)
	waits.over(t, "it had no answer")
	fd, _ = giving(t)
	in.hand(in.path.Load(), fd, offer{watch: late.watch()})
	late.await(t, "on its way to its loop", ReasonRefused, 0)
	expectEcho(t, own, server)
}
