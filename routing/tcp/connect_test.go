package tcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/dataplane"
)

// TestConnectAgain: a connect whose first packets get no answer is begun again, and not left to the kernel's growing pauses; what answers last is closed.
func TestConnectAgain(t *testing.T) {
	a := newNode(t, 1, Options{})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "listener")
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*unix.SockaddrInet4).Port))
	full, err := net.Dial("tcp", at.String()) // takes the only place in the queue: who comes now is not answered
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		c, err := a.tcp.Connect(ctx, at.String())
		if err == nil {
			c.Close()
		}
		done <- err
	}()
	time.Sleep(2 * askAgain)                    // several attempts are under way; none of them has got through
	if err := unix.Listen(fd, 16); err != nil { // from now on all of them do
		t.Fatal(err)
	}
	for range 3 { // the one that filled the queue, and two attempts: the kernel's repetition is of one socket
		conn, _, err := unix.Accept(fd)
		for err == unix.EINTR { // the runtime's signals; the kernel does not go on by itself where there is a bound
			conn, _, err = unix.Accept(fd)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(conn)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestConnectBusyLoop: a loop that is busy for seconds begins a connect once and no more often, and not at all when nobody waits for it any more: the peer would
// have connections that nobody needs, and the busy loop more to do.
func TestConnectBusyLoop(t *testing.T) {
	for name, c := range map[string]struct {
		waits bool
		want  int
	}{"somebody waits": {true, 1}, "nobody waits any more": {false, 0}} {
		a := newNode(t, 1, Options{})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		loop, busy, release := a.router.Shards()[0].Loop(), make(chan struct{}), make(chan struct{})
		loop.Post(dataplane.TaskFunc(func() {
			close(busy)
			<-release
		}))
		<-busy
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := a.tcp.Connect(ctx, l.Addr().String())
			done <- err
		}()
		time.Sleep(2*askAgain + askAgain/2) // in which more connects would be begun
		if !c.waits {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
		close(release)
		if c.waits {
			if err := <-done; err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := loop.Do(t.Context(), func() {}); err != nil { // it has come to all that was begun
			t.Fatal(err)
		}
		last, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer last.Close()
		for came := 0; ; came++ {
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if conn.RemoteAddr().String() == last.LocalAddr().String() {
				if came != c.want {
					t.Errorf("%s: %d connections were made", name, came)
				}
				break
			}
		}
	}
}

// TestFirstAttempt: what counts is the first attempt that gets through or is refused; one that got no answer counts only when it is the last.
func TestFirstAttempt(t *testing.T) {
	made, refused, silent := &Connection{}, errors.New("refused"), os.ErrDeadlineExceeded
	for name, c := range map[string]struct {
		begun   int // attempts under way
		results []attempted
		want    attempted
	}{
		"the only one gets through":                         {1, []attempted{{c: made}}, attempted{c: made}},
		"the only one is refused":                           {1, []attempted{{err: refused}}, attempted{err: refused}},
		"the only one gets no answer":                       {1, []attempted{{err: silent}}, attempted{err: silent}},
		"one of two gets through":                           {2, []attempted{{c: made}}, attempted{c: made}},
		"one of two is refused":                             {2, []attempted{{err: refused}}, attempted{err: refused}},
		"one of two gets no answer, the other gets through": {2, []attempted{{err: silent}, {c: made}}, attempted{c: made}},
		"one of two gets no answer, the other is refused":   {2, []attempted{{err: silent}, {err: refused}}, attempted{err: refused}},
		"neither of two gets an answer":                     {2, []attempted{{err: silent}, {err: silent}}, attempted{err: silent}},
	} {
		var tell []func(attempted)
		var again func()
		a := newAttempts(func(timeout time.Duration, done func(attempted)) {
			want := time.Hour
			if len(tell) > 0 {
				want = askFor
			}
			if timeout != want {
				t.Errorf("%s: attempt %d may take %v", name, len(tell)+1, timeout)
			}
			tell = append(tell, done)
		}, func(d time.Duration, f func()) {
			if d != askAgain {
				t.Errorf("%s: another one after %v", name, d)
			}
			again = f
		})
		a.start(time.Hour)
		for range c.begun - 1 {
			again()
		}
		for i, r := range c.results {
			if len(a.outcome) > 0 {
				t.Fatalf("%s: nobody waits for attempt %d", name, i+1)
			}
			tell[i](r)
		}
		if r := a.wait(t.Context(), nil); r.c != c.want.c || !errors.Is(r.err, c.want.err) {
			t.Errorf("%s: %+v", name, r)
		}
		if again(); len(tell) != c.begun {
			t.Errorf("%s: one more is begun afterwards", name)
		}
	}
	at := func(_ time.Duration, done func(attempted)) { done(attempted{c: made}) }
	a := newAttempts(at, func(time.Duration, func()) { t.Error("another one, though the first got through at once") })
	a.start(time.Hour)
	never := func(time.Duration, func(attempted)) {}
	ended := make(chan struct{})
	close(ended)
	if r := newAttempts(never, nil).wait(t.Context(), ended); !errors.Is(r.err, dataplane.ErrLoopClosed) {
		t.Errorf("the loop has ended: %v", r.err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := newAttempts(never, nil).wait(ctx, nil); !errors.Is(r.err, context.Canceled) {
		t.Errorf("nobody waits any more: %v", r.err)
	}
}
