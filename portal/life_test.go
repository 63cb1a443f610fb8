package portal

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sallyport/internal/await"
	"sallyport/names"
	"sallyport/routing"
	"sallyport/routing/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	limited    = await.Context
	eventually = await.True
)

// link is two nodes, a connection between them, and a worker in the middle that sees every message of the portals.
type link struct {
	a, b *node
	conn *tcp.Connection
	in   *Inlet
	mid  *middle
	path routing.Route
}

// middle forwards, and may keep messages from going on. act runs on b's shard.
type middle struct {
	self routing.WireAddress
	mu   sync.Mutex
	act  func(toOutlet bool, payload []byte) (pass bool)
}

func (k *middle) HandleMessage(s *routing.Shard, m *routing.Message) {
	m.PopOnward()
	m.PushReturn(k.self)
	k.mu.Lock()
	act := k.act
	k.mu.Unlock()
	if act != nil && !act(m.Onward.Len() == 1, m.Payload()) {
		return
	}
	s.Deliver(m)
}

func (k *middle) set(act func(bool, []byte) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.act = act
}

// newLink connects an inlet on one node with an outlet to target on another.
func newLink(t testing.TB, target string, plain bool, la, lb Limits) *link {
	t.Helper()
	ctx := limited(t)
	l := &link{a: newNode(t, 1, la), b: newNode(t, 1, lb), mid: &middle{self: routing.LocalAddress("mid").Wire()}}
	if err := l.b.router.StartNamed(ctx, "mid", func(*routing.Shard) routing.Worker { return l.mid }, l.b.ln.Flow); err != nil {
		t.Fatal(err)
	}
	if target != "" {
		if _, err := NewOutlet(ctx, l.b.env, l.b.router, OutletOptions{Name: "outlet", Target: target, Resolve: names.Lookup, Flows: []*routing.Flow{l.b.ln.Flow}}); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if l.conn, err = l.a.tcp.Connect(ctx, l.b.ln.Bound.String()); err != nil {
		t.Fatal(err)
	}
	if l.in, err = NewInlet(ctx, l.a.env, l.a.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Plain: plain}); err != nil {
		t.Fatal(err)
	}
	l.path = routing.NewRoute(l.conn.Sender.Address(), routing.LocalAddress("mid"), routing.LocalAddress("outlet"))
	l.in.SetPath(l.path)
	return l
}

// kinds runs a test with the extension and without it.
func kinds(t *testing.T, f func(t *testing.T, plain bool)) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) { f(t, plain) })
	}
}

// idle expects that both nodes have forgotten every connection.
func (l *link) idle(t testing.TB) {
	t.Helper()
	eventually(t, "connections forgotten", func() bool {
		return l.a.env.Stats.Active.Load() == 0 && l.b.env.Stats.Active.Load() == 0 && l.in.Active() == 0 &&
			l.a.env.Stats.WindowGranted.Load() == 0 && l.b.env.Stats.WindowGranted.Load() == 0
	})
	// What the loops do besides is done when they answer: what is counted can be looked at then.
	var list []string
	eventually(t, "workers gone", func() bool {
		if _, err := l.a.router.Addresses(limited(t)); err != nil {
			t.Fatal(err)
		}
		var err error
		if list, err = l.b.router.Addresses(limited(t)); err != nil {
			t.Fatal(err)
		}
		return len(list) <= 2+len(l.b.tcp.Connections()) // mid, outlet
	})
}

// notServed is a client of an inlet that is reset before it has got anything; that may be before its dial has returned.
func notServed(t testing.TB, in *Inlet, what string) {
	t.Helper()
	c, err := net.Dial("tcp", in.Bound().String())
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: %v", what, err)
	}
}

// served hands accepted connections to the test.
func served(t testing.TB) (string, chan *net.TCPConn) {
	ch := make(chan *net.TCPConn, 100)
	return serve(t, func(c net.Conn) {
		c.SetDeadline(time.Now().Add(90 * time.Second))
		ch <- c.(*net.TCPConn)
	}), ch
}

