package client

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"
)

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
