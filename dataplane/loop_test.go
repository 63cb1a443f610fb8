package dataplane

import (
	"container/heap"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/internal/freeport"
)

// TestPostOrder: tasks of each poster run in its order, all of them, on one goroutine.
func TestPostOrder(t *testing.T) {
	l := newLoop(t)
	const posters, each = 8, 2000
	last := make([]int, posters)
	running := false
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				if !l.Post(TaskFunc(func() {
					if running || last[p] != i {
						t.Errorf("poster %d: task %d came after %d", p, i, last[p])
					}
					running = true
					last[p]++
					running = false
				})) {
					t.Error("refused")
				}
			}
		})
	}
	wg.Wait()
	on(t, l, func() {
		if !slices.Equal(last, slices.Repeat([]int{each}, posters)) {
			t.Errorf("%v", last)
		}
	})
}

// TestPostFromLoop: a task that posts itself for ever does not keep connections waiting.
func TestPostFromLoop(t *testing.T) {
	l := newLoop(t)
	_, peer := adopt(t, l, "unix", echoHandler{})
	stop := false
	turns := 0
	var again TaskFunc
	again = func() {
		if turns++; !stop {
			l.Post(again)
		}
	}
	l.Post(again)
	b := make([]byte, 5)
	for range 10 {
		peer.Write([]byte("hello"))
		if _, err := io.ReadFull(peer, b); err != nil || string(b) != "hello" {
			t.Fatal(err)
		}
	}
	on(t, l, func() {
		stop = true
		if turns < 10 {
			t.Errorf("%d turns", turns)
		}
	})
}

func TestStop(t *testing.T) {
	g, err := NewGroup(2, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if g.Len() != 2 || g.Loop(1).ID() != 1 {
		t.Error("loops are not numbered")
	}
	l := g.Loop(0)
	r := newRecorder()
	_, peer := adopt(t, l, "tcp", r)
	fd, addr, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	on(t, l, func() {
		_, err = l.Accept(fd, func(fd int, _ netip.AddrPort) { unix.Close(fd) })
		l.After(time.Hour, func() { t.Error("timer ran") })
	})
	if err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		blocked <- l.Do(context.Background(), func() { close(started); time.Sleep(5 * time.Millisecond) })
	}()
	<-started
	g.Stop()
	g.Stop()
	if err := <-blocked; err != nil && !errors.Is(err, ErrLoopClosed) {
		t.Error(err)
	}
	if err := r.wait(t); !errors.Is(err, ErrLoopClosed) {
		t.Errorf("connection ended with %v", err)
	}
	if n, err := io.Copy(io.Discard, peer); n != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("peer read %d, %v", n, err)
	}
	if c, err := net.Dial("tcp", addr.String()); err == nil {
		c.Close()
		t.Error("still listening")
	}
	if l.Post(TaskFunc(func() { t.Error("ran after the end") })) {
		t.Error("task taken after the end")
	}
	if err := l.Do(limited(t), func() {}); !errors.Is(err, ErrLoopClosed) {
		t.Errorf("Do: %v", err)
	}
	select {
	case <-l.Done():
	default:
		t.Error("not done")
	}
}

