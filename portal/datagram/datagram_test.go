package datagram

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"sallyport/routing"
)

// TestCarries: datagrams of all sizes come whole and one by one, each client has a port of its own at the target, and answers go to who asked. The shards
// of the inlet, the path and the outlet's session are one, or several.
func TestCarries(t *testing.T) {
	for shard := range 2 {
		t.Run(fmt.Sprint("shard ", shard), func(t *testing.T) {
			s, target := newSite(t, 2), echoServer(t)
			out := s.outlet(OutletOptions{Target: target.String()})
			in := s.inlet(InletOptions{})
			in.SetPath(s.line(shard, 1, 2).to("out"))
			ports := map[int]bool{}
			for i := range 3 {
				c := in.newClient(t)
				port := c.ask(fmt.Sprint("hello ", i))
				ports[port] = true
				for _, size := range []int{0, 1, 2, 508, 1200, 1472, 1473, 2048, 2049, 9000, 65000, MaxSize - 2} {
					text := string(bytes.Repeat([]byte{byte('a' + i)}, size))
					if got := c.ask(text); got != port {
						t.Fatalf("client %d has port %d, then %d", i, port, got)
					}
				}
			}
			if len(ports) != 3 {
				t.Errorf("3 clients have %d ports", len(ports))
			}
			for _, m := range s.env.Meters() {
				if m.Malformed.Load() != 0 || m.Flows.Load() != 3 || m.Opened.Load() != 3 || m.In.Load() < 39 || m.Out.Load() < 39 || m.BytesIn.Load() < 3*140_000 {
					t.Errorf("%s: %d flows, %d opened, %d in, %d out, %d bytes", m.End(), m.Flows.Load(), m.Opened.Load(), m.In.Load(), m.Out.Load(), m.BytesIn.Load())
				}
			}
			if err := errors.Join(in.Close(context.Background()), out.Close(context.Background())); err != nil {
				t.Fatal(err)
			}
			if n := len(s.env.Meters()); n != 0 {
				t.Errorf("%d meters are left", n)
			}
			for i, half := range out.halves {
				s.on(i, func() {
					if len(half.sessions)+len(half.peers) != 0 {
						t.Errorf("left on shard %d: %d sessions, %d peers", i, len(half.sessions), len(half.peers))
					}
				})
			}
		})
	}
}

// TestAnotherPath: flows go on over another path, on another shard, with the same port at the target, and are dropped and counted while there is none.
func TestAnotherPath(t *testing.T) {
	s, target := newSite(t, 2), echoServer(t)
	out := s.outlet(OutletOptions{Target: target.String()})
	in := s.inlet(InletOptions{})
	first, second := s.line(0, 1, 2), s.line(1, 1, 2)
	in.SetPath(first.to("out"))
	c := in.newClient(t)
	port := c.ask("over the first")
	first.losing(func(byte) bool { return true }) // cut, and nobody knows it yet
	if _, _, err := c.try("lost", 50*time.Millisecond); err == nil {
		t.Fatal("an answer over a path that is cut")
	}
	in.SetPath(routing.Route{})
	eventually(t, "datagrams without a path are counted", func() bool {
		_, _ = c.Write([]byte("nowhere"))
		return in.meter.Dropped[DropPath].Load() > 0
	})
	in.SetPath(second.to("out"))
	if got := c.ask("over the second"); got != port {
		t.Errorf("port %d became %d", port, got)
	}
	first.losing(func(byte) bool { return false })
	in.SetPath(first.to("out"))
	if got := c.ask("over the first again"); got != port {
		t.Errorf("port %d became %d", port, got)
	}
	if n := out.meter.Opened.Load(); n != 1 {
		t.Errorf("%d flows opened at the outlet", n)
	}
}

