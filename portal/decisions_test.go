package portal

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
)

// alone runs f on a shard with a connection of the portal that has neither socket nor path; what it sends comes back from sent.
func alone(t *testing.T, f func(n *node, c *conn, sent func() [][]byte)) {
	t.Helper()
	n := newNode(t, 1, Limits{})
	s := n.router.Shards()[0]
	var list [][]byte
	if err := n.router.StartNamed(limited(t), "peer", func(*routing.Shard) routing.Worker {
		return routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) { list = append(list, bytes.Clone(m.Payload())) })
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Do(limited(t), func() {
		c := n.env.newConn(s, n.env.meters.take(EndInlet, "test"))
		c.self, c.route, c.state = s.Start(c), routing.LocalRoute("peer"), open
		f(n, c, func() [][]byte {
			got := list
			list = nil
			return got
		})
	}); err != nil {
		t.Fatal(err)
	}
}

// TestPayloadsAreCountedWhereTheyMayBeLost: with the reference at the other end too, which checks the counters that it gets; where nothing is lost it
// gets none.
func TestPayloadsAreCountedWhereTheyMayBeLost(t *testing.T) {
	for name, c := range map[string]struct {
		extended, lossy bool
		want            [2][]byte
	}{
		"plain":             {false, false, [2][]byte{{kindPayload, 1, 'a'}, {kindPayload, 1, 'b'}}},
		"plain, with loss":  {false, true, [2][]byte{{kindPayload, 1, 'a', 1, 0, 0}, {kindPayload, 1, 'b', 1, 1, 0}}},
		"of ours":           {true, false, [2][]byte{{kindPayload, 1, 'a', 1, 0, 0}, {kindPayload, 1, 'b', 1, 1, 0}}},
		"of ours, and loss": {true, true, [2][]byte{{kindPayload, 1, 'a', 1, 0, 0}, {kindPayload, 1, 'b', 1, 1, 0}}},
	} {
		alone(t, func(_ *node, conn *conn, sent func() [][]byte) {
			conn.extended, conn.lossy, conn.credit = c.extended, c.lossy, 1000
			for i, b := range []byte("ab") {
				buf := make([]byte, routing.HeadRoom+1+100)
				buf[routing.HeadRoom] = b
				conn.sendPayload(buf, 1)
				if got := sent(); len(got) != 1 || !bytes.Equal(got[0], c.want[i]) {
					t.Errorf("%s: sent %x, want %x", name, got, c.want[i])
				}
			}
			if want := 1000 - 2*map[bool]int{true: 1}[c.extended]; conn.credit != want {
				t.Errorf("%s: credit is %d, want %d", name, conn.credit, want)
			}
		})
	}
}

// TestCreditIsBounded: a peer that lets us send for ever does not make the sum wrap, and one that has not agreed to credits gives none.
func TestCreditIsBounded(t *testing.T) {
	give := func(n *node, conn *conn, amount uint64) {
		m := conn.shard.NewMessage()
		defer conn.shard.Free(m)
		m.SetPayloadBytes(appendCredit(nil, amount))
		conn.HandleMessage(conn.shard, m)
	}
	alone(t, func(n *node, conn *conn, _ func() [][]byte) {
		conn.extended = true
		for _, c := range []struct {
			amount uint64
			want   int
		}{{5, 5}, {0, 5}, {1000, 1005}, {1 << 63, maxCredit}, {1<<64 - 1, maxCredit}, {1, maxCredit}} {
			if give(n, conn, c.amount); conn.credit != c.want || conn.topCredit != c.want || conn.state != open {
				t.Errorf("after %d more: credit %d, want %d", c.amount, conn.credit, c.want)
			}
		}
		if n.env.Stats.CreditsIn.Load() != 6 {
			t.Errorf("%d counted", n.env.Stats.CreditsIn.Load())
		}
	})
	alone(t, func(n *node, conn *conn, _ func() [][]byte) {
		if give(n, conn, 5); conn.credit != 0 || n.env.Stats.CreditsIn.Load() != 0 || conn.state != open {
			t.Errorf("credit %d without the extension", conn.credit)
		}
	})
}

