package dataplane

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestSendBuffer: a send buffer is never made smaller than the system would let it grow, and is what was promised otherwise.
func TestSendBuffer(t *testing.T) {
	if n := SendBuffer(64 << 10); n != 0 {
		t.Errorf("64 KiB are more than the system's own limit: %d", n)
	}
	want := SendBuffer(32 << 20)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	before, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err := (TCPOptions{SendBuffer: want}).Apply(fd); err != nil {
		t.Fatal(err)
	}
	after, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	t.Logf("%d wanted, %d before, %d after, the system's own limit is %d", want, before, after, systemSendBuffer())
	if want == 0 && after != before {
		t.Error("the send buffer was changed though nothing is gained")
	}
	if want > 0 && (after <= systemSendBuffer() || after != 2*want) {
		t.Errorf("%d after %d was set", after, want)
	}
}
