package tcp

import (
	"bufio"
	"context"
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
