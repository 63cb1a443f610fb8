package portal

import (
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/routing"
)

// watched is what somebody who gave a client was told.
type watched struct {
	mu     sync.Mutex
	opened int
	peer   *[32]byte
	ended  []Reason
	left   int
}

func (w *watched) watch() *Watch {
	return &Watch{
		Opened: func(peer *[32]byte) { w.mu.Lock(); defer w.mu.Unlock(); w.opened, w.peer = w.opened+1, peer },
		Ended:  func(r Reason) { w.mu.Lock(); defer w.mu.Unlock(); w.ended = append(w.ended, r) },
		Left:   func() { w.mu.Lock(); defer w.mu.Unlock(); w.left++ },
	}
}

// over waits until it was told that nothing is left, after the end.
func (w *watched) over(t *testing.T, what string) {
	t.Helper()
	eventually(t, what+": nothing is left", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.left > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left != 1 || len(w.ended) != 1 {
		t.Errorf("%s: told %d times that nothing is left, after %v", what, w.left, w.ended)
	}
}

// await waits for the reason of the end.
func (w *watched) await(t *testing.T, what string, want Reason, opened int) {
	t.Helper()
	eventually(t, what, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.ended) > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ended) != 1 || w.ended[0] != want || w.opened != opened {
		t.Errorf("%s: told %v, opened %d times; want %v, %d", what, w.ended, w.opened, want, opened)
	}
}

// giving is one end of a socket pair for an inlet, and the other for the test.
func giving(t *testing.T) (fd int, own net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "own")
	own, err = net.FileConn(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	_ = own.SetDeadline(time.Now().Add(90 * time.Second))
	return fds[0], own
}

// givenOverHeldPaths is a client that an inlet was given and that has talked with its server, over a path that the connection can outlive.
func givenOverHeldPaths(t *testing.T) (s *simulated, w *watched, own, server net.Conn) {
	t.Helper()
	target, servers := served(t)
	s = newSimulated(t, 1, 1, Limits{}, time.Hour, OutletOptions{Target: target})
	s.connect(t)
	w = &watched{}
	fd, own := giving(t)
	s.inlet.Give(fd, w.watch())
	server = next(t, servers)
	talk(t, own, server)
	return s, w, own, server
}

// TestGivenIsToldOnceOverHeldPaths: also where a connection outlives its path, whoever gave the client is told once that both directions have finished, and needs
// not wait until the other end has confirmed it; that is told by itself.
func TestGivenIsToldOnceOverHeldPaths(t *testing.T) {
	s, w, own, server := givenOverHeldPaths(t)
	_ = own.(*net.UnixConn).CloseWrite()
	if _, err := io.Copy(io.Discard, server); err != nil {
		t.Error(err)
	}
	server.Close()
	w.await(t, "finished", ReasonNone, 1)
	s.idle(t)
	w.await(t, "settled", ReasonNone, 1)
	w.over(t, "settled")
}

// TestGivenIsLeftAfterTheLastConfirmation: of a connection that is over for its client something is left until the other end has said that it has all.
func TestGivenIsLeftAfterTheLastConfirmation(t *testing.T) {
	s, w, own, server := givenOverHeldPaths(t)
	server.Close()
	if _, err := io.Copy(io.Discard, own); err != nil {
		t.Error(err)
	}
	deaf := func(is bool) { _ = s.far.shard.Do(limited(t), func() { s.far.cut = is }) }
	deaf(true)
	own.Close()
	w.await(t, "over for its client", ReasonNone, 1)
	w.mu.Lock()
	if w.left != 0 {
		t.Error("nothing is said to be left, and the other end knows of no end")
	}
	w.mu.Unlock()
	deaf(false)
	s.cut()
	eventually(t, "the path is away", func() bool { return s.in.env.Stats.Away.Load() == 1 && s.out.env.Stats.Away.Load() == 1 })
	s.connect(t)
	w.over(t, "confirmed")
	s.idle(t)
}

