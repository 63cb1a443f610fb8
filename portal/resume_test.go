package portal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/routing"
)

// pair opens a connection and shows that it carries both ways.
func (s *simulated) pair(t testing.TB, ch chan *net.TCPConn) (client, server *net.TCPConn) {
	t.Helper()
	client = dial(t, s.inlet)
	server = next(t, ch)
	talk(t, client, server)
	return client, server
}

func talk(t testing.TB, client, server net.Conn) {
	t.Helper()
	for _, x := range [][2]net.Conn{{client, server}, {server, client}} {
		if _, err := x[0].Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		expect(t, x[1], "hello")
	}
}

func expectReset(t testing.TB, what string, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s: read %d, %v; want a reset", what, n, err)
	}
}

// own returns the outlet's end of the only connection.
func (s *simulated) own(t testing.TB) *conn {
	t.Helper()
	s.outlet.lines.mu.Lock()
	defer s.outlet.lines.mu.Unlock()
	if len(s.outlet.lines.conns) != 1 {
		t.Fatalf("%d connections", len(s.outlet.lines.conns))
	}
	for _, c := range s.outlet.lines.conns {
		return c
	}
	return nil
}

// TestAnswerConfirms: an answer tells with itself what has come, so that no message of its own is owed for that.
func TestAnswerConfirms(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 1, Limits{}, time.Hour, OutletOptions{Target: target})
	s.connect(t)
	s.pair(t, ch)
	c := s.own(t)
	if err := c.shard.Do(limited(t), func() {
		if got := uint64(len("hello")); c.got() != got || c.line.told != got {
			t.Errorf("%d bytes came, %d are told of", c.got(), c.line.told)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// TestHoldRunsOut: without another path in time both ends are reset, with the reason, and not before.
func TestHoldRunsOut(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 1, Limits{}, 300*time.Millisecond, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	began := time.Now()
	s.cut()
	expectReset(t, "client", client)
	expectReset(t, "server", server)
	if d := time.Since(began); d < 290*time.Millisecond {
		t.Errorf("reset after %v", d)
	}
	s.idle(t)
	for _, n := range []*simNode{s.in, s.out} {
		if n.env.Stats.Ended[ReasonHold].Load() != 1 {
			t.Error("the reason was not counted")
		}
	}
}

// TestHoldIsTheShorter: the end that waits less says for how long both do; none at one end is none at both.
func TestHoldIsTheShorter(t *testing.T) {
	for _, c := range []struct{ in, out, want time.Duration }{{time.Hour, time.Minute, time.Minute}, {time.Second, time.Minute, time.Second}, {time.Hour, 0, 0}, {0, time.Hour, 0}} {
		target, ch := served(t)
		s := newSimulated(t, 1, 1, Limits{}, 0, OutletOptions{Target: target})
		s.inlet.opts.Hold, s.outlet.opts.Hold = c.in, c.out
		s.connect(t)
		client, server := s.pair(t, ch)
		hold := func(n *simNode, list func() *conn) (d time.Duration) {
			if err := n.router.Shards()[0].Do(limited(t), func() {
				if c := list(); c != nil && c.line != nil {
					d = c.line.hold
				}
			}); err != nil {
				t.Fatal(err)
			}
			return d
		}
		near := hold(s.in, func() *conn {
			s.inlet.mu.Lock()
			defer s.inlet.mu.Unlock()
			for c := range s.inlet.conns {
				return c
			}
			return nil
		})
		far := hold(s.out, func() *conn {
			if c.want == 0 {
				return nil
			}
			return s.own(t)
		})
		if near != c.want || far != c.want {
			t.Errorf("%v and %v: %v and %v, want %v", c.in, c.out, near, far, c.want)
		}
		if c.want == 0 {
			s.cut()
			expectReset(t, "client", client)
			expectReset(t, "server", server)
		}
	}
}

// TestResumeAtNewOutlet: the open connections of an outlet that was deleted go on over another path as soon as there is one with its name again, which decides
// anew who may; nothing is left of an outlet that was deleted without any.
func TestResumeAtNewOutlet(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		target, ch := served(t)
		s := newSimulated(t, 1, 2, Limits{}, time.Minute, OutletOptions{Target: target})
		s.connect(t)
		client, server := s.pair(t, ch)
		o := s.outlet.opts
		if err := s.outlet.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
		talk(t, client, server)
		s.cut()
		eventually(t, "the path is away", func() bool { return s.out.env.Stats.Away.Load() == 1 })
		o.Guard = gate{NewGrant(allowed)}
		var err error
		if s.outlet, err = NewOutlet(limited(t), s.out.env, s.out.router, o); err != nil {
			t.Fatal(err)
		}
		s.connect(t)
		if allowed {
			talk(t, client, server)
			client.Close()
			server.Close()
		} else {
			expectReset(t, "client", client)
			expectReset(t, "server", server)
		}
		s.idle(t)
		if err := s.outlet.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
		if rs := &s.out.env.lines; len(rs.byName) != 0 || len(rs.left) != 0 {
			t.Errorf("left: %v, %v", rs.byName, rs.left)
		}
	}
}

// TestResumeIsForTheOwner: who sends a Resume from another identity, without one, with another secret, with another id, or a
// repeated one gets one and the same answer or none, and harms nothing; the owner goes on afterwards.
func TestResumeIsForTheOwner(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 2, Limits{}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	s.cut()
	c := s.own(t)
	right := resumeMessage{kind: kindResume, id: c.line.id, secret: c.line.secret, attempt: 1 << 40, received: 5, allowed: 1 << 20}
	badID, badSecret := right, right
	badID.id[15]++
	badSecret.secret[15] ^= 0x80
	other := s.ids[0]
	other[31]++
	for _, x := range []struct {
		who  string
		from [32]byte
		m    resumeMessage
	}{{"another member", other, right}, {"the owner without the secret", s.ids[0], badSecret}, {"the owner without the id", s.ids[0], badID}, {"a stranger without either", other, badID}} {
		near, _ := s.channel(t, x.from, s.ids[1])
		answer := make(chan []byte, 10)
		box := routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) { answer <- append([]byte(nil), m.Payload()...) })
		near.post(func() {
			self := near.shard.Start(box, near.producer.Own)
			m := near.shard.NewMessage()
			m.SetRoutes(routing.NewRoute(near.self.Address(), routing.LocalAddress("outlet")), routing.RouteOf(self))
			m.SetPayloadBytes(x.m.append(nil))
			near.shard.Deliver(m)
			near.shard.Free(m)
		})
		select {
		case b := <-answer:
			if !bytes.Equal(b, []byte{kindDisconnect, byte(ReasonUnknown)}) {
				t.Errorf("%s got %x", x.who, b)
			}
		case <-time.After(90 * time.Second):
			t.Errorf("%s got no answer", x.who)
		}
	}
	if n := s.out.env.Stats.ResumeRefused.Load(); n != 4 {
		t.Errorf("%d refusals counted", n)
	}
	s.connect(t)
	talk(t, client, server)
	// The owner's own Resume, sent again as it was, changes nothing.
	var attempt uint64
	if err := c.home.Load().Do(limited(t), func() { attempt = c.line.attempt }); err != nil || attempt != 1 {
		t.Fatalf("attempt %d, %v", attempt, err)
	}
	near, far := s.channel(t, s.ids[0], s.ids[1])
	right.attempt = attempt
	near.post(func() {
		m := near.shard.NewMessage()
		m.SetRoutes(routing.NewRoute(near.self.Address(), routing.LocalAddress("outlet")), routing.RouteOf(near.self))
		m.SetPayloadBytes(right.append(nil))
		near.shard.Deliver(m)
		near.shard.Free(m)
	})
	_ = far.shard.Do(limited(t), func() {})
	talk(t, client, server)
	client.Close()
	server.Close()
	s.idle(t)
	if c.line.secret != (token{}) || c.line.id != (token{}) {
		t.Error("the secret of a connection that has ended was not wiped")
	}
}

