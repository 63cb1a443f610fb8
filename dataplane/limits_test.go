package dataplane

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scarce leaves the process n more descriptors until the function it returns is called.
func scarce(t *testing.T, n int) (plenty func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	next, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // the lowest that is free
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	low := before
	low.Cur = uint64(next + n)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	plenty = func() {
		once.Do(func() {
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(plenty)
	return plenty
}

// TestOutOfDescriptors: a listener that cannot accept tries again until it can, without spinning and without a client lost; an attempt
// to connect fails with the reason.
func TestOutOfDescriptors(t *testing.T) {
	l := newLoop(t)
	fd, at, err := ListenTCP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan int, 1)
	var ln *Listener
	on(t, l, func() { ln, err = l.Accept(fd, func(fd int, _ netip.AddrPort) { accepted <- fd }) })
	if err != nil {
		t.Fatal(err)
	}
	defer on(t, l, ln.Close)
	sa, _ := sockaddr(at)
	plenty := scarce(t, 1) // for the client
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(client)
	if err := unix.Connect(client, sa); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	on(t, l, func() { l.Dial(at, TCPOptions{}, time.Second, func(_ *Conn, err error) { failed <- err }) })
	if err := <-failed; !errors.Is(err, unix.EMFILE) {
		t.Errorf("connected without a descriptor: %v", err)
	}
	quiet := false
	for range 40 { // one that spins is busy all the time; on a machine with much else to do the others are too, now and then
		busy, began := l.Busy(), time.Now()
		time.Sleep(50 * time.Millisecond)
		if quiet = l.Busy()-busy < time.Since(began)/2; quiet {
			break
		}
	}
	if !quiet {
		t.Error("busy all the time while nothing could be accepted")
	}
	select {
	case <-accepted:
		t.Fatal("accepted without a descriptor: this test tries nothing")
	default:
	}
	plenty()
	select {
	case fd := <-accepted:
		unix.Close(fd)
	case <-time.After(90 * time.Second):
		t.Error("the client is not accepted though there are descriptors again")
	}
}

// TestLoopOutOfDescriptors: a loop that cannot be made leaves nothing open.
func TestLoopOutOfDescriptors(t *testing.T) {
	for n := range 3 { // the poller, the eventfd, the timerfd
		before := len(openFDs())
		plenty := scarce(t, n)
		l, err := NewLoop(0, slog.New(slog.DiscardHandler))
		plenty()
		if err == nil {
			l.Stop()
			_ = l.Run()
			t.Fatalf("a loop with %d descriptors", n)
		}
		if !errors.Is(err, unix.EMFILE) {
			t.Error(err)
		}
		if n := len(openFDs()); n > before {
			t.Errorf("%d descriptors left open", n-before)
		}
	}
}
