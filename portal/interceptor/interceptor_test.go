package interceptor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sallyport/internal/servers"
	"sallyport/portal"
	"sallyport/routing"
	"sallyport/routing/routertest"
	"sallyport/routing/tcp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines works on whole lines that begin with an exclamation mark, in upper case, and passes others on; a line of "fail" is refused.
type lines struct{ worked *atomic.Int64 }

var errRefused = errors.New("line refused")

func (l lines) Next(b []byte) (Step, int, error) {
	n := bytes.IndexByte(b, '\n') + 1
	switch {
	case n == 0 && b[0] == '!':
		return Wait, 0, nil
	case n == 0:
		return Pass, len(b), nil
	case b[0] == '!':
		return Work, n, nil
	case string(b[:n]) == "fail\n":
		return Wait, 0, errRefused
	}
	return Pass, n, nil
}

func (l lines) Work(_ context.Context, unit []byte) ([]byte, error) {
	l.worked.Add(1)
	if bytes.HasPrefix(unit, []byte("!fail")) {
		return nil, errRefused
	}
	return append([]byte("worked:"), bytes.ToUpper(unit)...), nil
}

type box struct {
	router *routing.Router
	tcp    *tcp.Transport
	ln     *tcp.Listener
	env    *portal.Env
}

func newBox(t *testing.T, limits portal.Limits) *box {
	limits.FinishTimeout = 50 * time.Millisecond
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	r := routertest.New(t, 2, log)
	var err error
	b := &box{router: r, tcp: tcp.New(r, tcp.Options{}), env: &portal.Env{Limits: limits.WithDefaults(), Stats: &portal.Stats{}, Log: log}}
	if b.ln, err = b.tcp.Listen(context.Background(), netip.MustParseAddrPort("127.0.0.1:0")); err != nil {
		t.Fatal(err)
	}
	return b
}

// path is an inlet and an outlet on two nodes, with interceptors on either or both.
type path struct {
	a, b   *box
	in     *portal.Inlet
	worked atomic.Int64
	budget Budget
	// reached is what the filters made last were told.
	reached atomic.Pointer[netip.AddrPort]
}

func newPath(t *testing.T, target string, near, far bool, limits portal.Limits) *path {
	t.Helper()
	return newPatientPath(t, target, near, far, limits, 0)
}

// newPatientPath is newPath with another patience than the limits have.
func newPatientPath(t *testing.T, target string, near, far bool, limits portal.Limits, patience time.Duration) *path {
	t.Helper()
	ctx := context.Background()
	p := &path{a: newBox(t, limits), b: newBox(t, limits)}
	filters := func(c Conn) (Filter, Filter) {
		p.reached.Store(&c.Reached)
		return lines{&p.worked}, lines{&p.worked}
	}
	if _, err := portal.NewOutlet(ctx, p.b.env, p.b.router, portal.OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{p.b.ln.Flow}}); err != nil {
		t.Fatal(err)
	}
	c, err := p.a.tcp.Connect(ctx, p.b.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	route := routing.NewRoute(c.Sender.Address())
	if far {
		if _, err := New(ctx, p.b.env, p.b.router, Options{Name: "far", Filters: filters, Budget: &p.budget, Outlet: true, Patience: patience,
			Next: func(name string) bool { return name == "outlet" }, Flows: []*routing.Flow{p.b.ln.Flow}}); err != nil {
			t.Fatal(err)
		}
		route = route.Concat(routing.LocalRoute("far"))
	}
	o := portal.InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Plain: true}
	if near {
		if _, err := New(ctx, p.a.env, p.a.router, Options{Name: "near", Filters: filters, Budget: &p.budget, Patience: patience}); err != nil {
			t.Fatal(err)
		}
		o.Prefix = routing.LocalRoute("near")
	}
	if p.in, err = portal.NewInlet(ctx, p.a.env, p.a.router, o); err != nil {
		t.Fatal(err)
	}
	p.in.SetPath(route.Concat(routing.LocalRoute("outlet")))
	return p
}

func (p *path) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.in.Bound().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	return c.(*net.TCPConn)
}

// idle expects that nothing is left of the connections.
func (p *path) idle(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(time.Millisecond) {
		left := 0
		for _, b := range []*box{p.a, p.b} {
			list, err := b.router.Addresses(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range list {
				if w := b.router.ShardOf(a); w != nil {
					left++
				}
			}
			left -= len(b.tcp.Connections())
		}
		if left <= 0 && p.a.env.Stats.Active.Load() == 0 && p.b.env.Stats.Active.Load() == 0 && p.budget.Used() == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("left: %d workers, %d and %d connections, %d bytes", left, p.a.env.Stats.Active.Load(), p.b.env.Stats.Active.Load(), p.budget.Used())
		}
	}
}