// TestWhyAConnectionEnds: what ends it is told to the peer where that can still be told, and counted as what it was.
func TestWhyAConnectionEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		end    func(conn *conn)
		reason Reason
		told   bool
	}{
		{"a message was lost", func(conn *conn) { conn.MessageLost() }, ReasonGap, true},
		{"the client has reset it", func(conn *conn) { conn.OnClose(nil, dataplane.ErrConnClosed) }, ReasonReset, true},
		{"the node stops", func(conn *conn) { conn.OnClose(nil, dataplane.ErrLoopClosed) }, ReasonShutdown, true},
		{"the path is gone", func(conn *conn) { conn.TerminalClosed() }, ReasonPath, false},
	} {
		for _, extended := range []bool{true, false} {
			alone(t, func(n *node, conn *conn, sent func() [][]byte) {
				conn.extended = extended
				c.end(conn)
				if conn.state != ended || n.env.Stats.Ended[c.reason].Load() != 1 || n.env.Stats.Active.Load() != 0 {
					t.Errorf("%s: not ended as that", c.name)
				}
				var want [][]byte
				if c.told && extended {
					want = [][]byte{{kindDisconnect, byte(c.reason)}}
				} else if c.told {
					want = [][]byte{{kindDisconnect}}
				}
				if got := sent(); len(got) != len(want) || len(want) > 0 && !bytes.Equal(got[0], want[0]) {
					t.Errorf("%s: the peer was told %x, want %x", c.name, got, want)
				}
				c.end(conn)
				if got := sent(); len(got) != 0 || n.env.Stats.Ended[c.reason].Load() != 1 {
					t.Errorf("%s: ended twice", c.name)
				}
			})
		}
	}
}

// holding is told that its grant is taken back.
type holding int

func (h *holding) Revoked() { *h++ }

// TestGrantTakenBackWhileItIsTaken: whoever begins to depend on a grant is told that it is taken back, also when that was the moment before; who has let go is
// not.
func TestGrantTakenBackWhileItIsTaken(t *testing.T) {
	var early, late, gone holding
	g := NewGrant(true)
	g.Watch(&early)
	g.Watch(&gone)
	g.Unwatch(&gone)
	if !g.Allowed() || !g.Held() || early != 0 {
		t.Errorf("told %d times before it was taken back", early)
	}
	g.Set(true)
	g.Set(false)
	g.Set(false)
	g.Watch(&late)
	if g.Allowed() || early != 1 || late != 1 || gone != 0 {
		t.Errorf("told %d, %d and %d times", early, late, gone)
	}
	g.Set(true)
	if !g.Allowed() || early != 1 {
		t.Error("told that it was given")
	}
}

// TestEarlyDataWithAHole: what comes before the target is there is kept whole or not at all, and nothing is kept behind the client's end.
func TestEarlyDataWithAHole(t *testing.T) {
	payload := func(text string, counter ...byte) []byte {
		b := append([]byte{kindPayload, byte(len(text))}, text...)
		if counter != nil {
			return append(append(b, 1), counter...)
		}
		return append(b, 0)
	}
	for name, c := range map[string]struct {
		say   [][]byte
		kept  string
		ended bool // the connection, for a hole
	}{
		"in order":           {[][]byte{payload("a", 0, 0), payload("b", 1, 0), payload("c", 2, 0)}, "abc", false},
		"without counters":   {[][]byte{payload("a"), payload("b")}, "ab", false},
		"a hole":             {[][]byte{payload("a", 0, 0), payload("c", 2, 0), payload("b", 1, 0)}, "a", true},
		"the first missing":  {[][]byte{payload("b", 1, 0)}, "", true},
		"twice":              {[][]byte{payload("a", 0, 0), payload("a", 0, 0)}, "a", true},
		"behind the end":     {[][]byte{payload("a", 0, 0), {kindDisconnect}, payload("b", 1, 0)}, "a", false},
		"nothing of its own": {[][]byte{{kindPong}, {kindCredit, 1}, payload("a", 0, 0)}, "a", false},
	} {
		alone(t, func(_ *node, conn *conn, _ func() [][]byte) {
			e := &early{}
			conn.early, conn.state, conn.outlet, conn.skip = e, opening, true, true
			for _, b := range c.say {
				if conn.state == ended {
					break
				}
				m := conn.shard.NewMessage()
				m.SetPayloadBytes(b)
				conn.HandleMessage(conn.shard, m)
				conn.shard.Free(m)
			}
			if string(e.data) != c.kept || (conn.state == ended) != c.ended {
				t.Errorf("%s: kept %q, ended %v", name, e.data, conn.state == ended)
			}
		})
	}
}

