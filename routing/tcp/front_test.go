package tcp

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/routing"
	"sallyport/routing/ws"
)

// TestProxyInFront: whoever a proxy in front names has the connection and its place; where it names nobody, or somebody who has too many, the connection ends, its
// place is free, and only the first is a fault of the proxy's. Who is no such proxy is not asked.
func TestProxyInFront(t *testing.T) {
	here, elsewhere := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	client := netip.MustParseAddrPort("198.51.100.7:4711")
	for name, c := range map[string]struct {
		from   []netip.Prefix
		named  netip.AddrPort
		err    error
		full   bool           // the client has as many as it may already
		peer   netip.AddrPort // that the connection is of; the zero value for none
		failed uint64
	}{
		"a client":              {here, client, nil, false, client, 0},
		"a client with a place": {here, client, nil, true, netip.AddrPort{}, 0},
		"nobody":                {here, netip.AddrPort{}, errors.New("no header"), false, netip.AddrPort{}, 1},
		"not a proxy":           {elsewhere, client, errors.New("it is asked"), false, netip.AddrPort{}, 0},
	} {
		n := newNode(t, 1, Options{Connections: 3, ConnectionsPerAddress: 1})
		var asked atomic.Bool
		connected := make(chan struct{}) // who is refused while it connects may get no connection at all
		ln, err := n.tcp.Serve(limited(t), loopback, Serving{PrefacedFrom: c.from, Preface: func(context.Context, int, netip.AddrPort) (netip.AddrPort, error) {
			asked.Store(true)
			<-connected
			return c.named, c.err
		}})
		if err != nil {
			t.Fatal(err)
		}
		if c.full {
			n.tcp.admission.vouch(n.tcp.admission.take(client.Addr()))
		}
		before := n.tcp.Admission().Open
		conn, err := net.Dial("tcp", ln.Bound.String())
		if err != nil {
			t.Fatal(err)
		}
		close(connected)
		defer conn.Close()
		if c.peer.IsValid() || name == "not a proxy" {
			eventually(t, name+": it is taken", func() bool { return len(n.tcp.Connections()) == 1 })
			got, want := n.tcp.Connections()[0], c.peer
			if !want.IsValid() {
				want = netip.MustParseAddrPort(conn.LocalAddr().String())
			}
			eventually(t, name+": it is its client's", func() bool { return got.Peer() == want })
			if got.PeerText() != want.String() || got.Remote.String() != conn.LocalAddr().String() || got.SourceName() != routing.HostSource(want.Addr()) {
				t.Errorf("%s: it is of %q", name, got.PeerText())
			}
			eventually(t, name+": its place is its client's", func() bool {
				n.tcp.admission.mu.Lock()
				defer n.tcp.admission.mu.Unlock()
				return len(n.tcp.admission.byHost) == 1 && n.tcp.admission.byHost[routing.HostSource(want.Addr())] != nil
			})
			// It can be ended to make room, as any other.
			if n.tcp.admission.take(want.Addr()) == nil || !ended(t, conn) {
				t.Errorf("%s: it does not make room", name)
			}
		} else if !ended(t, conn) {
			t.Errorf("%s: the connection stays", name)
		} else {
			eventually(t, name+": its place is free", func() bool { return n.tcp.Admission().Open == before })
		}
		if failed := n.tcp.Stats.PrefaceFailed.Load(); failed != c.failed || asked.Load() == (name == "not a proxy") {
			t.Errorf("%s: %d failed, asked %v", name, failed, asked.Load())
		}
	}
}

// TestProxyInFrontMakesRoom: a connection that has to make room while the proxy in front is still to name its client ends, and that is no fault of the proxy's.
func TestProxyInFrontMakesRoom(t *testing.T) {
	n := newNode(t, 1, Options{ConnectionsPerAddress: 1})
	begun := make(chan struct{}, 2)
	ln, err := n.tcp.Serve(limited(t), loopback, Serving{PrefacedFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		Preface: func(ctx context.Context, _ int, from netip.AddrPort) (netip.AddrPort, error) {
			begun <- struct{}{}
			<-ctx.Done()
			return from, ctx.Err()
		}})
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i := range conns {
		if conns[i], err = net.Dial("tcp", ln.Bound.String()); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		<-begun
	}
	if !ended(t, conns[0]) {
		t.Error("the first stays")
	}
	if n.tcp.admission.take(netip.MustParseAddr("127.0.0.1")) == nil || !ended(t, conns[1]) {
		t.Error("the second stays")
	}
	if u := n.tcp.Admission(); u.Open != 1 || n.tcp.Stats.PrefaceFailed.Load() != 0 || n.tcp.Stats.Accepted.Load() != 0 {
		t.Errorf("%+v, %d failed, %d accepted", u, n.tcp.Stats.PrefaceFailed.Load(), n.tcp.Stats.Accepted.Load())
	}
}