func serve(t *testing.T, f func(*net.TCPConn)) string {
	t.Helper()
	return servers.Listen(t, func(c net.Conn) {
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
		f(c.(*net.TCPConn))
	})
}

func places(t *testing.T, f func(t *testing.T, near, far bool)) {
	for _, c := range []struct {
		name      string
		near, far bool
	}{{"inlet's node", true, false}, {"outlet's node", false, true}, {"both", true, true}} {
		t.Run(c.name, func(t *testing.T) { f(t, c.near, c.far) })
	}
}

// TestWorkAndPass: units are worked on and others pass, in order, both ways, whatever pieces they come in.
func TestWorkAndPass(t *testing.T) {
	places(t, func(t *testing.T, near, far bool) {
		got := make(chan string, 1)
		target := serve(t, func(c *net.TCPConn) {
			b := make([]byte, 1<<20)
			n, err := io.ReadAtLeast(c, b, 1)
			for err == nil && !strings.HasSuffix(string(b[:n]), "end\n") {
				var more int
				more, err = c.Read(b[n:])
				n += more
			}
			got <- string(b[:n])
			_, _ = io.WriteString(c, "back\n!again\nlast")
		})
		p := newPath(t, target, near, far, portal.Limits{})
		c := p.dial(t)
		for _, piece := range []string{"!o", "n", "e\npl", "ain\n!two\n", "!", "three\nend\n"} {
			if _, err := io.WriteString(c, piece); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond)
		}
		want, back := "worked:!ONE\nplain\nworked:!TWO\nworked:!THREE\nend\n", "back\nworked:!AGAIN\nlast"
		if up := <-got; up != want {
			t.Errorf("the target got %q, want %q", up, want)
		}
		if down, err := io.ReadAll(c); err != nil || string(down) != back {
			t.Errorf("the client got %q, %v, want %q", down, err, back)
		}
		p.idle(t)
	})
}

// TestRefusal: a stream that is refused ends for both sides.
func TestRefusal(t *testing.T) {
	for _, line := range []string{"fail\n", "!fail\n"} {
		places(t, func(t *testing.T, near, far bool) {
			ended := make(chan error, 1)
			target := serve(t, func(c *net.TCPConn) {
				_, err := io.Copy(io.Discard, c)
				ended <- err
			})
			p := newPath(t, target, near, far, portal.Limits{})
			c := p.dial(t)
			if _, err := io.WriteString(c, line); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("read %d, %v", n, err)
			}
			<-ended
			p.idle(t)
		})
	}
}

// TestReached: filters of an inlet know which address the client has connected to; those before an outlet cannot.
func TestReached(t *testing.T) {
	for _, near := range []bool{true, false} {
		p := newPath(t, serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), near, !near, portal.Limits{})
		c := p.dial(t)
		if _, err := io.WriteString(c, "x\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		want := netip.AddrPort{}
		if near {
			want = p.in.Bound()
		}
		if got := *p.reached.Load(); got != want {
			t.Errorf("reached %v, want %v", got, want)
		}
		c.Close()
		p.idle(t)
	}
}

// TestBudgetLeft: what is reserved is not left, and is given back.
func TestBudgetLeft(t *testing.T) {
	var b Budget
	b.Reserve(BudgetSize - 10)
	if got := b.Left(); got != 10 {
		t.Errorf("left %d", got)
	}
	b.used.Add(20)
	if got := b.Left(); got != 0 {
		t.Errorf("left %d", got)
	}
	b.Reserve(10 - BudgetSize)
	if got := b.Left(); got != BudgetSize-20 {
		t.Errorf("left %d", got)
	}
}

// TestBudgetSize: a smaller budget ends connections sooner, and says how many.
func TestBudgetSize(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	const small = 128 << 10
	p := newPath(t, serve(t, func(c *net.TCPConn) { <-hold }), false, true, portal.Limits{StallTimeout: time.Minute})
	p.budget.Size = small
	if got := p.budget.Left(); got != small {
		t.Errorf("left %d", got)
	}
	p.budget.used.Add(2 * small) // others have it
	c := p.dial(t)
	block := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
	for p.budget.Refused() == 0 {
		if _, err := c.Write(block); err != nil && p.budget.Refused() == 0 {
			t.Fatalf("the sender was closed first: %v", err)
		}
	}
	c.Close()
	p.budget.used.Add(-2 * small)
	p.idle(t)
}

