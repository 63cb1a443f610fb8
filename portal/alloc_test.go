package portal

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"sallyport/crypto/aead"
)

// mover moves data over a connection through the whole path; each call of move is one unit.
type mover struct {
	name string
	unit int // bytes of one unit, each way that it goes
	move func(client, server net.Conn) error
}

func request(size int) mover {
	request, answer := make([]byte, size), make([]byte, size)
	return mover{fmt.Sprintf("request %d", size), size, func(client, server net.Conn) error {
		if _, err := client.Write(request); err != nil {
			return err
		}
		if _, err := io.ReadFull(server, answer); err != nil {
			return err
		}
		if _, err := server.Write(answer); err != nil {
			return err
		}
		_, err := io.ReadFull(client, request)
		return err
	}}
}

// bulk moves a stretch that keeps every window and buffer on the way busy.
func bulk(name string, up bool) mover {
	const size = 8 << 20
	block, sink := make([]byte, 256<<10), make([]byte, 256<<10)
	start, sent := make(chan net.Conn), make(chan error)
	go func() {
		for to := range start {
			var err error
			for range size / len(block) {
				if _, err = to.Write(block); err != nil {
					break
				}
			}
			sent <- err
		}
	}()
	return mover{name, size, func(client, server net.Conn) error {
		if client == nil {
			close(start)
			return nil
		}
		from, to := client, server
		if !up {
			from, to = server, client
		}
		start <- from
		for left := size; left > 0; {
			n, err := to.Read(sink)
			if left -= n; err != nil {
				return err
			}
		}
		return <-sent
	}}
}

func movers(t testing.TB) []mover {
	list := []mover{request(1), request(1000), request(40_000), bulk("bulk up", true), bulk("bulk down", false)}
	t.Cleanup(func() {
		for _, m := range list[3:] {
			_ = m.move(nil, nil) // ends its goroutine
		}
	})
	return list
}

// paired returns both ends of a connection through the i-th inlet.
func (c *chain) paired(t testing.TB, i int, ch chan *net.TCPConn) (client, server *net.TCPConn) {
	t.Helper()
	client = dial(t, c.in[i])
	server = next(t, ch)
	for _, x := range []*net.TCPConn{client, server} {
		x.SetDeadline(time.Time{})
	}
	return client, server
}

// messages counts what the relay has forwarded: each is one on the inlet's and one on the outlet's node too.
func (c *chain) messages() uint64 {
	return c.relay.tcp.Stats.MessagesIn.Load()
}

// TestPathAllocatesNothing expects that inlet, relay and outlet together, with the test's own client and server, allocate nothing for
// a message once buffers have their size: neither for requests nor for bulk, and with two inlets' nodes in turn through one relay. The
// slack is for what happens by time: housekeeping, and a pool that meets a new extreme.
func TestPathAllocatesNothing(t *testing.T) {
	// Where the standard library seals it makes each key anew after 32 messages, in two pieces of memory (aead.Key.Init): at both ends of three channels,
	// three eighths of a message.
	keys := uint64(0)
	if aead.Kernel() == "go" {
		keys = 3
	}
	kinds(t, func(t *testing.T, plain bool) {
		target, ch := served(t)
		c := newChain(t, 2, 1, plain, Limits{}, OutletOptions{Target: target})
		c1, s1 := c.paired(t, 0, ch)
		c2, s2 := c.paired(t, 1, ch)
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		for _, m := range movers(t) {
			t.Run(m.name, func(t *testing.T) {
				units := 150
				if m.unit > 1<<20 {
					units = 3
				}
				turn := func() {
					for range units {
						if err := m.move(c1, s1); err != nil {
							t.Fatal(err)
						}
						if err := m.move(c2, s2); err != nil {
							t.Fatal(err)
						}
					}
				}
				turn() // windows and buffers find their size
				// Anything else in the process that allocates makes a try worse, never better: one good try is enough. On a busy machine
				// windows take their time to find their size, and what happens by time is more of a try.
				var allocs, messages uint64
				for start, tries := time.Now(), 0; tries < 25 || time.Since(start) < 20*time.Second; tries++ {
					var before, after runtime.MemStats
					began := c.messages()
					runtime.ReadMemStats(&before)
					turn()
					runtime.ReadMemStats(&after)
					allocs, messages = after.Mallocs-before.Mallocs, c.messages()-began
					if allocs*8 <= messages*(1+keys) {
						t.Logf("%d allocations, %d messages through the relay", allocs, messages)
						return
					}
				}
				t.Errorf("%d allocations for %d messages through the relay", allocs, messages)
			})
		}
	})
}

// BenchmarkPath moves data through inlet, relay and outlet; allocs/op is for all of them, and for an operation of several messages.
func BenchmarkPath(b *testing.B) {
	target, ch := served(b)
	c := newChain(b, 1, 1, false, Limits{}, OutletOptions{Target: target})
	client, server := c.paired(b, 0, ch)
	for _, m := range movers(b) {
		b.Run(m.name, func(b *testing.B) {
			b.SetBytes(int64(m.unit))
			b.ReportAllocs()
			for b.Loop() {
				if err := m.move(client, server); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
