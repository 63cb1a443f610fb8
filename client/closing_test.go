package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/internal/servers"
)

// registrations is how many names c holds at the project's relay.
func registrations(c *Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.relays)
}

// TestShutdownServesToTheEnd: a web server that is shut down answers what it has begun to, and the name at the relay is given up after that.
func TestShutdownServesToTheEnd(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	l := listen(t, to, "web/x", ListenOptions{})
	begun, goOn := make(chan struct{}), make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-goOn
		io.WriteString(w, "answer")
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return from.Dial(ctx, "web/x") }}
	defer transport.CloseIdleConnections()
	got := make(chan error, 1)
	go func() {
		r, _ := http.NewRequestWithContext(within(t), http.MethodGet, "http://web/", nil)
		res, err := (&http.Client{Transport: transport, Timeout: 40 * time.Second}).Do(r)
		if err == nil {
			var b []byte
			if b, err = io.ReadAll(res.Body); string(b) != "answer" {
				err = fmt.Errorf("%q, %w", b, err)
			}
			res.Body.Close()
		}
		got <- err
	}()
	<-begun
	down := make(chan error, 1)
	go func() { down <- srv.Shutdown(within(t)) }()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) { // the listener has closed
		t.Error(err)
	}
	close(goOn)
	if err := <-got; err != nil {
		t.Error(err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	eventually(t, func() error {
		if n := registrations(to); n != 0 {
			return fmt.Errorf("%d names are registered still", n)
		}
		return nil
	})
}

// TestListenerCloses: connections that were accepted go on, those that were not are broken off, and others are told that nobody listens, while the name is
// held and afterwards. A listener that comes next finds both free.
func TestListenerCloses(t *testing.T) {
	p := newProject(t)
	from, to := join(t, p, nil), join(t, p, server)
	l := listen(t, to, "api/two", ListenOptions{})
	a := dialled(t, from, "api/two")
	b := accepted(t, l)
	queued := dialled(t, from, "api/two")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	queued.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, err := queued.Read(make([]byte, 1)); n != 0 || !errors.Is(err, ErrBroken) {
		t.Errorf("never accepted: %d, %v", n, err)
	}
	if _, err := from.Dial(within(t), "api/two"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "there is no outlet two") {
		t.Errorf("after Close: %v", err)
	}
	if n := registrations(to); n != 1 {
		t.Errorf("%d names are held", n)
	}
	talk := func() {
		t.Helper()
		for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
			said, heard := []byte("hello"), make([]byte, 5)
			if _, err := way[0].Write(said); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(way[1], heard); err != nil || !bytes.Equal(heard, said) {
				t.Errorf("%q, %v", heard, err)
			}
		}
	}
	talk()
	again := listen(t, to, "api/two", ListenOptions{})
	servers.Serve(again, servers.Echo)
	eventually(t, func() error { // the other end asks anew within a second or so
		c, err := from.Dial(within(t), "api/two")
		if err == nil {
			err = c.Close()
		}
		return err
	})
	again.Close()
	talk()
	a.Close()
	if rest, err := io.ReadAll(b); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	b.Close()
	eventually(t, func() error {
		if n := registrations(to); n != 0 {
			return fmt.Errorf("%d names are registered still", n)
		}
		return nil
	})
}

// TestCloseAfterWriting: what was written before a connection was closed arrives whole, though its Client or Dialer is closed at once.
func TestCloseAfterWriting(t *testing.T) {
	p := newProject(t)
	to := join(t, p, server)
	l := listen(t, to, "api", ListenOptions{})
	for name, hold := range map[string]time.Duration{"held": 0, "not held": -1} {
		for _, size := range []int{10, 1 << 20} {
			for _, by := range []string{"client", "dialer", "listener's client"} {
				t.Run(fmt.Sprint(name, " ", by, " ", size), func(t *testing.T) {
					text := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
					open := func() *Client {
						ticket, err := p.Ticket(within(t), server, 1)
						if err != nil {
							t.Fatal(err)
						}
						return opened(t, Options{InMemory: true, Ticket: ticket, Hold: hold})
					}
					from := open()
					closes, l := from.Close, l
					name := "api"
					if by == "listener's client" {
						name = "own"
						l = listen(t, from, name, ListenOptions{})
					}
					dialler := from
					if by == "listener's client" {
						dialler = to
					}
					d, err := dialler.Dialer(within(t), name, DialOptions{})
					if err != nil {
						t.Fatal(err)
					}
					if by == "dialer" {
						closes = d.Close
					}
					c, err := d.Dial(within(t))
					if err != nil {
						t.Fatal(err)
					}
					s := accepted(t, l)
					if by == "listener's client" {
						c, s = s, c
					}
					read := make(chan error, 1)
					go func() {
						got, err := io.ReadAll(s)
						if err != nil || !bytes.Equal(got, text) {
							err = fmt.Errorf("%d bytes of %d arrive: %w", len(got), size, err)
						}
						s.Close()
						read <- err
					}()
					if _, err := c.Write(text); err != nil {
						t.Fatal(err)
					}
					if err := c.Close(); err != nil {
						t.Fatal(err)
					}
					if err := closes(); err != nil {
						t.Fatal(err)
					}
					if err := <-read; err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}
