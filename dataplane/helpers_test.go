package dataplane

import (
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"sallyport/internal/await"
	"sallyport/internal/freeport"
)

// TestMain checks after all tests that no goroutine is left, and no descriptor but those that were open before.
func TestMain(m *testing.M) {
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close() // the runtime opens its own poller now, and keeps it
	}
	if _, err := freeport.Get(); err != nil { // its reservation is kept too
		panic(err)
	}
	before := openFDs()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
		runtime.GC() // finalizers close what tests forgot of their own
		var after []string
		for range 200 {
			if after = openFDs(); len(after) <= len(before) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if len(after) > len(before) {
			os.Stderr.WriteString("descriptors left open: " + strings.Join(after, " ") + ", before: " + strings.Join(before, " ") + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

var (
	limited    = await.Context
	eventually = await.True
)

// newLoop starts one loop that ends with the test.
func newLoop(t testing.TB) *Loop {
	t.Helper()
	g, err := NewGroup(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	return g.Loop(0)
}

func on(t testing.TB, l *Loop, f func()) {
	t.Helper()
	if err := l.Do(limited(t), f); err != nil {
		t.Fatal(err)
	}
}

// pair returns two ends of a stream: a descriptor for a loop, and a connection for the test.
func pair(t testing.TB, network string) (int, net.Conn) {
	t.Helper()
	if network == "unix" {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fds[0], netConn(t, fds[1])
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.(*net.TCPConn).File()
	s.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(90 * time.Second))
	return fd, c
}

func netConn(t testing.TB, fd int) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "pair")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(90 * time.Second))
	return c
}

// closeWrite half-closes the test's end.
func closeWrite(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// recorder is a Handler that keeps what it reads and what happened. Functions replace its parts.
type recorder struct {
	readable func(*Conn)
	mu       sync.Mutex
	data     []byte
	ends     int // times an end of input was read
	drains   int
	closes   int
	err      error
	closed   chan struct{}
}

func newRecorder() *recorder { return &recorder{closed: make(chan struct{})} }

func (r *recorder) OnReadable(c *Conn) {
	if r.readable != nil {
		r.readable(c)
		return
	}
	buf := c.Loop().ReadBuffer()
	n, err := c.Read(buf)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = append(r.data, buf[:n]...)
	switch err {
	case nil, ErrAgain:
	case io.EOF:
		r.ends++
	default:
		r.err = err
		r.mu.Unlock()
		c.Abort()
		r.mu.Lock()
	}
}

func (r *recorder) OnDrain(*Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drains++
}

func (r *recorder) OnClose(_ *Conn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closes++; r.closes == 1 {
		if r.err == nil {
			r.err = err
		}
		close(r.closed)
	}
}

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.data)
}

// wait waits until the connection is closed and returns why.
func (r *recorder) wait(t testing.TB) error {
	t.Helper()
	select {
	case <-r.closed:
	case <-time.After(90 * time.Second):
		t.Fatal("not closed")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closes != 1 {
		t.Errorf("closed %d times", r.closes)
	}
	return r.err
}

// adopt gives one end of a fresh stream to the loop.
func adopt(t testing.TB, l *Loop, network string, h Handler) (*Conn, net.Conn) {
	t.Helper()
	fd, peer := pair(t, network)
	var c *Conn
	var err error
	on(t, l, func() { c, err = l.Adopt(fd, h) })
	if err != nil {
		t.Fatal(err)
	}
	return c, peer
}

func openFDs() []string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil { // the directory itself
			continue
		}
		// Sockets, event descriptors and pollers are what this package opens; the runtime's own poller stays.
		if len(to) > 6 && (to[:6] == "socket" || to[:5] == "anon_") {
			list = append(list, to)
		}
	}
	return list
}
