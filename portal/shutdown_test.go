package portal

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestShutdown: when the node of either end stops, the client and the target of a half-done transfer read a reset, and the other node
// knows why.
func TestShutdown(t *testing.T) {
	for _, end := range []string{"outlet", "inlet"} {
		t.Run(end, func(t *testing.T) {
			targets := make(chan net.Conn, 1)
			in, a, b := portalBetween(t, serve(t, func(c net.Conn) { targets <- c }), 2, false, Limits{})
			client := dial(t, in)
			if _, err := client.Write([]byte("half of it")); err != nil {
				t.Fatal(err)
			}
			target := <-targets
			defer target.Close()
			if _, err := io.ReadFull(target, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			stopped, other := b, a
			if end == "inlet" {
				stopped, other = a, b
			}
			Shutdown(limited(t), stopped.router)
			for who, c := range map[string]net.Conn{"client": client, "target": target} {
				_ = c.SetDeadline(time.Now().Add(90 * time.Second))
				if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the %s read %d, %v; want a reset", who, n, err)
				}
			}
			eventually(t, "the other node knows why", func() bool { return other.env.Stats.Ended[ReasonShutdown].Load() == 1 })
		})
	}
}
