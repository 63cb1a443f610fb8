package dataplane

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDetachedGoesOn: a connection that was detached can come back to the same loop, which knows nothing of it any more.
func TestDetachedGoesOn(t *testing.T) {
	l := newLoop(t)
	rec := newRecorder()
	c, peer := adopt(t, l, "tcp", rec)
	var again *Conn
	on(t, l, func() {
		fd, ok := c.Detach()
		if !ok || !c.Closed() || c.Unacknowledged() != 0 || c.RoundTrip() != 0 {
			t.Error("not detached")
		}
		if _, ok := c.Detach(); ok {
			t.Error("detached twice")
		}
		var err error
		if again, err = l.Adopt(fd, rec); err != nil {
			t.Fatal(err)
		}
	})
	if again.Handler() != Handler(rec) || again.Loop() != l {
		t.Error("another handler, or another loop")
	}
	if _, err := peer.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its input", func() bool { return string(rec.bytes()) == "hello" })
	on(t, l, again.Abort)
}

// TestHandoverReset: who cannot go on with a connection resets it: its peer reads no end.
func TestHandoverReset(t *testing.T) {
	l := newLoop(t)
	c, peer := adopt(t, l, "tcp", newRecorder())
	var h Handover
	on(t, l, func() { h, _ = c.HandOver() })
	h.Reset()
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the peer reads %v", err)
	}
}

// TestDialAnyWithoutDeadline: no time for all attempts together is no bound, and not none.
func TestDialAnyWithoutDeadline(t *testing.T) {
	l := newLoop(t)
	ln, at := listenOn(t, l, func(fd int, _ netip.AddrPort) { _ = unix.Close(fd) })
	for _, to := range [][]netip.AddrPort{{at}, {netip.MustParseAddrPort("127.0.0.1:1"), at}, {at, at}} {
		for _, timeout := range []time.Duration{0, time.Minute} {
			done := make(chan error, 1)
			on(t, l, func() {
				l.DialAny(to, TCPOptions{}, timeout, func(c *Conn, err error) {
					if err == nil {
						c.SetHandler(newRecorder())
						c.Abort()
					}
					done <- err
				})
			})
			if err := <-done; err != nil {
				t.Errorf("%v within %v: %v", to, timeout, err)
			}
		}
	}
	on(t, l, ln.Close)
}

// TestListenerPauses: who connects while a listener is paused waits, and is accepted when it goes on.
func TestListenerPauses(t *testing.T) {
	l := newLoop(t)
	var paused atomic.Bool
	accepted := make(chan int, 2)
	ln, at := listenOn(t, l, func(fd int, _ netip.AddrPort) {
		if paused.Load() {
			t.Error("accepted while it is paused")
		}
		accepted <- fd
	})
	on(t, l, func() { ln.Pause(); paused.Store(true) })
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	on(t, l, func() { ln.onEvents(0) })
	on(t, l, func() { paused.Store(false); ln.Resume() })
	_ = unix.Close(<-accepted)
	on(t, l, func() {
		ln.Close()
		ln.Close()
		ln.Resume() // of no use any more
	})
}

// TestUDPSocketPauses: datagrams that come while a socket is paused wait in it, and are handed on when it goes on.
func TestUDPSocketPauses(t *testing.T) {
	e, stats, l := newUDP(t)
	on(t, l, e.sock.Pause)
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e.sock.Local()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(90 * time.Second))
	if _, err := c.Write([]byte("waits")); err != nil {
		t.Fatal(err)
	}
	on(t, l, func() {
		if e.sock.onEvents(unix.EPOLLIN); stats.In.Load() != 0 {
			t.Error("handed on while it is paused")
		}
	})
	on(t, l, e.sock.Resume)
	b := make([]byte, 100)
	if n, err := c.Read(b); err != nil || string(b[:n]) != ">waits" {
		t.Errorf("%q, %v", b[:n], err)
	}
	on(t, l, func() {
		e.sock.Close()
		e.sock.Resume() // of no use any more
	})
}

// TestUDPSocketTakesAgain: what the kernel has not taken is offered again when it asks for more, and not before.
func TestUDPSocketTakesAgain(t *testing.T) {
	e, stats, l := newUDP(t)
	to, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	on(t, l, func() {
		s := e.sock
		s.blocked = true
		s.Send([]byte("later"), to.LocalAddr().(*net.UDPAddr).AddrPort())
		if s.onEvents(unix.EPOLLIN); !s.blocked || stats.Out.Load() != 0 {
			t.Error("offered though the kernel has not asked")
		}
		if s.onEvents(unix.EPOLLOUT); s.blocked || stats.Out.Load() != 1 || s.Pending() != 0 {
			t.Error("not offered when it asks")
		}
		s.Close()
		s.blocked = true
		if s.onEvents(unix.EPOLLOUT); !s.blocked {
			t.Error("a closed socket goes on")
		}
	})
}

