package tcp

import (
	"bytes"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
	"sallyport/routing/bare"
)

// bankAndRelay are two nodes, of which the second has the services and one connection to the first.
func bankAndRelay(t *testing.T, shards int, o Options) (relay *node, bank routing.WireAddress) {
	relay, far := newNode(t, shards, o), newNode(t, shards, o)
	c := far.connect(t, relay)
	for _, name := range []string{"echo", "uppercase"} {
		if err := far.router.AddConsumer(limited(t), name, c.Flow); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "accepted", func() bool { return len(relay.tcp.Connections()) == 1 })
	return relay, relay.tcp.Connections()[0].Sender
}

// TestReadersThatStop: clients that do not read their answers stop neither the node that answers nor who else talks to it: all answers
// come over one connection.
func TestReadersThatStop(t *testing.T) {
	for _, c := range []struct {
		name   string
		shards int
		read   func(io.Reader) // what an attacker takes of its answers
	}{
		{"nothing", 1, func(io.Reader) { time.Sleep(10 * time.Millisecond) }},
		{"nothing, on another shard", 2, func(io.Reader) { time.Sleep(10 * time.Millisecond) }},
		{"a little", 1, func(r io.Reader) { _, _ = r.Read(make([]byte, 1024)); time.Sleep(20 * time.Millisecond) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			relay, bank := bankAndRelay(t, c.shards, Options{Patience: 5 * time.Second,
				Deadlines: dataplane.Deadlines{Preamble: time.Hour, Frame: time.Hour}}) // on a busy machine their frames come late
			through := func(service string, payload []byte) []byte {
				onward := routing.LocalRoute("hop").Concat(routing.RouteOf(bank), routing.LocalRoute(service))
				return framed(routing.AppendMessage(nil, onward, routing.LocalRoute("me"), payload))
			}
			relay.router.Backlogs.SetLimit(64 << 20)
			neighbour := dialRaw(t, relay)
			neighbour.SetDeadline(time.Now().Add(4 * time.Minute))
			neighbour.hello()
			isBank := func(c *Connection) bool { return c.Sender.Text() == bank.Text() }
			neighbour.send(through("echo", []byte("are you there")))
			answer := 4 + len(neighbour.frame()) // bytes; all answers are the same
			var longest atomic.Int64
			ask := func(rounds int) {
				t.Helper()
				for range rounds {
					began := time.Now()
					neighbour.send(through("echo", []byte("are you there")))
					neighbour.SetReadDeadline(time.Now().Add(90 * time.Second))
					if _, err := io.ReadFull(neighbour, make([]byte, answer)); err != nil {
						t.Fatalf("%v; the bank is connected: %v", err, slices.ContainsFunc(relay.tcp.Connections(), isBank))
					}
					longest.Store(max(longest.Load(), int64(time.Since(began))))
					time.Sleep(5 * time.Millisecond)
				}
			}
			ask(5)
			request := through("uppercase", bare.AppendString(nil, string(bytes.Repeat([]byte("a"), 60<<10))))
			const attackers = 3
			var ended atomic.Int32
			for range attackers {
				r := dialRaw(t, relay)
				r.SetDeadline(time.Now().Add(4 * time.Minute))
				r.hello()
				stop := make(chan struct{})
				t.Cleanup(func() { r.Close(); <-stop })
				go func() {
					defer close(stop)
					for {
						if _, err := r.Write(request); err != nil {
							ended.Add(1)
							return
						}
					}
				}()
				go func() {
					for ended.Load() < attackers {
						c.read(r)
					}
				}()
			}
			// The neighbour is answered all the while. All nodes share this process: where it does not run for a while the bank is slow too,
			// and attackers may be refused there before they are cut off.
			for began := time.Now(); ended.Load() < attackers && time.Since(began) < time.Minute; {
				ask(1)
			}
			ask(20)
			// The kernel ends some of them (TCP_USER_TIMEOUT) where the loop comes too late.
			if ended.Load() < attackers && relay.router.Backlogs.Refused() == 0 {
				t.Errorf("%d of %d cut off, %d ended, and none is refused", relay.tcp.Stats.CutOff.Load(), attackers, ended.Load())
			}
			if !slices.ContainsFunc(relay.tcp.Connections(), isBank) {
				t.Error("the bank was cut off")
			}
			if ended.Load() == attackers {
				eventually(t, "the budget is given back", func() bool { return relay.router.Backlogs.Used() == 0 })
			}
			t.Logf("the longest answer took %v", time.Duration(longest.Load()))
			// Before, nothing at all was answered until the attackers' connections ended.
			if longest.Load() > int64(60*time.Second) {
				t.Errorf("the neighbour waited %v for an answer", time.Duration(longest.Load()))
			}
		})
	}
}

// TestSlowReader: one that takes a lot slowly gets all of it, however little may wait for it: what sends to it is held back.
func TestSlowReader(t *testing.T) {
	relay, bank := bankAndRelay(t, 1, Options{HighWater: 128 << 10})
	relay.router.Backlogs.SetLimit(40 << 20)
	reader := dialRaw(t, relay)
	reader.SetDeadline(time.Now().Add(4 * time.Minute))
	reader.hello()
	const size, count = 60 << 10, 1500
	request := framed(routing.AppendMessage(nil, routing.LocalRoute("hop").Concat(routing.RouteOf(bank), routing.LocalRoute("echo")),
		routing.LocalRoute("me"), make([]byte, size)))
	go func() {
		for range count {
			if _, err := reader.Write(request); err != nil {
				return
			}
		}
	}()
	// On a busy machine the reader is faster than who sends: it begins when more waits for it than the kernels take.
	eventually(t, "what sends is held back", func() bool { return relay.tcp.Stats.Stalled.Load() > 0 })
	for i := range count {
		if body := reader.frame(); len(body) < size {
			t.Fatalf("answer %d has %d bytes", i, len(body))
		}
		if i%50 == 0 {
			time.Sleep(60 * time.Millisecond) // 50 MB/s at most
		}
	}
	if n := relay.tcp.Stats.CutOff.Load(); n > 0 {
		t.Errorf("%d cut off", n)
	}
}
