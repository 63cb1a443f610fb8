package portal

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestRefuse: while it is known that nobody serves them, clients are closed at once, also those that wait for a path; afterwards they wait
// again.
func TestRefuse(t *testing.T) {
	n := newNode(t, 1, Limits{})
	in, err := NewInlet(limited(t), n.env, n.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(limited(t)) }()
	client := func() net.Conn {
		c, err := net.Dial("tcp", in.Bound().String())
		if errors.Is(err, syscall.ECONNRESET) {
			return nil // the reset was faster than the connecting
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	closed := func(c net.Conn, within time.Duration) bool {
		if c == nil {
			return true
		}
		_ = c.SetReadDeadline(time.Now().Add(within))
		_, err := c.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	waits := client()
	if closed(waits, 50*time.Millisecond) {
		t.Fatal("a client without a path does not wait")
	}
	in.Refuse("there is no such outlet")
	if !closed(waits, 90*time.Second) || !closed(client(), 90*time.Second) {
		t.Error("a client is not closed")
	}
	in.Refuse("")
	if closed(client(), 50*time.Millisecond) {
		t.Error("a client is closed although nothing is refused any more")
	}
}