// TestUDPSocketCountsLosses: what the kernel dropped for want of room is told once.
func TestUDPSocketCountsLosses(t *testing.T) {
	e, _, l := newUDP(t)
	on(t, l, func() {
		e.sock.Pause()
		if n := e.sock.Lost(); n != 0 {
			t.Errorf("%d lost of none", n)
		}
		_ = unix.SetsockoptInt(e.sock.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	})
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e.sock.Local()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const sent = 200
	for range sent {
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	on(t, l, func() {
		if n := e.sock.Lost(); n == 0 || n >= sent {
			t.Errorf("%d of %d lost", n, sent)
		}
		if n := e.sock.Lost(); n != 0 {
			t.Errorf("%d are told again", n)
		}
		if e.sock.Close(); e.sock.Lost() != 0 {
			t.Error("of a closed socket")
		}
	})
}

// TestUDPAlone: a datagram that is to go alone is in no run, one that did not fit marks nothing, and what follows goes in runs again.
func TestUDPAlone(t *testing.T) {
	e, stats, l := newUDP(t)
	to := netip.MustParseAddrPort("127.0.0.1:9")
	on(t, l, func() {
		s := e.sock
		s.Send([]byte("one"), to)
		copy(s.Reserve(3), "two")
		s.CommitAlone(3, to)
		s.Send([]byte("three"), to)
		if len(s.out) != 3 || s.out[0].alone || !s.out[1].alone || s.out[2].alone {
			t.Errorf("%+v", s.out)
		}
		s.queue = s.Pending() + 3
		copy(s.Reserve(4), "four")
		if s.CommitAlone(4, to); len(s.out) != 3 || stats.Overflow.Load() != 1 || s.Room() != 3 {
			t.Errorf("one more than fits: %d wait, %d dropped, room for %d", len(s.out), stats.Overflow.Load(), s.Room())
		}
		copy(s.Reserve(3), "end")
		if s.CommitAlone(3, to); len(s.out) != 4 || s.Room() != 0 {
			t.Errorf("one that just fits: %d wait", len(s.out))
		}
		s.Close()
		if s.CommitAlone(0, to); len(s.out) != 0 {
			t.Error("a closed socket takes one")
		}
	})
}

// TestHowFarOutputIs: what the kernel has and the peer's system has not acknowledged, what the kernel has not taken, and how far away the peer is.
func TestHowFarOutputIs(t *testing.T) {
	l := newLoop(t)
	c, peer := adopt(t, l, "tcp", newRecorder())
	on(t, l, func() {
		if c.Blocked() || c.Unacknowledged() != 0 {
			t.Error("nothing was written")
		}
		if d := c.RoundTrip(); d < 0 || d > time.Minute {
			t.Errorf("a round trip of %v on loopback", d)
		}
		c.SetNotSentLowat(1 << 20)
		if v, err := unix.GetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT); v != 1<<20 || err != nil {
			t.Errorf("%d, %v", v, err)
		}
		c.Write(make([]byte, 32<<20))
		c.flush()
		if !c.Blocked() || c.Unacknowledged() == 0 || c.Pending() == 0 {
			t.Errorf("blocked: %v, %d not acknowledged, %d waiting", c.Blocked(), c.Unacknowledged(), c.Pending())
		}
	})
	if n, err := io.CopyN(io.Discard, peer, 32<<20); err != nil {
		t.Errorf("%d, %v", n, err)
	}
	eventually(t, "all is acknowledged", func() (ok bool) {
		on(t, l, func() { ok = c.Pending() == 0 && c.Unacknowledged() == 0 })
		return ok
	})
	on(t, l, func() {
		if c.RoundTrip() == 0 {
			t.Error("no round trip was seen")
		}
		c.Abort()
		if c.RoundTrip() != 0 || c.Unacknowledged() != 0 {
			t.Error("of a closed connection")
		}
		c.SetNotSentLowat(1) // of no use any more
	})
	local, _ := adopt(t, l, "unix", newRecorder())
	on(t, l, func() {
		if local.RoundTrip() != 0 {
			t.Error("a Unix socket has a round trip")
		}
		local.Abort()
	})
}

// TestEachConn: a loop's handlers are gone through, but not those of connections that are closed, and no further than asked for.
func TestEachConn(t *testing.T) {
	l := newLoop(t)
	one, two := newRecorder(), newRecorder()
	a, _ := adopt(t, l, "unix", one)
	b, _ := adopt(t, l, "tcp", two)
	listenOn(t, l, func(fd int, _ netip.AddrPort) { _ = unix.Close(fd) })
	count := func(most int) (seen map[Handler]int) {
		seen = map[Handler]int{}
		on(t, l, func() { l.EachConn(func(h Handler) bool { seen[h]++; return len(seen) < most }) })
		return seen
	}
	if s := count(9); len(s) != 2 || s[one] != 1 || s[two] != 1 {
		t.Errorf("%v", s)
	}
	if s := count(1); len(s) != 1 {
		t.Errorf("%d though one was enough", len(s))
	}
	on(t, l, a.Abort)
	if s := count(9); len(s) != 1 || s[two] != 1 {
		t.Errorf("%v", s)
	}
	on(t, l, func() { b.closed = true })
	if s := count(9); len(s) != 0 {
		t.Errorf("%v", s)
	}
	on(t, l, func() { b.closed = false; b.Abort() })
}

// TestFrameBegunWithPreamble: a frame that began while the peer's first byte was waited for is watched when that time is over.
func TestFrameBegunWithPreamble(t *testing.T) {
	t.Parallel()
	l := newLoop(t)
	log, _, peer := framedLate(t, l, Deadlines{Preamble: short, Frame: 100 * time.Millisecond}, 1<<20)
	if _, err := peer.Write([]byte{1, 0, 0}); err != nil {
		t.Fatal(err)
	}
	log.end(t, ErrLateFrame)
}

// TestLengthsFrames: how a frame of the TCP transport is sent.
func TestLengthsFrames(t *testing.T) {
	l, frame := NewLengths(1, 100), make([]byte, 104)
	if head := l.Head(100); head != 4 {
		t.Fatalf("a head of %d", head)
	}
	if l.Seal(frame, 4); binary.BigEndian.Uint32(frame) != 100 || l.End(nil) != nil || l.End(io.EOF) != nil || l.Begun() {
		t.Errorf("%x", frame[:4])
	}
	for _, c := range []struct {
		size      uint32
		have      int
		used, end int
		err       error
	}{{1, 1, 5, 5, nil}, {100, 100, 104, 104, nil}, {101, 101, 0, 0, ErrFrameSize}, {0, 1, 0, 0, ErrFrameSize}, {100, 99, 0, 0, nil}, {1 << 31, 1, 0, 0, ErrFrameSize}} {
		l.begun = true
		p, err := l.Next(append(binary.BigEndian.AppendUint32(nil, c.size), make([]byte, c.have)...))
		if !errors.Is(err, c.err) || p.Used != c.used || p.End != c.end || err == nil && c.used == 0 && p.Need != 4+int(c.size) {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
	}
	if p, err := l.Next([]byte{0, 0, 0}); err != nil || p.Used != 0 || p.Need != 4 {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestFullKernelThatIsLimited: a connection with limits whose kernel takes nothing now waits, and does not keep its loop busy; it goes on when there is
// room.
func TestFullKernelThatIsLimited(t *testing.T) {
	g := newGroup(t)
	l := g.Loop(0)
	c, peer := adopt(t, l, "unix", newRecorder())
	filled := 0
	on(t, l, func() {
		for block := make([]byte, 4096); ; {
			n, errno := rawWrite(c.fd, block)
			if errno == unix.EAGAIN {
				break
			}
			filled += n
		}
		c.Limit(NewRate(g, 0), NewRate(g, 0), Member{})
		if !c.HasLimit() {
			t.Error("it has no limits")
		}
		c.Write([]byte("end"))
	})
	on(t, l, func() {
		if !c.Blocked() || c.Pending() != 3 {
			t.Errorf("blocked: %v, %d waiting", c.Blocked(), c.Pending())
		}
	})
	got := make([]byte, filled+3)
	if _, err := io.ReadFull(peer, got); err != nil || string(got[filled:]) != "end" {
		t.Errorf("%q, %v", got[filled:], err)
	}
	on(t, l, c.Abort)
}

// TestTimerFaults: a timer whose function faults is counted as that and the loop goes on; one that does not is not.
func TestTimerFaults(t *testing.T) {
	g := newGroup(t)
	l := g.Loop(0)
	ran := make(chan struct{}, 2)
	on(t, l, func() {
		l.After(0, func() { ran <- struct{}{} })
		l.After(0, func() { panic("a fault of the test's") })
		l.After(time.Millisecond, func() { ran <- struct{}{} })
	})
	<-ran
	<-ran
	on(t, l, func() {})
	if n := g.Use().Faults; n != 1 {
		t.Errorf("%d faults of one timer in three", n)
	}
}
