package tcp

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"sallyport/routing/ws"
)

// lastWords is a connection whose last bytes come together with its end.
type lastWords struct {
	net.Conn
	rest []byte
}

func (c *lastWords) Read(b []byte) (int, error) {
	n := copy(b, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		return n, io.EOF
	}
	return n, nil
}

// TestUnansweredUpgrade: a WebSocket handshake that is given up says so, one that breaks off says that; an answer that comes together with the end of the
// connection is an answer.
func TestUnansweredUpgrade(t *testing.T) {
	a := Address{Layer: WebSocket, HostPort: "relay.example.com:80"}
	upgrade := func(ctx context.Context, server func(net.Conn, *http.Request), wrap func(net.Conn) net.Conn) error {
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			r, err := http.ReadRequest(bufio.NewReader(far))
			if err != nil {
				t.Error(err)
			}
			server(far, r)
		}()
		return (&stream{c: wrap(near)}).upgrade(ctx, a)
	}
	as := func(c net.Conn) net.Conn { return c }

	ctx, cancel := context.WithCancel(t.Context())
	if err := upgrade(ctx, func(net.Conn, *http.Request) { cancel() }, as); !errors.Is(err, context.Canceled) || errors.Is(err, ws.ErrHandshake) {
		t.Errorf("given up: %v", err)
	}
	if err := upgrade(t.Context(), func(c net.Conn, _ *http.Request) { c.Close() }, as); !errors.Is(err, ws.ErrHandshake) {
		t.Errorf("broken off: %v", err)
	}
	if err := upgrade(t.Context(), func(c net.Conn, _ *http.Request) {}, func(c net.Conn) net.Conn {
		return &lastWords{c, []byte("HTTP/1.1 403 Forbidden\r\n\r\n")}
	}); err == nil || !errors.Is(err, ws.ErrHandshake) || errors.Is(err, io.EOF) {
		t.Errorf("refused with the last bytes: %v", err)
	}
}

// answering is a connection on which an upgrade is answered, and then is called, with the last bytes of the answer.
type answering struct {
	net.Conn
	then func()
}

func (c *answering) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.then()
	return n, err
}

// TestUpgradeGivenUpAtLast: a WebSocket handshake that is given up when its answer has just come is given up; one that is not goes on with what came behind the answer.
func TestUpgradeGivenUpAtLast(t *testing.T) {
	for _, given := range []bool{true, false} {
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			r, err := http.ReadRequest(bufio.NewReader(far))
			if err != nil {
				t.Error(err)
				return
			}
			sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // RFC 6455 section 4.2.2
			_, _ = io.WriteString(far, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
				base64.StdEncoding.EncodeToString(sum[:])+"\r\nSec-WebSocket-Protocol: "+ws.Protocol+"\r\n\r\nearly")
		}()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &stream{c: &answering{near, func() {
			if given {
				cancel()
			}
		}}}
		err := s.upgrade(ctx, Address{Layer: WebSocket, HostPort: "relay.example.com:80"})
		if given && !errors.Is(err, context.Canceled) || !given && (err != nil || string(s.early) != "early") {
			t.Errorf("given up %v: %v, %q came early", given, err, s.early)
		}
	}
}

// TestHandshakeThatFailsLeavesNothing: a connection whose handshake fails is closed, not left to whoever collects what nobody needs.
func TestHandshakeThatFailsLeavesNothing(t *testing.T) {
	n := newNode(t, 1, Options{})
	for _, layer := range []Layer{TLS, WebSocket, SecureWS} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		left := make(chan bool, 1)
		go func() {
			c, err := ln.Accept()
			if err != nil {
				left <- true
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "220 this is another protocol\r\n\r\n")
			left <- !ended(t, c)
		}()
		if _, err := n.tcp.Dial(limited(t), Address{Layer: layer, HostPort: ln.Addr().String()}); err == nil {
			t.Errorf("%s: connected", layer)
		}
		if <-left {
			t.Errorf("%s: the connection is left", layer)
		}
	}
}
