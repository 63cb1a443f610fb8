package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// seeds are given out one after the other: each connection of a run has its own.
var seeds atomic.Uint64

// open connects a client to an inlet of the data server and asks.
func (w *world) open(portal string, ask byte) (c *net.TCPConn, end *serverEnd, seed uint64, err error) {
	if c, err = w.dial(portal); err != nil {
		return nil, nil, 0, err
	}
	seed = seeds.Add(1)
	head := binary.LittleEndian.AppendUint64([]byte{ask}, seed)
	if _, err = c.Write(head); err != nil {
		return nil, nil, 0, err
	}
	end, err = w.servers.end(seed)
	return c, end, seed, err
}

// stream moves bytes in one direction and checks each.
type stream struct {
	up    bool
	conn  *net.TCPConn
	far   *serverEnd
	seed  uint64
	bytes atomic.Int64 // sent or checked at the client
	stop  chan struct{}
	done  chan error
}

func (w *world) stream(up bool) (*stream, error) {
	s := &stream{up: up, stop: make(chan struct{}), done: make(chan error, 1)}
	ask := byte(askDown)
	if up {
		ask = askUp
	}
	var err error
	if s.conn, s.far, s.seed, err = w.open("data", ask); err != nil {
		return nil, err
	}
	count := func(n int) { s.bytes.Add(int64(n)) }
	go func() {
		if up {
			s.done <- send(s.conn, s.seed, s.stop, count)
		} else {
			s.done <- check(s.conn, s.seed, count)
		}
	}()
	return s, nil
}

// arrived returns how many bytes have come where they are checked.
func (s *stream) arrived() int64 {
	if s.up {
		return s.far.total()
	}
	return s.bytes.Load()
}

// finish ends a stream well and compares what was sent with what came.
func (s *stream) finish(within time.Duration) error {
	defer s.conn.Close()
	_ = s.conn.SetDeadline(time.Now().Add(within))
	if s.up {
		close(s.stop)
		if err := <-s.done; err != nil {
			return fmt.Errorf("sending: %w", err)
		}
		_ = s.conn.CloseWrite()
		n, err := s.far.result(within)
		if err != io.EOF || n != s.bytes.Load() {
			return fmt.Errorf("%d bytes sent, %d came right, then %w", s.bytes.Load(), n, err)
		}
		return nil
	}
	_ = s.conn.CloseWrite()
	if err := <-s.done; err != io.EOF {
		return fmt.Errorf("after %d right bytes: %w", s.bytes.Load(), err)
	}
	n, err := s.far.result(within)
	if err != io.EOF || n != s.bytes.Load() {
		return fmt.Errorf("%d bytes sent, %d came right; the server: %w", n, s.bytes.Load(), err)
	}
	return nil
}

// counting asks a Redis server to count, over one connection: a request that is lost or comes twice shows in the number.
func (w *world) counting(stop <-chan struct{}, n *atomic.Int64) error {
	c, err := w.dial("redis")
	if err != nil {
		return err
	}
	defer c.Close()
	r, key := bufio.NewReader(c), fmt.Sprintf("k%d", seeds.Add(1))
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(2 * time.Millisecond):
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
		if _, err := fmt.Fprintf(c, "INCR %s\r\n", key); err != nil {
			return err
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if want := fmt.Sprintf(":%d", n.Load()+1); strings.TrimSpace(line) != want {
			return fmt.Errorf("redis counted %q, want %s", line, want)
		}
		n.Add(1)
	}
}

// load is all that runs while something is wrong.
type load struct {
	w       *world
	streams []*stream
	idle    []*net.TCPConn
	counts  [4]atomic.Int64
	stop    chan struct{}
	wg      sync.WaitGroup
	mu      sync.Mutex
	errs    []error
	cancel  context.CancelFunc
	slowest time.Duration // that was waited until all moved
	last    string        // what did last then
}

func (l *load) fail(err error) {
	l.mu.Lock()
	l.errs = append(l.errs, err)
	l.mu.Unlock()
}