// TestPolicy: neither end carries anything that its policy does not allow; what is taken back ends flows, and what is given again carries.
func TestPolicy(t *testing.T) {
	for _, end := range []string{EndInlet, EndOutlet} {
		t.Run(end, func(t *testing.T) {
			s, target, g := newSite(t, 2), echoServer(t), &guard{}
			o, i := OutletOptions{Target: target.String()}, InletOptions{}
			if end == EndInlet {
				i.Guard = g
			} else {
				o.Guard = g
			}
			out, in := s.outlet(o), s.inlet(i)
			m := in.meter
			if end == EndOutlet {
				m = out.meter
			}
			l := s.line(1, 1, 2)
			in.SetPath(l.to("out"))
			c := in.newClient(t)
			denied := func(text string) {
				t.Helper()
				before := m.Dropped[DropPolicy].Load()
				eventually(t, "a datagram is refused", func() bool {
					if _, answer, err := c.try(text, 5*time.Millisecond); err == nil && answer == text {
						t.Fatal("it was carried")
					}
					return m.Dropped[DropPolicy].Load() > before
				})
			}
			denied("not yet")
			g.set(true)
			c.ask("now")
			eventually(t, "a flow at each end", func() bool { return in.meter.Flows.Load() == 1 && out.meter.Flows.Load() == 1 })
			g.set(false)
			eventually(t, "no flow at either end", func() bool { return in.meter.Flows.Load() == 0 && out.meter.Flows.Load() == 0 })
			if m.Ended[ReasonPolicy].Load() != 1 {
				t.Errorf("ended: %d by the policy", m.Ended[ReasonPolicy].Load())
			}
			denied("not any more")
			g.set(true)
			c.ask("again")
		})
	}
}

// TestOthersSession: nobody speaks for a session of another identity.
func TestOthersSession(t *testing.T) {
	s, target := newSite(t, 1), echoServer(t)
	out := s.outlet(OutletOptions{Target: target.String()})
	in := s.inlet(InletOptions{})
	in.SetPath(s.line(0, 1, 2).to("out"))
	in.newClient(t).ask("mine")
	thief := s.line(0, 3, 2)
	var name session
	s.on(0, func() {
		name = in.sender.session
		post(in.shard, thief.to("out"), routing.LocalRoute("nobody"), appendEnd(nil, name, allFlows, ReasonClosed))
		post(in.shard, thief.to("out"), routing.LocalRoute("nobody"), append(appendHead(nil, kindDatagram, name, 1), "theirs"...))
		post(in.shard, routing.LocalRoute(in.self.Text()), routing.Route{}, appendEnd(nil, name, allFlows, ReasonClosed)) // not from the outlet's node
	})
	eventually(t, "a flow of its own for the thief", func() bool { return out.meter.Flows.Load() == 2 })
	if in.meter.Flows.Load() != 1 || out.meter.Ended[ReasonClosed].Load() != 0 || in.meter.Dropped[DropPolicy].Load() != 1 {
		t.Errorf("flows: %d; closed: %d; refused: %d", in.meter.Flows.Load(), out.meter.Ended[ReasonClosed].Load(), in.meter.Dropped[DropPolicy].Load())
	}
}

// TestForgedClients: clients with forged addresses do not take the places of those that talk.
func TestForgedClients(t *testing.T) {
	const most = 20
	s, target := newSite(t, 1), echoServer(t)
	out := s.outlet(OutletOptions{Target: target.String(), MaxFlows: 10 * most})
	in := s.inlet(InletOptions{MaxFlows: most})
	in.SetPath(s.line(0, 1, 2).to("out"))
	var talking []client
	var ports []int
	for i := range most / 2 {
		c := in.newClient(t)
		ports = append(ports, c.ask(fmt.Sprint("first ", i)))
		c.ask(fmt.Sprint("second ", i)) // after an answer
		talking = append(talking, c)
	}
	s.on(0, func() {
		for i := range 1000 {
			(*clientsSocket)(in).OnDatagram([]byte("x"), 1, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), uint16(1+i)))
		}
	})
	if n := in.meter.Flows.Load(); n != most {
		t.Errorf("%d flows, the limit is %d", n, most)
	}
	for i, c := range talking {
		if got := c.ask("still here"); got != ports[i] {
			t.Errorf("client %d lost its flow", i)
		}
	}
	eventually(t, "the outlet has heard of the others' end", func() bool { return out.meter.Flows.Load() <= most })
	if in.meter.Ended[ReasonLimit].Load() < 900 {
		t.Errorf("%d ended by the limit", in.meter.Ended[ReasonLimit].Load())
	}
}