func next(t testing.TB, ch chan *net.TCPConn) *net.TCPConn {
	t.Helper()
	select {
	case c := <-ch:
		t.Cleanup(func() { c.Close() })
		return c
	case <-time.After(90 * time.Second):
		t.Fatal("target was not connected")
		return nil
	}
}

func expect(t testing.TB, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

// TestHalfCloseOrders: either side may finish first, and the other direction goes on.
func TestHalfCloseOrders(t *testing.T) {
	target, ch := served(t)
	l := newLink(t, target, false, Limits{}, Limits{})
	for _, clientFirst := range []bool{true, false} {
		var x, y *net.TCPConn
		c := dial(t, l.in)
		s := next(t, ch)
		if x, y = c, s; !clientFirst {
			x, y = s, c
		}
		x.Write([]byte("first"))
		x.CloseWrite()
		if got, err := io.ReadAll(y); err != nil || string(got) != "first" {
			t.Fatalf("%q, %v", got, err)
		}
		data := make([]byte, 2<<20)
		rand.Read(data)
		go func() { y.Write(data); y.CloseWrite() }()
		if got, err := io.ReadAll(x); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes after the other direction had ended, %v", len(got), len(data), err)
		}
		c.Close()
		s.Close()
		l.idle(t)
	}
	if l.a.env.Stats.Ended[ReasonNone].Load() != 2 || l.b.env.Stats.Ended[ReasonNone].Load() != 2 {
		t.Error("not counted as ended well")
	}
}

// TestPlainClose: without the extension a target's end closes the client, after all data.
func TestPlainClose(t *testing.T) {
	target, ch := served(t)
	const finish = 2 * time.Second
	l := newLink(t, target, true, Limits{FinishTimeout: finish}, Limits{FinishTimeout: finish})
	c := dial(t, l.in)
	s := next(t, ch)
	data := make([]byte, 4<<20)
	rand.Read(data)
	s.Write(data)
	s.Close()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
	}
	c.Close()
	l.idle(t)
	// A client that has half-closed still gets what comes while it comes, and then an end.
	c = dial(t, l.in)
	s = next(t, ch)
	c.Write([]byte("question"))
	c.CloseWrite()
	expect(t, s, "question")
	for range 5 {
		s.Write([]byte("part "))
		time.Sleep(finish / 4) // all of them take longer than the time-out, none of them alone
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "part part part part part " {
		t.Fatalf("%q, %v", got, err)
	}
	if n, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("target read %d, %v", n, err)
	}
	s.Close()
	c.Close()
	l.idle(t)
}

// TestResets: a reset on one side is one on the other.
func TestResets(t *testing.T) {
	kinds(t, func(t *testing.T, plain bool) {
		target, ch := served(t)
		l := newLink(t, target, plain, Limits{}, Limits{})
		for _, byClient := range []bool{true, false} {
			c := dial(t, l.in)
			s := next(t, ch)
			c.Write([]byte("hello"))
			expect(t, s, "hello")
			x, y := c, s
			if !byClient {
				x, y = s, c
			}
			x.SetLinger(0)
			x.Close()
			_, err := y.Read(make([]byte, 1))
			if plain { // the message does not say why
				if err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("by client %v: %v", byClient, err)
				}
			} else if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("by client %v: %v, want a reset", byClient, err)
			}
			y.Close()
			l.idle(t)
		}
	})
}

