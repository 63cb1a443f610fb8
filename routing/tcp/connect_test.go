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

// turning is a context that tells each time that somebody begins to wait for its end.
type turning struct {
	context.Context
	turn chan struct{}
}

func (c turning) Done() <-chan struct{} {
	c.turn <- struct{}{}
	return c.Context.Done()
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
		begun, again := make(chan time.Duration, c.begun), make(chan time.Time)
		a := attempts{again: again, ended: make(chan struct{}), begin: func(timeout time.Duration, done func(attempted)) {
			tell = append(tell, done)
			begun <- timeout
		}}
		got, ctx := make(chan attempted, 1), turning{t.Context(), make(chan struct{}, 10)}
		go func() {
			conn, err := a.first(ctx, time.Hour)
			got <- attempted{conn, err}
		}()
		for i := range c.begun {
			want := time.Hour
			if i > 0 {
				again <- time.Time{}
				want = askFor
			}
			if timeout := <-begun; timeout != want {
				t.Errorf("%s: attempt %d may take %v", name, i+1, timeout)
			}
			<-ctx.turn
		}
		for i, r := range c.results {
			if tell[i](r); i+1 < len(c.results) {
				select {
				case <-ctx.turn: // it waits for the next one
				case r := <-got:
					t.Fatalf("%s: nobody waits for the second attempt: %+v", name, r)
				}
			}
		}
		if r := <-got; r.c != c.want.c || !errors.Is(r.err, c.want.err) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	ended := make(chan struct{})
	close(ended)
	a := attempts{ended: ended, begin: func(time.Duration, func(attempted)) {}}
	if _, err := a.first(t.Context(), time.Hour); !errors.Is(err, dataplane.ErrLoopClosed) {
		t.Errorf("the loop has ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.ended = nil
	if _, err := a.first(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any more: %v", err)
	}
}
