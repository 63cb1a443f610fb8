package secure

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/routing"
	"sallyport/routing/tcp"
)

// firsts sends first messages of handshakes that never go on, from a worker that nobody answers to.
func (n *node) firsts(t testing.TB, c *tcp.Connection, count int) {
	t.Helper()
	onward := routing.RouteOf(c.Sender).Concat(routing.LocalRoute("api"))
	for i := range count {
		key := make([]byte, 32)
		rand.Read(key)
		n.router.Inject(onward, routing.LocalRoute(fmt.Sprint("made-up-", i)), key)
	}
}

// TestHalfOpenHandshakesShutNobodyOut: whoever leaves handshakes half-open loses the oldest of its own.
func TestHalfOpenHandshakesShutNobodyOut(t *testing.T) {
	stranger, member, bank := newNode(t, 1, nil), newNode(t, 1, nil), newNode(t, 2, nil)
	bank.channels.asked.max = 64
	c := stranger.connect(t, bank)
	stranger.firsts(t, c, 200)
	eventually(t, "places taken and given to others", func() bool { return bank.channels.Stats.Refused.Load() >= 200-64 })
	if n := bank.channels.asked.held(); n != 64 {
		t.Errorf("%d half-open handshakes, at most 64", n)
	}
	if !bank.log.contains("refused to make room") || !bank.log.contains("127.0.0.1") {
		t.Error("the log does not say that places are short")
	}
	for range 10 {
		member.through(t, member.dial(t, member.connect(t, bank).Sender, "api"), []byte("in"))
	}
	// The places end with the connection.
	c.Close()
	eventually(t, "places given back", func() bool { return bank.channels.asked.held() == 0 && bank.channels.open.Load() == 0 })
	workers := bank.channels.Stats.Opened.Load()
	if workers != 10 {
		t.Errorf("%d channels", workers)
	}
}

// TestFloodOfFirstMessages: while one source sends first messages as fast as it can, another one's handshakes succeed, directly and
// through a relay that both use.
func TestFloodOfFirstMessages(t *testing.T) {
	stranger, member, relay, bank := newNode(t, 1, nil), newNode(t, 1, nil), newNode(t, 1, nil), newNode(t, 2, nil)
	toBank := relay.connect(t, bank)
	relay.serve(t, "forward", routing.Hop("forward"), relay.ln.Flow, toBank.Flow)
	for _, way := range []struct {
		name string
		to   *node
		hops []string
	}{{"directly", bank, []string{"api"}}, {"through a relay", relay, []string{"forward", toBank.Sender.Text(), "api"}}} {
		t.Run(way.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var sent atomic.Int64
			ended := make(chan struct{})
			c := stranger.connect(t, way.to)
			go func() {
				defer close(ended)
				onward := routing.RouteOf(c.Sender).Concat(routing.LocalRoute(way.hops...))
				key := make([]byte, 32)
				for tick := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; <-tick.C {
					for range 100 {
						rand.Read(key)
						stranger.router.Inject(onward, routing.LocalRoute(fmt.Sprint("made-up-", sent.Add(1))), key)
					}
				}
			}()
			eventually(t, "flood", func() bool { return sent.Load() > 2000 })
			worst := time.Duration(0)
			for range 5 {
				start := time.Now()
				ch := member.dial(t, member.connect(t, way.to).Sender, way.hops...)
				member.through(t, ch, []byte("in"))
				worst = max(worst, time.Since(start))
			}
			cancel()
			<-ended
			t.Logf("%d first messages; the slowest of 5 handshakes took %v; %d refused", sent.Load(), worst, bank.channels.Stats.Refused.Load())
			if worst > 5*time.Second { // two are promised, on a machine that does nothing else
				t.Errorf("a handshake took %v", worst)
			}
			c.Close()
		})
	}
}