// TestOutletLimits: a peer gets four in five of an outlet's places, and what is beyond takes the place of its own oldest.
func TestOutletLimits(t *testing.T) {
	const most = 10
	s, target := newSite(t, 1), echoServer(t)
	out := s.outlet(OutletOptions{Target: target.String(), MaxFlows: most})
	greedy, modest := s.inlet(InletOptions{}), s.inlet(InletOptions{})
	greedy.SetPath(s.line(0, 1, 2).to("out"))
	modest.SetPath(s.line(0, 3, 2).to("out"))
	for i := range 3 * most {
		greedy.newClient(t).ask(fmt.Sprint("greedy ", i))
	}
	if n := out.meter.Flows.Load(); n != most*4/5 {
		t.Errorf("%d flows of one peer, the limit is %d", n, most*4/5)
	}
	eventually(t, "the inlet is told which have ended", func() bool { return greedy.meter.Flows.Load() == most*4/5 })
	c := modest.newClient(t)
	port := c.ask("modest")
	c.ask("once more")
	greedy.newClient(t).ask("more")
	if got := c.ask("there"); got != port {
		t.Error("a greedy peer took the place of another one")
	}
	out.SetMaxFlows(2, 0) // those that there are stay
	if n := out.meter.Flows.Load(); n < 2 {
		t.Errorf("%d flows are left", n)
	}
}

// TestOutletLimitsOfAMember: a lone peer gets both of two places, and with a limit for each peer so many as that says.
func TestOutletLimitsOfAMember(t *testing.T) {
	for _, c := range []struct{ most, each, want int }{{2, 0, 2}, {10, 3, 3}, {10, 10, 10}} {
		s, target := newSite(t, 1), echoServer(t)
		out := s.outlet(OutletOptions{Target: target.String(), MaxFlows: c.most, MaxFlowsPerMember: c.each})
		in := s.inlet(InletOptions{})
		in.SetPath(s.line(0, 1, 2).to("out"))
		for i := range 2 * c.most {
			in.newClient(t).ask(fmt.Sprint("client ", i))
		}
		if n := out.meter.Flows.Load(); n != int64(c.want) {
			t.Errorf("%d flows of one peer; of %d each may have %d", n, c.most, c.each)
		}
	}
}

// TestIdle: flows through which nothing goes end at both ends, and begin again.
func TestIdle(t *testing.T) {
	s, target := newSite(t, 2), echoServer(t)
	out := s.outlet(OutletOptions{Target: target.String(), Idle: 250 * time.Millisecond})
	in := s.inlet(InletOptions{Idle: 250 * time.Millisecond})
	in.SetPath(s.line(1, 1, 2).to("out"))
	c := in.newClient(t)
	c.ask("hello")
	eventually(t, "no flow and no session is left", func() bool {
		out.mu.Lock()
		defer out.mu.Unlock()
		return in.meter.Flows.Load() == 0 && out.meter.Flows.Load() == 0 && len(out.sessions) == 0
	})
	c.ask("hello again")
}