// TestResumeGoesToTheOwner: an inlet whose path leads to somebody else says nothing of the connection there.
func TestResumeGoesToTheOwner(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 1, Limits{}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	var secret token
	c := s.own(t)
	secret = c.line.secret
	s.cut()
	eventually(t, "the path is away", func() bool { return s.in.env.Stats.Away.Load() == 1 })
	right := s.ids[1]
	s.ids[1][5]++
	var told atomic.Int64
	s.seen = func(b []byte) {
		if bytes.Contains(b, secret[:]) || b[0] == kindResume {
			told.Add(1)
		}
	}
	s.connect(t)
	second := dial(t, s.inlet) // has gone the way when it is answered
	talk(t, second, next(t, ch))
	if told.Load() != 0 {
		t.Fatal("another identity was told of the connection")
	}
	s.ids[1], s.seen = right, nil
	s.connect(t)
	talk(t, client, server)
}

// TestResumedSaysHowMuchWasSent: an outlet answers a Resume with how much it has sent, and one more; by that the inlet knows whether something is still to come.
func TestResumedSaysHowMuchWasSent(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 1, Limits{}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	talk(t, client, server)
	c := s.own(t)
	s.cut()
	eventually(t, "the path is away", func() bool { return s.in.env.Stats.Away.Load() == 1 && s.out.env.Stats.Away.Load() == 1 })
	var sent atomic.Uint64
	s.seen = func(b []byte) {
		if len(b) == 0 || b[0] != kindResumed {
			return
		}
		if m, err := parseResume(b); err == nil {
			sent.Store(m.sent)
		}
	}
	var want uint64
	if err := c.shard.Do(limited(t), func() { want = c.line.sent + 1 }); err != nil || want < 6 {
		t.Fatal(want, err)
	}
	s.connect(t)
	talk(t, client, server)
	if got := sent.Load(); got != want {
		t.Errorf("it says %d, want %d", got, want)
	}
	var theirs uint64
	if err := c.home.Load().Do(limited(t), func() { theirs = c.line.theirs }); err != nil || theirs < 6 {
		t.Errorf("the inlet said %d, %v", theirs, err)
	}
}