// TestSharesAreFair takes places at random and checks that nobody who holds less than its part loses one.
func TestSharesAreFair(t *testing.T) {
	pick := func(n int64) int {
		k, _ := rand.Int(rand.Reader, big.NewInt(n))
		return int(k.Int64())
	}
	s := newShares[source](100)
	var places []*place[source]
	held := map[string]int{}
	for range 20_000 {
		// The first host takes as much as it can, over many connections and routes.
		from := source{"greedy", fmt.Sprint(pick(40)), fmt.Sprint(pick(1000))}
		if pick(50) == 0 {
			from = source{fmt.Sprint("modest ", pick(5)), "connection", fmt.Sprint(pick(3))}
		}
		if k := pick(400); k < len(places) && k%4 == 0 {
			p := places[k]
			if !p.left {
				held[p.value[0]]--
			}
			s.leave(p)
			s.leave(p)
			places = append(places[:k], places[k+1:]...)
			continue
		}
		before, sources := s.held(), len(s.root.parts)
		p, oldest, evicted := s.take(from, from)
		if evicted != (before == 100) {
			t.Fatalf("evicted %v with %d places taken", evicted, before)
		}
		held[from[0]]++
		if evicted {
			held[oldest[0]]--
			if held[oldest[0]]+2 < 100/(sources+1) {
				t.Fatalf("%v lost a place to %v with %d of 100, %d sources", oldest, from, held[oldest[0]]+1, sources)
			}
		}
		places = append(places, p)
		if n := s.held(); n > 100 {
			t.Fatalf("%d places", n)
		}
	}
	for _, p := range places {
		s.leave(p)
	}
	if s.held() != 0 || len(s.root.parts) != 0 {
		t.Errorf("%d places and %d sources are left", s.held(), len(s.root.parts))
	}
}

// TestOldestGoesFirst: of one source, and among equals.
func TestOldestGoesFirst(t *testing.T) {
	s := newShares[int](3)
	for i := range 3 {
		s.take(source{"a", "b", fmt.Sprint(i)}, i)
	}
	for i := 3; i < 10; i++ {
		_, oldest, evicted := s.take(source{"a", "b", fmt.Sprint(i)}, i)
		if !evicted || oldest != i-3 {
			t.Errorf("%d took the place of %d", i, oldest)
		}
	}
}

// TestTurns: a source with many jobs costs another one the time of one.
func TestTurns(t *testing.T) {
	const each = 100
	w := newTurns(1)
	let, all := make(chan struct{}), make(chan int, 2*each+1)
	w.do(source{"greedy"}, func() { <-let })
	for i := range each {
		w.do(source{"greedy"}, func() { all <- i })
	}
	w.do(source{"modest"}, func() { all <- -1 })
	close(let)
	var order []int
	for range each + 1 {
		order = append(order, <-all)
	}
	if order[0] != -1 && order[1] != -1 {
		t.Errorf("the other source's turn came after %v", order[:5])
	}
	next := 0
	for _, k := range order {
		if k >= 0 && k != next {
			t.Fatalf("a source's jobs change places: %v", order)
		} else if k >= 0 {
			next++
		}
	}
	eventually(t, "no worker is left", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.running == 0 && len(w.queues) == 0 })
}

// BenchmarkFirstMessage is what a stranger's first message costs the node that answers it, in processor time: all of it, also that of
// the connection and of whoever sends.
func BenchmarkFirstMessage(b *testing.B) {
	stranger, bank := newNode(b, 1, nil), newNode(b, 1, nil)
	c := stranger.connect(b, bank)
	cpu := func() int64 {
		var r syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
		return r.Utime.Nano() + r.Stime.Nano()
	}
	start := cpu()
	n := uint64(0)
	for b.Loop() {
		stranger.firsts(b, c, 100)
		n += 100
		eventually(b, "answered", func() bool { return bank.tcp.Stats.MessagesOut.Load() >= n })
	}
	b.ReportMetric(float64(cpu()-start)/float64(n), "cpu-ns/message")
}
