package portal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLifeline: what was sent, kept, confirmed and sent again, at each bound.
func TestLifeline(t *testing.T) {
	alone(t, func(_ *node, c *conn, _ func() [][]byte) {
		line := func() *lifeline {
			c.newLine(time.Minute)
			c.line.add([]byte("0123456789"))
			return c.line
		}
		l := line()
		if l.behind() || l.end() != 10 || l.owesFinish() || l.settled() || l.kept.size != 10 {
			t.Errorf("%+v", l)
		}
		for _, x := range []struct {
			n        uint64
			finished bool
			ok       bool
			kept     int
			settled  bool
		}{
			{0, false, true, 10, false}, {4, false, true, 6, false}, {10, false, true, 0, false}, {11, false, false, 10, false}, {10, true, true, 0, false}, {11, true, true, 0, true}, {12, true, false, 10, false},
		} {
			l := line()
			l.finished = x.finished
			if ok := l.confirm(x.n); ok != x.ok || l.kept.size != x.kept || l.settled() != x.settled || l.owesFinish() != (x.finished && !x.settled) {
				t.Errorf("%+v: %v, %d kept, settled %v, owes %v", x, ok, l.kept.size, l.settled(), l.owesFinish())
			}
			if x.ok && x.n > 0 && l.confirm(x.n-1) {
				t.Errorf("%+v: less is confirmed than before", x)
			}
			if x.ok && (!l.confirm(x.n) || l.confirmed != x.n) {
				t.Errorf("%+v: the same again", x)
			}
			l.wipe()
			if l.kept.size != 0 || l.id != (token{}) {
				t.Error("something is left")
			}
		}
		// The low bits of a position say which one is meant, also where they begin anew.
		for _, x := range []struct {
			confirmed, sent uint64
			low             uint32
			ok              bool
			now             uint64
		}{{1<<32 - 5, 1<<32 + 5, 2, true, 1<<32 + 2}, {1<<32 - 5, 1<<32 + 5, 5, true, 1<<32 + 5}, {1<<32 - 5, 1<<32 + 5, 6, false, 1<<32 - 5}, {5, 10, 5, true, 5}, {5, 10, 4, false, 5}} {
			l := &lifeline{confirmed: x.confirmed, sent: x.sent, next: x.sent, kept: keep{pool: &c.env.keeper(c.shard).pool, total: &c.env.Stats.Kept}}
			l.kept.add(make([]byte, x.sent-x.confirmed))
			if ok := l.confirmLow(x.low); ok != x.ok || l.confirmed != x.now {
				t.Errorf("%+v: %v, %d", x, ok, l.confirmed)
			}
			l.wipe()
		}
		// Behind what is sent again, what is new waits.
		l = line()
		if !l.rewind(3) || !l.behind() || l.next != 3 || l.kept.size != 7 {
			t.Errorf("%+v", l)
		}
		l.add([]byte("ab"))
		buf := make([]byte, 4)
		if n := l.again(buf); n != 4 || string(buf) != "3456" || l.next != 7 || !l.behind() {
			t.Errorf("%q", buf[:n])
		}
		if l.confirm(9); l.next != 9 {
			t.Errorf("sent again from %d", l.next)
		}
		if n := l.again(buf); n != 3 || string(buf[:n]) != "9ab" || l.behind() {
			t.Errorf("%q", buf[:n])
		}
		l.add([]byte("c"))
		if l.behind() || l.next != 13 {
			t.Errorf("%+v", l)
		}
		l.finished = true
		if !l.rewind(14) || l.next != 13 || l.rewind(3) {
			t.Errorf("%+v", l)
		}
		l.wipe()
		// A path that loses is taken again as long as something comes through.
		l = line()
		for i := range 3 * maxStuck {
			if l.stalled(uint64(i / maxStuck)) {
				t.Fatalf("given up after %d losses", i)
			}
		}
		for i := range maxStuck + 1 {
			if got := l.stalled(100); got != (i == maxStuck) {
				t.Errorf("loss %d without anything: %v", i, got)
			}
		}
		l.confirm(1)
		if l.stalled(100) {
			t.Error("what was confirmed does not count")
		}
		l.wipe()
	})
}

