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
		places, _ := l.in.Connections()
		return l.a.env.Stats.Active.Load() == 0 && l.b.env.Stats.Active.Load() == 0 && l.in.Active() == 0 && places == int(l.a.env.Stats.Held.Load()) &&
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