// TestResumeAsksThePolicy: who is not allowed any more when the path comes back is reset at both ends.
func TestResumeAsksThePolicy(t *testing.T) {
	target, ch := served(t)
	var denied atomic.Bool
	guard := guardFunc(func(*[32]byte) *Grant { return NewGrant(!denied.Load()) })
	s := newSimulated(t, 1, 2, Limits{}, time.Minute, OutletOptions{Target: target, Guard: guard})
	s.connect(t)
	client, server := s.pair(t, ch)
	s.cut()
	denied.Store(true)
	s.connect(t)
	expectReset(t, "client", client)
	expectReset(t, "server", server)
	s.idle(t)
	if s.in.env.Stats.Ended[ReasonPolicy].Load() != 1 || s.out.env.Stats.Ended[ReasonPolicy].Load() != 1 {
		t.Error("the reason was not counted at both ends")
	}
}

type guardFunc func(*[32]byte) *Grant

func (f guardFunc) Grant(peer *[32]byte) *Grant { return f(peer) }

// TestGoneWhileAway: what one side does to its socket while the path is away reaches the other side with the next path: a reset, an end, and
// data before an end.
func TestGoneWhileAway(t *testing.T) {
	for _, byClient := range []bool{true, false} {
		for _, how := range []string{"reset", "end", "data and end"} {
			t.Run(fmt.Sprintf("%s by client %v", how, byClient), func(t *testing.T) {
				target, ch := served(t)
				s := newSimulated(t, 1, 2, Limits{}, time.Minute, OutletOptions{Target: target})
				s.connect(t)
				client, server := s.pair(t, ch)
				s.cut()
				eventually(t, "the path is away", func() bool { return s.in.env.Stats.Away.Load() == 1 && s.out.env.Stats.Away.Load() == 1 })
				x, y := client, server
				if !byClient {
					x, y = server, client
				}
				switch how {
				case "reset":
					x.SetLinger(0)
					x.Close()
				case "end":
					x.CloseWrite()
				default:
					x.Write([]byte("last"))
					x.CloseWrite()
				}
				time.Sleep(20 * time.Millisecond) // the event comes, or does not: both are right
				s.connect(t)
				if how == "reset" {
					expectReset(t, "the other side", y)
				} else {
					want := map[bool]string{true: "last"}[how != "end"]
					if got, err := io.ReadAll(y); err != nil || string(got) != want {
						t.Fatalf("read %q, %v; want %q and an end", got, err, want)
					}
					y.Write([]byte("answer"))
					y.Close()
					expect(t, x, "answer")
					x.Close()
				}
				s.idle(t)
			})
		}
	}
}

