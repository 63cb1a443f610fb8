package portal

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"sallyport/routing"
)

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
