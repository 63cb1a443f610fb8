package portal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// side is what one end of a random connection does, and what came of it.
type side struct {
	seed   uint64
	size   int  // bytes to send
	resets int  // after so many bytes; -1 never
	lazy   bool // stalls while it reads
	sent   int
	ended  bool // said that it sends no more
	got    []byte
	err    error // with which reading ended; nil for a clean end
	broke  error // with which sending ended, if it did not end well
	over   chan struct{}
}

func (s *side) stream() *rand.ChaCha8 {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], s.seed)
	return rand.NewChaCha8(seed)
}

// run sends and reads in pieces of random sizes with random pauses until both directions are over.
func (s *side) run(c *net.TCPConn) {
	var wg sync.WaitGroup
	wg.Go(func() {
		r := rand.New(rand.NewPCG(s.seed, 1))
		from, block := s.stream(), make([]byte, 200_000)
		for s.sent < s.size {
			if s.resets >= 0 && s.sent >= s.resets {
				c.SetLinger(0)
				c.Close()
				return
			}
			n := min(s.size-s.sent, 1+r.IntN(1<<r.IntN(17)))
			from.Read(block[:n])
			k, err := c.Write(block[:n])
			if s.sent += k; err != nil {
				s.broke = err
				return
			}
			if r.IntN(8) == 0 {
				time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
			}
		}
		s.ended = c.CloseWrite() == nil
	})
	wg.Go(func() {
		r := rand.New(rand.NewPCG(s.seed, 2))
		block := make([]byte, 200_000)
		for {
			n, err := c.Read(block[:1+r.IntN(1<<r.IntN(17))])
			s.got = append(s.got, block[:n]...)
			if err != nil {
				if s.err = err; err == io.EOF {
					s.err = nil
				}
				return
			}
			if s.lazy && r.IntN(40) == 0 {
				time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
			}
		}
	})
	wg.Wait()
	c.Close()
	if s.err == nil && s.broke != nil {
		s.err = s.broke // the kernel tells of a reset once: the writer had it, and the reader an end
	}
}

// errNotReached is how reading ended for a server that was never connected.
var errNotReached = errors.New("not reached")

// judge compares what `to` read with what `from` did. Nothing may be wrong or come twice; all of it comes, and an end, unless one of
// the two was reset; and an end is seen only after all.
func judge(from, to *side, reset bool) error {
	want := make([]byte, max(from.sent, len(to.got)))
	from.stream().Read(want)
	switch {
	case !bytes.Equal(to.got, want[:len(to.got)]):
		return errors.New("wrong bytes")
	case len(to.got) > from.sent:
		return fmt.Errorf("%d bytes read of %d sent", len(to.got), from.sent)
	case to.err == nil && (!from.ended || len(to.got) != from.size):
		return fmt.Errorf("an end after %d of %d bytes, ended %v: a stream cut short must not look whole", len(to.got), from.size, from.ended)
	case to.err != nil && !reset:
		return fmt.Errorf("%d of %d bytes, %w", len(to.got), from.size, to.err)
	}
	return nil
}

// randomSeed returns the seed of a run, from SALLYPORT_SEED if that is set.
func randomSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SALLYPORT_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("SALLYPORT_SEED=%d", seed)
	return seed
}

// pairs are both ends of random connections; a client's first byte tells the server which is its.
type pairs struct {
	mu              sync.Mutex
	waiting         []*side // of servers; nil when taken or given up
	clients, theirs []*side
	running         sync.WaitGroup
}

func newPairs(seed uint64, conns int) *pairs {
	p := &pairs{waiting: make([]*side, conns), clients: make([]*side, conns), theirs: make([]*side, conns)}
	r := rand.New(rand.NewPCG(seed, 0))
	for k := range conns {
		for _, s := range []**side{&p.clients[k], &p.theirs[k]} {
			*s = &side{seed: r.Uint64(), size: r.IntN(1 << (1 + r.IntN(20))), resets: -1, lazy: r.IntN(4) == 0, err: errNotReached, over: make(chan struct{})}
			if r.IntN(6) == 0 {
				(*s).resets = r.IntN((*s).size + 1)
			}
		}
		p.waiting[k] = p.theirs[k]
	}
	return p
}

// serve is the server's end of a connection.
func (p *pairs) serve(c net.Conn) {
	c.SetDeadline(time.Now().Add(3 * time.Minute))
	var id [1]byte
	if _, err := io.ReadFull(c, id[:]); err != nil { // reset before its first byte came
		c.Close()
		return
	}
	p.mu.Lock()
	s := p.waiting[id[0]]
	p.waiting[id[0]] = nil
	if s != nil {
		p.running.Add(1)
	}
	p.mu.Unlock()
	if s == nil { // given up
		c.Close()
		return
	}
	s.run(c.(*net.TCPConn))
	close(s.over)
	p.running.Done()
}

// run opens all connections, through the inlets in turn, and returns when the clients have done their part.
func (p *pairs) run(t *testing.T, inlets ...*Inlet) {
	t.Helper()
	var done sync.WaitGroup
	for k := range p.clients {
		done.Go(func() {
			client, err := net.Dial("tcp", inlets[k%len(inlets)].Bound().String())
			if err != nil {
				t.Error(err)
				return
			}
			client.SetDeadline(time.Now().Add(3 * time.Minute))
			client.Write([]byte{byte(k)})
			p.clients[k].run(client.(*net.TCPConn))
		})
	}
	done.Wait()
}

// await waits for the servers of the connections that nobody resets: they may still have to read what their clients sent last.
func (p *pairs) await(t *testing.T, describe func(testing.TB)) {
	t.Helper()
	late := time.After(90 * time.Second)
	for k, s := range p.theirs {
		if s.resets >= 0 || p.clients[k].resets >= 0 {
			continue
		}
		select {
		case <-s.over:
		case <-late:
			t.Errorf("the server of connection %d has not ended; its client got %d bytes, %v", k, len(p.clients[k].got), p.clients[k].err)
			describe(t)
			return
		}
	}
}

// judge waits for the servers, when all connections have ended, and compares.
func (p *pairs) judge(t *testing.T) {
	t.Helper()
	p.mu.Lock()
	clear(p.waiting) // those whose client was reset before its first byte came
	p.mu.Unlock()
	p.running.Wait()
	for k := range p.clients {
		a, b := p.clients[k], p.theirs[k]
		reset := a.resets >= 0 || b.resets >= 0
		if err := errors.Join(judge(a, b, reset), judge(b, a, reset)); err != nil {
			t.Errorf("connection %d (resets after %d, %d): %v", k, a.resets, b.resets, err)
		}
	}
}

// TestRandomStreams lets many connections through two inlets send, pause, half-close and reset at random, over the whole path.
// SALLYPORT_SEED repeats a run.
func TestRandomStreams(t *testing.T) {
	seed := randomSeed(t)
	for _, shards := range []int{1, 2} {
		for _, window := range []int{0, 5000} {
			p := newPairs(seed, 40)
			c := newChain(t, 2, shards, false, Limits{Window: window}, OutletOptions{Target: serve(t, p.serve)})
			p.run(t, c.in...)
			c.idle(t)
			if p.judge(t); t.Failed() {
				t.Fatalf("shards %d, window %d", shards, window)
			}
		}
	}
}
