package portal

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/routing"
)

// onShard runs f for the only connection of the inlet, where it lives.
func (s *simulated) onShard(t *testing.T, f func(c *conn)) {
	t.Helper()
	s.inlet.mu.Lock()
	var own *conn
	for c := range s.inlet.conns {
		own = c
	}
	s.inlet.mu.Unlock()
	if own == nil {
		t.Fatal("no connection")
	}
	if err := own.shard.Do(limited(t), func() { f(own) }); err != nil {
		t.Fatal(err)
	}
}

// apart makes a channel that the inlet does not know, for an upgrade to end.
func (s *simulated) apart(t *testing.T) {
	t.Helper()
	s.near, s.far = s.channel(t, s.ids[0], s.ids[1])
}

// TestHoldGoesOn: an upgrade is no new beginning for a hold, at either end: it ends when it would have ended, and at once where that was meanwhile.
func TestHoldGoesOn(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 6, 1, Limits{}, time.Hour, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	s.cut()
	eventually(t, "both paths are away", func() bool { return s.in.env.Stats.Away.Load() == 1 && s.out.env.Stats.Away.Load() == 1 })
	s.inlet.SetPath(routing.Route{})
	until := time.Now().Add(20 * time.Minute)
	set := func(c *conn) { c.line.until, c.line.hold = until, time.Hour }
	near := func(what string, c *conn) {
		if d := c.line.until.Sub(until); d < -5*time.Minute || d > 5*time.Minute {
			t.Errorf("%s: the hold ends %v later than before", what, d)
		}
	}
	s.onShard(t, set)
	c := s.own(t)
	if err := c.shard.Do(limited(t), func() { set(c) }); err != nil {
		t.Fatal(err)
	}
	s.apart(t)
	s.upgradeInlet(t)
	s.apart(t)
	s.upgradeOutlet(t, target)
	eventually(t, "both are there", func() bool { return !s.in.env.arrivals.underWay() && !s.out.env.arrivals.underWay() })
	s.onShard(t, func(c *conn) { near("inlet", c) })
	c = s.own(t)
	if err := c.shard.Do(limited(t), func() { near("outlet", c) }); err != nil {
		t.Fatal(err)
	}
	s.age = time.Hour // the next program comes late
	s.apart(t)
	s.upgradeInlet(t)
	s.apart(t)
	s.upgradeOutlet(t, target)
	expectReset(t, "client", client)
	expectReset(t, "server", server)
	if a, b := s.in.env.Stats.Ended[ReasonHold].Load(), s.out.env.Stats.Ended[ReasonHold].Load(); a != 1 || b != 1 {
		t.Errorf("ended for the hold: %d and %d", a, b)
	}
	s.idle(t)
}

// TestHoldThatHasNotBegun: a connection that had a path when it was written down has the whole hold, as has what a program wrote that says nothing of it.
func TestHoldThatHasNotBegun(t *testing.T) {
	for _, ms := range []uint64{0, 1, 1000, 5000} {
		p := CarriedPortal{at: time.Now().Add(-2 * time.Second)}
		left := time.Until(p.until(ms, 3*time.Second))
		if over := left <= 0; over != (ms == 1 || ms == 1000) || left > 3*time.Second || ms == 5000 && left > time.Second {
			t.Errorf("%d ms left are %v, 2 s later", ms, left)
		}
	}
}

