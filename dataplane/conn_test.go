package dataplane

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return b
}

// networks runs a test over TCP on loopback and over a Unix socket pair.
func networks(t *testing.T, f func(t *testing.T, network string)) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) { f(t, network) })
	}
}

func TestReadPauseResume(t *testing.T) {
	networks(t, func(t *testing.T, network string) {
		l := newLoop(t)
		r := newRecorder()
		c, peer := adopt(t, l, network, r)
		peer.Write([]byte("one"))
		eventually(t, "read", func() bool { return string(r.bytes()) == "one" })
		on(t, l, func() { c.Pause() })
		peer.Write([]byte("two"))
		on(t, l, func() {})
		time.Sleep(5 * time.Millisecond)
		if got := r.bytes(); string(got) != "one" {
			t.Fatalf("read %q while paused", got)
		}
		on(t, l, func() {
			if !c.Paused() {
				t.Error("not paused")
			}
			c.Resume()
			c.Resume()
		})
		eventually(t, "read after Resume", func() bool { return string(r.bytes()) == "onetwo" })
		// Pausing within OnReadable stops at once; what the edge brought is not lost.
		var turns atomic.Int64
		on(t, l, func() {
			r.readable = func(c *Conn) {
				turns.Add(1)
				var b [1]byte
				n, err := c.Read(b[:])
				if n == 1 && err == nil {
					r.mu.Lock()
					r.data = append(r.data, b[0])
					r.mu.Unlock()
					c.Pause()
				}
			}
		})
		peer.Write([]byte("xyz"))
		for want := int64(1); want <= 3; want++ {
			eventually(t, "one turn", func() bool { return turns.Load() >= want })
			on(t, l, func() {})
			if n := turns.Load(); n != want {
				t.Fatalf("%d turns, want %d", n, want)
			}
			on(t, l, func() { c.Resume() })
		}
		if got := r.bytes(); string(got) != "onetwoxyz" {
			t.Fatalf("%q", got)
		}
	})
}

// TestPausedPeerStops: without reading, the peer cannot write for ever.
func TestPausedPeerStops(t *testing.T) {
	l := newLoop(t)
	r := newRecorder()
	c, peer := adopt(t, l, "unix", r)
	on(t, l, func() { c.Pause() })
	peer.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	data := random(4 << 20)
	n, err := peer.Write(data)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("wrote %d bytes to a paused connection: %v", n, err)
	}
	on(t, l, func() { c.Resume() })
	peer.SetWriteDeadline(time.Now().Add(90 * time.Second))
	peer.Write(data[n:])
	eventually(t, "all read", func() bool { return len(r.bytes()) == len(data) })
	if !bytes.Equal(r.bytes(), data) {
		t.Fatal("content differs")
	}
}

func TestHalfClose(t *testing.T) {
	networks(t, func(t *testing.T, network string) {
		l := newLoop(t)
		r := newRecorder()
		c, peer := adopt(t, l, network, r)
		// The peer ends first; writing remains possible.
		peer.Write([]byte("question"))
		closeWrite(t, peer)
		eventually(t, "end read", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.ends == 1 })
		data := random(3 << 20)
		on(t, l, func() {
			c.Write(data)
			c.CloseWrite()
		})
		got, err := io.ReadAll(peer)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		on(t, l, func() {
			if c.Closed() {
				t.Error("closed by itself")
			}
			c.Close()
			c.Close()
		})
		if err := r.wait(t); !errors.Is(err, ErrConnClosed) {
			t.Error(err)
		}
		if string(r.bytes()) != "question" {
			t.Errorf("read %q", r.bytes())
		}
		// This side ends first; reading remains possible.
		r = newRecorder()
		c, peer = adopt(t, l, network, r)
		on(t, l, func() {
			c.Write([]byte("bye"))
			c.CloseWrite()
		})
		if got, err := io.ReadAll(peer); err != nil || string(got) != "bye" {
			t.Fatalf("%q, %v", got, err)
		}
		peer.Write([]byte("late"))
		eventually(t, "read after CloseWrite", func() bool { return string(r.bytes()) == "late" })
		peer.Close()
		eventually(t, "end read", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.ends == 1 })
		on(t, l, func() { c.Close() })
		r.wait(t)
	})
}

// TestEndOnce: the peer's end is offered once, however often the kernel repeats it with other events; a reset after it still shows.
func TestEndOnce(t *testing.T) {
	l := newLoop(t)
	r := newRecorder()
	c, peer := adopt(t, l, "tcp", r)
	closeWrite(t, peer)
	eventually(t, "end read", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.ends == 1 })
	for range 5 { // each time the socket fills and is writable again
		on(t, l, func() { c.Write(random(6 << 20)) })
		if _, err := io.ReadFull(peer, make([]byte, 6<<20)); err != nil {
			t.Fatal(err)
		}
	}
	on(t, l, func() {})
	r.mu.Lock()
	if r.ends != 1 {
		t.Errorf("end offered %d times", r.ends)
	}
	r.mu.Unlock()
	peer.(*net.TCPConn).SetLinger(0)
	peer.Close()
	if err := r.wait(t); !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset after the end: %v", err)
	}
}