// TestAdmittedTooLate: a connection whose place was taken while it was made ends at once; so does one that has to move to where there is no room.
func TestAdmittedTooLate(t *testing.T) {
	a, n := newNode(t, 1, Options{}), newNode(t, 1, Options{ConnectionsPerAddress: 2})
	accepted := func() (out, in *Connection) {
		out = a.connect(t, n)
		eventually(t, "accepted", func() bool { return len(n.tcp.Connections()) == 1 })
		return out, n.tcp.Connections()[0]
	}
	client := netip.MustParseAddrPort("198.51.100.7:0")
	gone := func(name string, out, in *Connection) {
		t.Helper()
		for _, c := range []*Connection{out, in} {
			select {
			case <-c.Done():
			case <-limited(t).Done():
				t.Fatalf("%s: it stays", name)
			}
		}
		eventually(t, "forgotten", func() bool { return len(n.tcp.Connections()) == 0 })
	}

	out, in := accepted()
	if err := in.shard.Do(limited(t), func() {
		p := n.tcp.admission.take(client.Addr())
		n.tcp.admission.take(client.Addr())
		n.tcp.admission.take(client.Addr()) // the first makes room
		n.tcp.admitted(in, nil, &arrival{place: p, client: client})
	}); err != nil {
		t.Fatal(err)
	}
	gone("its place was taken", out, in)

	// A proxy names somebody. The last two have channels, so there is no room beside them.
	n.tcp.admission.mu.Lock()
	for _, h := range n.tcp.admission.byHost {
		for e := h.bare.Front(); e != nil; e = h.bare.Front() {
			n.tcp.admission.unlist(e.Value.(*place))
		}
	}
	n.tcp.admission.mu.Unlock()
	out, in = accepted()
	other := netip.MustParseAddrPort("198.51.100.8:0")
	if err := in.shard.Do(limited(t), func() {
		if in.named(client) || in.Peer() == client {
			t.Error("there is room for one too many")
		}
	}); err != nil {
		t.Fatal(err)
	}
	in.Close()
	gone("no room", out, in)
	out, in = accepted()
	if err := in.shard.Do(limited(t), func() {
		if !in.named(other) || in.Peer() != other || in.PeerText() != "198.51.100.8" {
			t.Errorf("it is of %s, %q", in.Peer(), in.PeerText())
		}
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		n.tcp.admission.take(other.Addr())
	}
	gone("it makes room where it was moved to", out, in)
}

// TestSocketNobodyCanUse: an accepted descriptor that is no TCP socket is closed, and its place is free.
func TestSocketNobodyCanUse(t *testing.T) {
	n := newNode(t, 1, Options{})
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	r := os.NewFile(uintptr(fds[0]), "pipe")
	defer r.Close()
	if err := n.ln.shard.Do(limited(t), func() { n.tcp.accepted(n.ln, fds[1], netip.MustParseAddrPort("192.0.2.1:5")) }); err != nil {
		t.Fatal(err)
	}
	_ = r.SetReadDeadline(time.Now().Add(90 * time.Second))
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) || n.tcp.Admission().Open != 0 {
		t.Errorf("it stays open: %v, %d places", err, n.tcp.Admission().Open)
	}
}

