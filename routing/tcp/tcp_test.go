package tcp

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"sallyport/internal/await"
	"sallyport/internal/servers"
	"sallyport/routing"
	"sallyport/routing/routertest"
)

// believed is the certificate of a server of this machine, of a root in place of the system's.
var believed tls.Certificate

func TestMain(m *testing.M) {
	var err error
	if believed, err = servers.Root("localhost"); err != nil {
		log.Fatal(err)
	}
	goleak.VerifyTestMain(m)
}

// node is loops, a router and a transport with one listener, and the services that can be reached from it.
type node struct {
	router *routing.Router
	tcp    *Transport
	ln     *Listener
}

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

func newNode(t testing.TB, shards int, o Options) *node {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := routertest.New(t, shards, log)
	var err error
	n := &node{router: r, tcp: New(r, o)}
	if n.ln, err = n.tcp.Listen(limited(t), loopback); err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]routing.Worker{"echo": routing.Echo(nil, nil), "uppercase": routing.Uppercase(), "hop": routing.Hop("hop")} {
		n.serve(t, name, w, n.ln.Flow)
	}
	return n
}

func (n *node) serve(t testing.TB, name string, w routing.Worker, flows ...*routing.Flow) {
	t.Helper()
	if err := n.router.StartNamed(limited(t), name, func(*routing.Shard) routing.Worker { return w }, flows...); err != nil {
		t.Fatal(err)
	}
}