// TestPongLost: a client whose Ping was answered over a path that ended is begun anew, and the first target is let go.
func TestPongLost(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 1, Limits{}, time.Minute, OutletOptions{Target: target})
	var near atomic.Pointer[simEnd]
	s.seen = func(b []byte) {
		if n := near.Swap(nil); b[0] == kindPong && n != nil {
			n.post(n.end) // before the Pong comes
		} else {
			near.CompareAndSwap(nil, n)
		}
	}
	s.connect(t)
	near.Store(s.near)
	s.seen = nil
	client := dial(t, s.inlet)
	first := next(t, ch)
	eventually(t, "the client waits again", func() bool { return s.in.env.Stats.Held.Load() == 1 })
	s.connect(t)
	talk(t, client, next(t, ch))
	expectReset(t, "the first target", first)
	if s.own(t) == nil {
		t.Error("no connection")
	}
}

// TestOldVersion: with an end that knows version 1 only, nothing of version 2 is sent after the offer; the messages are recorded from such a node.
func TestOldVersion(t *testing.T) {
	t.Run("outlet", func(t *testing.T) {
		l := newLink(t, "", false, Limits{}, Limits{})
		var mu sync.Mutex
		var got [][]byte
		l.mid.set(func(toOutlet bool, b []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			if toOutlet {
				got = append(got, append([]byte(nil), b...))
			}
			return true
		})
		fake(t, l, func(s *routing.Shard, reply func([]byte)) {
			mu.Lock()
			n := len(got)
			mu.Unlock()
			if n == 1 {
				for _, b := range []string{"015350018080" + "20", "0305" + "68656c6c6f" + "010000", "10808010"} {
					reply(unhex(t, b))
				}
			}
		})
		client := dial(t, l.in)
		expect(t, client, "hello")
		client.Write([]byte("world"))
		client.CloseWrite()
		eventually(t, "the client's end", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 3 })
		want := []string{"", "0305" + "776f726c64" + "010000", "110100"}
		for i, b := range got[1:] {
			if !bytes.Equal(b, unhex(t, want[i+1])) {
				t.Errorf("sent %x, want %s", b, want[i+1])
			}
		}
		if bytes.Contains(got[0], []byte{tagID, 16}) || len(got[0]) != 7 {
			t.Errorf("an outlet that is not authenticated was offered %x", got[0])
		}
	})
	t.Run("inlet", func(t *testing.T) {
		target, ch := served(t)
		s := newSimulated(t, 1, 1, Limits{}, time.Minute, OutletOptions{Target: target})
		near, _ := s.channel(t, s.ids[0], s.ids[1])
		got := make(chan []byte, 10)
		var back routing.Route
		box := routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) {
			if back.Len() == 0 {
				back = m.Return.Clone()
			}
			got <- append([]byte(nil), m.Payload()...)
		})
		var self routing.WireAddress
		started := false
		say := func(to routing.Route, text string) {
			near.post(func() {
				if !started {
					started = true
					self = near.shard.Start(box, near.producer.Own)
				}
				m := near.shard.NewMessage()
				m.SetRoutes(to, routing.RouteOf(self))
				m.SetPayloadBytes(unhex(t, text))
				near.shard.Deliver(m)
				near.shard.Free(m)
			})
		}
		hear := func(want string) {
			t.Helper()
			select {
			case b := <-got:
				if !bytes.Equal(b, unhex(t, want)) {
					t.Errorf("heard %x, want %s", b, want)
				}
			case <-time.After(90 * time.Second):
				t.Fatal("nothing came")
			}
		}
		say(routing.NewRoute(near.self.Address(), routing.LocalAddress("outlet")), "00535001808020") // window 512 KiB; the answer is of a path that nothing is known of
		server := next(t, ch)
		hear("01535001808008")
		say(back, "0305"+"68656c6c6f"+"010000")
		expect(t, server, "hello")
		server.Write([]byte("world"))
		hear("0305" + "776f726c64" + "010000")
		say(back, "110100")
		if b, err := io.ReadAll(server); err != nil || len(b) != 0 {
			t.Errorf("%q, %v", b, err)
		}
		server.Close()
		hear("110100")
		s.outlet.lines.mu.Lock()
		if len(s.outlet.lines.conns) != 0 {
			t.Error("a connection of version 1 was entered as one that can be resumed")
		}
		s.outlet.lines.mu.Unlock()
	})
}

