package portal

import (
	"net"
	"testing"
	"time"

	"sallyport/routing"
)

// crowded is a path over which one peer has as many connections as it may have at an outlet: four of five.
func crowded(t *testing.T, limits Limits, o OutletOptions) (s *simulated, ch chan *net.TCPConn, clients, servers []*net.TCPConn) {
	t.Helper()
	target, ch := served(t)
	o.Target = target
	s = newSimulated(t, 1, 2, limits, time.Hour, o)
	s.connect(t)
	for range 4 {
		client, server := s.pair(t, ch)
		clients, servers = append(clients, client), append(servers, server)
	}
	return s, ch, clients, servers
}

// loseAll cuts the path and waits until the outlet's node knows.
func (s *simulated) loseAll(t *testing.T, want int64) {
	t.Helper()
	s.cut()
	s.inlet.SetPath(routing.Route{})
	eventually(t, "the paths are away", func() bool { return s.out.env.Stats.Away.Load() == want && s.in.env.Stats.Away.Load() == want })
}

var fiveHere = []struct {
	name   string
	limits Limits
	o      OutletOptions
}{
	{"outlet", Limits{}, OutletOptions{MaxConnections: 5}},
	{"node", Limits{Connections: 4}, OutletOptions{}},
}

// TestPeerComesBack: a peer whose process has begun anew is not refused for the connections that the one before has left: the oldest of
// them ends for each new client, before its target is connected to.
func TestPeerComesBack(t *testing.T) {
	for _, c := range fiveHere {
		t.Run(c.name, func(t *testing.T) {
			s, ch, _, servers := crowded(t, c.limits, c.o)
			s.loseAll(t, 4)
			again := newSimulated(t, 2, 2, Limits{}, time.Hour, OutletOptions{})
			again.out, again.outlet = s.out, s.outlet
			again.connect(t)
			for range 4 {
				again.pair(t, ch)
				if now, _ := s.outlet.Connections(); now != 4 {
					t.Errorf("%d places are taken", now)
				}
			}
			for _, server := range servers {
				expectReset(t, "the target of one that nobody resumes", server)
			}
			if n := s.out.env.Stats.Limited.Load(); n != 0 {
				t.Errorf("%d were refused", n)
			}
		})
	}
}