// TestWhatALossDoes: where a message is missing the connection ends if it cannot be taken up again, and takes its path again if it can, but not for ever.
func TestWhatALossDoes(t *testing.T) {
	alone(t, func(n *node, c *conn, sent func() [][]byte) {
		fresh := func(now state) *conn {
			o := n.env.newConn(c.shard, c.meter)
			o.self, o.route, o.state, o.outlet, o.extended, o.version = c.shard.Start(o), c.route, now, true, true, resumeVersion
			o.newLine(time.Minute)
			return o
		}
		for name, x := range map[string]struct {
			change func(*conn)
			after  state
			sends  []byte
			reason Reason
		}{
			"open":              {func(*conn) {}, away, []byte{kindDisconnect, byte(ReasonPath)}, ReasonNone},
			"without a line":    {func(o *conn) { o.line = nil }, ended, []byte{kindDisconnect, byte(ReasonGap)}, ReasonGap},
			"opening":           {func(o *conn) { o.state = opening }, ended, nil, ReasonGap},
			"for the last time": {func(o *conn) { o.line.stuck = maxStuck }, ended, []byte{kindDisconnect, byte(ReasonGap)}, ReasonGap},
		} {
			o := fresh(open)
			x.change(o)
			before := n.env.Stats.Ended[ReasonGap].Load()
			o.lost()
			got := sent()
			if o.state != x.after || (x.sends == nil) != (len(got) == 0) || len(got) > 0 && !bytes.Equal(got[0], x.sends) {
				t.Errorf("%s: state %d, sent %x", name, o.state, got)
			}
			if counted := n.env.Stats.Ended[ReasonGap].Load() - before; (counted == 1) != (x.reason == ReasonGap) {
				t.Errorf("%s: counted %d times", name, counted)
			}
			o.end(ReasonReset, false)
		}
		if k := n.env.Stats.Away.Load(); k != 0 {
			t.Errorf("%d are away", k)
		}
		// What is away, or waits for an answer that will be asked for again, misses nothing.
		for _, now := range []state{away, opening} {
			o := fresh(now)
			if now == away {
				n.env.Stats.Away.Add(1)
			}
			if o.MessageLost(); o.state != now {
				t.Errorf("state %d became %d", now, o.state)
			}
			if o.losePath() {
				t.Error("a path is lost that there is not")
			}
			o.end(ReasonReset, false)
		}
		// Why one ends whose hold runs out: what its socket has done, that all was handed over, or the hold.
		for name, x := range map[string]struct {
			change func(*conn)
			want   Reason
		}{"the hold": {func(*conn) {}, ReasonHold}, "its socket was reset": {func(o *conn) { o.line.gone = ReasonReset }, ReasonReset}, "all was handed over": {func(o *conn) { o.done = true }, ReasonNone}} {
			o := fresh(open)
			o.losePath()
			x.change(o)
			o.line.until = time.Now().Add(-time.Second)
			before := n.env.Stats.Ended[x.want].Load()
			if o.waited(); o.state != ended || n.env.Stats.Ended[x.want].Load() != before+1 {
				t.Errorf("%s: state %d", name, o.state)
			}
			o.waited()
			o.wait()
			if o.timer != nil {
				t.Errorf("%s: it waits on", name)
			}
		}
		o := fresh(open)
		o.losePath()
		if o.waited(); o.state != away {
			t.Error("it ended before its time")
		}
		o.end(ReasonReset, false)
		// One that has finished is forgotten when both know, or after a while.
		for name, x := range map[string]struct {
			done, settled, told, forgotten bool
		}{"both know": {true, true, true, true}, "this end has not told": {true, true, false, false}, "the other has not": {true, false, true, false}, "the socket has not": {false, true, true, false}} {
			o := fresh(open)
			o.done, o.line.finished = x.done, true
			if x.settled {
				o.line.confirmed = o.line.sent + 1
			}
			if o.window.received = 7; x.told {
				o.line.told = 7
			}
			if o.settle(); (o.state == ended) != x.forgotten {
				t.Errorf("%s: state %d", name, o.state)
			}
			if o.unsettled(); o.state != ended {
				t.Errorf("%s: it stays", name)
			}
		}
		o = fresh(away)
		n.env.Stats.Away.Add(1)
		if o.unsettled(); o.state == ended {
			t.Error("one whose path is away is forgotten for what was told over it")
		}
		o.end(ReasonReset, false)
		if n.env.Stats.Kept.Load() != 0 || n.env.Stats.Away.Load() != 0 || n.env.Stats.Active.Load() < 0 {
			t.Errorf("%d bytes kept, %d away", n.env.Stats.Kept.Load(), n.env.Stats.Away.Load())
		}
	})
}