// TestGivenClients: an inlet without a port takes the clients that it is given, and tells once what becomes of each: served to its end, waiting in vain,
// refused, or cut off with the inlet.
func TestGivenClients(t *testing.T) {
	target, servers := served(t)
	a, b := newNode(t, 1, Limits{HoldTimeout: 50 * time.Millisecond}), newNode(t, 1, Limits{})
	a.env.Records = &recorder{}
	if _, err := NewOutlet(limited(t), b.env, b.router, OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{b.ln.Flow}}); err != nil {
		t.Fatal(err)
	}
	in, err := NewInlet(limited(t), a.env, a.router, InletOptions{Name: "in", Given: true})
	if err != nil || in.Bound() != (netip.AddrPort{}) {
		t.Fatalf("%v, %v", in.Bound(), err)
	}
	closed := func(what string, own net.Conn) {
		t.Helper()
		if n, err := own.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d bytes, %v", what, n, err)
		}
	}
	var late, refused, served, cut watched
	fd, own := giving(t)
	in.Give(fd, late.watch())
	late.await(t, "there is no path", ReasonPath, 0)
	closed("there is no path", own)

	in.Refuse("it is not for you")
	fd, own = giving(t)
	in.Give(fd, refused.watch())
	refused.await(t, "refused", ReasonRefused, 0)
	closed("refused", own)
	in.Refuse("")

	c, err := a.tcp.Connect(limited(t), b.ln.Bound.String())
	if err != nil {
		t.Fatal(err)
	}
	in.SetPath(routing.NewRoute(c.Sender.Address(), routing.LocalAddress("outlet")))
	fd, own = giving(t)
	in.Give(fd, served.watch())
	server := next(t, servers)
	expectEcho(t, own, server)
	served.mu.Lock()
	if served.opened != 1 || served.peer != nil || len(served.ended) != 0 {
		t.Errorf("opened %d times, by %v, ended %v", served.opened, served.peer, served.ended)
	}
	served.mu.Unlock()
	_ = own.(*net.UnixConn).CloseWrite()
	if _, err := io.Copy(io.Discard, server); err != nil {
		t.Error(err)
	}
	server.Close()
	served.await(t, "served", ReasonNone, 1)
	if _, err := own.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}

	fd, own = giving(t)
	in.Give(fd, nil) // nobody is to be told
	expectEcho(t, own, next(t, servers))
	fd, own = giving(t)
	in.Give(fd, cut.watch())
	expectEcho(t, own, next(t, servers))
	if err := in.Close(limited(t)); err != nil {
		t.Error(err)
	}
	cut.await(t, "the inlet is closed", ReasonShutdown, 1)
	closed("the inlet is closed", own)
	var after watched
	fd, own = giving(t)
	in.Give(fd, after.watch())
	after.await(t, "after its end", ReasonPath, 0)
	for what, w := range map[string]*watched{"late": &late, "refused": &refused, "served": &served, "cut": &cut, "after": &after} {
		w.over(t, what)
	}
	closed("after its end", own)

	// Each left a record, of one end or the other.
	r := a.env.Records.(*recorder)
	r.mu.Lock()
	defer r.mu.Unlock()
	count := map[string]int{}
	for _, rec := range r.list {
		if rec.End != EndInlet || rec.Portal != "in" || rec.Began.IsZero() || rec.Ended.Before(rec.Began) || rec.Refused != (rec.Setup < 0) {
			t.Errorf("%+v", rec)
		}
		count[rec.Outcome+" by "+rec.By]++
	}
	if count[ReasonPath.Label()+" by "+byNetwork] != 2 || count[ReasonRefused.Label()+" by "+byInlet] != 1 {
		t.Errorf("%v", count)
	}
}

