package load

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// dialTimeout bounds how long a connection may take.
const dialTimeout = 10 * time.Second

// stream is a TCP connection that is closed when the context of Dial ends.
type stream struct {
	net.Conn
	in   *bufio.Reader
	stop func() bool
}

func dialStream(ctx context.Context, address string) (*stream, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &stream{Conn: c, in: bufio.NewReaderSize(c, 16<<10)}
	s.stop = context.AfterFunc(ctx, func() { _ = c.Close() }) // Do sees it
	return s, nil
}

func (s *stream) Close() error {
	s.stop()
	return s.Conn.Close()
}

// exchange is a client that sends the same bytes each time and expects the same bytes back.
type exchange struct {
	*stream
	request, answer, got []byte
}

func (e *exchange) Do() error {
	if _, err := e.Write(e.request); err != nil {
		return err
	}
	if _, err := io.ReadFull(e.in, e.got); err != nil {
		return err
	}
	if !bytes.Equal(e.got, e.answer) {
		return fmt.Errorf("the answer is %q: it should be %q", e.got[:min(len(e.got), 60)], e.answer[:min(len(e.answer), 60)])
	}
	return nil
}

func dialExchange(address string, prelude, request, answer []byte) Dial {
	return func(ctx context.Context) (Client, error) {
		s, err := dialStream(ctx, address)
		if err != nil {
			return nil, err
		}
		e := &exchange{stream: s, request: request, answer: answer, got: make([]byte, len(answer))}
		if len(prelude) > 0 {
			first := &exchange{stream: s, request: prelude, answer: prelude, got: make([]byte, len(prelude))}
			if err := first.Do(); err != nil {
				_ = s.Close() // it has failed already
				return nil, err
			}
		}
		return e, nil
	}
}

// Echo sends size bytes, at least one, to a server that sends back what it gets. The prelude, which may be empty, is sent and expected back once.
func Echo(address string, prelude []byte, size int) Dial {
	payload := make([]byte, max(size, 1))
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	return dialExchange(address, prelude, payload, payload)
}

// Redis sends PING to a Redis server.
func Redis(address string) Dial {
	return dialExchange(address, nil, []byte("*1\r\n$4\r\nPING\r\n"), []byte("+PONG\r\n"))
}

// HTTP fetches a path with HTTP/1.1 over connections that are kept. Its server is named by host; an answer of another status than 200 is an error.
func HTTP(address, host, path string) (Dial, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+host+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "sallyport-bench")
	var text bytes.Buffer
	if err := req.Write(&text); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (Client, error) {
		s, err := dialStream(ctx, address)
		if err != nil {
			return nil, err
		}
		return &fetch{stream: s, req: req, text: text.Bytes()}, nil
	}, nil
}

type fetch struct {
	*stream
	req  *http.Request
	text []byte
}

func (f *fetch) Do() error {
	if _, err := f.Write(f.text); err != nil {
		return err
	}
	resp, err := http.ReadResponse(f.in, f.req)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer's status is %d: it should be 200", resp.StatusCode)
	}
	if resp.Close {
		return fmt.Errorf("the server closes the connection: it should keep it")
	}
	return nil
}