// TestTargetFails: the client is closed at once, and the reason is counted on both nodes.
func TestTargetFails(t *testing.T) {
	for reason, dialErr := range map[Reason]error{
		ReasonRefused:     unix.ECONNREFUSED,
		ReasonUnreachable: unix.EHOSTUNREACH,
		ReasonTimeout:     nil, // waits for its context
	} {
		t.Run(reason.String(), func(t *testing.T) {
			var limits Limits
			if dialErr == nil {
				limits.OpenTimeout = 20 * time.Millisecond
			}
			l := newLink(t, "", false, Limits{}, limits)
			_, err := NewOutlet(limited(t), l.b.env, l.b.router, OutletOptions{Name: "outlet", Flows: []*routing.Flow{l.b.ln.Flow}, Dial: unpiped(func(ctx context.Context) (int, error) {
				if dialErr != nil {
					return -1, fmt.Errorf("dial: %w", dialErr)
				}
				<-ctx.Done()
				return -1, ctx.Err()
			})})
			if err != nil {
				t.Fatal(err)
			}
			notServed(t, l.in, "client")
			l.idle(t)
			for _, n := range []*node{l.a, l.b} {
				if n.env.Stats.Ended[reason].Load() != 1 {
					t.Errorf("%q is not counted", reason)
				}
			}
		})
	}
	t.Run("name not found", func(t *testing.T) {
		l := newLink(t, "", false, Limits{}, Limits{})
		if _, err := NewOutlet(limited(t), l.b.env, l.b.router, OutletOptions{Name: "outlet", Target: "nowhere.invalid:1", Flows: []*routing.Flow{l.b.ln.Flow},
			Resolve: func(context.Context, string) ([]netip.AddrPort, error) {
				return nil, errors.New("no such host")
			}}); err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := net.Dial("tcp", l.in.Bound().String()); err == nil {
				io.Copy(io.Discard, c)
				c.Close()
			}
		}()
		eventually(t, "counted", func() bool { return l.a.env.Stats.Ended[ReasonUnreachable].Load() == 1 })
		l.idle(t)
	})
	t.Run("no answer", func(t *testing.T) { // nobody at the end of the path, or a reference that says nothing
		l := newLink(t, "", false, Limits{OpenTimeout: 20 * time.Millisecond}, Limits{})
		notServed(t, l.in, "client")
		l.idle(t)
		if l.a.env.Stats.Ended[ReasonTimeout].Load() != 1 {
			t.Error("not counted")
		}
	})
}

// TestGap loses one message and expects both sides to be closed, with nothing delivered after the hole.
func TestGap(t *testing.T) {
	for _, toOutlet := range []bool{true, false} {
		for _, lose := range []string{"payload", "last payload"} {
			t.Run(fmt.Sprintf("%s to outlet=%v", lose, toOutlet), func(t *testing.T) {
				target, ch := served(t)
				l := newLink(t, target, false, Limits{PayloadSize: 4}, Limits{PayloadSize: 4})
				var count atomic.Int64
				l.mid.set(func(to bool, p []byte) bool {
					if to != toOutlet || p[0] != kindPayload {
						return true
					}
					return count.Add(1) != 3
				})
				c := dial(t, l.in)
				s := next(t, ch)
				x, y := c, s
				if !toOutlet {
					x, y = s, c
				}
				x.Write([]byte("aaaabbbbcccc"))
				if lose == "payload" {
					x.Write([]byte("dddd"))
				} else {
					x.CloseWrite()
				}
				got, err := io.ReadAll(y)
				if !errors.Is(err, syscall.ECONNRESET) || len(got) > 8 || !bytes.HasPrefix([]byte("aaaabbbb"), got) {
					t.Errorf("received %q, %v: a stream with a hole must not look whole", got, err)
				}
				if _, err := io.ReadAll(x); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("sender's side ended with %v", err)
				}
				l.idle(t)
				if n := l.a.env.Stats.Ended[ReasonGap].Load() + l.b.env.Stats.Ended[ReasonGap].Load(); n != 2 {
					t.Errorf("counted %d times", n)
				}
			})
		}
	}
}

