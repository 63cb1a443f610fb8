package dataplane

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRateSavesUp: what came together while nobody asked is granted to the next who asks, without a look of the clock's.
func TestRateSavesUp(t *testing.T) {
	b, now := &bucket{}, time.Unix(100, 0)
	b.set(10_000_000, now)
	var s share
	for left := int(b.tokens) / b.part(); left > 0; left-- {
		if b.take(&s, now) == 0 {
			t.Fatalf("%d parts that were saved up are not granted", left)
		}
	}
	if got := b.take(&s, now.Add(2*rateTick)); got != b.part() {
		t.Errorf("%d bytes are granted after two ticks, not a part of %d", got, b.part())
	}
}

// TestRaceOutOfTime: an attempt that would begin after the deadline is not begun, and the race ends with what failed before and the deadline.
func TestRaceOutOfTime(t *testing.T) {
	l := newLoop(t)
	var err error
	ended := 0
	on(t, l, func() {
		r := &race{loop: l, left: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, deadline: time.Now().Add(-time.Second), failed: os.ErrPermission}
		r.done = func(c *Conn, e error) {
			if c != nil {
				t.Error("a connection")
			}
			ended, err = ended+1, e
		}
		r.start()
		if !r.over || r.active != 0 {
			t.Error("an attempt was begun")
		}
	})
	if ended != 1 || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(err, os.ErrPermission) {
		t.Errorf("ended %d times, %v", ended, err)
	}
}

// TestRateIsNotOwed: what was let through while there was no limit is not held against whoever asks when there is one again.
func TestRateIsNotOwed(t *testing.T) {
	b, now := &bucket{}, time.Unix(100, 0)
	b.set(10_000_000, now)
	var s share
	for b.take(&s, now) > 0 {
	}
	b.set(0, now)
	if granted, more := b.grant(now); len(granted) != 1 || granted[0] != &s || more != nil {
		t.Fatalf("%d were granted when the limit had gone", len(granted))
	}
	b.set(10_000_000, now)
	if got := b.take(&s, now.Add(2*rateTick)); got == 0 {
		t.Errorf("%.0f bytes are owed", -b.tokens)
	}
}

func newGroup(t *testing.T) *Group {
	t.Helper()
	g, err := NewGroup(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	return g
}

// TestRateIsSet: a limit can be changed, and taken away.
func TestRateIsSet(t *testing.T) {
	r := NewRate(newGroup(t), 5)
	for _, bytes := range []int64{0, 7, 0} {
		if r.Set(bytes); r.Limited() != (bytes > 0) {
			t.Errorf("%d bytes a second: limited %v", bytes, r.Limited())
		}
	}
}

// TestLimitHoldsConnection: a connection with limits reads in parts, one without reads all at once; the first limits stay.
func TestLimitHoldsConnection(t *testing.T) {
	g := newGroup(t)
	l := g.Loop(0)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	on(t, l, func() {
		c, err := l.Adopt(fds[0], &drainer{drain: func() {}})
		if err != nil {
			t.Error(err)
			return
		}
		const much = 1 << 30
		if c.HasLimit() || c.readRoom(much) != much {
			t.Error("a connection is limited from the start")
		}
		in := NewRate(g, 10_000)
		c.Limit(in, NewRate(g, 0), Member{})
		if room := c.readRoom(much); !c.HasLimit() || room > in.bucket.part() {
			t.Errorf("limited %v: %d bytes may be read at once, a part is %d", c.HasLimit(), room, in.bucket.part())
		}
		c.Limit(NewRate(g, 0), NewRate(g, 0), Member{})
		if c.limits.in.rate != in {
			t.Error("other limits took the place of the first")
		}
		c.Abort()
		c.Limit(in, in, Member{})
	})
}

// TestInInput: what is handed out is told from what lies beside it.
func TestInInput(t *testing.T) {
	l := newLoop(t)
	on(t, l, func() {
		buf := make([]byte, 12)
		l.handOut(buf[4:8])
		for at := range buf {
			if got := l.inInput(buf[at : at+1]); got != (at >= 4 && at < 8) {
				t.Errorf("byte %d lies in the input: %v", at, got)
			}
		}
		l.settle()
		if l.inInput(buf[4:5]) {
			t.Error("after the end")
		}
	})
}

// TestDrainedThenEnds: a connection whose handler wanted to know that its output is gone sends its end behind that, and may be closed by the handler.
func TestDrainedThenEnds(t *testing.T) {
	for _, closes := range []bool{false, true} {
		l := newLoop(t)
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		peer := netConn(t, fds[1])
		drained := 0
		on(t, l, func() {
			var c *Conn
			h := &drainer{drain: func() {
				if drained++; closes {
					c.Close()
				}
			}}
			if c, err = l.Adopt(fds[0], h); err == nil {
				c.Write([]byte("hello"))
				c.WantDrain(0)
				c.CloseWrite()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = peer.SetReadDeadline(time.Now().Add(90 * time.Second))
		if got, err := io.ReadAll(peer); err != nil || string(got) != "hello" {
			t.Errorf("closed by the handler %v: %q, %v", closes, got, err)
		}
		on(t, l, func() {
			if drained != 1 {
				t.Errorf("closed by the handler %v: told %d times", closes, drained)
			}
		})
		peer.Close()
	}
}