func TestDoContext(t *testing.T) {
	l := newLoop(t)
	release := make(chan struct{})
	l.Post(TaskFunc(func() { <-release }))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := l.Do(ctx, func() { t.Error("ran though it was given up") }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	close(release)
	on(t, l, func() {})
	if l.Busy() == 0 {
		t.Error("never busy")
	}
}

func TestGuard(t *testing.T) {
	l := newLoop(t)
	if l.Guard("test", func() { panic("fault") }) {
		t.Error("a fault went by")
	}
	if !l.Guard("test", func() {}) {
		t.Error("a fault was seen")
	}
}

func TestTimers(t *testing.T) {
	l := newLoop(t)
	var order []int
	done := make(chan struct{})
	on(t, l, func() {
		// They are set one after the other, and a busy machine may pause in between; their times are made what they are meant to be.
		began := time.Now()
		at := func(timer *Timer, ms int) {
			timer.at = began.Add(time.Duration(ms) * time.Millisecond)
			heap.Fix(&l.timers, timer.index)
		}
		for _, ms := range []int{9, 3, 6, 0, 12} {
			at(l.After(time.Duration(ms)*time.Millisecond, func() {
				order = append(order, ms)
				if ms == 12 {
					close(done)
				}
			}), ms)
		}
		stopped := l.After(time.Millisecond, func() { t.Error("stopped timer ran") })
		stopped.Stop()
		stopped.Stop()
		(*Timer)(nil).Stop()
		moved := l.After(time.Hour, func() { order = append(order, 7) })
		moved.Reset(7 * time.Millisecond)
		at(moved, 7)
	})
	select {
	case <-done:
	case <-time.After(90 * time.Second):
		t.Fatal("timers did not run")
	}
	on(t, l, func() {
		if !slices.Equal(order, []int{0, 3, 6, 7, 9, 12}) {
			t.Errorf("order %v", order)
		}
		if len(l.timers) != 0 {
			t.Errorf("%d left", len(l.timers))
		}
	})
	// One that begins the next, and one that starts again by itself.
	ticks := 0
	done = make(chan struct{})
	on(t, l, func() {
		var tick *Timer
		tick = l.After(0, func() {
			if ticks++; ticks < 5 {
				tick.Reset(time.Millisecond)
			} else {
				l.After(0, func() { close(done) })
			}
		})
	})
	<-done
	if ticks != 5 {
		t.Errorf("%d ticks", ticks)
	}
}

func TestTimerAccuracy(t *testing.T) {
	l := newLoop(t)
	late := make(chan time.Duration, 1)
	began := time.Now()
	on(t, l, func() {
		l.After(time.Hour, func() {})
		l.After(10*time.Millisecond, func() { late <- time.Since(began) })
	})
	if d := <-late; d < 10*time.Millisecond || d > 10*time.Minute { // not with the other, an hour later
		t.Errorf("ran after %v", d)
	}
}

func listenOn(t testing.TB, l *Loop, accept func(fd int, from netip.AddrPort)) (*Listener, netip.AddrPort) {
	t.Helper()
	fd, addr, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	var ln *Listener
	on(t, l, func() { ln, err = l.Accept(fd, accept) })
	if err != nil {
		t.Fatal(err)
	}
	if ln.Addr() != addr {
		t.Errorf("listens on %s, not %s", ln.Addr(), addr)
	}
	return ln, addr
}

func TestListenDial(t *testing.T) {
	l := newLoop(t)
	var accepted atomic.Int64
	ln, addr := listenOn(t, l, func(fd int, from netip.AddrPort) {
		if !from.Addr().IsLoopback() {
			t.Errorf("from %s", from)
		}
		if accepted.Add(1)%2 == 0 {
			_, _ = l.Adopt(fd, echoHandler{})
		} else {
			unix.Close(fd)
		}
	})
	const dials = 150 // more than a batch
	results := make(chan error, dials)
	echoed := make(chan struct{}, dials)
	on(t, l, func() {
		for range dials {
			l.Dial(addr, TCPOptions{NoDelay: true, KeepAliveIdle: time.Second, KeepAliveInterval: time.Second, KeepAliveCount: 2, UserTimeout: time.Second, NotSentLowat: 4096}, 90*time.Second,
				func(c *Conn, err error) {
					results <- err
					if err != nil {
						return
					}
					if c.RemoteAddr() != addr || !c.LocalAddr().IsValid() || c.Loop() != l {
						t.Errorf("connected to %s", c.RemoteAddr())
					}
					h := newRecorder()
					h.readable = func(c *Conn) {
						if n, err := c.Read(make([]byte, 10)); n > 0 {
							echoed <- struct{}{}
							c.Close()
						} else if err != ErrAgain {
							c.Close()
						}
					}
					c.SetHandler(h)
					c.Write([]byte("hello"))
				})
		}
	})
	for range dials {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all accepted", func() bool { return accepted.Load() == dials })
	for range dials / 2 {
		select {
		case <-echoed:
		case <-time.After(90 * time.Second):
			t.Fatal("no echo")
		}
	}
	on(t, l, func() { ln.Close(); ln.Close() })
	if c, err := net.Dial("tcp", addr.String()); err == nil {
		c.Close()
		t.Error("still listening")
	}
	if _, _, err := ListenTCP(netip.MustParseAddrPort("192.0.2.1:1")); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("listen on another's address: %v", err)
	}
}

func TestUnpaced(t *testing.T) {
	l := newLoop(t)
	names := make(chan string, 2)
	congestion := func(fd int) {
		name, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if err != nil {
			t.Error(err)
		}
		names <- strings.TrimRight(name, "\x00")
	}
	_, addr := listenOn(t, l, func(fd int, _ netip.AddrPort) {
		congestion(fd)
		unix.Close(fd)
	})
	on(t, l, func() {
		l.Dial(addr, TCPOptions{}, 90*time.Second, func(c *Conn, err error) {
			if err != nil {
				t.Error(err)
				names <- ""
				return
			}
			congestion(c.fd)
			c.Close()
		})
	})
	for range 2 {
		if name := <-names; name != "reno" {
			t.Errorf("congestion control on the loopback is %q", name)
		}
	}
}

func TestListenIPv6(t *testing.T) {
	fd, addr, err := ListenTCP(netip.MustParseAddrPort("[::1]:0"))
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	l := newLoop(t)
	on(t, l, func() { _, err = l.Accept(fd, func(fd int, _ netip.AddrPort) { _, _ = l.Adopt(fd, echoHandler{}) }) })
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(90 * time.Second))
	c.Write([]byte("six"))
	b := make([]byte, 3)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "six" {
		t.Fatal(err)
	}
}