// TestCounterWraps sends more payloads than the counter has values.
func TestCounterWraps(t *testing.T) {
	target := serve(t, func(c net.Conn) { defer c.Close(); io.Copy(c, c) })
	l := newLink(t, target, false, Limits{PayloadSize: 1}, Limits{PayloadSize: 1})
	c := dial(t, l.in)
	data := make([]byte, 65536+300)
	rand.Read(data)
	go func() { c.Write(data); c.CloseWrite() }()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
	}
	c.Close()
	l.idle(t)
}

// TestWindow stalls one reader of twenty on one connection: the others are not held up, and what waits is bounded.
func TestWindow(t *testing.T) {
	const conns, size, window = 20, 256 << 10, 128 << 10
	target := serve(t, func(c net.Conn) {
		defer c.Close()
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return
		}
		c.(*net.TCPConn).SetWriteBuffer(64 << 10)
		if b[0] == 's' { // the stalled one: as much as anybody takes
			io.Copy(c, io.LimitReader(zeros{}, 256<<20))
			return
		}
		io.Copy(c, io.LimitReader(zeros{}, size))
	})
	limits := Limits{Window: window, MaxWindow: window}
	l := newLink(t, target, false, limits, limits)
	stalled := dial(t, l.in)
	stalled.SetReadBuffer(16 << 10)
	stalled.Write([]byte{'s'})
	written := func() uint64 { return l.b.env.bytesIn() }
	var last uint64
	eventually(t, "stalled", func() bool { // nothing moves any more
		before := last
		last = written()
		time.Sleep(5 * time.Millisecond)
		return last > window && last == before
	})
	if last > 32<<20 { // the kernel's buffers on the way take most of it
		t.Errorf("%d bytes went to a reader that takes none", last)
	}
	before := heap()
	done := make(chan error, conns)
	for range conns - 1 {
		c := dial(t, l.in)
		go func() {
			c.Write([]byte{'x'})
			n, err := io.Copy(io.Discard, c)
			c.Close()
			if err == nil && n != size {
				err = fmt.Errorf("%d bytes", n)
			}
			done <- err
		}()
	}
	for range conns - 1 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if l.a.env.Stats.Active.Load() < 1 || written() < last {
		t.Error("the stalled connection was closed")
	}
	if used := heap() - before; used > 8<<20 {
		t.Errorf("%d bytes more in use", used)
	}
	stalled.SetLinger(0)
	stalled.Close()
	l.idle(t)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestWindowsDiffer: nodes with very different limits still get everything through, both ways.
func TestWindowsDiffer(t *testing.T) {
	small, large := Limits{Window: 4 << 10, MaxWindow: 4 << 10}, Limits{Window: 1 << 20, MaxWindow: 16 << 20}
	for _, l := range []*link{newEcho(t, small, large), newEcho(t, large, small), newEcho(t, Limits{Window: 1, MaxWindow: 1, PayloadSize: 3}, Limits{Window: 1000})} {
		size := 6 << 20
		if l.a.env.Limits.Window == 1 {
			size = 5000
		}
		c := dial(t, l.in)
		data := make([]byte, size)
		rand.Read(data)
		go func() { c.Write(data); c.CloseWrite() }()
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
		}
		c.Close()
		l.idle(t)
	}
}

func newEcho(t testing.TB, la, lb Limits) *link {
	return newLink(t, serve(t, func(c net.Conn) { defer c.Close(); io.Copy(c, c) }), false, la, lb)
}