// TestTransfer: much data both ways arrives whole.
func TestTransfer(t *testing.T) {
	const size = 8 << 20
	data := make([]byte, size)
	_, _ = rand.Read(data)
	for i := range data { // lines of all lengths, none of which is worked on
		if data[i] == '!' || data[i] == 'f' {
			data[i] = '.'
		}
	}
	places(t, func(t *testing.T, near, far bool) {
		p := newPath(t, serve(t, func(c *net.TCPConn) { _, _ = io.Copy(c, io.LimitReader(c, size)) }), near, far, portal.Limits{})
		c := p.dial(t)
		go func() { _, _ = c.Write(data) }()
		got := make([]byte, size)
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("what came back differs (%v)", err)
		}
		c.Close()
		p.idle(t)
	})
}

// TestBackpressure: a reader that is slow holds its sender back: what waits is bounded, and all of it arrives.
func TestBackpressure(t *testing.T) {
	const size = 96 << 20
	places(t, func(t *testing.T, near, far bool) {
		read := make(chan int64, 1)
		p := newPath(t, serve(t, func(c *net.TCPConn) {
			var n int64
			for buf := make([]byte, 256<<10); ; time.Sleep(5 * time.Millisecond) { // at most 50 MB/s
				k, err := io.ReadFull(c, buf)
				if n += int64(k); err != nil {
					break
				}
			}
			read <- n
		}), near, far, portal.Limits{StallTimeout: time.Minute})
		c := p.dial(t)
		block := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
		var most int64
		for sent := 0; sent < size; sent += len(block) {
			if _, err := c.Write(block); err != nil {
				t.Fatalf("after %d bytes: %v", sent, err)
			}
			most = max(most, p.budget.Used())
		}
		if most > 40<<20 {
			t.Errorf("%d bytes waited in interceptors", most)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n := <-read; n != size {
			t.Errorf("%d bytes of %d arrived", n, size)
		}
		c.Close()
		p.idle(t)
	})
}

// TestStalledReader: a reader that takes nothing while it stops others is cut off, after what portals allow or what is said.
func TestStalledReader(t *testing.T) {
	const soon = 300 * time.Millisecond
	t.Run("what portals allow", func(t *testing.T) { testStalledReader(t, soon, 0) })
	t.Run("less is said", func(t *testing.T) { testStalledReader(t, time.Hour, soon) })
}

func testStalledReader(t *testing.T, portals, said time.Duration) {
	hold := make(chan struct{})
	defer close(hold)
	p := newPatientPath(t, serve(t, func(c *net.TCPConn) { <-hold }), false, true, portal.Limits{StallTimeout: portals}, said)
	c := p.dial(t)
	block := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
	active := &p.b.env.Stats.Active
	for begun := false; !begun || active.Load() > 0; time.Sleep(time.Millisecond) {
		begun = begun || active.Load() > 0
		if _, err := c.Write(block); err != nil && begun && active.Load() > 0 {
			t.Fatalf("the sender was closed first: %v", err)
		}
	}
	c.Close()
	p.idle(t)
}

// TestTargetRefuses: the client is told through interceptors too.
func TestTargetRefuses(t *testing.T) {
	const target = "127.0.0.1:1" // nobody listens there
	p := newPath(t, target, true, true, portal.Limits{})
	c, err := net.Dial("tcp", p.in.Bound().String())
	if err != nil {
		return // closed as soon as that
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the client was not closed: %v", err)
	}
	p.idle(t)
}

// TestOnlyOutlets: nothing but outlets can be reached through a listener before them.
func TestOnlyOutlets(t *testing.T) {
	p := newPath(t, serve(t, func(*net.TCPConn) {}), false, true, portal.Limits{})
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	reached := make(chan struct{}, 1)
	if err := p.b.router.StartNamed(ctx, "private", func(*routing.Shard) routing.Worker {
		return routing.WorkerFunc(func(*routing.Shard, *routing.Message) { reached <- struct{}{} })
	}); err != nil {
		t.Fatal(err)
	}
	c, err := p.a.tcp.Connect(ctx, p.b.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	p.a.router.Inject(routing.NewRoute(c.Sender.Address(), routing.LocalAddress("far"), routing.LocalAddress("private")), routing.LocalRoute("x"), []byte{portal.KindPing})
	for p.b.env.Stats.Denied.Load() == 0 {
		select {
		case <-reached:
			t.Fatal("a private worker was reached")
		case <-ctx.Done():
			t.Fatal("the message was lost")
		case <-time.After(time.Millisecond):
		}
	}
	p.idle(t)
}
