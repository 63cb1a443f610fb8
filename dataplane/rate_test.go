package dataplane

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wanting is a share that always wants more, and what it got.
type wanting struct {
	share
	got int
}

// play has shares take what a bucket gives for a time, each of them once it is told, with looks every tick. It returns the last moment.
func play(b *bucket, list []*wanting, now time.Time, d time.Duration) time.Time {
	of := map[*share]*wanting{}
	for _, w := range list {
		of[&w.share] = w
	}
	step := func(w *wanting) {
		for !w.waits {
			if n := b.take(&w.share, now); n > 0 {
				w.got += n
			} else {
				w.waits = true
			}
		}
	}
	for end := now.Add(d); now.Before(end); now = now.Add(rateTick) {
		granted, _ := b.grant(now)
		for _, s := range granted {
			w := of[s]
			if w == nil {
				continue // it has gone
			}
			w.waits = false
			w.got += s.granted
		}
		for _, w := range list {
			step(w)
		}
	}
	return now
}

// TestRateHolds: whoever asks, however many, gets the rate and no more, by a clock of the test's.
func TestRateHolds(t *testing.T) {
	for _, rate := range []int64{10_000, 2_500_000, 1_250_000_000} {
		for _, conns := range []int{1, 2, 50} {
			b, now := &bucket{}, time.Unix(100, 0)
			b.set(rate, now)
			var list []*wanting
			for i := range conns {
				list = append(list, &wanting{share: share{member: Member{byte(i % 3)}}})
			}
			play(b, list, now, 10*time.Second)
			sum := 0
			for _, w := range list {
				sum += w.got
			}
			want := float64(rate) * 10
			if got := float64(sum); got > want+2*b.most() || got < 0.97*want-2*float64(b.part()) {
				t.Errorf("%d bytes a second, %d connections: %.0f in 10 s, want %.0f", rate, conns, got, want)
			}
		}
	}
}

// TestRateIsShared: members get equal shares however many connections they have, connections of a member as well, and what one does not want others get.
func TestRateIsShared(t *testing.T) {
	b, now := &bucket{}, time.Unix(100, 0)
	b.set(3_000_000, now)
	greedy, modest := []*wanting{}, &wanting{share: share{member: Member{2}}}
	for range 9 {
		greedy = append(greedy, &wanting{share: share{member: Member{1}}})
	}
	all := append([]*wanting{modest}, greedy...)
	now = play(b, all, now, 10*time.Second)
	near := func(what string, got int, want float64) {
		t.Helper()
		if math.Abs(float64(got)/want-1) > 0.05 {
			t.Errorf("%s: %d bytes, want %.0f", what, got, want)
		}
	}
	near("a member with one connection", modest.got, 15e6)
	for _, w := range greedy {
		near("one of the other's nine", w.got, 15e6/9)
	}
	for _, w := range all {
		w.got = 0
	}
	play(b, greedy, now, 10*time.Second) // the first one has gone; what it waited for is granted once, and lost
	sum := 0
	for _, w := range greedy {
		sum += w.got
	}
	near("a member alone", sum, 30e6)
}

// TestRateChanges: a limit can be changed and taken away while somebody waits.
func TestRateChanges(t *testing.T) {
	b, now := &bucket{}, time.Unix(100, 0)
	b.set(1000, now)
	w := &wanting{}
	now = play(b, []*wanting{w}, now, time.Second)
	if !w.waits {
		t.Fatal("nobody waits")
	}
	b.set(1_000_000, now)
	before := w.got
	now = play(b, []*wanting{w}, now, time.Second)
	if got := w.got - before; got < 900_000 || got > 1_100_000 {
		t.Errorf("%d bytes in a second after the change", got)
	}
	b.set(0, now)
	granted, more := b.grant(now)
	if len(granted) != 1 || more != nil || b.take(&share{}, now) != math.MaxInt32 {
		t.Errorf("%d granted without a limit, more %v", len(granted), more)
	}
}

// limitedPair is a connection with limits on a loop that sends back what comes, and its other end.
func limitedPair(t testing.TB, in, out int64) (*net.UnixConn, *Loop) {
	t.Helper()
	g, err := NewGroup(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := g.Loop(0)
	if err := l.Do(context.Background(), func() {
		var c *Conn
		if c, err = l.Adopt(fds[0], &returning{buf: make([]byte, 256<<10)}); err == nil {
			c.Limit(NewRate(g, in), NewRate(g, out), Member{})
			c.offer()
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return netConn(t, fds[1]).(*net.UnixConn), l
}

// returning sends back what it reads, and its end.
type returning struct{ buf []byte }

func (r *returning) OnReadable(c *Conn) {
	for {
		n, err := c.Read(r.buf)
		switch {
		case err == ErrAgain:
			return
		case err == io.EOF:
			c.CloseWrite()
			return
		case err != nil:
			c.Abort()
			return
		}
		if c.Write(r.buf[:n]); c.Pending() > 1<<20 {
			c.Pause()
			c.WantDrain(1 << 18)
			return
		}
	}
}
func (r *returning) OnDrain(c *Conn)      { c.Resume() }
func (r *returning) OnClose(*Conn, error) {}

// TestLimitedConn: what goes through a connection with limits comes whole and in order, with the end of the stream, in both directions.
func TestLimitedConn(t *testing.T) {
	for _, c := range []struct{ in, out int64 }{{20 << 20, 0}, {0, 20 << 20}, {40 << 20, 20 << 20}, {20 << 20, 40 << 20}} {
		peer, _ := limitedPair(t, c.in, c.out)
		peer.SetDeadline(time.Now().Add(60 * time.Second))
		sent := make([]byte, 3<<20)
		for i := range sent {
			sent[i] = byte(i * 7 >> 3)
		}
		go func() {
			_, _ = peer.Write(sent)
			_ = peer.CloseWrite()
		}()
		got, err := io.ReadAll(peer)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("limits %d and %d: %d of %d bytes: %v", c.in, c.out, len(got), len(sent), err)
		}
		peer.Close()
	}
}

// BenchmarkRate measures how well a limit of 20 Mbit/s holds over 3 s, in both directions at once; error/% is the larger of both deviations.
func BenchmarkRate(b *testing.B) {
	const rate = 2_500_000
	for range b.N {
		peer, _ := limitedPair(b, rate, rate)
		go func() {
			p := make([]byte, 64<<10)
			for {
				if _, err := peer.Write(p); err != nil {
					return
				}
			}
		}()
		buf, total := make([]byte, 64<<10), 0
		began := time.Now()
		peer.SetReadDeadline(began.Add(3 * time.Second))
		for {
			n, err := peer.Read(buf)
			if total += n; err != nil {
				break
			}
		}
		b.ReportMetric(100*(float64(total)/time.Since(began).Seconds()/rate-1), "error/%")
		peer.Close()
	}
}