// TestStallTimeout: without windows a stalled reader stops the connection that it shares, so it is closed.
func TestStallTimeout(t *testing.T) {
	target := serve(t, func(c net.Conn) {
		defer c.Close()
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err == nil && b[0] == 's' {
			io.Copy(c, zeros{})
		} else if err == nil {
			c.Write([]byte("answer"))
		}
	})
	limits := Limits{HighWater: 64 << 10, StallTimeout: 50 * time.Millisecond}
	l := newLink(t, target, true, limits, limits)
	stalled := dial(t, l.in)
	stalled.SetReadBuffer(16 << 10)
	stalled.Write([]byte{'s'})
	eventually(t, "stalled connection closed", func() bool { return l.a.env.Stats.Ended[ReasonStalled].Load() == 1 })
	if n, err := io.Copy(io.Discard, stalled); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	c := dial(t, l.in)
	c.Write([]byte{'x'})
	if got, err := io.ReadAll(c); err != nil || string(got) != "answer" {
		t.Errorf("%q, %v", got, err)
	}
	c.Close()
	l.idle(t)
}

// TestPlainHalfCloseStall: a plain client that has half-closed, stalls for longer than its target may be silent, and reads on gets all of it, but does
// not stay for ever when its target falls silent. What waits for the client is no silence: with an outlet on the same node nothing more comes while
// it waits.
func TestPlainHalfCloseStall(t *testing.T) {
	for _, where := range []string{"another node", "the same node"} {
		t.Run(where, func(t *testing.T) {
			const size = 48 << 20
			const finish = 1500 * time.Millisecond
			target := serve(t, func(c net.Conn) {
				defer c.Close()
				io.Copy(c, io.LimitReader(zeros{}, size))
				io.Copy(io.Discard, c) // silent from now on
			})
			limits := Limits{HighWater: 64 << 10, StallTimeout: 5 * time.Minute, FinishTimeout: finish}
			l := newLink(t, target, true, limits, limits)
			if where == "the same node" {
				if _, err := NewOutlet(limited(t), l.a.env, l.a.router, OutletOptions{Name: "near", Target: target, Resolve: names.Lookup}); err != nil {
					t.Fatal(err)
				}
				l.in.SetPath(routing.LocalRoute("near"))
			}
			c := dial(t, l.in)
			c.CloseWrite()
			var last uint64
			eventually(t, "stalled", func() bool {
				before := last
				last = l.a.env.bytesOut()
				time.Sleep(2 * finish)
				return last > 0 && last == before
			})
			if last >= size {
				t.Skip("the kernel takes all of it: nothing stalls here")
			}
			if n, err := io.Copy(io.Discard, c); n != size || err != nil {
				t.Fatalf("%d bytes, %v", n, err)
			}
			c.Close()
			l.idle(t)
		})
	}
}

// TestOverrun: a peer that sends more than it was allowed is cut off, so memory stays bounded whoever the peer is.
func TestOverrun(t *testing.T) {
	l := newLink(t, "", false, Limits{Window: 10_000, MaxWindow: 10_000}, Limits{})
	fake(t, l, func(s *routing.Shard, reply func([]byte)) {
		reply(appendHandshake(nil, kindPong, 1000))
		for i := range 30 {
			b := encode(kindPayload, make([]byte, 1000))
			reply(append(b, 1, byte(i), 0))
		}
	})
	var n int64
	c, err := net.Dial("tcp", l.in.Bound().String()) // the reset may come before Dial has looked
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
		n, err = io.Copy(io.Discard, c)
	}
	if n > 10_000 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	eventually(t, "counted", func() bool { return l.a.env.Stats.Ended[ReasonOverrun].Load() == 1 })
}

// fake starts an outlet that answers a Ping with whatever script says.
func fake(t testing.TB, l *link, script func(s *routing.Shard, reply func([]byte))) {
	t.Helper()
	w := routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
		back := m.Return.Clone()
		script(s, func(b []byte) {
			out := s.NewMessage()
			out.SetRoutes(back, routing.LocalRoute("outlet"))
			out.SetPayloadBytes(b)
			s.Deliver(out)
			s.Free(out)
		})
	})
	if err := l.b.router.StartNamed(limited(t), "outlet", func(*routing.Shard) routing.Worker { return w }, l.b.ln.Flow); err != nil {
		t.Fatal(err)
	}
}