// TestListed: what is open is listed at both ends, the newest first, as much as was asked for; what has ended is not.
func TestListed(t *testing.T) {
	target, servers := served(t)
	c := newChain(t, 1, 1, false, Limits{}, OutletOptions{Target: target})
	near, far := &recorder{}, &recorder{}
	c.inlets[0].record(t, near)
	c.outlet.record(t, far)
	began := time.Now()
	var clients, targets []*net.TCPConn
	for range 2 {
		clients = append(clients, dial(t, c.in[0]))
		targets = append(targets, next(t, servers))
		expectEcho(t, clients[len(clients)-1], targets[len(targets)-1])
	}
	if _, err := targets[1].Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(clients[1], make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	lists := func(most int) (in, out []Listed) {
		return List(limited(t), c.inlets[0].router.Shards(), most), List(limited(t), c.outlet.router.Shards(), most)
	}
	var in, out []Listed
	eventually(t, "both ends know of what went", func() bool {
		in, out = lists(9)
		return len(in) == 2 && len(out) == 2 && in[0].ToClient >= 3 && out[0].ToClient >= 3
	})
	for k := range 2 {
		a, b := in[k], out[k]
		client := clients[1-k].LocalAddr().String() // the newest first
		if a.ID != b.ID || a.ID == ([16]byte{}) || a.End != EndInlet || a.Portal != "in" || b.End != EndOutlet || b.Portal != "outlet" || a.Client != client || b.Target != target || a.Target != "" {
			t.Errorf("%+v\n%+v", a, b)
		}
		if !a.HasPeer || a.Peer != [32]byte(c.outlet.options.Self) || !b.HasPeer || b.Peer != [32]byte(c.inlets[0].options.Self) || a.Away || b.Away || a.Resumed != 0 || a.Began.Before(began) || b.Began.Before(began) {
			t.Errorf("%+v\n%+v", a, b)
		}
		if want := map[int][2]uint64{0: {5, 3}, 1: {5, 0}}[k]; [2]uint64{a.ToTarget, a.ToClient} != want || [2]uint64{b.ToTarget, b.ToClient} != want {
			t.Errorf("%d: %d and %d bytes, the other end says %d and %d; want %v", k, a.ToTarget, a.ToClient, b.ToTarget, b.ToClient, want)
		}
		if b.Attributes["first"] == "" {
			t.Errorf("without attributes: %+v", b)
		}
	}
	for most, want := range map[int]int{0: 0, 1: 1, 2: 2} {
		if a, b := lists(most); len(a) != want || len(b) != want {
			t.Errorf("%d and %d where %d were asked for", len(a), len(b), most)
		}
	}
	clients[0].SetLinger(0)
	clients[0].Close()
	eventually(t, "one has ended", func() bool { in, out = lists(9); return len(in) == 1 && len(out) == 1 })
}

// TestOutletLeaves: an outlet that leaves refuses new clients and keeps those that it has.
func TestOutletLeaves(t *testing.T) {
	target, servers := served(t)
	c := newChain(t, 1, 1, false, Limits{}, OutletOptions{Target: target})
	near, far := &recorder{}, &recorder{}
	client := dial(t, c.in[0])
	server := next(t, servers)
	expectEcho(t, client, server)
	c.inlets[0].record(t, near)
	c.outlet.record(t, far)
	c.out.Leave()
	if refused, err := net.Dial("tcp", c.in[0].Bound().String()); err == nil {
		_ = refused.SetDeadline(time.Now().Add(90 * time.Second))
		if n, err := refused.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d, %v", n, err)
		}
		refused.Close()
	}
	b := far.take(t)
	if b.End != EndOutlet || b.Outcome != ReasonShutdown.Label() || b.By != byOutlet || !b.Refused || !b.HasPeer || b.Peer != [32]byte(c.inlets[0].options.Self) || b.Setup != -1 || b.FirstByte != -1 || b.Target != target || b.Attributes["first"] == "" {
		t.Errorf("%+v", b)
	}
	a := near.take(t)
	if a.Outcome != ReasonShutdown.Label() || a.By != byOutlet || a.ID != b.ID {
		t.Errorf("%+v", a)
	}
	expectEcho(t, client, server)
	if c.outlet.env.Stats.Limited.Load() != 0 {
		t.Error("counted as one too many")
	}
}