// TestHoldIsOver: a connection whose hold ran out before it was taken up has ended when it has been, so that nobody resumes it who asks just then.
func TestHoldIsOver(t *testing.T) {
	n := newNode(t, 1, Limits{})
	s := n.router.Shards()[0]
	m := n.env.meters.take(EndOutlet, "out")
	for _, ms := range []uint64{1000, 0} {
		p := CarriedPortal{at: time.Now().Add(-2 * time.Second)}
		k := CarriedConn{Socket: CarriedSocket{FD: -1}, ID: make([]byte, 16), Secret: make([]byte, 16), Peer: make([]byte, 32), Version: resumeVersion,
			HoldMS: uint64(time.Hour.Milliseconds()), LeftMS: ms}
		if err := s.Do(limited(t), func() {
			var c *conn
			n.env.Stats.Active.Add(1) // as it is announced
			n.env.Stats.Away.Add(1)
			n.env.takeUp(s, m, &p, &k, func(made *conn) { c = made }, func(*conn) Reason { return ReasonNone })
			if over := c.state == ended; over != (ms > 0) {
				t.Errorf("%d ms left, 2 s later: ended %v", ms, over)
			}
			c.end(ReasonHold, false)
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWaitGoesOn: a client that waits for a path waits no longer than it would have without an upgrade, and it is known since when.
func TestWaitGoesOn(t *testing.T) {
	s := newSimulated(t, 7, 1, Limits{HoldTimeout: time.Hour}, time.Minute, OutletOptions{Target: "127.0.0.1:1"})
	c := dial(t, s.inlet)
	waits := func(n int64) {
		t.Helper()
		eventually(t, "the client waits", func() bool { return s.in.env.Stats.Held.Load() == n })
	}
	waits(1)
	came, until := time.Now().Add(-time.Minute), time.Now().Add(20*time.Minute)
	s.inlet.mu.Lock()
	s.inlet.waiting[0].until, s.inlet.waiting[0].offer.came = until, came
	s.inlet.mu.Unlock()
	s.apart(t)
	s.limits = Limits{HoldTimeout: time.Hour}
	s.upgradeInlet(t)
	waits(1)
	later := dial(t, s.inlet)
	waits(2)
	s.inlet.mu.Lock()
	w, next := s.inlet.waiting[0], s.inlet.waiting[1]
	s.inlet.mu.Unlock()
	if d := w.until.Sub(until); d < -5*time.Minute || d > 5*time.Minute || next.until.Before(w.until) {
		t.Errorf("it waits %v longer than before, the next one %v", d, time.Until(next.until))
	}
	if d := w.offer.came.Sub(came); d < -time.Millisecond || d > time.Millisecond {
		t.Errorf("it came %v later than it did", d)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	s.inlet.place(fds[0], offer{until: time.Now().Add(10 * time.Minute)}) // comes late, and has waited for long
	s.inlet.mu.Lock()
	if len(s.inlet.waiting) != 3 || s.inlet.waiting[0].fd != fds[0] {
		t.Error("who has to be refused first is not the first")
	}
	s.inlet.mu.Unlock()
	s.age = 30 * time.Minute
	s.apart(t)
	s.upgradeInlet(t)
	expectReset(t, "the one whose time is over", c)
	waits(1)
	if n := s.in.env.Stats.Ended[ReasonPath].Load(); n != 2 {
		t.Errorf("%d clients had no path", n)
	}
	_ = later
}

// TestLeftIsTold: what is left of an inlet is ended before the paths are, and the outlet's end with it; one whose path is away just then is told by the
// next program. Each has its record.
func TestLeftIsTold(t *testing.T) {
	for _, away := range []bool{false, true} {
		target, ch := served(t)
		s := newSimulated(t, 8, 1, Limits{}, time.Hour, OutletOptions{Target: target})
		r := &recorder{}
		if err := s.in.router.Shards()[0].Do(limited(t), func() { s.in.env.Records = r }); err != nil {
			t.Fatal(err)
		}
		s.connect(t)
		client, server := s.pair(t, ch)
		if away {
			s.cut()
			eventually(t, "both paths are away", func() bool { return s.in.env.Stats.Away.Load() == 1 && s.out.env.Stats.Away.Load() == 1 })
			s.inlet.SetPath(routing.Route{})
		}
		s.onShard(t, func(c *conn) { c.upstream = &upstream{rw: &pass{}} })
		EndLeft(limited(t), s.in.router, []*Inlet{s.inlet})
		expectReset(t, "client", client)
		if away {
			s.records = r
			s.apart(t)
			s.upgradeInlet(t)
			s.connect(t)
		}
		expectReset(t, "server", server)
		if n := s.out.env.Stats.Ended[ReasonShutdown].Load(); n != 1 {
			t.Errorf("away %v: the outlet's end was told %d times", away, n)
		}
		if rec := r.take(t); rec.Outcome != ReasonShutdown.Label() || rec.By != byInlet {
			t.Errorf("away %v: the record says %s by %s", away, rec.Outcome, rec.By)
		}
		s.idle(t)
	}
}

// pass is a Rewriter that changes nothing.
type pass struct{}

func (*pass) Rewrite(dst, src []byte) ([]byte, int, error) { return append(dst, src...), len(src), nil }
func (*pass) Pass() int64                                  { return 0 }
func (*pass) Passed(int)                                   {}
func (*pass) Answer([]byte)                                {}
func (*pass) Refusal(error) []byte                         { return nil }

// writeDownInlet writes down what a node with one inlet has.
func writeDownInlet(t *testing.T, n *node, in *Inlet) (c Carried) {
	t.Helper()
	release, err := n.router.Group().Halt(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	letGo, err := in.Carry(&c, true)
	if err != nil {
		t.Fatal(err)
	}
	letGo()
	n.env.CarrySockets(n.router.Group(), &c, true)
	return c
}

// TestAcceptingIsLeft: a client that is still in what comes before its stream, and one behind TLS that waits for a path, are counted as left, so that they are
// waited for; they are not handed to a program that could do nothing with them.
func TestAcceptingIsLeft(t *testing.T) {
	n := newNode(t, 1, Limits{})
	began, goOn := make(chan struct{}, 1), make(chan struct{})
	var other int
	in, err := NewInlet(context.Background(), n.env, n.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		Accept: func(_ context.Context, fd int) (Piped, error) {
			began <- struct{}{}
			<-goOn
			_ = unix.Close(fd)
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return Piped{}, err
			}
			other = fds[1]
			return Piped{FD: fds[0]}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	expectLeft := func(what, why string) {
		t.Helper()
		c := writeDownInlet(t, n, in)
		if len(c.Left) != 1 || c.Left[why] != 1 || len(c.Inlets[0].Waiting) > 0 {
			t.Errorf("%s: left %v, %d wait", what, c.Left, len(c.Inlets[0].Waiting))
		}
	}
	dial(t, in)
	<-began
	expectLeft("in its handshake", leftAccepting)
	close(goOn)
	eventually(t, "it waits for a path", func() bool { return n.env.Stats.Held.Load() == 1 && in.accepting.Load() == 0 })
	defer unix.Close(other)
	expectLeft("waits behind TLS", leftTLS)
	r := &recorder{}
	if err := n.router.Shards()[0].Do(limited(t), func() { n.env.Records = r }); err != nil {
		t.Fatal(err)
	}
	EndLeft(limited(t), n.router, []*Inlet{in})
	if c := writeDownInlet(t, n, in); len(c.Left) != 0 || n.env.Stats.Held.Load() != 0 {
		t.Errorf("left %v, %d wait", c.Left, n.env.Stats.Held.Load())
	}
	if rec := r.take(t); rec.Outcome != ReasonShutdown.Label() || !rec.Refused {
		t.Errorf("the record says %s, refused %v", rec.Outcome, rec.Refused)
	}
}

// TestLocalIsLeftOnce: a portal within a node is one connection, without a channel, and both of its ends have a record that says why it has ended.
func TestLocalIsLeftOnce(t *testing.T) {
	for name, skip := range map[string]bool{leftPlain: false, leftSkip: true} {
		n := newNode(t, 2, Limits{})
		r := &recorder{}
		n.env.Records = r
		target, ch := served(t)
		if _, err := NewOutlet(context.Background(), n.env, n.router, OutletOptions{Name: "outlet", Target: target, Hold: time.Minute, SkipHandshake: skip}); err != nil {
			t.Fatal(err)
		}
		in, err := NewInlet(context.Background(), n.env, n.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Hold: time.Minute, SkipHandshake: skip})
		if err != nil {
			t.Fatal(err)
		}
		in.SetPath(routing.LocalRoute("outlet"))
		client := dial(t, in)
		if _, err := client.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		server := next(t, ch)
		expect(t, server, "hello")
		if c := writeDownInlet(t, n, in); len(c.Left) != 1 || c.Left[name] != 1 {
			t.Errorf("%s: left %v", name, c.Left)
		}
		EndLeft(limited(t), n.router, []*Inlet{in})
		for what, c := range map[string]net.Conn{"client": client, "server": server} {
			expectReset(t, name+": "+what, c)
		}
		eventually(t, "a record of each end", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.list) == 2
		})
		for _, rec := range r.list {
			if rec.Outcome != ReasonShutdown.Label() {
				t.Errorf("%s: the record of the %s says %s", name, rec.End, rec.Outcome)
			}
		}
	}
}

// TestNotOpenedAgainIsRecorded: a connection whose portal the next program does not have is reset, and has its record there.
func TestNotOpenedAgainIsRecorded(t *testing.T) {
	n := newNode(t, 1, Limits{})
	r := &recorder{}
	n.env.Records = r
	for _, end := range []string{EndInlet, EndOutlet} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		k := CarriedConn{Socket: CarriedSocket{FD: fds[0]}, ID: make([]byte, 16), Peer: make([]byte, 32), Received: 3, Tally: CarriedTally{Began: 1, Sent: 5}}
		k.ID[0], k.Peer[0] = 7, 9
		p := []CarriedPortal{{Name: "p", Conns: []CarriedConn{k}}}
		c := Carried{Inlets: p}
		if end == EndOutlet {
			c = Carried{Outlets: p}
		}
		if lost := n.env.ResetCarried(&c); lost != 1 || len(c.Portals()) > 0 {
			t.Errorf("%s: %d were reset, %d portals are left", end, lost, len(c.Portals()))
		}
		if k, err := unix.Read(fds[1], make([]byte, 1)); k > 0 || errors.Is(err, unix.EAGAIN) {
			t.Errorf("%s: the socket is open: %d, %v", end, k, err)
		}
		_ = unix.Close(fds[1])
		up, down := uint64(5), uint64(3)
		if end == EndOutlet {
			up, down = down, up
		}
		rec := r.take(t)
		if rec.End != end || rec.Portal != "p" || rec.ID[0] != 7 || rec.Peer[0] != 9 || rec.Outcome != ReasonShutdown.Label() || rec.By != end || rec.ToTarget != up || rec.ToClient != down {
			t.Errorf("%s: the record is %+v", end, rec)
		}
	}
}
