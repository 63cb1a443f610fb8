package tcp

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/routing"
)

// TestAddressText: an address is written as people write it: plain TCP has no scheme, WebSocket has a path.
func TestAddressText(t *testing.T) {
	for want, a := range map[string]Address{
		"h:1":       {HostPort: "h:1"},
		"h:2":       {Layer: Plain, HostPort: "h:2", Path: "/p"},
		"tls://h:3": {Layer: TLS, HostPort: "h:3", Path: "/p"},
		"ws://h:4/": {Layer: WebSocket, HostPort: "h:4"},
		"wss://h/p": {Layer: SecureWS, HostPort: "h", Path: "/p"},
	} {
		if got := a.String(); got != want {
			t.Errorf("%+v is written %q, not %q", a, got, want)
		}
	}
}

// TestCounts: messages that came in are counted, and so are their bytes.
func TestCounts(t *testing.T) {
	a, b := newNode(t, 1, Options{}), newNode(t, 1, Options{})
	c := a.connect(t, b)
	for range 3 {
		if _, err := a.router.Request(limited(t), routing.RouteOf(c.Sender).Concat(routing.LocalRoute("echo")), make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	for who, n := range map[string]*node{"the one that asks": a, "the one that answers": b} {
		if in, bytes := n.tcp.Stats.MessagesIn.Load(), n.tcp.Stats.BytesIn.Load(); in != 3 || bytes < 3000 || bytes > 3600 {
			t.Errorf("%s: %d messages of %d bytes came in", who, in, bytes)
		}
	}
}

// TestSevered: a connection that the other end or the network broke is told from one that was closed here, or that a fault ended.
func TestSevered(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{nil, true}, {io.ErrUnexpectedEOF, true}, {fmt.Errorf("read: %w", unix.ECONNRESET), true}, {fmt.Errorf("write: %w", unix.EPIPE), true},
		{routing.ErrMalformed, false}, {os.ErrDeadlineExceeded, false}, {unix.EHOSTUNREACH, false},
	} {
		if severs(tc.err) != tc.want {
			t.Errorf("%v severs: %v", tc.err, !tc.want)
		}
	}
	a, b := newNode(t, 1, Options{}), newNode(t, 1, Options{})
	for _, closedHere := range []bool{true, false} {
		c := a.connect(t, b)
		eventually(t, "accepted", func() bool { return len(b.tcp.Connections()) == 1 })
		d := b.tcp.Connections()[0]
		if c.Severed() {
			t.Error("a new connection is severed")
		}
		if closedHere {
			c.Close()
		} else {
			d.Close()
		}
		<-c.Done()
		<-d.Done()
		if c.Severed() == closedHere {
			t.Errorf("closed here %v: severed %v", closedHere, c.Severed())
		}
		eventually(t, "forgotten", func() bool { return len(b.tcp.Connections()) == 0 })
	}
}

// TestPlaceOfLostConnection: a connection that was accepted and could not be used gives its place back.
func TestPlaceOfLostConnection(t *testing.T) {
	n := newNode(t, 1, Options{})
	p := n.tcp.admission.take(netip.MustParseAddr("192.0.2.1"))
	n.tcp.admitted(nil, errors.New("no timer"), &arrival{place: p})
	if open := n.tcp.admission.open(); open != 0 || n.tcp.Stats.Accepted.Load() != 0 {
		t.Errorf("%d places are taken, %d accepted", open, n.tcp.Stats.Accepted.Load())
	}
}

// TestValidationEnds: an authority of certificates that sees who has the port gets its handshake, and no connection.
func TestValidationEnds(t *testing.T) {
	cert, roots, _ := certificate(t, "localhost", "127.0.0.1")
	n := newNode(t, 1, Options{})
	ln, err := n.tcp.Serve(limited(t), loopback, Serving{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{Validation}}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: time.Minute}, "tcp", ln.Bound.String(), &tls.Config{RootCAs: roots, NextProtos: []string{Validation}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d bytes, %v: not ended", n, err)
	}
	eventually(t, "its place is free", func() bool { return n.tcp.admission.open() == 0 })
	if n.tcp.Stats.Accepted.Load() != 0 || n.tcp.Stats.TLSFailed.Load() != 0 {
		t.Error("counted as a connection, or as a failure")
	}
}

// TestMarkWaitsForItsTime: a rate is taken over a time, not from one write to the next.
func TestMarkWaitsForItsTime(t *testing.T) {
	m := newMark(1 << 20)
	now := time.Unix(1000, 0)
	m.note(mostUnsent, 0, now)
	if m.note(mostUnsent, 1, now.Add(markEvery-1)) || m.bytes != 1<<20 {
		t.Error("a rate was taken too early")
	}
	if !m.note(mostUnsent, 1, now.Add(markEvery)) || m.bytes != leastMark || m.unsent != leastUnsent {
		t.Errorf("no rate was taken in time: %d may wait, %d unsent", m.bytes, m.unsent)
	}
}

// TestListenersFlows: a listener has an address of its own, and its own flow is known as long as it listens. One that was given is whose it was.
func TestListenersFlows(t *testing.T) {
	n := newNode(t, 1, Options{})
	given := routing.NewFlow()
	n.router.RegisterFlow(given)
	own, err := n.tcp.Serve(limited(t), loopback, Serving{})
	if err != nil {
		t.Fatal(err)
	}
	lent, err := n.tcp.Serve(limited(t), loopback, Serving{Flow: given})
	if err != nil {
		t.Fatal(err)
	}
	if own.Address == "" || lent.Address == "" || own.Address == lent.Address {
		t.Errorf("addresses %q and %q", own.Address, lent.Address)
	}
	if lent.Flow != given || n.router.LookupFlow(own.Flow.ID()) != own.Flow {
		t.Error("flows are not what they should be")
	}
	for _, l := range []*Listener{own, lent} {
		if err := l.Close(limited(t)); err != nil {
			t.Fatal(err)
		}
	}
	if n.router.LookupFlow(own.Flow.ID()) != nil || n.router.LookupFlow(given.ID()) != given {
		t.Error("after the end: its own flow is known, or the one that was given is not")
	}
}
