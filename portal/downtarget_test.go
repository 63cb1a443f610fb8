package portal

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/freeport"
	"sallyport/routing"
)

// shaky is a target that a test has go and come back, and what its outlet is told of it.
type shaky struct {
	t          *testing.T
	at         string
	down, wait atomic.Bool
	tries      atomic.Int64
}

func newShaky(t *testing.T) *shaky {
	s := &shaky{t: t, at: "127.0.0.1:" + freeport.For(t)}
	s.wait.Store(true)
	return s
}

// options are those of an outlet to it.
func (s *shaky) options(o OutletOptions) OutletOptions {
	o.Target = s.at
	o.Down = func() (bool, bool) { return s.down.Load(), s.wait.Load() }
	o.Tried = func(err error) {
		s.tries.Add(1)
		s.down.Store(err != nil)
	}
	return o
}

// back has it serve again, as a look finds; stop ends that.
func (s *shaky) back() (accepted chan net.Conn, stop func()) {
	s.t.Helper()
	l, err := net.Listen("tcp", s.at)
	if err != nil {
		s.t.Fatal(err)
	}
	accepted = make(chan net.Conn, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(90 * time.Second))
			accepted <- c
		}
	}()
	s.down.Store(false)
	s.t.Cleanup(func() { _ = l.Close() })
	return accepted, func() { _ = l.Close() }
}

// TestDownTarget: clients of a target that was found down a moment ago wait, in the outlet's places; they are served when it answers again, and refused with a
// reason when they have waited for long enough, when the target is down once more, and when the outlet ends. Later clients are refused at once.
func TestDownTarget(t *testing.T) {
	kinds(t, func(t *testing.T, plain bool) {
		l, target := newLink(t, "", plain, Limits{}, Limits{}), newShaky(t)
		out, err := NewOutlet(limited(t), l.b.env, l.b.router, target.options(OutletOptions{Name: "outlet", Flows: []*routing.Flow{l.b.ln.Flow}, MaxConnections: 2}))
		if err != nil {
			t.Fatal(err)
		}
		stats := l.b.env.Stats
		waiting := func(n int64) {
			t.Helper()
			eventually(t, "clients wait", func() bool { return stats.Active.Load() == n })
		}
		// refused expects that a client is not served, for a reason. The reference's inlet is not told.
		refused := func(why Reason, n uint64, c net.Conn) {
			t.Helper()
			eventually(t, why.String(), func() bool { return stats.Ended[why].Load() == n })
			if !plain {
				expectReset(t, "client", c)
			}
			_ = c.Close()
		}

		first := dial(t, l.in) // which finds it out
		eventually(t, "found down", target.down.Load)
		second := dial(t, l.in)
		waiting(2)
		if !plain {
			notServed(t, l.in, "there are two places")
		}
		if n := target.tries.Load(); n != 1 {
			t.Errorf("the target was tried %d times", n)
		}
		accepted, stop := target.back()
		for range 2 {
			c := <-accepted
			_, _ = c.Write([]byte("served"))
			_ = c.Close()
		}
		for _, c := range []net.Conn{first, second} {
			if got, err := io.ReadAll(c); err != nil || string(got) != "served" {
				t.Errorf("a client that has waited is told %q, %v", got, err)
			}
			_ = c.Close()
		}
		waiting(0)
		stop()

		again := dial(t, l.in)
		eventually(t, "found down again", target.down.Load)
		waiting(1)
		target.down.Store(false) // for a moment
		eventually(t, "it is tried again, and is down", target.down.Load)
		refused(ReasonRefused, 1, again)

		late, gone := dial(t, l.in), dial(t, l.in)
		waiting(2)
		_ = gone.SetLinger(0)
		_ = gone.Close()
		before := target.tries.Load()
		target.wait.Store(false)
		refused(ReasonUnreachable, 2, late)
		if !plain {
			notServed(t, l.in, "later client")
		}
		if n := target.tries.Load() - before; n != 0 {
			t.Errorf("the target was tried %d times for those that came later", n)
		}

		target.wait.Store(true)
		last := dial(t, l.in)
		waiting(1)
		out.Leave()
		refused(ReasonShutdown, 1, last)
		if !plain {
			l.idle(t)
		}
	})
}

// TestDownTargetPathEnds: an outlet forgets who waits for its target when the path ends that would bring the answer.
func TestDownTargetPathEnds(t *testing.T) {
	for _, hold := range []time.Duration{0, time.Hour} {
		target := newShaky(t)
		target.down.Store(true)
		s := newSimulated(t, 5, 1, Limits{}, hold, target.options(OutletOptions{}))
		s.connect(t)
		c := dial(t, s.inlet)
		eventually(t, "it waits", func() bool { return s.out.env.Stats.Active.Load() == 1 })
		s.cut()
		eventually(t, "forgotten", func() bool { return s.out.env.Stats.Active.Load() == 0 })
		if n := s.out.env.Stats.Ended[ReasonPath].Load(); n != 1 {
			t.Errorf("%d have ended with their path", n)
		}
		accepted, _ := target.back()
		s.connect(t) // its inlet has kept the client
		served := <-accepted
		_, _ = served.Write([]byte("served"))
		expect(t, c, "served")
		_ = served.Close()
	}
}

// TestRestartElsewhere: when a client has begun anew, what it was told to leave does not keep its target open for it.
func TestRestartElsewhere(t *testing.T) {
	target := newShaky(t)
	target.down.Store(true)
	s := newSimulated(t, 5, 1, Limits{}, time.Hour, target.options(OutletOptions{}))
	other, ch := served(t)
	if _, err := NewOutlet(limited(t), s.out.env, s.out.router, OutletOptions{Name: "other", Target: other, Flows: []*routing.Flow{s.out.flow}, Hold: time.Hour}); err != nil {
		t.Fatal(err)
	}
	s.connect(t)
	c := dial(t, s.inlet)
	eventually(t, "it waits", func() bool { return s.out.env.Stats.Active.Load() == 1 })
	s.inlet.SetPath(routing.NewRoute(s.near.self.Address(), routing.LocalAddress("other")))
	s.inlet.Restart(routing.NewRoute(s.near.self.Address(), routing.LocalAddress("outlet")))
	_, _ = next(t, ch).Write([]byte("served"))
	expect(t, c, "served")
	accepted, _ := target.back()
	left := <-accepted
	if _, err := left.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("what was left: %v", err)
	}
	eventually(t, "one connection", func() bool { return s.out.env.Stats.Active.Load() == 1 })
}

// TestOutletFades: an outlet whose place another one takes answers no new connection and opens no target for it; its client is served over the next path. What is open goes on.
func TestOutletFades(t *testing.T) {
	target, accepted := served(t)
	for _, hold := range []time.Duration{0, time.Hour} {
		s := newSimulated(t, 6, 1, Limits{}, hold, OutletOptions{Target: target})
		s.connect(t)
		open := dial(t, s.inlet)
		before := next(t, accepted)
		s.outlet.Fade()
		c := dial(t, s.inlet)
		time.Sleep(100 * time.Millisecond)
		if n := s.out.env.Stats.Active.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
		_, _ = before.Write([]byte("open"))
		expect(t, open, "open")
		s.outlet.fades.Store(false) // as another one
		s.cut()
		s.connect(t)
		after := next(t, accepted)
		_, _ = after.Write([]byte("after"))
		expect(t, c, "after")
	}
}
