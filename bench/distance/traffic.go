package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// What a client asks for with its first byte; eight bytes with the number of its counter follow.
const (
	askDown    = 'd' // pour
	askUp      = 'u' // swallow
	askRequest = 'r' // answer each request
)

const (
	requestSize = 64
	answerSize  = 200
	block       = 128 << 10
)

// server is at the end of all paths.
type server struct {
	ln       net.Listener
	mu       sync.Mutex
	counters map[uint64]*atomic.Int64 // of uploads, which count where they arrive
	next     uint64
	small    bool // send buffers: thousands of clients that do not read would use up what the kernel has for all
}

func newServer(w *world) (*server, error) {
	s := &server{counters: map[uint64]*atomic.Int64{}}
	err := w.outlet.Do(func() (err error) {
		s.ln, err = net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", serverPort)) // at the address in a tunnel too
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := s.ln.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s, nil
}

func (s *server) counter() (uint64, *atomic.Int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	c := new(atomic.Int64)
	s.counters[s.next] = c
	return s.next, c
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	if s.small {
		_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10)
	}
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return
	}
	switch head[0] {
	case askDown:
		buf := make([]byte, block)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	case askUp:
		s.mu.Lock()
		counter := s.counters[binary.BigEndian.Uint64(head[1:])]
		s.mu.Unlock()
		if counter != nil {
			swallow(c, counter)
		}
	case askRequest:
		var request [requestSize]byte
		answer := make([]byte, answerSize)
		for {
			if _, err := io.ReadFull(c, request[:]); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}
}

func swallow(r io.Reader, counter *atomic.Int64) {
	buf := make([]byte, block)
	for {
		n, err := r.Read(buf)
		counter.Add(int64(n))
		if err != nil {
			return
		}
	}
}

// stream is one client that moves bytes in one direction.
type stream struct {
	conn  *net.TCPConn
	bytes *atomic.Int64 // that arrived
}

// open begins a stream that moves as fast as it can.
func (p *path) open(s *server, ask byte) (*stream, error) {
	return p.openWith(s, ask, func(st *stream) { swallow(st.conn, st.bytes) })
}

// openWith begins a stream; read takes what comes down.
func (p *path) openWith(s *server, ask byte, read func(*stream)) (*stream, error) {
	c, err := p.dial(20 * time.Second)
	if err != nil {
		return nil, err
	}
	id, counter := s.counter()
	if _, err := c.Write(binary.BigEndian.AppendUint64([]byte{ask}, id)); err != nil {
		c.Close()
		return nil, err
	}
	st := &stream{c, counter}
	switch ask {
	case askDown:
		go read(st)
	case askUp:
		go func() {
			buf := make([]byte, block)
			for {
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		}()
	}
	return st, nil
}

// close ends a stream at once; what is under way is lost.
func (st *stream) close() {
	_ = st.conn.SetLinger(0)
	_ = st.conn.Close()
}

// ask makes a request on a connection for requests.
func ask(c net.Conn, timeout time.Duration) (time.Duration, error) {
	_ = c.SetDeadline(time.Now().Add(timeout))
	begun := time.Now()
	if _, err := c.Write(make([]byte, requestSize)); err != nil {
		return 0, err
	}
	_, err := io.ReadFull(c, make([]byte, answerSize))
	return time.Since(begun), err
}

// firstByte is the time of a request on a new connection: connecting, asking, the answer.
func (p *path) firstByte(timeout time.Duration) (time.Duration, error) {
	begun := time.Now()
	c, err := p.dial(timeout)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(begun.Add(timeout))
	if _, err := c.Write(append([]byte{askRequest, 8: 0}, make([]byte, requestSize)...)); err != nil {
		return 0, err
	}
	_, err = io.ReadFull(c, make([]byte, answerSize))
	return time.Since(begun), err
}

// requests asks every so often on one connection until ctx ends, and returns how long each took. One that gets no answer counts with
// the time that it waited.
func (p *path) requests(ctx context.Context, every time.Duration) (list []time.Duration, err error) {
	c, err := p.dial(20 * time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write([]byte{askRequest, 8: 0}); err != nil {
		return nil, err
	}
	if _, err := ask(c, 20*time.Second); err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		begun := time.Now()
		d, err := ask(c, 30*time.Second)
		if err != nil {
			return append(list, time.Since(begun)), fmt.Errorf("%s: request: %w", p.name, err)
		}
		list = append(list, d)
		select {
		case <-ctx.Done():
		case <-time.After(every - d):
		}
	}
	return list, nil
}

// percentile returns the value below which the share q of list lies, in milliseconds.
func percentile(list []time.Duration, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return float64(list[min(int(q*float64(len(list))), len(list)-1)]) / 1e6
}
