package poll

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSignals: what a descriptor is like is told also to a thread that gets one signal after the other, as the runtime sends them to preempt it.
func TestSignals(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[0])
	defer unix.Close(ends[1])
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid, stop, done := unix.Gettid(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
		}
	}()
	defer func() { close(stop); <-done }()
	fds := make([]unix.PollFd, 1000) // takes its time, so that signals come meanwhile
	for i := range fds {
		fds[i] = unix.PollFd{Fd: int32(ends[0]), Events: unix.POLLRDHUP}
	}
	for range 3000 {
		if err := Now(fds); err != nil || fds[0].Revents != 0 {
			t.Fatalf("%v, %#x", err, fds[0].Revents)
		}
	}
	if err := unix.Shutdown(ends[1], unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if err := Now(fds); err != nil || fds[0].Revents&unix.POLLHUP == 0 {
		t.Errorf("of one whose other end is closed: %v, %#x", err, fds[0].Revents)
	}
}
