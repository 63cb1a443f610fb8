package udp

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/internal/await"
	"sallyport/routing"
	"sallyport/routing/routertest"
	"sallyport/routing/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// node is loops, a router and a transport with a socket, and the services that can be reached from it.
type node struct {
	router *routing.Router
	udp    *Transport
	bind   *Bind
	shard  *routing.Shard
}

func newNode(t testing.TB, o Options) *node {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := routertest.New(t, 2, log)
	n := &node{router: r, udp: New(r, o), shard: r.Shards()[1]}
	n.bind = n.open(t, netip.AddrPort{})
	for name, w := range map[string]routing.Worker{"echo": routing.Echo(nil, nil), "hop": routing.Hop("hop"), RendezvousService: Rendezvous()} {
		n.serve(t, name, w, n.bind.Flow)
	}
	return n
}

func (n *node) open(t testing.TB, peer netip.AddrPort) *Bind {
	t.Helper()
	b, err := n.udp.Bind(limited(t), n.shard, loopback, peer)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (n *node) serve(t testing.TB, name string, w routing.Worker, flows ...*routing.Flow) {
	t.Helper()
	if err := n.router.StartNamed(limited(t), name, func(*routing.Shard) routing.Worker { return w }, flows...); err != nil {
		t.Fatal(err)
	}
}

var (
	limited    = await.Context
	eventually = await.True
)

// client is a socket that speaks the wire format by hand.
type client struct {
	*net.UDPConn
	t testing.TB
}

func newClient(t testing.TB, to netip.AddrPort) client {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return client{c, t}
}

func (c client) send(datagrams ...[]byte) {
	c.t.Helper()
	for _, d := range datagrams {
		if _, err := c.Write(d); err != nil {
			c.t.Fatal(err)
		}
	}
}

// message receives one message of one fragment.
func (c client) message() (onward, ret routing.Route, payload string) {
	c.t.Helper()
	onward, ret, payload, err := c.receive(90 * time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	return onward, ret, payload
}

// receive is message for who does not know whether there is one.
func (c client) receive(patience time.Duration) (onward, ret routing.Route, payload string, err error) {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2048)
	n, err := c.Read(buf)
	if err != nil {
		return onward, ret, "", err
	}
	f, err := parseFragment(buf[:n])
	if err != nil || f.total != 1 {
		c.t.Fatalf("%x: %+v, %v", buf[:n], f, err)
	}
	p, err := routing.ParseMessage(buf[f.start:f.end])
	if err != nil {
		c.t.Fatal(err)
	}
	return p.Onward.Clone(), p.Return.Clone(), string(buf[f.start:f.end][p.Start:p.End]), nil
}

func to(b *Bind, rest ...string) routing.Route {
	return routing.NewRoute(routing.Address{Type: routing.UDP, Value: b.Local.String()}).Concat(routing.LocalRoute(rest...))
}

// TestRequests goes there and back with and without a fixed peer, with messages of one and of many datagrams.
func TestRequests(t *testing.T) {
	a, b := newNode(t, Options{}), newNode(t, Options{})
	fixed := a.open(t, b.bind.Local)
	for _, size := range []int{0, 1, 400, 493, 986, 5000, 100_000} {
		payload := bytes.Repeat([]byte{byte(size)}, size)
		for name, route := range map[string]routing.Route{
			"fixed":     routing.RouteOf(fixed.Sender).Concat(routing.LocalRoute("echo")),
			"not fixed": routing.RouteOf(a.bind.Sender).Concat(to(b.bind, "echo")),
			"through":   routing.RouteOf(fixed.Sender).Concat(routing.LocalRoute("hop", "echo")),
		} {
			reply, err := a.router.Request(limited(t), route, payload)
			if err != nil || !bytes.Equal(reply.Payload, payload) {
				t.Fatalf("%s, %d bytes: %d bytes, %v", name, size, len(reply.Payload), err)
			}
			if name == "not fixed" && !reply.Return.Equal(route) {
				t.Errorf("return route %s, want %s", reply.Return, route)
			}
		}
	}
	// Exact multiples of a part, as we send them and as the reference does, with an empty part at the end.
	c := newClient(t, b.bind.Local)
	whole := routing.AppendMessage(nil, routing.LocalRoute("hop", "unknown"), routing.Route{}, nil)
	payload := make([]byte, 986-len(whole)-2)
	whole = routing.AppendMessage(nil, routing.LocalRoute("echo"), routing.LocalRoute("me"), payload)
	before := b.udp.Stats.MessagesIn.Load()
	c.send(append(appendFragmentHead(nil, 1, 0, 2, len(whole)), whole...), appendFragmentHead(nil, 1, 1, 2, 0))
	eventually(t, "an empty last part accepted", func() bool { return b.udp.Stats.MessagesIn.Load() == before+1 })
}

// TestReceiver: what is not a message, not of the peer, or not to be reached is dropped, and the socket stays.
func TestReceiver(t *testing.T) {
	n := newNode(t, Options{})
	n.serve(t, "hidden", routing.Echo(nil, nil))
	c := newClient(t, n.bind.Local)
	message := func(onward routing.Route, payload string) []byte {
		return routing.AppendMessage(nil, onward, routing.LocalRoute("me"), []byte(payload))
	}
	number := uint16(65_530)
	send := func(m []byte) {
		c.send(cut(number, 508, m)...)
		number++
	}
	for _, onward := range []routing.Route{
		{}, routing.LocalRoute("unknown"), routing.LocalRoute("hidden"), routing.NewRoute(routing.Address{Type: routing.UDP, Value: c.LocalAddr().String()}),
		routing.RouteOf(n.bind.Sender).Concat(routing.NewRoute(routing.Address{Type: routing.UDP, Value: c.LocalAddr().String()}, routing.LocalAddress("x"))),
	} {
		send(message(onward, "lost"))
	}
	send([]byte{0x83, 0xff})
	c.send([]byte("nonsense"), []byte{}, make([]byte, 3000))
	send(message(routing.LocalRoute("echo"), "still there"))
	onward, ret, payload := c.message()
	if payload != "still there" || !onward.Equal(routing.LocalRoute("me")) || !ret.Equal(routing.LocalRoute("echo")) {
		t.Errorf("%s, %s, %q", onward, ret, payload)
	}
	s := &n.udp.Stats
	if s.Malformed.Load() != 3 || s.Truncated.Load() != 1 {
		t.Errorf("%d malformed, %d truncated", s.Malformed.Load(), s.Truncated.Load())
	}
	fixed := n.open(t, n.bind.Local)
	newClient(t, fixed.Local).send(cut(1, 508, message(routing.LocalRoute("echo"), "of a stranger"))...)
	eventually(t, "the stranger's datagram dropped", func() bool { return s.Foreign.Load() == 1 })
}

// TestSender: messages that name no address to send to, and those too large, are counted and go nowhere.
func TestSender(t *testing.T) {
	n := newNode(t, Options{PacketSize: 100})
	for _, next := range []routing.Route{
		{}, routing.LocalRoute("x"), routing.NewRoute(routing.Address{Type: routing.UDP, Value: "127.0.0.1:0"}), routing.NewRoute(routing.Address{Type: routing.UDP, Value: "localhost"}),
		routing.NewRoute(routing.Address{Type: routing.UDP, Value: "[::1]:80"}), routing.NewRoute(routing.Address{Type: routing.TCP, Value: "127.0.0.1:80"}),
	} {
		n.router.Inject(routing.RouteOf(n.bind.Sender).Concat(next), routing.LocalRoute("me"), nil)
	}
	eventually(t, "not sent", func() bool { return n.udp.Stats.Unroutable.Load() == 6 })
	n.router.Inject(routing.RouteOf(n.bind.Sender).Concat(to(n.bind, "echo")), routing.LocalRoute("me"), make([]byte, maxFragments*85))
	eventually(t, "too large", func() bool { return n.udp.Stats.NoRoom.Load() == 1 })
	if n.udp.Stats.Out.Load() != 0 {
		t.Error("something was sent")
	}
	// What does not fit into the queue is dropped as a whole.
	for range 3 {
		n.router.Inject(routing.RouteOf(n.bind.Sender).Concat(to(n.bind, "nobody")), routing.LocalRoute("me"), make([]byte, 3<<20))
	}
	eventually(t, "queue full", func() bool { return n.udp.Stats.Overflow.Load() > 0 })
}

// TestNoEmptyPart: a message goes out in as few datagrams as it fits into, all of them full but the last, which has something too.
func TestNoEmptyPart(t *testing.T) {
	n := newNode(t, Options{PacketSize: 100})
	part := n.bind.partSize()
	c := newClient(t, n.bind.Local)
	onward := routing.NewRoute(routing.Address{Type: routing.UDP, Value: c.LocalAddr().String()}).Concat(routing.LocalRoute("x"))
	buf := make([]byte, 200)
	exact := 0
	for size := range part + 1 {
		n.router.Inject(routing.RouteOf(n.bind.Sender).Concat(onward), routing.LocalRoute("me"), make([]byte, size))
		var whole []byte
		for k, total := uint16(0), uint16(1); k < total; k++ {
			c.SetReadDeadline(time.Now().Add(90 * time.Second))
			got, err := c.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			f, err := parseFragment(buf[:got])
			if err != nil || f.offset != k || f.start == f.end || k+1 < f.total && f.end-f.start != part {
				t.Fatalf("%d bytes, datagram %d: %+v, %v", size, k, f, err)
			}
			whole, total = append(whole, buf[f.start:f.end]...), f.total
		}
		if p, err := routing.ParseMessage(whole); err != nil || p.End-p.Start != size {
			t.Fatalf("%d bytes came as %d, %v", size, p.End-p.Start, err)
		}
		if len(whole)%part == 0 {
			exact++
		}
	}
	if exact == 0 {
		t.Error("no message was exactly as long as its datagrams")
	}
}

func TestBindEnds(t *testing.T) {
	n := newNode(t, Options{})
	b := n.open(t, netip.AddrPort{})
	told := make(chan struct{})
	if err := n.shard.Do(limited(t), func() { b.Watch(watcher(told)) }); err != nil {
		t.Fatal(err)
	}
	b.Close()
	b.Close()
	<-b.Done()
	<-told
	if len(n.udp.Binds()) != 1 || n.router.LookupFlow(b.Flow.ID()) != nil {
		t.Error("the socket is still known")
	}
	n.router.Inject(routing.RouteOf(b.Sender).Concat(to(n.bind, "echo")), routing.LocalRoute("me"), nil) // no harm
	if _, err := n.udp.Bind(limited(t), n.shard, n.bind.Local, netip.AddrPort{}); err == nil || !strings.Contains(err.Error(), n.bind.Local.String()) {
		t.Errorf("address in use: %v", err)
	}
}

type watcher chan struct{}

func (w watcher) TerminalClosed() { close(w) }

func TestOptions(t *testing.T) {
	env := func(pairs ...string) func(string) (string, bool) {
		return func(name string) (string, bool) {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == name {
					return pairs[i+1], true
				}
			}
			return "", false
		}
	}
	o, err := ParseOptions(env(EnvPacketSize, "1200", EnvPending, "7"))
	if err != nil || o.PacketSize != 1200 || o.Pending != 7 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{"x", "-1", "10", "70000"} {
		if _, err := ParseOptions(env(EnvPacketSize, bad)); err == nil || !strings.Contains(err.Error(), EnvPacketSize) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if o := (Options{}).withDefaults(); o.PacketSize != 508 || o.Pending != 32 {
		t.Errorf("%+v", o)
	}
}

// TestControlMessages holds the codecs against the vectors, and against what is none.
func TestControlMessages(t *testing.T) {
	hexed := func(b []byte) string { return hex.EncodeToString(b) }
	for what, pair := range map[string][2]string{
		"ping":        {hexed(appendKind(nil, kindPing)), "820080"},
		"pong":        {hexed(appendKind(nil, kindPong)), "820180"},
		"get address": {hexed(appendKind(nil, kindAddress)), "820180"},
		"address":     {hexed(appendAddress(nil, "192.0.2.1:5000")), "8201816e3139322e302e322e313a35303030"},
		"initiate":    {hexed(appendOffer(nil, offer{address: "192.0.2.1:5000", remote: []byte("abc")})), "826e3139322e302e322e313a3530303083186118621863"},
		"payload": {hexed(appendPunched(nil, routing.LocalRoute("echo"), routing.LocalRoute("app"), []byte{1, 2, 0xff})),
			"820283818200446563686f8182004361707083010218ff"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %s, want %s", what, pair[0], pair[1])
		}
	}
	p, err := parsePunched(must(hex.DecodeString("820283818200446563686f8182004361707083010218ff")), nil)
	if err != nil || p.kind != kindPayload || !p.onward.Equal(routing.LocalRoute("echo")) || !p.back.Equal(routing.LocalRoute("app")) || !bytes.Equal(p.payload, []byte{1, 2, 0xff}) {
		t.Errorf("%+v, %v", p, err)
	}
	if text, err := parseAddress(must(hex.DecodeString("82018169312e322e332e343a35"))); err != nil || text != "1.2.3.4:5" {
		t.Errorf("%q, %v", text, err)
	}
	o := offer{address: "1.2.3.4:5", remote: []byte("worker"), link: linkVersion}
	if got, err := parseOffer(appendOffer(nil, o)); err != nil || got.address != o.address || string(got.remote) != "worker" || got.link != linkVersion {
		t.Errorf("%+v, %v", got, err)
	}
	// A third item of somebody else's is skipped, as the reference skips ours.
	for _, text := range []string{"8369312e322e332e343a3582186118620a", "9f69312e322e332e343a35821861186200ff"} {
		if got, err := parseOffer(must(hex.DecodeString(text))); err != nil || got.link != 0 || string(got.remote) != "ab" {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"8269312e322e332e343a351861", "8269312e322e332e343a3580", "8269312e322e332e343a3581190100", "8269312e322e332e343a35426162", "81", "8218610a"} {
		if got, err := parseOffer(must(hex.DecodeString(text))); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
	for _, bad := range []string{"127.0.0.1:0", "0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:9", "[::]:80", "[ff02::1]:80", "[fe80::1%lo]:80", "host:80", ""} {
		if a, err := peerAddress(bad); err == nil {
			t.Errorf("%q: %s", bad, a)
		}
	}
}

func FuzzControlMessages(f *testing.F) {
	for _, text := range []string{"820080", "82018169312e322e332e343a35", "826e3139322e302e322e313a3530303083186118621863", "820283818200446563686f8182004361707083010218ff", "8202839f9f00ff"} {
		f.Add(must(hex.DecodeString(text)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePunched(b, nil); err == nil && p.kind == kindPayload {
			again, err := parsePunched(appendPunched(nil, p.onward, p.back, p.payload), nil)
			if err != nil || !bytes.Equal(again.payload, p.payload) || !again.onward.Equal(p.onward) || len(p.payload) > len(b) {
				t.Fatalf("%+v, %v", again, err)
			}
		}
		if o, err := parseOffer(b); err == nil {
			if again, err := parseOffer(appendOffer(nil, o)); err != nil || again.address != o.address || !bytes.Equal(again.remote, o.remote) || again.link != o.link {
				t.Fatalf("%+v, %v", again, err)
			}
		}
		if text, err := parseAddress(b); err == nil {
			if again, err := parseAddress(appendAddress(nil, text)); err != nil || again != text {
				t.Fatalf("%q, %v", again, err)
			}
		}
	})
}

func TestRendezvous(t *testing.T) {
	var sick atomic.Bool // loses one datagram
	server, n := newNode(t, Options{lose: func([]byte) bool { return sick.Swap(false) }}), newNode(t, Options{})
	fixed := n.open(t, server.bind.Local)
	for _, b := range []*Bind{n.bind, fixed} {
		if public, err := b.PublicAddress(limited(t), server.bind.Local); err != nil || public != b.Local {
			t.Errorf("%s: %s, %v", b, public, err)
		}
		if err := b.PingRendezvous(limited(t), server.bind.Local); err != nil {
			t.Error(err)
		}
	}
	// The first request is lost.
	sick.Store(true)
	if _, err := n.bind.PublicAddress(limited(t), server.bind.Local); err != nil {
		t.Errorf("one datagram lost: %v", err)
	}
	// Nobody there.
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.bind.PublicAddress(short, netip.MustParseAddrPort("127.0.0.1:9")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	// The bytes, and requests that are none.
	c := newClient(t, server.bind.Local)
	for i, request := range []string{"820980", "8200", "", "8201", "820180"} {
		c.send(cut(uint16(i), 508, routing.AppendMessage(nil, routing.LocalRoute(RendezvousService), routing.LocalRoute("me"), must(hex.DecodeString(request))))...)
	}
	if _, _, payload := c.message(); payload != string(appendAddress(nil, c.LocalAddr().String())) {
		t.Errorf("%x", payload)
	}
}

// patient are the times of a puncture on a machine that does much else, quick those of one that is to fail.
var (
	patient = times{beat: 10 * time.Millisecond, silence: 2500 * time.Millisecond, opening: 30 * time.Second, answer: 30 * time.Second}
	quick   = times{beat: 10 * time.Millisecond, silence: time.Second, opening: time.Second, answer: time.Second}
)

// meet gives two nodes a rendezvous server and a TCP connection, over which they negotiate.
func meet(t testing.TB, quick times, lose func([]byte) bool, change func(l *Listener, n *Negotiation)) (a, b *node, p *Puncture, err error) {
	t.Helper()
	a, b = newNode(t, Options{times: quick, lose: lose}), newNode(t, Options{times: quick, lose: lose})
	rendezvous := newNode(t, Options{})
	nobody := netip.MustParseAddrPort("127.0.0.1:9") // the first address of the server's name is dead
	public := func(ctx context.Context, b *Bind) (netip.AddrPort, error) {
		return b.PublicAddress(ctx, nobody, rendezvous.bind.Local)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	overA, overB := tcp.New(a.router, tcp.Options{}), tcp.New(b.router, tcp.Options{})
	ln, err := overB.Listen(limited(t), loopback)
	if err != nil {
		t.Fatal(err)
	}
	l := b.udp.NewListener(ctx, public)
	c, err := overA.Connect(limited(t), ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	n := Negotiation{Shard: c.Shard(), Route: routing.RouteOf(c.Sender).Concat(routing.LocalRoute(NegotiationService)), Public: public}
	if change != nil {
		change(l, &n)
	}
	b.serve(t, NegotiationService, l, ln.Flow)
	b.serve(t, "far echo", routing.Echo(nil, nil), l.Flow)
	p, err = a.udp.Negotiate(limited(t), n)
	return a, b, p, err
}

// TestPuncture makes punctures of both kinds, talks through them, and sees them end at both sides.
func TestPuncture(t *testing.T) {
	for name, c := range map[string]struct{ initiatorPlain, responderPlain, linked bool }{
		"linked": {false, false, true}, "a plain initiator": {true, false, false}, "a plain responder": {false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, p, err := meet(t, patient, nil, func(l *Listener, n *Negotiation) { l.Plain, n.Plain = c.responderPlain, c.initiatorPlain })
			if err != nil {
				t.Fatal(err)
			}
			if p.Linked() != c.linked {
				t.Errorf("linked: %v", p.Linked())
			}
			route := routing.RouteOf(p.Sender).Concat(routing.LocalRoute("far echo"))
			for _, size := range []int{0, 1, 23, 24, 1000, 60_000} {
				payload := bytes.Repeat([]byte{byte(size), 0xff}, size/2)
				reply, err := a.router.Request(limited(t), route, payload)
				if err != nil || !bytes.Equal(reply.Payload, payload) {
					t.Fatalf("%d bytes: %d, %v", size, len(reply.Payload), err)
				}
				if want := routing.RouteOf(p.Sender).Concat(routing.LocalRoute("echo")); !reply.Return.Equal(want) {
					t.Errorf("return route %s, want %s", reply.Return, want)
				}
			}
			// What is not meant to be reached stays out of reach.
			short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if r, err := a.router.Request(short, routing.RouteOf(p.Sender).Concat(routing.LocalRoute("echo")), nil); err == nil {
				t.Errorf("the socket's own service answered: %s", r.Return)
			}
			p.Close()
			<-p.Done()
			eventually(t, "the other side notices", func() bool { return len(b.udp.Binds()) == 1 && len(a.udp.Binds()) == 1 })
		})
	}
}

// TestPunctureLost: an open puncture through which nothing comes any more ends at both sides, and one that never opens too.
func TestPunctureLost(t *testing.T) {
	t.Parallel()
	var dark atomic.Bool
	once := patient
	once.opening = 5 * time.Second // the other side may take itself for opening still
	a, b, p, err := meet(t, once, func([]byte) bool { return dark.Load() }, nil)
	if err != nil {
		t.Fatal(err)
	}
	dark.Store(true)
	<-p.Done()
	eventually(t, "both sides closed", func() bool {
		return len(a.udp.Binds())+len(b.udp.Binds()) == 2 && a.udp.Stats.Lost.Load() == 1
	})

	_, _, _, err = meet(t, quick, func(d []byte) bool { return !bytes.Contains(d, []byte("127.")) }, nil) // all but the rendezvous
	if !errors.Is(err, ErrNotOpen) {
		t.Errorf("nothing gets through: %v", err)
	}
	_, _, _, err = meet(t, quick, nil, func(l *Listener, _ *Negotiation) {
		l.Allow = func(*routing.Message) bool { return false }
	})
	if err == nil {
		t.Error("a refused puncture opened")
	}
}

// TestLinkOverLossyNetwork: a link loses nothing and keeps the order, whatever happens to its datagrams.
func TestLinkOverLossyNetwork(t *testing.T) {
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(9, 9))
	a, b, p, err := meet(t, patient, func(d []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		return isLinkPacket(d) && chance.IntN(20) == 0
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const count = 2000
	type got struct {
		mu   sync.Mutex
		list []string
	}
	var came got
	l := b.udp.Binds()
	for _, x := range l {
		if x != b.bind {
			b.serve(t, "sink", routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) {
				came.mu.Lock()
				defer came.mu.Unlock()
				came.list = append(came.list, string(m.Payload()))
			}), x.link.p.Flow)
		}
	}
	sent := make([]string, count)
	rnd := rand.New(rand.NewPCG(5, 5))
	for i := range sent {
		sent[i] = string(random(rnd, 4+rnd.IntN(3000)))
		a.router.Inject(routing.RouteOf(p.Sender).Concat(routing.LocalRoute("sink")), routing.Route{}, []byte(sent[i]))
	}
	eventually(t, "all arrive", func() bool { came.mu.Lock(); defer came.mu.Unlock(); return len(came.list) == count })
	for i := range sent {
		if came.list[i] != sent[i] {
			t.Fatalf("message %d is another", i)
		}
	}
	if a.udp.Stats.Resent.Load() == 0 {
		t.Error("nothing was lost, so nothing was shown")
	}
}