// TestFinishedOnce: a connection can be finished when its socket is gone already, and again when it has ended.
func TestFinishedOnce(t *testing.T) {
	alone(t, func(n *node, conn *conn, _ func() [][]byte) {
		for range 2 {
			conn.finish(ReasonNone)
		}
		if conn.state != ended || n.env.Stats.Ended[ReasonNone].Load() != 1 || n.env.Stats.Active.Load() != 0 {
			t.Errorf("state %v, counted %d times", conn.state, n.env.Stats.Ended[ReasonNone].Load())
		}
	})
}

// TestQuietSinceTheClientTookAll: the time in which the peer of a client that has half-closed may be silent begins when the client has taken what
// waited for it: until then the peer was held back.
func TestQuietSinceTheClientTookAll(t *testing.T) {
	for name, c := range map[string]struct{ full, readDone, extended, want bool }{
		"after a full backlog":      {true, true, false, true},
		"nothing was held back":     {false, true, false, false},
		"the client has not ended":  {true, false, false, false},
		"the peer knows half-close": {true, true, true, false},
	} {
		alone(t, func(_ *node, conn *conn, _ func() [][]byte) {
			if c.full {
				conn.over(conn.env.Limits.HighWater+1, nil)
			}
			conn.waitQuiet()
			before := conn.timer
			conn.readDone, conn.extended, conn.done = c.readDone, c.extended, c.extended
			conn.OnDrain(nil)
			if anew := conn.timer != before; anew != c.want {
				t.Errorf("%s: begins anew: %v", name, anew)
			}
			conn.extended = false
			conn.end(ReasonReset, false)
		})
	}
}

// TestPeerOfALossyPathThatDoesNotWait: one that knows no windows, over what cannot be asked to wait, is ended when its client does not read; not before, and not one that can wait.
func TestPeerOfALossyPathThatDoesNotWait(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		alone(t, func(n *node, c *conn, _ func() [][]byte) {
			fd, _ := socketPair(t)
			sock, err := c.shard.Loop().Adopt(fd, c)
			if err != nil {
				t.Error(err)
				return
			}
			c.sock, c.lossy = sock, lossy
			n.env.Limits.HighWater = 1 << 20
			for c.state == open && sock.Pending() <= maxUnpaced<<20-1<<18 {
				c.write(make([]byte, 1<<18), nil)
			}
			if c.state != open {
				t.Errorf("lossy %v: ended when %d bytes wait", lossy, sock.Pending())
				return
			}
			for range 2 {
				if c.state == open {
					c.write(make([]byte, 1<<18), nil)
				}
			}
			if (c.state == ended) != lossy || n.env.Stats.Ended[ReasonStalled].Load() != map[bool]uint64{true: 1}[lossy] {
				t.Errorf("lossy %v: ended %v, counted %d times", lossy, c.state == ended, n.env.Stats.Ended[ReasonStalled].Load())
			}
			c.end(ReasonShutdown, true)
		})
	}
}