// TestClientsComeBack: clients that leave while the path is away, and come again, are not refused for what their inlet has not told yet.
func TestClientsComeBack(t *testing.T) {
	for _, c := range fiveHere {
		t.Run(c.name, func(t *testing.T) {
			s, ch, clients, servers := crowded(t, c.limits, c.o)
			s.loseAll(t, 4)
			for _, c := range clients {
				if err := c.SetLinger(0); err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
			var list []net.Conn
			for range 4 {
				list = append(list, dial(t, s.inlet))
			}
			s.connect(t)
			for _, server := range servers {
				expectReset(t, "target of a client that has gone", server)
			}
			for range list {
				next(t, ch)
			}
			if n := s.out.env.Stats.Limited.Load(); n != 0 {
				t.Errorf("%d were refused", n)
			}
		})
	}
}

// TestHeldConnectionsStay: connections whose inlet will resume them keep their places against its own new clients, which are refused; all
// go on.
func TestHeldConnectionsStay(t *testing.T) {
	for _, c := range fiveHere {
		t.Run(c.name, func(t *testing.T) {
			s, _, clients, servers := crowded(t, c.limits, c.o)
			s.loseAll(t, 4)
			late := dial(t, s.inlet)
			s.connect(t)
			expectReset(t, "a client beyond the limit", late)
			for i := range clients {
				talk(t, clients[i], servers[i])
			}
			if n := s.out.env.Stats.Limited.Load(); n != 1 {
				t.Errorf("%d were refused", n)
			}
			eventually(t, "nothing is left of the one that was refused", func() bool { return s.out.env.Stats.Active.Load() == 4 })
		})
	}
}

// TestOtherNodeOfThePeer: a peer may have several nodes. What one of them holds is not given to a client of another one, nor to one that does not say what
// it is.
func TestOtherNodeOfThePeer(t *testing.T) {
	for _, process := range [][32]byte{processOf("another"), {}} {
		s, _, clients, servers := crowded(t, Limits{}, OutletOptions{MaxConnections: 5})
		s.loseAll(t, 4)
		other := newSimulated(t, 2, 2, Limits{}, time.Hour, OutletOptions{})
		other.in.env.Process = process
		other.out, other.outlet = s.out, s.outlet
		other.connect(t)
		expectReset(t, "a client beyond the limit", dial(t, other.inlet))
		s.connect(t)
		for i := range clients {
			talk(t, clients[i], servers[i])
		}
	}
}

// TestNoPlaceByHolding: a peer that loses its paths and begins anew, as often as it likes, has no more connections to targets than it may.
func TestNoPlaceByHolding(t *testing.T) {
	for _, c := range fiveHere {
		t.Run(c.name, func(t *testing.T) {
			s, _, _, _ := crowded(t, c.limits, c.o)
			s.loseAll(t, 4)
			process := s.in.env.Process
			ping := func(near *simEnd, process [32]byte) {
				near.post(func() {
					m := near.shard.NewMessage()
					m.SetRoutes(routing.NewRoute(near.self.Address(), routing.LocalAddress("outlet")), routing.RouteOf(near.shard.NewAddress()))
					m.SetPayloadBytes(appendOffer(nil, kindPing, 1<<16, &fields{id: newToken(), hold: 3_600_000, process: process}))
					near.shard.Deliver(m)
					near.shard.Free(m)
				})
			}
			most := func(what string, n int) {
				t.Helper()
				if now, _ := s.outlet.Connections(); now > n {
					t.Errorf("%s: %d places are taken, %d may be", what, now, n)
				}
			}
			// The same process, which never resumes: no more than it holds may wait, and none of them gets a place.
			near, far := s.channel(t, s.ids[0], s.ids[1])
			for range 50 {
				ping(near, process)
			}
			eventually(t, "all were looked at", func() bool { return s.out.env.Stats.Limited.Load()+uint64(s.out.env.Stats.Active.Load()) >= 54 })
			if n := s.out.env.Stats.Active.Load(); n > 8 {
				t.Errorf("%d wait for one of four", n-4)
			}
			most("one process", 4)
			eventually(t, "the others were refused", func() bool { return s.out.env.Stats.Limited.Load() == 50 })
			if n := s.out.env.Stats.Away.Load(); n != 4 {
				t.Errorf("%d of four are held", n)
			}
			// Others, each over a path of its own, which is lost at once.
			for range 20 {
				for range 3 {
					ping(near, processOf("inlet"))
				}
				near.post(near.end)
				far.post(far.end)
				near, far = s.channel(t, s.ids[0], s.ids[1])
				most("many processes", 4)
			}
		})
	}
}

// TestWhoMayClaim: as many clients of a peer may wait for a place as connections of it are away, or still to be taken up after an upgrade; those of other peers
// do not count, and who has not shown who it is waits for none.
func TestWhoMayClaim(t *testing.T) {
	one, other := [32]byte{1}, [32]byte{2}
	for _, c := range []struct {
		away, carried, wait, others int
		may                         bool
	}{
		{away: 0, wait: 0, may: false},
		{away: 1, wait: 0, may: true},
		{away: 1, wait: 1, may: false},
		{away: 2, wait: 1, may: true},
		{away: 2, wait: 1, others: 2, may: true},
		{away: 0, carried: 1, wait: 0, may: true},
		{away: 0, carried: 1, wait: 1, may: false},
		{away: 2, carried: 1, wait: 2, may: true},
		{away: 2, carried: 1, wait: 3, may: false},
	} {
		o := &Outlet{lines: &registry{comes: &arriving{left: c.carried}}}
		for range c.away {
			o.lines.left(&conn{peer: one, line: &lifeline{}})
			o.lines.left(&conn{peer: other, line: &lifeline{}})
		}
		for range c.wait {
			o.places.await(&conn{peer: one}, func() {})
		}
		for range c.others {
			o.places.await(&conn{peer: other}, func() {})
		}
		if may := o.claims(&one, nil, message{}); may != c.may {
			t.Errorf("%+v: may wait %v", c, may)
		}
		if o.claims(nil, nil, message{}) {
			t.Errorf("%+v: one without identity waits", c)
		}
	}
}