// TestTakenUpWrongly: what is not as this program would go on with it is reset and told; the others of the portal go on.
func TestTakenUpWrongly(t *testing.T) {
	n := newSimNode(t, 1, Limits{}) // they are taken up in their order
	var list []CarriedConn
	var peers []*os.File
	for i := range 4 {
		fd, peer := socketPair(t)
		k := CarriedConn{Socket: CarriedSocket{FD: fd}, ID: bytes.Repeat([]byte{byte(i + 1)}, 16), Secret: make([]byte, 16), Peer: make([]byte, 32), Version: resumeVersion, HoldMS: 60_000, Allowed: 10, Sent: 5, Kept: []byte("hello")}
		if i == 1 {
			k.Version = 1
		}
		if i == 2 {
			k.ID = bytes.Repeat([]byte{1}, 16) // another's
			k.Peer[0] = 9
		}
		list, peers = append(list, k), append(peers, peer)
	}
	out, err := NewOutlet(limited(t), n.env, n.router, OutletOptions{Name: "outlet", Target: "127.0.0.1:1", Hold: time.Minute, Carried: &CarriedPortal{Name: "outlet", Conns: list}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "all were taken up", func() bool { return !n.env.arrivals.underWay() })
	for i, peer := range peers {
		if i == 0 || i == 3 {
			continue
		}
		if _, err := peer.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d goes on: %v", i, err)
		}
	}
	out.lines.mu.Lock()
	if len(out.lines.conns) != 2 {
		t.Errorf("%d connections go on", len(out.lines.conns))
	}
	out.lines.mu.Unlock()
	if a := n.env.Stats.Away.Load(); a != 2 {
		t.Errorf("%d wait for a path", a)
	}
	if k, open := n.env.Stats.Kept.Load(), n.env.Stats.Active.Load(); k != 10 || open != 2 {
		t.Errorf("%d bytes are kept, %d connections open", k, open)
	}
	// A list of what nobody has taken up: each socket is reset, once.
	fd, peer := socketPair(t)
	second, other := socketPair(t)
	c := Carried{Inlets: []CarriedPortal{{Name: "a", Waiting: []CarriedClient{{FD: fd}}}, {Name: "b", Conns: []CarriedConn{{Socket: CarriedSocket{FD: -1}}}}}, Closing: []CarriedSocket{{FD: second, Output: []byte("x")}}}
	if p := Take(&c.Inlets, "b"); p == nil || p.Name != "b" || len(c.Inlets) != 1 || Take(&c.Inlets, "b") != nil {
		t.Errorf("%+v", c.Inlets)
	}
	c.Wipe()
	if c.Closing[0].Output[0] != 0 {
		t.Error("what waits to be sent is not wiped")
	}
	if k := (&Env{}).ResetCarried(&c); k != 2 || len(c.Inlets)+len(c.Closing) != 0 {
		t.Errorf("%d were reset, left %+v", k, c)
	}
	for _, p := range []io.Reader{peer, other} {
		if _, err := p.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it is open: %v", err)
		}
	}
	n.env.TakeUpSockets(limited(t), n.router, []CarriedSocket{{FD: 1 << 20, Output: []byte("x")}}) // no descriptor: nothing happens
}

// socketPair returns a descriptor for a portal and the other end of it.
func socketPair(t *testing.T) (int, *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "peer")
	t.Cleanup(func() { _ = f.Close() })
	_ = f.SetDeadline(time.Now().Add(90 * time.Second))
	return fds[0], f
}