// TestCloseDelivers: Close sends everything, even while the peer is still sending and unread input waits.
func TestCloseDelivers(t *testing.T) {
	networks(t, func(t *testing.T, network string) {
		l := newLoop(t)
		r := newRecorder()
		c, peer := adopt(t, l, network, r)
		data := random(8 << 20)
		on(t, l, func() { c.Pause() })
		peer.Write([]byte("never read by the handler"))
		on(t, l, func() {
			c.Write(data)
			c.WantDrain(0)
			c.Close()
		})
		stop := make(chan struct{})
		go func() { // keeps sending into the closing connection
			defer close(stop)
			for range 50 {
				if _, err := peer.Write(make([]byte, 10_000)); err != nil {
					return
				}
			}
		}()
		got, err := io.ReadAll(peer)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes, %v", len(got), len(data), err)
		}
		<-stop
		peer.Close()
		if err := r.wait(t); !errors.Is(err, ErrConnClosed) {
			t.Error(err)
		}
		if len(r.bytes()) != 0 || r.drains != 0 {
			t.Errorf("handler was called after Close: %d bytes, %d drains", len(r.bytes()), r.drains)
		}
	})
}

func TestAbortResets(t *testing.T) {
	l := newLoop(t)
	r := newRecorder()
	c, peer := adopt(t, l, "tcp", r)
	on(t, l, func() {
		c.Write(random(8 << 20))
		c.Abort()
		c.Abort()
		c.Write([]byte("x"))
		c.CloseWrite()
		c.Close()
		c.Resume()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrConnClosed) {
			t.Errorf("Read: %v", err)
		}
		if _, ok := c.Detach(); ok || !c.Closed() || c.Pending() != 0 || c.LocalAddr().IsValid() || c.RemoteAddr().IsValid() {
			t.Error("not quite closed")
		}
	})
	if _, err := io.Copy(io.Discard, peer); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("peer read: %v", err)
	}
	if err := r.wait(t); !errors.Is(err, ErrConnClosed) {
		t.Error(err)
	}
}

// TestPeerResets: a reset shows, also on a paused connection.
func TestPeerResets(t *testing.T) {
	for _, paused := range []bool{false, true} {
		l := newLoop(t)
		r := newRecorder()
		c, peer := adopt(t, l, "tcp", r)
		if paused {
			on(t, l, func() { c.Pause() })
		}
		peer.(*net.TCPConn).SetLinger(0)
		peer.Close()
		if err := r.wait(t); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("paused %v: %v", paused, err)
		}
	}
}

// TestSlowReader mixes every way of writing towards a reader that is slow at first: order is kept, Pending falls to zero, and
// OnDrain comes once for each WantDrain.
func TestSlowReader(t *testing.T) {
	networks(t, func(t *testing.T, network string) {
		l := newLoop(t)
		r := newRecorder()
		c, peer := adopt(t, l, network, r)
		data := random(16 << 20)
		rnd := rand.New(rand.NewPCG(3, 4))
		var peak int
		rest := data
		on(t, l, func() {
			for len(rest) > 0 {
				n := min(len(rest), 1+rnd.IntN(1<<[]int{4, 12, 15, 17, 20}[rnd.IntN(5)]))
				switch rnd.IntN(3) {
				case 0:
					c.Write(rest[:n])
				case 1:
					b := append([]byte(nil), rest[:n]...)
					c.WriteBorrowed(b)
					clear(b) // borrowed only
				case 2:
					copy(c.Reserve(n), rest[:n])
					c.Commit(n)
				}
				rest = rest[n:]
				peak = max(peak, c.Pending())
			}
			c.WantDrain(1 << 20)
		})
		if peak < 1<<20 {
			t.Errorf("only %d bytes waited: the reader was not slow", peak)
		}
		time.Sleep(5 * time.Millisecond)
		r.mu.Lock()
		if r.drains != 0 {
			t.Error("drained before anybody read")
		}
		r.mu.Unlock()
		got := make([]byte, len(data))
		if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("content differs, %v", err)
		}
		eventually(t, "drained", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.drains == 1 })
		on(t, l, func() {
			if c.Pending() != 0 || len(c.out) > 1 {
				t.Errorf("%d bytes in %d blocks left", c.Pending(), len(c.out))
			}
			kept := 0
			for class, list := range l.pool.free {
				kept += len(list) * chunkSizes[class]
			}
			if kept > 4<<20 {
				t.Errorf("the loop keeps %d bytes of free blocks", kept)
			}
			c.WantDrain(0) // nothing waits: comes at the end of the turn
		})
		eventually(t, "second drain", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.drains == 2 })
	})
}