// TestClientOfAPing: whom an inlet says that it serves is what the outlet tells its target, in one form; what is no address says nothing.
func TestClientOfAPing(t *testing.T) {
	for client, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1:80", "[::ffff:192.0.2.1]:80": "192.0.2.1:80", "[2001:db8::1]:80": "[2001:db8::1]:80", "": "", "somebody": "", "192.0.2.1": "",
	} {
		for _, version := range []uint8{resumeVersion - 1, resumeVersion} {
			alone(t, func(_ *node, c *conn, _ func() [][]byte) {
				m := c.shard.NewMessage()
				defer c.shard.Free(m)
				f := fields{id: token{1}, hold: 1000, client: client}
				m.SetPayloadBytes(f.append([]byte{0}))
				c.version = version
				c.promise(&Outlet{opts: OutletOptions{Hold: time.Minute}}, m, message{fields: 1})
				var expected netip.AddrPort
				if want != "" && version >= resumeVersion {
					expected = netip.MustParseAddrPort(want)
				}
				if c.client != expected || c.line != nil || c.tally.client != "" {
					t.Errorf("%q in version %d: %v, held %v", client, version, c.client, c.line != nil)
				}
				c.hasPeer = true
				if c.promise(&Outlet{}, m, message{fields: 1}); c.line != nil {
					t.Error("held though the outlet holds none")
				}
				c.promise(&Outlet{opts: OutletOptions{Hold: time.Minute}}, m, message{fields: 1})
				if known := version >= resumeVersion; (c.line != nil) != known || known && (c.line.hold != time.Second || c.line.id != f.id || c.line.secret == (token{}) || c.tally.client != client) {
					t.Errorf("%q of a known peer: held %v", client, c.line != nil)
				}
				c.line = nil
			})
		}
	}
}

// TestTargetThatWasNotReached: when a target was last not reached is noted for a connection that was refused there or could not be made, and for no other.
func TestTargetThatWasNotReached(t *testing.T) {
	for _, c := range []struct {
		reason Reason
		isOpen bool
		noted  bool
	}{
		{ReasonRefused, false, true}, {ReasonUnreachable, false, true}, {ReasonLimit, false, false}, {ReasonPath, false, false},
		{ReasonRefused, true, false}, {ReasonReset, true, false}, {ReasonNone, true, false},
	} {
		alone(t, func(_ *node, conn *conn, _ func() [][]byte) {
			conn.outlet, conn.tally.isOpen = true, c.isOpen
			conn.end(c.reason, false)
			if noted := conn.meter.Unreached.Load() != 0; noted != c.noted || conn.meter.Refused[c.reason].Load() != map[bool]uint64{false: 1}[c.isOpen] {
				t.Errorf("%v, open %v: noted %v, %d refused", c.reason, c.isOpen, noted, conn.meter.Refused[c.reason].Load())
			}
		})
	}
}

// TestKeptBytesAreMarked: bytes that a connection keeps, to send them again, go out so that nothing on their way may be written over them.
func TestKeptBytesAreMarked(t *testing.T) {
	alone(t, func(_ *node, conn *conn, _ func() [][]byte) {
		var kept []bool
		self := conn.shard.Start(routing.WorkerFunc(func(_ *routing.Shard, m *routing.Message) { kept = append(kept, m.Kept()) }))
		conn.route = routing.RouteOf(self)
		buf := make([]byte, routing.HeadRoom+5+routing.TailRoom)
		for _, keep := range []bool{true, false, true} {
			if conn.carry(buf, 5, keep); len(kept) == 0 || kept[len(kept)-1] != keep {
				t.Errorf("kept %v: %v", keep, kept)
			}
		}
	})
}

// TestEarlyDataIsBounded: who sends more than may wait for a target that is not connected yet is made to wait, as with one that is.
func TestEarlyDataIsBounded(t *testing.T) {
	alone(t, func(n *node, conn *conn, _ func() [][]byte) {
		n.env.Limits.HighWater = 10
		conn.early, conn.state, conn.outlet, conn.skip = &early{}, opening, true, true
		for i, full := range []bool{false, false, true, true} { // 5, 10, 15 and 20 bytes
			m := conn.shard.NewMessage()
			m.SetPayloadBytes([]byte{kindPayload, 5, 'e', 'a', 'r', 'l', 'y', 0})
			conn.HandleMessage(conn.shard, m)
			conn.shard.Free(m)
			if (conn.backlog != nil) != full || len(conn.early.data) != 5*(i+1) {
				t.Errorf("%d bytes of 10: the sender waits: %v", len(conn.early.data), conn.backlog != nil)
			}
		}
		conn.end(ReasonShutdown, false)
	})
}