// TestOddPeers: nothing that a peer says harms the node; what cannot be part of a whole stream ends the connection.
func TestOddPeers(t *testing.T) {
	pong := appendHandshake(nil, kindPong, 1000)
	for name, tc := range map[string]struct {
		say    [][]byte
		read   string
		closed bool
	}{
		"nothing but nonsense before the Pong": {[][]byte{{}, {0xff}, {kindPayload, 1, 'x'}, {kindFinish, 0, 0}, appendCredit(nil, 5)}, "", false},
		"plain, no counters":                   {[][]byte{{kindPong}, {kindPayload, 2, 'h', 'i'}, {kindPong}, {kindPing}, {kindPayload, 0}, {kindPayload, 1, '!'}}, "hi!", false},
		"plain, counters":                      {[][]byte{{kindPong}, {kindPayload, 1, 'a', 1, 0, 0}, {kindPayload, 1, 'b'}, {kindPayload, 1, 'c', 1, 1, 0}}, "abc", false},
		"plain, first counter 1":               {[][]byte{{kindPong}, {kindPayload, 1, 'a', 1, 1, 0}}, "", true},
		"malformed once open":                  {[][]byte{{kindPong}, {kindPayload, 9, 'a'}}, "", true},
		"unknown kind once open":               {[][]byte{pong, {0x77}}, "", true},
		"credit without the extension":         {[][]byte{{kindPong}, appendCredit(nil, 1<<62), {kindPayload, 1, 'x'}}, "x", false},
		"huge credits":                         {[][]byte{pong, appendCredit(nil, 1<<63), appendCredit(nil, 1<<63), {kindPayload, 1, 'x', 1, 0, 0}}, "x", false},
		"refused":                              {[][]byte{{kindDisconnect, byte(ReasonRefused)}}, "", true},
		"refused without a word":               {[][]byte{{kindDisconnect}}, "", true},
		"unknown reason":                       {[][]byte{{kindDisconnect, 250}}, "", true},
		"a newer extension":                    {[][]byte{{kindPong, 'S', 'P', 9, 100}, {kindPayload, 1, 'x', 1, 0, 0}}, "x", false},
		"payload after finish":                 {[][]byte{pong, {kindPayload, 1, 'a', 1, 0, 0}, {kindFinish, 1, 0}, {kindPayload, 1, 'b', 1, 1, 0}}, "a", false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLink(t, "", false, Limits{}, Limits{})
			said := make(chan struct{}, 1)
			once := false
			fake(t, l, func(_ *routing.Shard, reply func([]byte)) {
				if once {
					return
				}
				once = true
				for _, b := range tc.say {
					reply(b)
				}
				said <- struct{}{}
			})
			c, err := net.Dial("tcp", l.in.Bound().String())
			if err != nil {
				if tc.closed {
					return
				}
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(90 * time.Second))
			<-said
			if tc.closed {
				if got, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) || string(got) != tc.read {
					t.Errorf("read %q, %v", got, err)
				}
				return
			}
			expect(t, c, tc.read)
			if l.a.env.Stats.Active.Load() != 1 {
				t.Error("connection has ended")
			}
		})
	}
}

// TestOtherPeer: messages that did not come from the peer that the connection began with are refused.
func TestOtherPeer(t *testing.T) {
	n := newNode(t, 1, Limits{})
	peer := &routing.Peer{ID: [32]byte{1}}
	if err := n.router.StartNamed(limited(t), "outlet", func(*routing.Shard) routing.Worker {
		return routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
			back := m.Return.Clone()
			for _, from := range []*routing.Peer{peer, nil} {
				out := s.NewMessage()
				out.SetRoutes(back, routing.LocalRoute("outlet"))
				out.Peer = from
				if from != nil {
					out.SetPayloadBytes([]byte{kindDisconnect})
				} else {
					out.SetPayloadBytes([]byte{kindPong})
				}
				s.Deliver(out)
				s.Free(out)
			}
		})
	}); err != nil {
		t.Fatal(err)
	}
	in, err := NewInlet(limited(t), n.env, n.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	in.SetPath(routing.LocalRoute("outlet"))
	dial(t, in)
	eventually(t, "refused", func() bool { return n.env.Stats.Denied.Load() == 1 && n.env.Stats.Active.Load() == 1 })
}

