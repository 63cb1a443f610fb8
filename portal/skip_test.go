package portal

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/names"
	"sallyport/routing"
)

// newSkipping is a link whose inlet and outlet, as told, skip the handshake. dial, if set, opens the target.
func newSkipping(t testing.TB, inlet, outlet bool, target string, dial func(context.Context) (int, error), la, lb Limits) *link {
	t.Helper()
	ctx := limited(t)
	l := newLink(t, "", false, la, lb)
	if _, err := NewOutlet(ctx, l.b.env, l.b.router, OutletOptions{Name: "outlet", Target: target, Resolve: names.Lookup, Flows: []*routing.Flow{l.b.ln.Flow}, SkipHandshake: outlet, Dial: unpiped(dial)}); err != nil {
		t.Fatal(err)
	}
	if err := l.in.Close(ctx); err != nil {
		t.Fatal(err)
	}
	in, err := NewInlet(ctx, l.a.env, l.a.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), SkipHandshake: inlet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(context.Background()) })
	l.in = in
	in.SetPath(l.path)
	return l
}

// Several clients at once, each with data in both directions, over the one address of the outlet.
func TestSkipHandshake(t *testing.T) {
	target, conns := served(t)
	l := newSkipping(t, true, true, target, nil, Limits{}, Limits{})
	var kindsSeen []byte
	l.mid.set(func(toOutlet bool, payload []byte) bool {
		kindsSeen = append(kindsSeen, payload[0])
		return true
	})
	data := make([]byte, 3_000_000)
	_, _ = rand.Read(data)
	for range 3 {
		c := dial(t, l.in)
		go func() {
			_, _ = c.Write(data)
		}()
		s := next(t, conns)
		got := make([]byte, len(data))
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("server got something else, %v", err)
		}
		go func() { _, _ = s.Write(data) }()
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("client got something else, %v", err)
		}
		_ = s.Close()
		if n, err := c.Read(got); err != io.EOF {
			t.Fatalf("after the server's end: %d bytes, %v", n, err)
		}
		_ = c.Close()
	}
	l.idle(t)
	l.mid.set(nil)
	if bytes.IndexByte(kindsSeen, kindPong) >= 0 || kindsSeen[0] != kindPing || kindsSeen[1] != kindPayload {
		t.Errorf("messages %x", kindsSeen[:2])
	}
}

// What comes before the target is connected is kept up to a bound, in order, even when the client has gone meanwhile.
func TestSkipHandshakeSlowTarget(t *testing.T) {
	target, conns := served(t)
	connect := make(chan struct{})
	slow := func(ctx context.Context) (int, error) {
		<-connect
		return dialFD(t, target), nil
	}
	l := newSkipping(t, true, true, target, slow, Limits{FinishTimeout: 100 * time.Millisecond}, Limits{HighWater: 64 << 10, StallTimeout: 2 * time.Minute})
	c := dial(t, l.in)
	text := strings.Repeat("0123456789abcdef", 40_000)
	go func() {
		_, _ = io.WriteString(c, text)
		_ = c.CloseWrite()
	}()
	eventually(t, "data before the connection", func() bool { return l.a.env.bytesIn() > 64<<10 })
	close(connect)
	s := next(t, conns)
	got, err := io.ReadAll(s)
	if string(got) != text || err != nil {
		t.Errorf("%d bytes of %d, %v", len(got), len(text), err)
	}
}

// A target that does not connect must not keep the inlet's shared connection paused for long.
func TestSkipHandshakeStalled(t *testing.T) {
	stop := make(chan struct{})
	never := func(ctx context.Context) (int, error) {
		select {
		case <-stop:
		case <-ctx.Done():
		}
		return -1, context.DeadlineExceeded
	}
	l := newSkipping(t, true, true, "127.0.0.1:1", never, Limits{}, Limits{HighWater: 64 << 10, StallTimeout: 50 * time.Millisecond})
	t.Cleanup(func() { close(stop) })
	c := dial(t, l.in)
	go func() { _, _ = c.Write(make([]byte, 8<<20)) }()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes", n)
	}
	l.idle(t)
}

// The target refuses: the client is closed, since an inlet that does not wait understands that.
func TestSkipHandshakeRefused(t *testing.T) {
	l := newSkipping(t, true, true, closedPort(t), nil, Limits{}, Limits{})
	closes(t, l.in, "")
	l.idle(t)
}

// A flag on one side only ends the connection instead of losing what was sent.
func TestSkipHandshakeMismatch(t *testing.T) {
	target, _ := served(t)
	l := newSkipping(t, true, false, target, nil, Limits{}, Limits{})
	closes(t, l.in, "hello")
	l.idle(t)

	l = newSkipping(t, false, true, target, nil, Limits{OpenTimeout: 50 * time.Millisecond}, Limits{})
	closes(t, l.in, "")
}

// closes expects that a client gets nothing. It may be closed before it knows that it was connected.
func closes(t testing.TB, in *Inlet, text string) {
	t.Helper()
	c, err := net.Dial("tcp", in.Bound().String())
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	_, _ = io.WriteString(c, text)
	if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// Data of a connection that the outlet does not know never reaches the target.
func TestSkipHandshakeUnknown(t *testing.T) {
	target, conns := served(t)
	l := newSkipping(t, true, true, target, nil, Limits{}, Limits{})
	box, err := l.a.router.OpenMailbox(limited(t), l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	for _, payload := range [][]byte{{kindDisconnect}, {}, {0xff}, {kindCredit, 1}, {kindPong}, {kindPayload, 2, 'h', 'i'}} {
		box.Send(l.path, payload)
	}
	if reply, err := box.Receive(limited(t)); err != nil || !bytes.Equal(reply.Payload, []byte{kindDisconnect}) {
		t.Errorf("%x, %v", reply.Payload, err)
	}
	select {
	case <-conns:
		t.Error("the target was connected")
	default:
	}
}

// dialFD connects and returns the socket as an outlet's Dial does.
func dialFD(t testing.TB, target string) int {
	at := netip.MustParseAddrPort(target)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()})
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Error(err)
	}
	return fd
}

// closedPort is an address where nobody listens.
func closedPort(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
