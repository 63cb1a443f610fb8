package portal

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/routing"
)

// unpiped makes a Dial of what opens sockets whose end is one.
func unpiped(open func(context.Context) (int, error)) func(context.Context, Origin) (Piped, error) {
	if open == nil {
		return nil
	}
	return func(ctx context.Context, _ Origin) (Piped, error) {
		fd, err := open(ctx)
		return Piped{FD: fd}, err
	}
}

// TestPipedTargetBreaksOff: a target behind a pair of sockets that says that its stream is not whole is no end for the client, one that ends is.
func TestPipedTargetBreaksOff(t *testing.T) {
	for _, breaks := range []bool{false, true} {
		l := newLink(t, "", false, Limits{}, Limits{})
		var broken atomic.Bool
		ends := make(chan int, 1)
		dialPair := func(context.Context, Origin) (Piped, error) {
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return Piped{}, err
			}
			ends <- fds[1]
			return Piped{FD: fds[0], Broken: broken.Load}, nil
		}
		if _, err := NewOutlet(limited(t), l.b.env, l.b.router, OutletOptions{Name: "outlet", Dial: dialPair, Flows: []*routing.Flow{l.b.ln.Flow}}); err != nil {
			t.Fatal(err)
		}
		c := dial(t, l.in)
		end := <-ends
		if _, err := unix.Write(end, []byte("half of")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		broken.Store(breaks)
		_ = unix.Close(end)
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
		n, err := c.Read(make([]byte, 1))
		if want := error(io.EOF); breaks && !errors.Is(err, syscall.ECONNRESET) || !breaks && !errors.Is(err, want) {
			t.Errorf("breaks off %v: %d, %v", breaks, n, err)
		}
	}
}