// TestNewPathIsAskedAtOnce: a connection that has asked over a path that is silent asks over another one as soon as there is one, and does not wait for the
// answer; the path that it has, and one to another peer, change nothing.
func TestNewPathIsAskedAtOnce(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 1, Limits{}, time.Hour, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	var c *conn
	s.inlet.mu.Lock()
	for c = range s.inlet.conns {
	}
	s.inlet.mu.Unlock()
	do := func(f func()) {
		t.Helper()
		if err := c.shard.Do(limited(t), f); err != nil {
			t.Fatal(err)
		}
	}
	s.cut()
	eventually(t, "the path is away", func() bool { return s.in.env.Stats.Away.Load() == 1 && s.out.env.Stats.Away.Load() == 1 })
	near, far := s.channel(t, s.ids[0], s.ids[1])
	if err := far.shard.Do(limited(t), func() { far.cut = true }); err != nil { // silent
		t.Fatal(err)
	}
	stranger, _ := s.channel(t, s.ids[0], [32]byte{9})
	next, _ := s.channel(t, s.ids[0], s.ids[1])
	way := func(e *simEnd) *path {
		return &path{route: routing.NewRoute(e.self.Address(), routing.LocalAddress("outlet")), shard: c.shard}
	}
	silent, other, alive := way(near), way(stranger), way(next)
	do(func() {
		s.inlet.path.Store(silent)
		c.offered(silent, near, s.ids[1])
		asked := c.line.attempt
		if c.terminal != near || asked == 0 {
			t.Errorf("asked %d times over the first", asked)
		}
		c.offered(silent, near, s.ids[1])
		c.offered(alive, next, s.ids[1]) // which is no longer the inlet's by now
		s.inlet.path.Store(other)
		c.offered(other, stranger, stranger.peer.ID)
		if c.terminal != near || c.line.attempt != asked {
			t.Errorf("asked %d times, and %d before there was another path", c.line.attempt, asked)
		}
		s.inlet.path.Store(alive)
		c.offered(alive, next, s.ids[1])
		if c.terminal != next || c.line.attempt != asked+1 {
			t.Errorf("asked %d times, and %d before there was another path", c.line.attempt, asked)
		}
	})
	talk(t, client, server)
}

// TestSentAgainInTurns: what was on its way when the path ended is sent again over the next one, also when that takes more than one turn, and nothing that
// comes meanwhile would have it go on.
func TestSentAgainInTurns(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 1, Limits{PayloadSize: 4 << 10}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	client, server := s.pair(t, ch)
	if err := s.near.shard.Do(limited(t), func() { s.near.other = &simEnd{shard: s.far.shard, cut: true} }); err != nil { // nothing arrives any more
		t.Fatal(err)
	}
	data := make([]byte, 96<<10)
	for i := range data {
		data[i] = byte(i / 251)
	}
	if len(data) <= 2*readBudget*s.in.env.Limits.PayloadSize {
		t.Fatalf("%d bytes are sent again in two turns", len(data))
	}
	if _, err := client.Write(data); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is on its way", func() bool { return s.in.env.Stats.Kept.Load() == int64(len(data)) })
	s.cut()
	s.connect(t)
	got := make([]byte, len(data))
	if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v, the same bytes: %v", err, bytes.Equal(got, data))
	}
}