// gate is a Guard with one grant for everybody.
type gate struct{ grant *Grant }

func (g gate) Grant(*[32]byte) *Grant { return g.grant }

// TestGuards: a grant taken back ends the open connections on its side, and with them the other's; a client without one is closed.
func TestGuards(t *testing.T) {
	for _, side := range []string{"inlet", "outlet"} {
		t.Run(side, func(t *testing.T) {
			target, ch := served(t)
			ctx := limited(t)
			a, b := newNode(t, 1, Limits{}), newNode(t, 1, Limits{})
			grant := NewGrant(true)
			oo := OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{b.ln.Flow}}
			io_ := InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0")}
			n := a
			if side == "inlet" {
				io_.Guard = gate{grant}
			} else {
				oo.Guard, n = gate{grant}, b
			}
			if _, err := NewOutlet(ctx, b.env, b.router, oo); err != nil {
				t.Fatal(err)
			}
			if _, err := NewOutlet(ctx, b.env, b.router, oo); !errors.Is(err, routing.ErrExists) {
				t.Errorf("second outlet of the name: %v", err)
			}
			conn, err := a.tcp.Connect(ctx, b.ln.Bound.String())
			if err != nil {
				t.Fatal(err)
			}
			in, err := NewInlet(ctx, a.env, a.router, io_)
			if err != nil {
				t.Fatal(err)
			}
			in.SetPath(routing.NewRoute(conn.Sender.Address(), routing.LocalAddress("outlet")))
			c := dial(t, in)
			s := next(t, ch)
			c.Write([]byte("hello"))
			expect(t, s, "hello")
			grant.Set(true) // no change
			grant.Set(false)
			for _, x := range []net.Conn{c, s} {
				if got, err := io.ReadAll(x); !errors.Is(err, syscall.ECONNRESET) || len(got) != 0 {
					t.Errorf("%q, %v", got, err)
				}
			}
			eventually(t, "counted", func() bool {
				return a.env.Stats.Ended[ReasonPolicy].Load() == 1 && b.env.Stats.Ended[ReasonPolicy].Load() == 1
			})
			denied := n.env.Stats.Denied.Load()
			notServed(t, in, "without a grant")
			eventually(t, "denied", func() bool { return n.env.Stats.Denied.Load() == denied+1 })
			grant.Set(true)
			c = dial(t, in)
			next(t, ch).Write([]byte("again"))
			expect(t, c, "again")
			grant.mu.Lock()
			watchers := len(grant.watchers)
			grant.mu.Unlock()
			if watchers != 1 {
				t.Errorf("%d watchers", watchers)
			}
		})
	}
}

