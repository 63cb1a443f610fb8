package datagram

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/internal/await"
	"sallyport/portal"
	"sallyport/routing"
	"sallyport/routing/routertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var eventually = await.True

// site is a router with an environment.
type site struct {
	t      testing.TB
	env    *Env
	router *routing.Router
}

func newSite(t testing.TB, shards int) *site {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := routertest.New(t, shards, log)
	return &site{t, &Env{Log: log}, r}
}

func (s *site) on(shard int, f func()) {
	s.t.Helper()
	if err := s.router.Shards()[shard].Do(context.Background(), f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) outlet(o OutletOptions) *Outlet {
	s.t.Helper()
	o.Name = "out"
	out, err := NewOutlet(context.Background(), s.env, s.router, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *site) inlet(o InletOptions) *Inlet {
	s.t.Helper()
	if o.Name = "in"; !o.Listen.IsValid() {
		o.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	}
	in, err := NewInlet(context.Background(), s.env, s.router, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return in
}

// line is a path to another node as a channel would be one: it says who is at the other end, and may keep or lose what goes over it.
type line struct {
	routing.Watchers
	forth, back routing.WireAddress
	near, far   routing.Peer
	// lose tells which messages are lost, by their first byte. Set before use.
	lose atomic.Pointer[func(kind byte) bool]
	// carried are those that went forth, by their first byte.
	carried [256]atomic.Int64
}

func (s *site) line(shard int, near, far byte) *line {
	l := &line{near: routing.Peer{ID: [32]byte{near}}, far: routing.Peer{ID: [32]byte{far}}}
	at := s.router.Shards()[shard]
	s.on(shard, func() {
		l.forth = at.Start(l)
		l.back = at.Start(routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
			if l.lost(m.Payload()[0]) {
				return
			}
			m.PopOnward()
			m.Peer = &l.far
			m.PushReturn(l.forth)
			s.Deliver(m)
		}))
	})
	return l
}

func (l *line) lost(kind byte) bool {
	f := l.lose.Load()
	return f != nil && (*f)(kind)
}

func (l *line) losing(f func(kind byte) bool) { l.lose.Store(&f) }

// HandleMessage implements routing.Worker.
func (l *line) HandleMessage(s *routing.Shard, m *routing.Message) {
	kind := m.Payload()[0]
	l.carried[kind].Add(1)
	if l.lost(kind) {
		return
	}
	m.PopOnward()
	m.Peer = &l.near
	m.PushReturn(l.back)
	s.Deliver(m)
}

// TerminalPeer implements routing.Terminal.
func (l *line) TerminalPeer() *routing.Peer { return &l.far }

// TerminalProducer implements routing.Terminal.
func (l *line) TerminalProducer() *routing.Producer { return nil }

func (l *line) to(name string) routing.Route {
	return routing.RouteOf(l.forth).Concat(routing.LocalRoute(name))
}

// echoServer answers each datagram with the port that it came from, two bytes, and itself.
func echoServer(t testing.TB) netip.AddrPort {
	t.Helper()
	at, _ := echoServerAt(t, netip.MustParseAddrPort("127.0.0.1:0"))
	return at
}

// echoServerAt is echoServer at an address, which stop ends.
func echoServerAt(t testing.TB, at netip.AddrPort) (bound netip.AddrPort, stop func()) {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	stop = func() {
		c.Close()
		<-done
	}
	t.Cleanup(stop)
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf[2:])
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && n <= MaxSize-2 {
				binary.BigEndian.PutUint16(buf, from.Port())
				_, _ = c.WriteToUDPAddrPort(buf[:n+2], from)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), stop
}

// client is a client of an inlet.
type client struct {
	*net.UDPConn
	t testing.TB
}

func (in *Inlet) newClient(t testing.TB) client { return in.newClientAt(t, in.Bound().Addr().String()) }

// newClientAt returns a client that uses another address of this machine than the inlet says.
func (in *Inlet) newClientAt(t testing.TB, host string) client {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), in.Bound().Port())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return client{c, t}
}

// try sends text once and returns what the echo server says: the port that it sees, and the text.
func (c client) try(text string, wait time.Duration) (port int, answer string, err error) {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		return 0, "", err
	}
	c.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	if err != nil || n < 2 {
		return 0, "", errors.Join(err, os.ErrDeadlineExceeded)
	}
	return int(binary.BigEndian.Uint16(buf)), string(buf[2:n]), nil
}

// ask sends text until an answer to it comes, as clients of UDP do, and returns the port that the server sees.
func (c client) ask(text string) (port int) {
	c.t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		if port, answer, err := c.try(text, time.Second); err == nil && answer == text {
			return port
		}
	}
	c.t.Fatalf("no answer to %q", text)
	return 0
}

// guard is a portal.Guard of a test.
type guard struct {
	mu      sync.Mutex
	allowed bool
	grants  map[[32]byte]*portal.Grant
	asked   int
}

func (g *guard) Grant(peer *[32]byte) *portal.Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	if g.grants == nil {
		g.grants = map[[32]byte]*portal.Grant{}
	}
	if g.grants[*peer] == nil {
		g.grants[*peer] = portal.NewGrant(g.allowed)
	}
	return g.grants[*peer]
}

// set changes the decision about all.
func (g *guard) set(allowed bool) {
	g.mu.Lock()
	g.allowed = allowed
	grants := g.grants
	g.mu.Unlock()
	for _, grant := range grants {
		grant.Set(allowed)
	}
}