// TestTable: which flow goes first, by a clock of the test's.
func TestTable(t *testing.T) {
	now := time.Unix(1000, 0)
	var tb table
	forged, quiet, busy := &flow{number: 1}, &flow{number: 2}, &flow{number: 3}
	for _, f := range []*flow{busy, quiet} {
		tb.fromClient(f, now)
		tb.toClient(f, now)
		tb.fromClient(f, now)
	}
	now = now.Add(10 * time.Second)
	tb.fromClient(forged, now)
	tb.fromClient(busy, now)
	if tb.victim() != forged || tb.len() != 3 {
		t.Fatalf("flow %d goes first of %d", tb.victim().number, tb.len())
	}
	if f := tb.idle(now.Add(50*time.Second-1), time.Minute); f != nil {
		t.Errorf("flow %d is idle before its time", f.number)
	}
	if f := tb.idle(now.Add(50*time.Second), time.Minute); f != quiet {
		t.Errorf("idle: %v", f)
	}
	tb.remove(forged)
	if tb.victim() != quiet {
		t.Errorf("flow %d goes first of those that talk", tb.victim().number)
	}
	tb.toClient(quiet, now) // what comes back is a use, too
	if tb.victim() != busy {
		t.Errorf("flow %d goes first", tb.victim().number)
	}
	tb.remove(busy)
	tb.remove(quiet)
	if tb.victim() != nil || tb.len() != 0 || tb.idle(now.Add(time.Hour), 0) != nil {
		t.Error("it is not empty")
	}
}

// TestBehind: where the other end does not keep up what waits is bounded, a flow that floods does not take the room of the others, and what was not
// carried is counted. Then it goes on.
func TestBehind(t *testing.T) {
	s, target := newSite(t, 1), echoServer(t)
	s.outlet(OutletOptions{Target: target.String()})
	in := s.inlet(InletOptions{})
	l := s.line(0, 1, 2)
	in.SetPath(l.to("out"))
	c := in.newClient(t)
	c.ask("hello")
	l.losing(func(kind byte) bool { return kind == kindMarked || kind == kindMark })
	flood, other := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")
	s.on(0, func() {
		before := l.carried[kindDatagram].Load()
		for range 3000 {
			(*clientsSocket)(in).OnDatagram(make([]byte, 1000), 1000, flood)
		}
		if n := l.carried[kindDatagram].Load() - before; n < 100 || n > 300 {
			t.Errorf("%d datagrams went, the window is %d bytes", n, in.sender.win.size)
		}
		if n := in.sender.queued; n > flowQueue || n < flowQueue/2 {
			t.Errorf("%d bytes wait of one flow", n)
		}
		if in.meter.Dropped[DropBehind].Load() < 2000 {
			t.Errorf("%d dropped", in.meter.Dropped[DropBehind].Load())
		}
		(*clientsSocket)(in).OnDatagram(make([]byte, MaxSize), MaxSize, other) // one may always wait
		if f := in.clients[endpoints{client: other}]; f.queue.size() != 2+MaxSize {
			t.Errorf("%d bytes wait of the other", f.queue.size())
		}
		in.end(in.clients[endpoints{client: other}], ReasonLimit, true)
		if len(in.sender.ring) != 1 || in.sender.queued != in.clients[endpoints{client: flood}].queue.size() {
			t.Errorf("%d in the ring, %d bytes queued", len(in.sender.ring), in.sender.queued)
		}
	})
	l.losing(func(byte) bool { return false })
	eventually(t, "what waited goes", func() bool {
		n := 0
		s.on(0, func() { n = in.sender.queued + len(in.sender.ring) })
		return n == 0
	})
	c.ask("and on")
}