func TestDialFails(t *testing.T) {
	l := newLoop(t)
	nobody := netip.MustParseAddrPort("127.0.0.1:" + freeport.For(t))
	for name, tc := range map[string]struct {
		to  netip.AddrPort
		err error
	}{
		"refused":     {nobody, unix.ECONNREFUSED},
		"no answer":   {fullListener(t), os.ErrDeadlineExceeded},
		"impossible":  {netip.MustParseAddrPort("255.255.255.255:1"), unix.ENETUNREACH},
		"no such hop": {netip.MustParseAddrPort("[fe80::1%nosuchinterface]:1"), unix.EINVAL},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan error, 2)
			returned, patience := false, 90*time.Second
			if name == "no answer" {
				patience = 30 * time.Millisecond
			}
			on(t, l, func() {
				l.Dial(tc.to, TCPOptions{}, patience, func(c *Conn, err error) {
					if c != nil || !returned {
						t.Error("a connection, or called before Dial returned")
					}
					got <- err
				})
				returned = true
			})
			err := <-got
			if err == nil || (name == "refused" || name == "no answer") && !errors.Is(err, tc.err) {
				t.Errorf("%v, want %v", err, tc.err)
			}
			time.Sleep(time.Millisecond)
			if len(got) != 0 {
				t.Error("told twice")
			}
		})
	}
}

// fullListener returns the address of a listener that accepts nobody and whose queue is full.
func fullListener(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fromSockaddr(sa)
	for range 4 {
		c, err := net.DialTimeout("tcp", address.String(), 50*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue does not fill")
	return address
}

// TestDialAbort: output written in the callback goes out, a stop of the loop ends an attempt under way.
func TestDialAbort(t *testing.T) {
	g, err := NewGroup(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l := g.Loop(0)
	to := fullListener(t)
	got := make(chan error, 1)
	on(t, l, func() { l.Dial(to, TCPOptions{}, time.Minute, func(_ *Conn, err error) { got <- err }) })
	g.Stop()
	if err := <-got; !errors.Is(err, ErrLoopClosed) {
		t.Errorf("%v", err)
	}
}
