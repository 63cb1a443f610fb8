package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/internal/freeport"
)

// line carries TCP connections to another address, slowly if it is told so, and lets somebody see or change the bytes.
type line struct {
	ln   net.Listener
	to   string
	rate atomic.Int64 // bytes a second in each direction of all connections together, 0 for as fast as it goes
	// pass, if set, is given what comes and returns what goes on; nil ends the connection. back tells the direction. It is called by one
	// goroutine for each direction of each connection.
	pass func(conn int, back bool, b []byte) []byte

	mu    sync.Mutex
	conns []net.Conn
	due   [2]time.Time // when what was carried so far has gone out
	count int
}

func newLine(to string) (*line, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &line{ln: ln, to: to}, nil
}

// start begins to carry.
func (l *line) start() {
	go func() {
		for {
			a, err := l.ln.Accept()
			if err != nil {
				return
			}
			b, err := net.DialTimeout("tcp", l.to, 5*time.Second)
			if err != nil {
				a.Close()
				continue
			}
			if l.rate.Load() > 0 { // a slow line holds little; what waits does so at its ends
				for _, c := range []net.Conn{a, b} {
					_ = c.(*net.TCPConn).SetReadBuffer(16 << 10)
					_ = c.(*net.TCPConn).SetWriteBuffer(16 << 10)
				}
			}
			l.mu.Lock()
			l.conns = append(l.conns, a, b)
			n := l.count
			l.count++
			l.mu.Unlock()
			go l.carry(n, a, b, false)
			go l.carry(n, b, a, true)
		}
	}()
}

func (l *line) carry(n int, from, to net.Conn, back bool) {
	defer from.Close()
	defer to.Close()
	size := 64 << 10
	if l.rate.Load() > 0 {
		size = 4 << 10
	}
	buf := make([]byte, size)
	for {
		k, err := from.Read(buf)
		if k > 0 {
			b := buf[:k]
			if l.pass != nil {
				if b = l.pass(n, back, b); b == nil {
					return
				}
			}
			l.wait(back, len(b))
			if _, err := to.Write(b); err != nil {
				return
			}
		}
		if err == io.EOF {
			_ = to.(*net.TCPConn).CloseWrite()
		}
		if err != nil {
			return
		}
	}
}

// wait lasts until n more bytes may go out.
func (l *line) wait(back bool, n int) {
	rate := l.rate.Load()
	if rate == 0 {
		return
	}
	i := 0
	if back {
		i = 1
	}
	l.mu.Lock()
	if now := time.Now(); l.due[i].Before(now) {
		l.due[i] = now
	}
	l.due[i] = l.due[i].Add(time.Duration(n) * time.Second / time.Duration(rate))
	due := l.due[i]
	l.mu.Unlock()
	time.Sleep(time.Until(due))
}

func (l *line) port() string {
	_, port, _ := net.SplitHostPort(l.ln.Addr().String())
	return port
}

func (l *line) close() {
	_ = l.ln.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
}

// beyond makes a node that reaches the relay through a line, with an inlet to the bank's db that carries data, and returns the inlet's address.
// remove ends the node.
func (s *stage) beyond(ctx context.Context, l *line) (at string, remove func(), err error) {
	if err := s.newNode(ctx, "far"); err != nil {
		return "", nil, err
	}
	remove = func() { s.removeNode(ctx, "far") }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	port, err := freeport.Get()
	if err != nil {
		return "", nil, err
	}
	at = fmt.Sprint("127.0.0.1:", port)
	if _, err := s.cli(ctx, "far", "tcp-inlet", "create", "--at", "far", "--from", at, "--to",
		"/dnsaddr/127.0.0.1/tcp/"+l.port()+"/secure/api/service/forward_to_db/secure/api/service/db"); err != nil {
		return "", nil, err
	}
	return at, remove, s.await(ctx, "an inlet carries data through the line", func() error { return once(at) })
}