// newLoad opens everything: streams each way, connections that do nothing, clients of Redis, and pgbench for the given time.
func (w *world) newLoad(ctx context.Context, streams, idle int, bench time.Duration) (*load, error) {
	l := &load{w: w, stop: make(chan struct{})}
	for k := range 2 * streams {
		s, err := w.stream(k%2 == 0)
		if err != nil {
			return l, err
		}
		l.streams = append(l.streams, s)
	}
	for range idle {
		c, _, _, err := w.open("data", askEcho)
		if err != nil {
			return l, err
		}
		l.idle = append(l.idle, c)
	}
	for i := range l.counts {
		l.wg.Go(func() {
			if err := w.counting(l.stop, &l.counts[i]); err != nil {
				l.fail(fmt.Errorf("redis: %w", err))
			}
		})
	}
	ctx, l.cancel = context.WithCancel(ctx)
	var working sync.WaitGroup // pgbench has its connections: one that it opens in a fault is a new client, which waits for half a minute at most
	for _, kind := range []string{"select-only", "tpcb-like"} {
		working.Add(1)
		begun := sync.OnceFunc(working.Done)
		l.wg.Go(func() {
			defer begun()
			out, err := w.pgbench(ctx, w.inlet, firstInlet+2, begun, "-n", "-b", kind, "-c", "4", "-P", "1", "-T", strconv.Itoa(int(bench.Seconds())))
			if err == nil {
				err = failedTransactions(string(out))
			}
			if err != nil && ctx.Err() == nil {
				l.fail(fmt.Errorf("pgbench %s: %w: %s", kind, err, lastLine(out)))
			}
		})
	}
	working.Wait()
	return l, l.moving(30 * time.Second)
}

var failedPattern = regexp.MustCompile(`number of failed transactions: (\d+)`)

var errTransactions = errors.New("transactions failed, or none were made")

func failedTransactions(out string) error {
	if m := failedPattern.FindStringSubmatch(out); m != nil && m[1] != "0" || !strings.Contains(out, "number of transactions actually processed") {
		return errTransactions
	}
	return nil
}

func lastLine(b []byte) string {
	list := strings.Split(strings.TrimSpace(string(b)), "\n")
	return list[len(list)-1]
}

// moving waits until every stream and every client of Redis has got further than now.
func (l *load) moving(within time.Duration) error {
	marks := make([]int64, len(l.streams))
	for i, s := range l.streams {
		marks[i] = s.arrived() + 2*blockSize
	}
	var counts [len(l.counts)]int64
	for i := range counts {
		counts[i] = l.counts[i].Load() + 2
	}
	last := ""
	for begun := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		up, down, asking := 0, 0, 0
		for i, s := range l.streams {
			switch {
			case s.arrived() >= marks[i]:
			case s.up:
				up++
			default:
				down++
			}
		}
		for i := range counts {
			if l.counts[i].Load() < counts[i] {
				asking++
			}
		}
		left := up + down + asking
		if took := time.Since(begun); left == 0 {
			if took > l.slowest {
				l.slowest, l.last = took, last
			}
			return nil
		}
		last = fmt.Sprintf("%d streams up, %d down, %d clients of Redis", up, down, asking)
		if l.mu.Lock(); len(l.errs) > 0 {
			defer l.mu.Unlock()
			return l.errs[0]
		}
		l.mu.Unlock()
		if time.Since(begun) > within {
			return fmt.Errorf("%d of %d do not move: %s", left, len(l.streams)+len(counts), last)
		}
	}
}

// finish ends the load and returns what went wrong with it, connection by connection.
func (l *load) finish() []error {
	const within = 40 * time.Second
	var wg sync.WaitGroup
	for _, s := range l.streams {
		wg.Go(func() {
			if err := s.finish(within); err != nil {
				l.fail(fmt.Errorf("stream: %w", err))
			}
		})
	}
	for _, c := range l.idle {
		wg.Go(func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(within))
			want := binary.LittleEndian.AppendUint64(nil, seeds.Add(1))
			got := make([]byte, len(want))
			if _, err := c.Write(want); err != nil {
				l.fail(fmt.Errorf("idle: %w", err))
			} else if _, err := io.ReadFull(c, got); err != nil || string(got) != string(want) {
				l.fail(fmt.Errorf("idle: %x for %x, %w", got, want, err))
			}
		})
	}
	wg.Wait()
	close(l.stop)
	l.wg.Wait() // pgbench ends by itself, well
	l.cancel()
	return l.errs
}

// abandon ends a load without looking at it.
func (l *load) abandon() {
	if l.cancel != nil {
		l.cancel()
	}
	close(l.stop)
	for _, s := range l.streams {
		s.conn.Close()
	}
	for _, c := range l.idle {
		c.Close()
	}
	l.wg.Wait()
}