// TestTargetAway: a name without an address is an answer, and is looked for again; a target that is not there does not end a flow.
func TestTargetAway(t *testing.T) {
	s, target := newSite(t, 1), echoServer(t)
	found := make(chan []netip.AddrPort, 1)
	out := s.outlet(OutletOptions{Target: "dns.example:53", Resolve: func(context.Context, string) ([]netip.AddrPort, error) {
		select {
		case list := <-found:
			return list, nil
		default:
			return nil, errors.New("no such name")
		}
	}})
	eventually(t, "the name is not found", func() bool { return out.Failure() != nil })
	in := s.inlet(InletOptions{})
	in.SetPath(s.line(0, 1, 2).to("out"))
	c := in.newClient(t)
	eventually(t, "the outlet drops what it has no target for", func() bool {
		_, _ = c.Write([]byte("hello"))
		return out.meter.Dropped[DropTarget].Load() > 0 && in.meter.Ended[ReasonTarget].Load() > 0
	})
	found <- []netip.AddrPort{target}
	out.resolvedAt.Store(0) // as after resolveFor
	c.ask("there you are")
	if out.Failure() != nil {
		t.Error(out.Failure())
	}
}

// TestNoAllocation: a datagram to the target and its answer cost no allocation, wherever the inlet listens.
func TestNoAllocation(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		t.Run(listen, func(t *testing.T) {
			s, target := newSite(t, 1), echoServer(t)
			s.outlet(OutletOptions{Target: target.String()})
			in := s.inlet(InletOptions{Listen: netip.MustParseAddrPort(listen)})
			in.SetPath(s.line(0, 1, 2).to("out"))
			c := in.newClientAt(t, "127.0.0.1")
			c.ask("hello")
			c.SetReadDeadline(time.Now().Add(60 * time.Second))
			p, buf := make([]byte, 1200), make([]byte, 2000)
			if n := testing.AllocsPerRun(1000, func() {
				if _, err := c.Write(p); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(buf); err != nil {
					t.Fatal(err) // between two sockets of a machine nothing is lost while one is under way
				}
			}); n != 0 {
				t.Errorf("%v allocations for a datagram and its answer", n)
			}
			for _, m := range s.env.Meters() {
				if m.Dropped[DropBehind].Load() != 0 || m.Malformed.Load() != 0 {
					t.Errorf("%s: %d behind, %d malformed", m.End(), m.Dropped[DropBehind].Load(), m.Malformed.Load())
				}
			}
		})
	}
}

// TestAllAddresses: an inlet at all addresses answers from the one that was asked, which connected clients alone hear, and tells flows of one client to
// several of them apart.
func TestAllAddresses(t *testing.T) {
	for listen, hosts := range map[string][]string{"0.0.0.0:0": {"127.0.0.1", "127.0.0.2", "127.0.0.5"}, "[::]:0": {"127.0.0.1", "127.0.0.2", "::1"}} {
		t.Run(listen, func(t *testing.T) {
			if c, err := net.ListenPacket("udp", listen); err != nil {
				t.Skip("no such address here: ", err)
			} else {
				c.Close()
			}
			s, target := newSite(t, 1), echoServer(t)
			s.outlet(OutletOptions{Target: target.String()})
			in := s.inlet(InletOptions{Listen: netip.MustParseAddrPort(listen)})
			in.SetPath(s.line(0, 1, 2).to("out"))
			for _, host := range hosts {
				in.newClientAt(t, host).ask(host)
			}
			one, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer one.Close()
			ports := map[uint16]bool{}
			for _, host := range hosts[:2] {
				to, buf := netip.AddrPortFrom(netip.MustParseAddr(host), in.Bound().Port()), make([]byte, 100)
				if _, err := one.WriteToUDPAddrPort([]byte(host), to); err != nil {
					t.Fatal(err)
				}
				one.SetReadDeadline(time.Now().Add(60 * time.Second))
				n, from, err := one.ReadFromUDPAddrPort(buf) // between sockets of a machine nothing is lost
				if err != nil || from != to || string(buf[2:n]) != host {
					t.Fatalf("%q from %v, want it from %v: %v", buf[:n], from, to, err)
				}
				ports[binary.BigEndian.Uint16(buf)] = true
			}
			if len(ports) != 2 {
				t.Error("two flows have one port at the target")
			}
		})
	}
}