// TestHeld: clients wait while there is no path and are served when it comes, in any number up to the bound.
func TestHeld(t *testing.T) {
	target := serve(t, func(c net.Conn) { defer c.Close(); io.Copy(c, c) })
	l := newLink(t, target, false, Limits{HoldClients: 3, HoldTimeout: 10 * time.Minute}, Limits{})
	l.in.SetPath(routing.Route{})
	var clients []*net.TCPConn
	for range 3 {
		c := dial(t, l.in)
		c.Write([]byte("early"))
		clients = append(clients, c)
	}
	eventually(t, "held", func() bool { return l.a.env.Stats.Held.Load() == 3 })
	notServed(t, l.in, "one too many")
	l.in.SetPath(l.path)
	for _, c := range clients {
		expect(t, c, "early")
		c.Close()
	}
	if l.a.env.Stats.Held.Load() != 0 || l.a.env.Stats.Ended[ReasonPath].Load() != 1 {
		t.Errorf("%d held, %d closed", l.a.env.Stats.Held.Load(), l.a.env.Stats.Ended[ReasonPath].Load())
	}
	l.idle(t)
	// Closing the inlet closes those that wait.
	l.in.SetPath(routing.Route{})
	c := dial(t, l.in)
	eventually(t, "held", func() bool { return l.a.env.Stats.Held.Load() == 1 })
	if err := l.in.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("inlet closed: %v", err)
	}
	// Nobody waits for ever.
	const hold = 200 * time.Millisecond
	l = newLink(t, target, false, Limits{HoldTimeout: hold}, Limits{})
	l.in.SetPath(routing.Route{})
	began := time.Now()
	notServed(t, l.in, "held too long")
	if d := time.Since(began); d < hold/2 {
		t.Errorf("closed after %v", d)
	}
	eventually(t, "nobody held", func() bool { return l.a.env.Stats.Held.Load() == 0 })
}

// TestPathFlaps sets and takes away the path while clients come: each is served.
func TestPathFlaps(t *testing.T) {
	target := serve(t, func(c net.Conn) { defer c.Close(); io.Copy(c, c) })
	l := newLink(t, target, false, Limits{}, Limits{})
	stop := make(chan struct{})
	flapped := make(chan struct{})
	go func() {
		defer close(flapped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				l.in.SetPath(l.path)
				return
			default:
			}
			if i%2 == 0 {
				l.in.SetPath(routing.Route{})
			} else {
				l.in.SetPath(l.path)
			}
			if i%50 == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	}()
	done := make(chan error, 100)
	for range 100 {
		go func() {
			c, err := net.Dial("tcp", l.in.Bound().String())
			if err != nil {
				done <- err
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(90 * time.Second))
			c.Write([]byte("ping"))
			_, err = io.ReadFull(c, make([]byte, 4))
			done <- err
		}()
	}
	for i := range 100 {
		if i == 70 { // the last path stays
			close(stop)
			<-flapped
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	l.idle(t)
}

// TestPathLost: open connections end with the path, clients that were not read yet and new ones wait for the next.
func TestPathLost(t *testing.T) {
	target, ch := served(t)
	l := newLink(t, target, false, Limits{}, Limits{})
	l.in.SetPath(routing.NewRoute(l.conn.Sender.Address(), routing.LocalAddress("outlet")))
	c := dial(t, l.in)
	s := next(t, ch)
	c.Write([]byte("open"))
	expect(t, s, "open")
	l.in.SetPath(routing.NewRoute(l.conn.Sender.Address(), routing.LocalAddress("nowhere")))
	early := dial(t, l.in) // its Ping gets no answer
	early.Write([]byte("early"))
	eventually(t, "Ping sent", func() bool { return l.in.Active() == 2 })
	l.conn.Close()
	for _, x := range []net.Conn{c, s} {
		if _, err := io.ReadAll(x); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("path lost: %v", err)
		}
	}
	late := dial(t, l.in)
	late.Write([]byte("late"))
	eventually(t, "held", func() bool { return l.a.env.Stats.Held.Load() == 2 })
	conn, err := l.a.tcp.Connect(limited(t), l.b.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	l.in.SetPath(routing.NewRoute(conn.Sender.Address(), routing.LocalAddress("outlet")))
	got := map[string]bool{}
	for range 2 {
		s := next(t, ch)
		b := make([]byte, 5)
		n, err := s.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got[string(b[:n])] = true
	}
	if !got["early"] || !got["late"] {
		t.Errorf("served %v", got)
	}
	if l.a.env.Stats.Ended[ReasonPath].Load() < 1 {
		t.Error("not counted")
	}
	// Closing the inlet ends what is open, also on the other node.
	if err := l.in.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(late); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("inlet closed: %v", err)
	}
	l.idle(t)
}
