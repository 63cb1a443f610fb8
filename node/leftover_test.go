package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
	"sallyport/node/admin"
	"sallyport/proxy"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
)

// TestUpgradeThatCannotBeExecuted: a program that could take over and cannot be executed leaves the node as it was, and what was set aside for the time in which
// it leaves, such as signals, is undone.
func TestUpgradeThatCannotBeExecuted(t *testing.T) {
	m := newMember(t)
	ctx := within(t)
	var leaves, stays atomic.Int64
	m.opts.Upgrade = UpgradeOptions{
		Version: "1",
		Command: func(program string, _ int) []string { return []string{program, strings.Repeat("x", 1<<20)} }, // more than the system takes
		Leaving: func() func() { leaves.Add(1); return func() { stays.Add(1) } },
	}
	for i := range int64(2) {
		_, begin, err := m.Upgrade(ctx, admin.UpgradeRequest{Program: answering(t, `{"version":"2","format":1}`), Drain: "0s"})
		if err != nil {
			t.Fatal(err)
		}
		begin()
		settles(t, "it goes on", func() bool { u, err := m.LastUpgrade(); return err == nil && u.State == admin.UpgradeFailed })
		settles(t, "it can be asked again", func() bool {
			free := m.upgrades.running.TryLock()
			if free {
				m.upgrades.running.Unlock()
			}
			return free
		})
		if u, _ := m.LastUpgrade(); leaves.Load() != i+1 || stays.Load() != i+1 || !strings.Contains(u.Error, "argument list too long") {
			t.Fatalf("left %d times, stayed %d times: %s", leaves.Load(), stays.Load(), u.Error)
		}
	}
}

// TestUpgradeHandsListenersOn: the next program gets the listener of the status address.
func TestUpgradeHandsListenersOn(t *testing.T) {
	m := newMember(t)
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	at, err := m.ServeStatus(ctx, "127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	c, release, err := m.writeDown(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if !slices.ContainsFunc(c.Sockets, func(s dataplane.Inherited) bool { return s.Address == at }) {
		t.Errorf("%s is not among %+v", at, c.Sockets)
	}
}

// pathTo is what a session of a connects with to b.
func pathTo(t *testing.T, a, b *Node) func(context.Context) (*connection, error) {
	t.Helper()
	to, err := multiaddr.Parse(tcpRoute(t, b) + "/secure/api")
	if err != nil {
		t.Fatal(err)
	}
	options, err := a.connectOptions(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context) (*connection, error) { return a.connect(ctx, to, options) }
}

// TestGoneIsToldOnce: a peer whose machine closed the connection and then has nobody who listens has gone, which is told once, however often nobody answers. One
// whose path was closed here has not, even if an earlier path was broken there, nor one whose proxy has gone.
func TestGoneIsToldOnce(t *testing.T) {
	a, b := plainNode(t, "a", "127.0.0.1:0"), plainNode(t, "b", "127.0.0.1:0")
	dial := pathTo(t, a, b)
	dials := make(chan error) // why the next attempt fails; nil where it reaches somebody
	tried := make(chan struct{})
	var gone atomic.Int64
	s := &session{
		log: slog.New(slog.DiscardHandler), router: a.router, spoken: true, longest: time.Millisecond,
		connect: func(ctx context.Context) (*connection, error) {
			select {
			case err := <-dials:
				if err == nil {
					return dial(ctx)
				}
				return nil, err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
		up:   func(context.Context, *connection) error { return nil },
		down: func() { tried <- struct{}{} },
		gone: func(*connection) { gone.Add(1) },
	}
	s.start(t.Context())
	defer s.stop()
	lose := func(there bool) {
		t.Helper()
		dials <- nil
		settles(t, "there is a path", func() bool { up, _, _ := s.state(); return up })
		_, c, _ := s.state()
		if there {
			settles(t, "the peer has it", func() bool { return len(b.tcp.Connections()) == 1 })
			b.tcp.Connections()[0].Close()
		} else {
			c.close()
		}
		<-tried
		if there != c.severed() {
			t.Fatalf("severed %v, closed there %v", c.severed(), there)
		}
		settles(t, "the path is closed", func() bool {
			select {
			case <-c.closed:
				return len(b.tcp.Connections()) == 0
			default:
				return false
			}
		})
	}
	refuse := func() { dials <- unix.ECONNREFUSED }
	lose(true)
	for range 3 { // a proxy that has ended says nothing of who is behind it
		dials <- fmt.Errorf("%w to b: %w", proxy.ErrProxy, unix.ECONNREFUSED)
	}
	if n := gone.Load(); n != 0 {
		t.Errorf("told %d times when a proxy had gone", n)
	}
	for range 3 {
		refuse()
	}
	if n := gone.Load(); n != 1 { // of the second at least, since the third was asked for
		t.Errorf("told %d times", n)
	}
	lose(true) // broken, but the next attempt reaches somebody
	lose(false)
	for range 3 {
		refuse()
	}
	if n := gone.Load(); n != 1 {
		t.Errorf("told %d times after a path that was closed here", n)
	}
}

// TestLostPathIsClosed: what is left of a path that ended is closed, so that nobody comes through it any more.
func TestLostPathIsClosed(t *testing.T) {
	a, b := plainNode(t, "a", "127.0.0.1:0"), plainNode(t, "b", "127.0.0.1:0")
	dial := pathTo(t, a, b)
	ends := make(chan struct{})
	made := make(chan *connection, 10)
	s := &session{
		log: slog.New(slog.DiscardHandler), router: a.router, spoken: true, longest: time.Millisecond,
		connect: func(ctx context.Context) (*connection, error) {
			c, err := dial(ctx)
			if err == nil {
				made <- c
			}
			return c, err
		},
		up: func(context.Context, *connection) error { return nil }, down: func() {}, gone: func(*connection) {},
		watched: func(context.Context, *connection) <-chan struct{} { return ends },
	}
	s.start(t.Context())
	defer s.stop()
	first := <-made
	ends <- struct{}{}
	second := <-made
	select {
	case <-first.closed:
	default:
		t.Error("the lost path is open while the next one is made")
	}
	until(t, "the next one is the session's", func() bool { _, c, _ := s.state(); return c == second }) // only then it can be made anew
	s.renew()
	<-made
	select {
	case <-second.closed:
	default:
		t.Error("a path that was to be made anew is open")
	}
}

// TestPathWithoutAnswerIsClosed: a path over which nobody answers is closed, and counts as failed.
func TestPathWithoutAnswerIsClosed(t *testing.T) {
	n := plainNode(t, "a", "127.0.0.1:0")
	made := &connection{router: n.router, closed: make(chan struct{}), route: routing.LocalRoute("nobody", "api"), flow: routing.NewFlow()}
	s := &session{
		log: slog.New(slog.DiscardHandler), router: n.router,
		connect: func(context.Context) (*connection, error) { return made, nil },
		up:      func(context.Context, *connection) error { t.Error("it is used"); return nil },
	}
	if c, err := s.attempt(t.Context(), 10*time.Millisecond, func(error) {}); c != nil || !errors.Is(err, errNoPing) {
		t.Errorf("%v, %v", c, err)
	}
	select {
	case <-made.closed:
	default:
		t.Error("it was left open")
	}
}
