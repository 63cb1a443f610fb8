package dataplane

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// draining is a recorder that does more when it is told that output was sent.
type draining struct {
	*recorder
	drain func(*Conn)
}

func (d *draining) OnDrain(c *Conn) {
	d.recorder.OnDrain(c)
	if d.drain != nil {
		d.drain(c)
	}
}

func (d *draining) times() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.drains
}

// TestBorrowedInOrder: bytes that are lent go after those that wait, also where the kernel has room for them again by then.
func TestBorrowedInOrder(t *testing.T) {
	l := newLoop(t)
	const first, second = 4 << 20, borrowedDirect
	rec := &draining{recorder: newRecorder()}
	c, peer := adopt(t, l, "unix", rec)
	all := make([]byte, first+second)
	read := 0
	rec.drain = func(c *Conn) {
		n := first - c.outBytes
		if _, err := io.ReadFull(peer, all[:n]); err != nil {
			t.Error(err)
		}
		read = n
	}
	on(t, l, func() {
		c.Write(bytes.Repeat([]byte("1"), first))
		c.WantDrain(first)
		c.WriteBorrowed(bytes.Repeat([]byte("2"), second))
		if read == 0 || read == first {
			t.Errorf("%d of %d bytes were taken at first", read, first)
		}
	})
	if _, err := io.ReadFull(peer, all[read:]); err != nil {
		t.Fatal(err)
	}
	if i := bytes.IndexByte(all, '2'); i != first || bytes.IndexByte(all[i:], '1') >= 0 {
		t.Errorf("what was lent came at %d, not %d", i, first)
	}
	on(t, l, c.Abort)
}

// TestDrainStates: who waits until all is sent is told once there is a connection, and not any more when it is closed; so long an end of the output waits, too.
func TestDrainStates(t *testing.T) {
	l := newLoop(t)
	rec := &draining{recorder: newRecorder()}
	c, peer := adopt(t, l, "tcp", rec)
	on(t, l, func() {
		c.connect = func(*Conn, error) {}
		c.WantDrain(0)
		c.CloseWrite()
		c.flush()
		if rec.times() != 0 || c.shutting != shutWrite {
			t.Errorf("told %d times while it connects, its end is %d", rec.times(), c.shutting)
		}
		c.onEvents(0)
	})
	if n, err := peer.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the peer reads %d, %v", n, err)
	}
	on(t, l, func() {
		if rec.times() != 1 {
			t.Errorf("told %d times", rec.times())
		}
		c.Abort()
	})
	closed := &draining{recorder: newRecorder()}
	c, _ = adopt(t, l, "tcp", closed)
	on(t, l, func() {
		c.WantDrain(0)
		c.Abort()
	})
	on(t, l, func() {
		if closed.times() != 0 {
			t.Error("told after its end")
		}
	})
}

// TestOnceInATurn: what has output stands once in the list of those that send at the end of the turn, however often it writes.
func TestOnceInATurn(t *testing.T) {
	l := newLoop(t)
	c, _ := adopt(t, l, "unix", newRecorder())
	on(t, l, func() {
		for turn := range 2 {
			for range 3 {
				c.Write([]byte("x"))
				c.WantDrain(0)
			}
			if len(l.dirty) != 1 {
				t.Errorf("turn %d: %d times", turn, len(l.dirty))
			}
			l.flush()
			if len(l.dirty) != 0 || c.Pending() != 0 {
				t.Errorf("turn %d: %d times after it, %d bytes left", turn, len(l.dirty), c.Pending())
			}
		}
		c.Abort()
	})
}

// TestStoppedTimers: whichever of several timers is stopped or set anew, it is the one, and no other.
func TestStoppedTimers(t *testing.T) {
	l := newLoop(t)
	const n = 5
	for i := range n {
		for _, reset := range []bool{false, true} {
			on(t, l, func() {
				var timers []*Timer
				for j := range n {
					timers = append(timers, l.After(time.Hour+time.Duration(j)*time.Minute, func() { t.Error("a timer of an hour ran") }))
				}
				want := n - 1
				if timers[i].Stop(); reset {
					timers[i].Reset(2 * time.Hour)
					timers[i].Reset(3 * time.Hour)
					want = n
				}
				if len(l.timers) != want {
					t.Errorf("timer %d, set anew %v: %d wait", i, reset, len(l.timers))
				}
				for j, x := range timers {
					if waits := x.index >= 0; waits != (j != i || reset) {
						t.Errorf("timer %d, set anew %v: %d waits %v", i, reset, j, waits)
					}
					x.Stop()
				}
				if len(l.timers) != 0 {
					t.Errorf("timer %d, set anew %v: %d wait in the end", i, reset, len(l.timers))
				}
			})
		}
	}
}

// hoarder is a framing that keeps memory of a frame of two lines.
type hoarder struct {
	lines
	kept int
}

func (h *hoarder) Kept() (uint64, int) { return 0, h.kept }
func (h *hoarder) Next(b []byte) (Piece, error) {
	p, err := h.lines.Next(b)
	if h.kept = 0; p.Used > 0 && bytes.HasPrefix(b, []byte("half")) {
		h.kept = 5000
		p.End = 0
	}
	return p, err
}

// TestKeptIsGivenBack: memory that a framing keeps counts until the frame is whole, or its connection has ended.
func TestKeptIsGivenBack(t *testing.T) {
	for _, whole := range []bool{false, true} {
		l := newLoop(t)
		fd, peer := pair(t, "unix")
		s := &said{lines: make(chan string, 10), ended: make(chan error, 2)}
		on(t, l, func() {
			c, err := l.Adopt(fd, nil)
			if err != nil {
				t.Error(err)
				return
			}
			NewFramed(c, &hoarder{}, s, nil)
		})
		_, _ = io.WriteString(peer, "half\n")
		eventually(t, "it counts", func() bool { return l.uses.unfinished.Load() == 5000 })
		if whole {
			_, _ = io.WriteString(peer, "other\n")
			eventually(t, "it counts no more", func() bool { return l.uses.unfinished.Load() == 0 })
		}
		_ = peer.Close()
		<-s.ended
		on(t, l, func() {
			if n := l.uses.unfinished.Load(); n != 0 {
				t.Errorf("whole %v: %d bytes count after the end", whole, n)
			}
		})
	}
}

// faultyDatagrams answers, and panics when the answers are sent, if it is to.
type faultyDatagrams struct {
	echoDatagrams
	fault atomic.Bool
}

func (f *faultyDatagrams) OnFlush() {
	if f.fault.CompareAndSwap(true, false) {
		panic("as asked")
	}
}

// TestDatagramFaults: a fault in what sends datagrams is counted, and the socket goes on; sending without one is none.
func TestDatagramFaults(t *testing.T) {
	l := newLoop(t)
	fd, bound, err := ListenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	f := &faultyDatagrams{echoDatagrams: echoDatagrams{drained: make(chan struct{}, 10)}}
	on(t, l, func() { f.sock, err = l.AdoptUDP(fd, f, &UDPStats{}) })
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(bound))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(90 * time.Second))
	b := make([]byte, 10)
	say := func(want uint64) {
		t.Helper()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its answer is made", func() bool { return f.batches.Load() > 0 })
		on(t, l, func() { f.batches.Store(0) })
		on(t, l, func() {
			if n := l.uses.faulted.Load(); n != want {
				t.Errorf("%d faults, not %d", n, want)
			}
		})
	}
	say(0)
	f.fault.Store(true)
	say(1)
	say(1)
	for range 3 { // also what waited when it failed
		if n, err := c.Read(b); err != nil || string(b[:n]) != ">x" {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
}