// TestPausedListeners: while a transport is paused nobody who connects to a listener that is opened then is taken, and who has waited is afterwards. A listener of
// before goes on.
func TestPausedListeners(t *testing.T) {
	n := newNode(t, 1, Options{})
	n.tcp.Pause()
	ln, err := n.tcp.Listen(limited(t), loopback)
	if err != nil {
		t.Fatal(err)
	}
	waits, err := net.Dial("tcp", ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Close()
	other := dialRaw(t, n)
	other.hello()
	other.answered("taken")
	if got := n.tcp.Stats.Accepted.Load(); got != 1 {
		t.Fatalf("%d are taken", got)
	}
	if err := n.tcp.Resume(limited(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "who has waited is taken", func() bool { return n.tcp.Stats.Accepted.Load() == 2 })
	later, err := n.tcp.Listen(limited(t), loopback)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", later.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "a listener of afterwards takes", func() bool { return n.tcp.Stats.Accepted.Load() == 3 })
	n.tcp.StopListening(limited(t))
	for _, l := range []*Listener{n.ln, ln, later} {
		if c, err := net.Dial("tcp", l.Bound.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a listener is left: %v, %v", c, err)
		}
	}
	if got := len(n.tcp.Connections()); got != 3 {
		t.Errorf("%d of 3 connections are left", got)
	}
}

// TestPlaceOfConnections: a new connection goes to the first shard that is not full, or to the one that is least busy.
func TestPlaceOfConnections(t *testing.T) {
	n := newNode(t, 3, Options{})
	for _, c := range []struct {
		share [3]float64
		want  int
	}{
		{[3]float64{0, 0, 0}, 0}, {[3]float64{0.69, 0, 0}, 0}, {[3]float64{loadLimit, 0, 0}, 1}, {[3]float64{0.9, 0.8, 0.1}, 2},
		{[3]float64{0.9, 0.8, 0.85}, 1}, {[3]float64{0.8, 0.9, 0.9}, 0}, {[3]float64{0.9, 0.9, 0.8}, 2}, {[3]float64{1, 1, 1}, 0},
	} {
		n.tcp.loads.share, n.tcp.loads.at = c.share[:], time.Now().Add(time.Hour)
		if got := n.tcp.place(); got != n.router.Shards()[c.want] {
			t.Errorf("%v: not shard %d", c.share, c.want)
		}
	}
}

// TestLine: what was sent and what the peer's system has acknowledged of it are known while a connection is open, and how far it is.
func TestLine(t *testing.T) {
	n := newNode(t, 1, Options{UserTimeout: time.Hour}) // the kernel ends a connection whose peer takes nothing for so long
	r := dialRaw(t, n)
	_ = r.SetReadBuffer(8 << 10)
	r.hello()
	eventually(t, "accepted", func() bool { return len(n.tcp.Connections()) == 1 })
	c := n.tcp.Connections()[0]
	if sent, taken := c.Line(limited(t)); sent != taken || c.RoundTrip(limited(t)) <= 0 {
		t.Errorf("%d sent, %d taken, %v away", sent, taken, c.RoundTrip(limited(t)))
	}
	for range 8 {
		n.router.Inject(routing.RouteOf(c.Sender).Concat(routing.LocalRoute("x")), routing.LocalRoute("y"), make([]byte, 1<<20))
	}
	eventually(t, "the kernel takes no more", func() bool {
		var waits, under int
		if err := c.shard.Do(limited(t), func() { waits, under = c.framed.Pending(), c.framed.Unacknowledged() }); err != nil {
			t.Fatal(err)
		}
		sent, taken := c.Line(limited(t))
		return waits > 0 && under > 0 && sent > 8<<20 && taken == sent-uint64(waits+under)
	})
	if err := c.shard.Do(limited(t), c.framed.Abort); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if sent, taken := c.Line(limited(t)); sent != 0 || taken != 0 || c.RoundTrip(limited(t)) != 0 {
		t.Errorf("of a connection that has ended: %d sent, %d taken", sent, taken)
	}
}

// TestTrustedProxyPassesRequestsOn: whom a trusted proxy passes a WebSocket request on for has the connection, unless there is no room for it; who is not trusted names
// nobody.
func TestTrustedProxyPassesRequestsOn(t *testing.T) {
	here, elsewhere := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	client := netip.MustParseAddr("198.51.100.7")
	for name, c := range map[string]struct {
		trusted []netip.Prefix
		full    bool
		of      string // "" for one that ends
	}{
		"trusted":              {here, false, "198.51.100.7"},
		"trusted, and no room": {here, true, ""},
		"not trusted":          {elsewhere, false, "127.0.0.1"},
	} {
		n := newNode(t, 1, Options{ConnectionsPerAddress: 1})
		ln, err := n.tcp.Serve(limited(t), loopback, Serving{WebSocket: &ws.Accepts{Path: "/portal"}, TrustedProxies: c.trusted})
		if err != nil {
			t.Fatal(err)
		}
		if c.full {
			n.tcp.admission.vouch(n.tcp.admission.take(client))
		}
		conn, err := net.Dial("tcp", ln.Bound.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		request := strings.Replace(string(asks(t).Bytes()), "\r\n\r\n", "\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n", 1)
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		if c.of == "" {
			if !ended(t, conn) {
				t.Errorf("%s: it stays", name)
			}
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(90 * time.Second))
		if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(answer, " 101 ") {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
		eventually(t, name+": it is of "+c.of, func() bool {
			list := n.tcp.Connections()
			return len(list) == 1 && list[0].Peer().Addr().String() == c.of && list[0].SourceName() == routing.HostSource(netip.MustParseAddr(c.of))
		})
	}
}