func (n *node) connect(t testing.TB, to *node) *Connection {
	t.Helper()
	c, err := n.tcp.Connect(limited(t), to.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	limited    = await.Context
	eventually = await.True
)

// TestManyHops builds random networks of nodes and sends along random routes: every request reaches its end and every answer its
// sender, whole. A hop worker at each node on the way makes a node that is passed reachable from both sides.
func TestManyHops(t *testing.T) {
	const size = 5
	nodes := make([]*node, size)
	for i := range nodes {
		nodes[i] = newNode(t, 1+i%3, Options{})
	}
	// Every node has one connection to every other.
	way := map[[2]int]*Connection{}
	for i, from := range nodes {
		for j, to := range nodes {
			if i != j {
				way[[2]int{i, j}] = from.connect(t, to)
			}
		}
	}
	for i := range nodes { // hops may be reached from connections that the node opened, too
		for pair, c := range way {
			if pair[0] == i {
				if err := nodes[i].router.AddConsumer(limited(t), "hop", c.Flow); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	// An answer to a worker's return route passes a node through its connections only: these are consumers of each other.
	for i, n := range nodes {
		for _, a := range n.tcp.Connections() {
			flows := []*routing.Flow{n.ln.Flow}
			for pair, c := range way {
				if pair[0] == i {
					flows = append(flows, c.Flow)
				}
			}
			for _, f := range flows {
				if err := n.router.AddConsumer(limited(t), a.Sender.Text(), f); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.IntRange(0, size-1).Draw(t, "start")
		start := at
		var route []routing.Route
		crossed := 0
		for range rapid.IntRange(1, 8).Draw(t, "hops") {
			next := (at + rapid.IntRange(1, size-1).Draw(t, "next")) % size
			c := way[[2]int{at, next}]
			route = append(route, routing.RouteOf(c.Sender))
			if rapid.Bool().Draw(t, "through hop") {
				route = append(route, routing.LocalRoute("hop"))
				crossed++
			}
			at = next
			crossed++
		}
		route = append(route, routing.LocalRoute("echo"))
		payload := bytes.Repeat([]byte{byte(crossed)}, rapid.SampledFrom([]int{0, 1, 100, 70_000, 300_000}).Draw(t, "size"))
		ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
		defer cancel()
		reply, err := nodes[start].router.Request(ctx, routing.Route{}.Concat(route...), payload)
		if err != nil {
			t.Fatalf("%v: %v", route, err)
		}
		if !bytes.Equal(reply.Payload, payload) {
			t.Fatalf("answer of %d bytes, want %d", len(reply.Payload), len(payload))
		}
		if reply.Return.Len() != crossed+1 || reply.Return.Last().Value != "echo" {
			t.Fatalf("return route %s", reply.Return)
		}
	})
}

// raw is a client that speaks the wire format by hand.
type raw struct {
	*net.TCPConn
	t testing.TB
}

func dialRaw(t testing.TB, n *node) raw {
	t.Helper()
	c, err := net.Dial("tcp", n.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(90 * time.Second))
	return raw{c.(*net.TCPConn), t}
}

func (r raw) send(b []byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

func (r raw) frame() []byte {
	r.t.Helper()
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		r.t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(r, body); err != nil {
		r.t.Fatal(err)
	}
	return body
}

func framed(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func (r raw) hello() {
	r.t.Helper()
	r.send([]byte{version})
	var b [1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil || b[0] != version {
		r.t.Fatalf("version byte %x, %v", b, err)
	}
}

// answered sends an echo request and expects its answer.
func (r raw) answered(payload string) {
	r.t.Helper()
	r.send(framed(routing.AppendMessage(nil, routing.LocalRoute("echo"), routing.LocalRoute("me"), []byte(payload))))
	r.expect(payload)
}

func (r raw) expect(payload string) {
	r.t.Helper()
	p, body := routing.Parsed{}, r.frame()
	p, err := routing.ParseMessage(body)
	if err != nil || string(body[p.Start:p.End]) != payload || !p.Onward.Equal(routing.LocalRoute("me")) || !p.Return.Equal(routing.LocalRoute("echo")) {
		r.t.Fatalf("%x, %v", body, err)
	}
}

// ended expects the peer to close, whatever it still says.
func (r raw) ended(why string) {
	r.t.Helper()
	if _, err := io.Copy(io.Discard, r); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		r.t.Fatalf("%s: connection not closed: %v", why, err)
	}
}

// TestReceiver follows what was observed of the reference's receiver (docs/protocol 04-captures, tcp_receiver_behaviour).
func TestReceiver(t *testing.T) {
	n := newNode(t, 2, Options{})
	n.serve(t, "hidden", routing.Echo(nil, nil)) // consumes nothing
	message := func(onward routing.Route, payload string) []byte {
		return framed(routing.AppendMessage(nil, onward, routing.LocalRoute("me"), []byte(payload)))
	}
	t.Run("silently dropped", func(t *testing.T) {
		c := dialRaw(t, n)
		c.hello()
		for _, onward := range []routing.Route{
			{}, routing.LocalRoute("unknown"), routing.LocalRoute("hidden"), routing.LocalRoute("00112233445566778899aabbccddeeff"),
			routing.NewRoute(routing.Address{Type: routing.TCP, Value: n.ln.Bound.String()}, routing.LocalAddress("echo")),
			routing.LocalRoute("hop", "unknown"),
		} {
			c.send(message(onward, "lost"))
		}
		c.answered("still there")
	})
	t.Run("accepted", func(t *testing.T) {
		c := dialRaw(t, n)
		c.hello()
		const echo, me, hi = "\x81\x82\x00\x44echo", "\x81\x82\x00\x42me", "\x42hi"
		for name, body := range map[string]string{
			"3 elements":     "\x83" + echo + me + hi,
			"trace":          "\x84" + echo + me + hi + "\x62{}",
			"trace null":     "\x84" + echo + me + hi + "\xf6",
			"fifth element":  "\x85" + echo + me + hi + "\x62{}\x01",
			"trailing bytes": "\x83" + echo + me + hi + "\xde\xad",
			"indefinite":     "\x9f\x9f" + echo[1:] + "\xff\x9f" + me[1:] + "\xff" + hi + "\xff",
		} {
			t.Log(name)
			c.send(framed([]byte(body)))
			c.expect("hi")
		}
		for _, b := range message(routing.LocalRoute("echo"), "cut in pieces") {
			c.send([]byte{b})
		}
		c.expect("cut in pieces")
		c.send(bytes.Repeat(message(routing.LocalRoute("echo"), "joined"), 3))
		for range 3 {
			c.expect("joined")
		}
		// The largest frame there is: an answer would be larger, so ask where none comes.
		largest := routing.MaxFrame - routing.HeaderLen(routing.LocalRoute("unknown"), routing.Route{}, routing.MaxFrame/2)
		b := framed(routing.AppendMessage(nil, routing.LocalRoute("unknown"), routing.Route{}, make([]byte, largest)))
		if len(b) != routing.MaxFrame+4 {
			t.Fatalf("frame of %d bytes", len(b))
		}
		c.send(b)
		c.answered("after the largest")
	})
	malformed := n.tcp.Stats.Malformed.Load()
	for name, bytes := range map[string]string{
		"version 0":                   "\x00",
		"version 2":                   "\x02",
		"a web browser":               "GET / HTTP/1.1\r\n\r\n",
		"undecodable":                 "\x01\x00\x00\x00\x01\xff",
		"no message":                  "\x01\x00\x00\x00\x01\x80",
		"length zero":                 "\x01\x00\x00\x00\x00",
		"payload of integers":         "\x01\x00\x00\x00\x05\x83\x80\x80\x81\x01",
		"address as text":             "\x01\x00\x00\x00\x08\x83\x81\x82\x00\x61x\x80\x40",
		"length above 16 MiB":         "\x01\x01\x00\x00\x01",
		"length of 4 GiB":             "\x01\xff\xff\xff\xff",
		"announced more than is sent": "\x01\x00\x00\x00\x04\x83\x80\x80\x41",
	} {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, n)
			c.send([]byte(bytes))
			c.ended(name)
		})
	}
	if got := n.tcp.Stats.Malformed.Load() - malformed; got != 5 {
		t.Errorf("%d malformed counted, want 5", got)
	}
	eventually(t, "connections gone", func() bool { return len(n.tcp.Connections()) == 2 || len(n.tcp.Connections()) == 0 })
}

// TestRoutesOnTheWire looks at what a node sends for a message that it passes on (docs/protocol/01 §2.4, the observed example).
func TestRoutesOnTheWire(t *testing.T) {
	n := newNode(t, 2, Options{})
	a := dialRaw(t, n)
	a.hello()
	eventually(t, "accepted", func() bool { return len(n.tcp.Connections()) == 1 })
	ta := n.tcp.Connections()[0]
	b := dialRaw(t, n)
	b.hello()
	eventually(t, "accepted", func() bool { return len(n.tcp.Connections()) == 2 })
	var tb *Connection
	for _, c := range n.tcp.Connections() { // in no particular order
		if c != ta {
			tb = c
		}
	}
	send := routing.AppendMessage(nil, routing.LocalRoute("hop").Concat(routing.RouteOf(tb.Sender), routing.LocalRoute("svc")), routing.LocalRoute("a"), []byte("ask"))
	a.send(framed(send))
	body := b.frame()
	p, err := routing.ParseMessage(body)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Onward.Equal(routing.LocalRoute("svc")) || !p.Return.Equal(routing.LocalRoute("hop").Concat(routing.RouteOf(ta.Sender), routing.LocalRoute("a"))) {
		t.Fatalf("forwarded %s / %s", p.Onward, p.Return)
	}
	b.send(framed(routing.AppendMessage(nil, p.Return, routing.LocalRoute("svc"), []byte("tell"))))
	body = a.frame()
	if p, err = routing.ParseMessage(body); err != nil {
		t.Fatal(err)
	}
	if !p.Onward.Equal(routing.LocalRoute("a")) || !p.Return.Equal(routing.LocalRoute("hop").Concat(routing.RouteOf(tb.Sender), routing.LocalRoute("svc"))) {
		t.Fatalf("answered %s / %s", p.Onward, p.Return)
	}
}

func TestConnectionsEnd(t *testing.T) {
	a, b := newNode(t, 2, Options{}), newNode(t, 2, Options{})
	for _, who := range []string{"the one who opened it", "the one who accepted it"} {
		c := a.connect(t, b)
		eventually(t, "accepted", func() bool { return len(b.tcp.Connections()) == 1 })
		d := b.tcp.Connections()[0]
		if !c.Outgoing || d.Outgoing || c.Local != d.Remote || c.Remote != d.Local || a.router.LookupFlow(c.Flow.ID()) != c.Flow {
			t.Errorf("%+v, %+v", c, d)
		}
		told := make(chan struct{})
		if err := c.Shard().Do(limited(t), func() { c.Watch(watcher(told)) }); err != nil {
			t.Fatal(err)
		}
		if who == "the one who opened it" {
			c.Close()
		} else {
			d.Close()
		}
		for _, x := range []*Connection{c, d} {
			select {
			case <-x.Done():
			case <-time.After(90 * time.Second):
				t.Fatalf("closed by %s: not seen", who)
			}
		}
		<-told
		eventually(t, "forgotten", func() bool {
			return len(a.tcp.Connections())+len(b.tcp.Connections()) == 0 && a.router.LookupFlow(c.Flow.ID()) == nil
		})
		if err := c.Shard().Do(limited(t), func() {
			if c.Shard().Worker(c.Sender.Text()) != nil {
				t.Error("sender still there")
			}
			s := c.Shard()
			w := s.Start(routing.Echo(nil, nil), c.Flow)
			s.AddConsumer(w.Text(), c.Flow)
			if !slices.Equal(s.Consumes(w.Text()), []*routing.Flow{c.Flow}) {
				t.Error("it is not known what a worker consumes")
			}
			s.AddConsumer(w.Text(), a.ln.Flow)
			if slices.Contains(s.Consumes(w.Text()), c.Flow) {
				t.Error("workers keep the flow of a connection that has ended")
			}
			s.Stop(w)
		}); err != nil {
			t.Fatal(err)
		}
		c.Close() // no harm
	}
	if n := a.tcp.Stats.Closed.Load(); n != 2 {
		t.Errorf("%d closed", n)
	}
	if err := b.ln.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	if c, err := a.tcp.Connect(limited(t), b.ln.Bound.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connected to a closed listener: %v, %v", c, err)
	}
	if len(b.tcp.Listeners()) != 0 || len(a.tcp.Listeners()) != 1 {
		t.Error("listeners are not what they should be")
	}
}

type watcher chan struct{}

func (w watcher) TerminalClosed() { close(w) }

func TestConnectFails(t *testing.T) {
	a := newNode(t, 1, Options{})
	for _, bad := range []string{"nohost", "127.0.0.1:port", "127.0.0.1:99999", ":"} {
		if _, err := a.tcp.Connect(limited(t), bad); err == nil {
			t.Errorf("%q: connected", bad)
		}
	}
	// A listener whose queue is full does not answer: the attempt ends with the caller's patience.
	full := fullListener(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := a.tcp.Connect(ctx, full)
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if len(a.tcp.Connections()) != 0 {
		t.Error("a connection is left")
	}
}

// fullListener returns the address of a listener that accepts nobody and whose queue is full.
func fullListener(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
	for range 4 {
		if c, err := net.DialTimeout("tcp", address, 50*time.Millisecond); err == nil {
			t.Cleanup(func() { c.Close() })
		} else {
			return address
		}
	}
	t.Fatal("the queue does not fill")
	return ""
}

// TestTooLarge: a message that no frame carries closes the connection that was to carry it, as in the reference.
func TestTooLarge(t *testing.T) {
	a, b := newNode(t, 1, Options{}), newNode(t, 1, Options{})
	c := a.connect(t, b)
	a.router.Inject(routing.RouteOf(c.Sender).Concat(routing.LocalRoute("echo")), routing.LocalRoute("x"), make([]byte, routing.MaxFrame))
	select {
	case <-c.Done():
	case <-time.After(90 * time.Second):
		t.Fatal("still open")
	}
	if a.tcp.Stats.TooLarge.Load() != 1 {
		t.Error("not counted")
	}
}

// TestBackpressure: a peer that does not read stops the connection that sends to it, and memory stays bounded.
func TestBackpressure(t *testing.T) {
	n := newNode(t, 1, Options{HighWater: 128 << 10})
	reader := dialRaw(t, n)
	reader.hello()
	eventually(t, "accepted", func() bool { return len(n.tcp.Connections()) == 1 })
	out := n.tcp.Connections()[0]
	sender := dialRaw(t, n)
	sender.hello()
	other := dialRaw(t, n)
	other.hello()
	const size, count = 64 << 10, 1000
	one := framed(routing.AppendMessage(nil, routing.LocalRoute("hop").Concat(routing.RouteOf(out.Sender), routing.LocalRoute("x")), routing.LocalRoute("s"), bytes.Repeat([]byte{1}, size)))
	before := alloc()
	sent := make(chan error, 1)
	go func() {
		var err error
		for i := 0; i < count && err == nil; i++ {
			_, err = sender.Write(one)
		}
		sent <- err
	}()
	eventually(t, "sender stopped", func() bool { return n.tcp.Stats.Stalled.Load() > 0 })
	other.answered("others are not held up")
	select {
	case err := <-sent:
		t.Fatalf("64 MiB went to nobody: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if used := alloc() - before; used > 8<<20 {
		t.Errorf("%d bytes held", used)
	}
	for i := range count { // now read
		body := reader.frame()
		if p, err := routing.ParseMessage(body); err != nil || p.End-p.Start != size {
			t.Fatalf("message %d: %d bytes, %v", i, p.End-p.Start, err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func alloc() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestStorm opens, uses and closes many connections at once and expects nothing to be left.
func TestStorm(t *testing.T) {
	n := newNode(t, 2, Options{})
	rnd := rand.New(rand.NewPCG(1, 2))
	kinds := make([]int, 200)
	for i := range kinds {
		kinds[i] = rnd.IntN(4)
	}
	done := make(chan struct{}, len(kinds))
	for _, kind := range kinds {
		go func() {
			defer func() { done <- struct{}{} }()
			c, err := net.Dial("tcp", n.ln.Bound.String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(90 * time.Second))
			switch kind {
			case 0: // says nothing
			case 1: // nonsense
				c.Write([]byte("nonsense"))
			case 2: // cut within a frame, and reset
				c.Write([]byte{1, 0, 0, 1, 0, 0x83})
				c.(*net.TCPConn).SetLinger(0)
			case 3:
				c.Write(append([]byte{version}, framed(routing.AppendMessage(nil, routing.LocalRoute("echo"), routing.LocalRoute("me"), []byte("x")))...))
				if _, err := io.ReadFull(c, make([]byte, 6)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for range kinds {
		<-done
	}
	eventually(t, "all closed", func() bool { return len(n.tcp.Connections()) == 0 && n.tcp.Stats.Accepted.Load() == 200 })
	if n.tcp.Stats.Closed.Load() != 200 {
		t.Errorf("%d closed", n.tcp.Stats.Closed.Load())
	}
	if list, err := n.router.Addresses(limited(t)); err != nil || len(list) != 3 {
		t.Errorf("workers left: %v, %v", list, err)
	}
}