// TestBoundedPending: a producer that honours WantDrain never has more waiting than its mark and one write.
func TestBoundedPending(t *testing.T) {
	l := newLoop(t)
	const high, step, total = 256 << 10, 64 << 10, 32 << 20
	data := random(total)
	var c *Conn
	sent, peak := 0, 0
	push := func() {
		for sent < total {
			c.WriteBorrowed(data[sent : sent+step])
			sent += step
			peak = max(peak, c.Pending())
			if c.Pending() > high {
				c.WantDrain(high / 4)
				return
			}
		}
	}
	h := &drainer{drain: push}
	c, peer := adopt(t, l, "unix", h)
	on(t, l, push)
	got := make([]byte, total)
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("content differs, %v", err)
	}
	on(t, l, func() {
		if peak > high+step {
			t.Errorf("%d bytes waited", peak)
		}
	})
}

type drainer struct{ drain func() }

func (d *drainer) OnReadable(c *Conn)   { _, _ = c.Read(c.Loop().ReadBuffer()) }
func (d *drainer) OnDrain(*Conn)        { d.drain() }
func (d *drainer) OnClose(*Conn, error) {}

// TestFairness: one connection that always has input does not keep the others and the tasks waiting.
func TestFairness(t *testing.T) {
	l := newLoop(t)
	flood := newRecorder()
	var turns atomic.Int64
	flood.readable = func(c *Conn) {
		var b [100]byte
		_, _ = c.Read(b[:])
		turns.Add(1)
	}
	_, noisy := adopt(t, l, "unix", flood)
	quiet := newRecorder()
	_, peer := adopt(t, l, "unix", quiet)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		noisy.SetDeadline(time.Now().Add(90 * time.Second))
		b := make([]byte, 64<<10)
		for {
			if _, err := noisy.Write(b); err != nil {
				return
			}
		}
	}()
	eventually(t, "flood", func() bool { return turns.Load() > 100 })
	for i := range 20 {
		peer.Write([]byte{1})
		eventually(t, "quiet one served", func() bool { return len(quiet.bytes()) == i+1 })
		on(t, l, func() {})
	}
	noisy.Close()
	<-stop
}

func TestDetach(t *testing.T) {
	l := newLoop(t)
	r := newRecorder()
	c, peer := adopt(t, l, "tcp", r)
	var fd int
	var ok bool
	on(t, l, func() { c.Pause() })
	peer.Write([]byte("still here"))
	on(t, l, func() { fd, ok = c.Detach() })
	if !ok {
		t.Fatal("not detached")
	}
	// Another owner sees all of it.
	again := newRecorder()
	other := newLoop(t)
	var err error
	on(t, other, func() { _, err = other.Adopt(fd, again) })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "read by the next owner", func() bool { return string(again.bytes()) == "still here" })
	if r.closes != 0 {
		t.Error("OnClose after Detach")
	}
}

func TestAdoptFails(t *testing.T) {
	l := newLoop(t)
	f, err := os.CreateTemp(t.TempDir(), "file") // epoll takes no plain files
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	on(t, l, func() {
		if c, err := l.Adopt(fd, newRecorder()); err == nil {
			t.Errorf("adopted %v", c)
		}
	})
	if err := unix.Close(fd); !errors.Is(err, unix.EBADF) {
		t.Errorf("descriptor was left open: %v", err)
	}
}

// TestAllocsEcho: in steady state a turn of reading and writing allocates nothing.
func TestAllocsEcho(t *testing.T) {
	l := newLoop(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		t.Fatal(err)
	}
	on(t, l, func() { _, err = l.Adopt(fds[0], echoHandler{}) })
	if err != nil {
		t.Fatal(err)
	}
	msg := make([]byte, 1000)
	round := func() {
		if _, err := unix.Write(fds[1], msg); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(msg); {
			k, err := unix.Read(fds[1], msg[n:])
			if err != nil && err != unix.EINTR {
				t.Fatal(err)
			}
			n += k
		}
	}
	for range 100 {
		round()
	}
	const rounds = 2000
	perRound := 1.0
	for range 10 { // what else the process does makes a try worse, never better
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			round()
		}
		runtime.ReadMemStats(&after)
		if perRound = float64(after.Mallocs-before.Mallocs) / rounds; perRound <= 0.01 {
			return
		}
	}
	t.Errorf("%.3f allocations a message", perRound)
}