// TestEndedBy: who ended a connection of which nobody else says it.
func TestEndedBy(t *testing.T) {
	alone(t, func(_ *node, c *conn, _ func() [][]byte) {
		for _, outlet := range []bool{false, true} {
			c.outlet = outlet
			here := c.here()
			for r, want := range map[Reason]string{
				ReasonNone: here, ReasonReset: here, ReasonPolicy: here, ReasonShutdown: here, ReasonPath: byNetwork, ReasonHold: byNetwork, ReasonGap: byNetwork, ReasonUnknown: byNetwork,
			} {
				if got := c.endedBy(r); got != want {
					t.Errorf("outlet %v, %v: by %s, want %s", outlet, r, got, want)
				}
				c.tally.by = "somebody"
				if got := c.endedBy(r); got != "somebody" {
					t.Errorf("%v: by %s though it is known", r, got)
				}
				c.tally.by = ""
			}
			there := map[bool]string{false: byOutlet, true: byInlet}[outlet]
			for r, want := range map[Reason]string{
				ReasonReset: c.far(), ReasonRefused: c.far(), ReasonUnreachable: c.far(), ReasonTimeout: c.far(), ReasonPath: byNetwork, ReasonHold: byNetwork, ReasonGap: byNetwork,
				ReasonPolicy: there, ReasonShutdown: there, ReasonLimit: there, ReasonNone: c.far(),
			} {
				if got := c.toldBy(r); got != want {
					t.Errorf("outlet %v, told %v: by %s, want %s", outlet, r, got, want)
				}
			}
		}
		c.outlet = false
	})
}

// TestNothingSent: whether a client that waits has sent anything.
func TestNothingSent(t *testing.T) {
	fd, own := giving(t)
	defer unix.Close(fd)
	if !nothingSent(fd) {
		t.Error("something was sent")
	}
	if _, err := own.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if nothingSent(fd) || nothingSent(-1) {
		t.Error("nothing was sent, or nobody is there to say so")
	}
}

// TestWindowMemory: what windows may come to, at the bounds of each rule.
func TestWindowMemory(t *testing.T) {
	stats := &Stats{}
	m := windowMemory{&Limits{Budget: 8000, Window: 600, LeastWindow: 100}, stats}
	for active, want := range map[int64]int{0: 600, 1: 500, 4: 200, 9: 100, 50: 100} { // an eighth of the budget, shared with one more
		if stats.Active.Store(active); m.first() != want {
			t.Errorf("beside %d others the first window has %d, want %d", active, m.first(), want)
		}
	}
	if got := m.resize(0, 3000); got != 3000 || stats.WindowsGrown.Load() != 1 || stats.WindowGranted.Load() != 3000 {
		t.Errorf("%d, %d grown, %d granted", got, stats.WindowsGrown.Load(), stats.WindowGranted.Load())
	}
	if got := m.resize(3000, 3000); got != 3000 || stats.WindowsGrown.Load() != 1 {
		t.Errorf("%d, %d grown", got, stats.WindowsGrown.Load())
	}
	if got := m.resize(0, 3999); got != 3999 || m.most() != math.MaxInt {
		t.Errorf("%d, then at most %d", got, m.most())
	}
	if got := m.resize(3999, 4000); got != 4000 || stats.WindowsGrown.Load() != 2 || m.most() != 8000/3 {
		t.Errorf("%d, %d grown, then at most %d", got, stats.WindowsGrown.Load(), m.most())
	}
	if got := m.resize(4000, 5001); got != 4000 || stats.WindowGranted.Load() != 7000 || stats.WindowsRefused.Load() != 1 {
		t.Errorf("more than there is: %d, %d granted", got, stats.WindowGranted.Load())
	}
	if got := m.resize(4000, 5000); got != 5000 || stats.WindowGranted.Load() != 8000 || stats.WindowsRefused.Load() != 1 {
		t.Errorf("all that there is: %d, %d granted", got, stats.WindowGranted.Load())
	}
	if m.resize(5000, 0) != 0 || m.resize(3000, 10) != 10 || stats.WindowsGrown.Load() != 1 || stats.WindowGranted.Load() != 10 {
		t.Errorf("%d grown, %d granted", stats.WindowsGrown.Load(), stats.WindowGranted.Load())
	}
}
