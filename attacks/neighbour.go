package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// neighbour uses the relay and the bank as a good citizen: a stream of blocks at a fixed pace that come back and are compared, small requests
// whose waits are measured, and pgbench where there is PostgreSQL. A request waits for one to six hundredths of a second.
type neighbour struct {
	s      *stage
	bytes  atomic.Int64
	asked  atomic.Int64 // since when a request waits, 0 for none
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
	start  time.Time // of the attack
	pg     *pgLoad

	mu sync.Mutex
	r  report
}

// block is sent every blockEvery: 16 MB a second there, and as much back.
const (
	blockSize  = 256 << 10
	blockEvery = 16 * time.Millisecond
)

func newNeighbour(s *stage) *neighbour { return &neighbour{s: s} }

// begin starts the traffic and returns when the attack may begin.
func (n *neighbour) begin(ctx context.Context) (err error) {
	ctx, n.cancel = context.WithCancel(ctx)
	n.start = time.Now()
	if n.s.pgInlet != "" {
		_, port, _ := net.SplitHostPort(n.s.pgInlet)
		if n.pg, err = startPgbench(port); err != nil {
			return err
		}
	}
	n.wg.Go(func() { n.loop(ctx, n.stream) })
	n.wg.Go(func() { n.loop(ctx, n.requests) })
	time.Sleep(500 * time.Millisecond) // windows grow
	before, began := n.bytes.Load(), time.Now()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.start = time.Now()
	n.r.before = float64(n.bytes.Load()-before) / time.Since(began).Seconds()
	n.r.longest = 0
	n.bytes.Store(0)
	if n.pg != nil {
		n.pg.count()
	}
	if n.r.errors > 0 {
		return fmt.Errorf("the neighbour had errors before the attack: %w", n.r.firstError)
	}
	return nil
}

// stop ends the traffic and returns what it saw since begin.
func (n *neighbour) stop() report {
	n.once.Do(func() {
		if n.cancel == nil {
			return
		}
		took := time.Since(n.start)
		if asked := n.asked.Load(); asked != 0 { // it waits still
			n.mu.Lock()
			n.r.longest = max(n.r.longest, time.Since(time.Unix(0, asked)))
			n.mu.Unlock()
		}
		if n.pg != nil {
			var err error
			if n.r.tps, n.r.tpsSeconds, err = n.pg.stop(); err != nil {
				n.mu.Lock()
				n.r.errors++
				n.r.firstError = err
				n.mu.Unlock()
			}
		}
		n.cancel()
		n.wg.Wait()
		n.mu.Lock()
		defer n.mu.Unlock()
		n.r.bytes, n.r.took = n.bytes.Load(), took
		n.r.during = float64(n.r.bytes) / took.Seconds()
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.r
}

// loop connects and runs what f makes until ctx ends; what goes wrong before is counted.
func (n *neighbour) loop(ctx context.Context, begin func() func(net.Conn) error) {
	for ctx.Err() == nil {
		err := func() error {
			c, err := net.DialTimeout("tcp", n.s.inlet, 5*time.Second)
			if err != nil {
				return err
			}
			defer c.Close()
			f := begin()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			for ctx.Err() == nil {
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				if err := f(c); err != nil {
					return err
				}
			}
			return nil
		}()
		if err != nil && ctx.Err() == nil {
			n.mu.Lock()
			if n.r.errors++; n.r.firstError == nil {
				n.r.firstError = err
			}
			n.mu.Unlock()
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// stream sends blocks of random bytes at the neighbour's pace and compares what comes back.
func (n *neighbour) stream() func(net.Conn) error {
	next := time.Now()
	return func(c net.Conn) error {
		time.Sleep(time.Until(next))
		if next = next.Add(blockEvery); time.Since(next) > time.Second { // what was lost is lost
			next = time.Now()
		}
		var seed [32]byte
		for i := range seed {
			seed[i] = byte(rand.Uint32())
		}
		block := make([]byte, blockSize)
		_, _ = rand.NewChaCha8(seed).Read(block)
		sent := make(chan error, 1)
		go func() {
			_, err := c.Write(block)
			sent <- err
		}()
		got := make([]byte, len(block))
		_, err := io.ReadFull(c, got)
		if err == nil && !bytes.Equal(got, block) {
			err = fmt.Errorf("what came back is not what was sent")
		}
		if writeErr := <-sent; err == nil {
			err = writeErr
		}
		if err == nil {
			n.bytes.Add(int64(len(block)))
		}
		return err
	}
}

// requests measures the wait for one small answer.
func (n *neighbour) requests() func(net.Conn) error {
	return func(c net.Conn) error {
		began := time.Now()
		n.asked.Store(began.UnixNano())
		defer n.asked.Store(0)
		if _, err := c.Write([]byte("request")); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, make([]byte, 7)); err != nil {
			return err
		}
		wait := time.Since(began)
		n.mu.Lock()
		n.r.longest = max(n.r.longest, wait)
		n.mu.Unlock()
		time.Sleep(time.Duration(10+rand.IntN(50)) * time.Millisecond)
		return nil
	}
}

// echoServer answers with what it is sent, and keeps its connections for those who want to see how they end.
type echoServer struct {
	ln       net.Listener
	accepted atomic.Int64
	// narrow, while set, gives connections small buffers.
	narrow atomic.Bool
	// silent, if set, takes connections instead of answering.
	silent atomic.Pointer[chan net.Conn]
}

func newEchoServer() (*echoServer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &echoServer{ln: ln}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			e.accepted.Add(1)
			if e.narrow.Load() {
				smallBuffers(c)
			}
			if to := e.silent.Load(); to != nil {
				*to <- c
				continue
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return e, nil
}

func (e *echoServer) addr() string { return e.ln.Addr().String() }
func (e *echoServer) close()       { _ = e.ln.Close() }

// small gives connections that come from now on small buffers, until wide is called.
func (e *echoServer) small() (wide func()) {
	e.narrow.Store(true)
	return func() { e.narrow.Store(false) }
}

// smallBuffers bounds what the kernel holds for c. Hundreds of connections that nobody reads would fill the machine's memory for TCP
// otherwise, with megabytes each; all connections of the machine suffer from that, whatever a node does.
func smallBuffers(c net.Conn) {
	if c, ok := c.(*net.TCPConn); ok {
		_ = c.SetReadBuffer(32 << 10)
		_ = c.SetWriteBuffer(32 << 10)
	}
}

// take makes new connections of the server wait in a channel, until release is called.
func (e *echoServer) take() (conns chan net.Conn, release func()) {
	conns = make(chan net.Conn, 5000)
	e.silent.Store(&conns)
	return conns, func() { e.silent.Store(nil) }
}
