package dataplane

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TLS on a loop is crypto/tls over a socket that never blocks. The handshake runs on a goroutine, as it waits and computes; then the
// connection comes to the loop, and each of its reads and writes is a step that ends when the socket has nothing, or takes nothing, now.
// Output gathers in the clear and is sealed at the end of the turn, or when a few records are full, so that small frames share a record.

// sealAt is how much gathers before it is sealed: four records of the largest size.
const sealAt = 64 << 10

// Socket is the socket below TLS. crypto/tls uses it on a goroutine as the net.Conn that it is, until the connection is given to a loop.
type Socket struct {
	net.Conn
	conn *Conn // on a loop; nil before
}

// NewSocket returns what the handshake is to run over. c must have a descriptor of a stream socket, or be TLS over a Socket.
func NewSocket(c net.Conn) *Socket { return &Socket{Conn: c} }

// errNotNow tells crypto/tls that a read can be repeated.
type errNotNow struct{}

func (errNotNow) Error() string   { return ErrAgain.Error() }
func (errNotNow) Timeout() bool   { return true }
func (errNotNow) Temporary() bool { return true }

// Read implements net.Conn.
func (s *Socket) Read(p []byte) (int, error) {
	c := s.conn
	if c == nil {
		return s.Conn.Read(p)
	}
	n, errno := rawRead(c.fd, p)
	for errno == unix.EINTR {
		n, errno = rawRead(c.fd, p)
	}
	switch {
	case errno == unix.EAGAIN:
		return 0, errNotNow{}
	case errno != 0:
		return 0, asError("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn. On a loop it never blocks: what it is given is output of the connection.
func (s *Socket) Write(p []byte) (int, error) {
	if s.conn == nil {
		return s.Conn.Write(p)
	}
	if s.conn.closed {
		return 0, ErrConnClosed
	}
	s.conn.write(p)
	return len(p), nil
}

// Close implements net.Conn. On a loop the connection closes the socket.
func (s *Socket) Close() error {
	if s.conn == nil {
		return s.Conn.Close()
	}
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.conn == nil {
		return s.Conn.SetWriteDeadline(t)
	}
	return nil
}

// AdoptNet takes over a connected socket of package net, which is closed there, also on error. c is the socket, or TLS over a Socket
// whose handshake is done and on which nobody works any more. The socket below that may be such TLS in turn: only the lowest is the loop's.
func (l *Loop) AdoptNet(c net.Conn, h Handler) (*Conn, error) {
	session, _ := c.(*tls.Conn)
	var below *Socket
	socket := c
	for t := session; t != nil; t, _ = socket.(*tls.Conn) {
		var ok bool
		if below, ok = t.NetConn().(*Socket); !ok {
			_ = t.NetConn().Close()
			return nil, fmt.Errorf("TLS over %T", t.NetConn())
		}
		socket = below.Conn
	}
	fd, err := takeDescriptor(socket)
	if err != nil {
		return nil, err
	}
	if !l.mayUse(fd) {
		rawClose(fd)
		return nil, ErrNoDescriptor
	}
	conn, err := l.Adopt(fd, h)
	if err != nil {
		return nil, err
	}
	conn.readable = true // an event may have been told to the poller of package net only, or TLS has input already
	if session != nil {
		below.conn, conn.tls = conn, session
	}
	conn.offer() // at the end of the turn; by then there is a handler
	return conn, nil
}

// takeDescriptor returns a descriptor of the socket of c, which it closes.
func takeDescriptor(c net.Conn) (int, error) {
	defer c.Close()
	s, ok := c.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("%T has no descriptor", c)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, dup := -1, error(nil)
	if err := raw.Control(func(own uintptr) {
		fd, dup = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) // of the same open file: it does not block either
	}); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("dup", dup)
}

// readTLS is Read through TLS: as much as there is and p takes.
func (c *Conn) readTLS(p []byte) (n int, err error) {
	for n < len(p) {
		k, err := c.tls.Read(p[n:])
		if n += k; err == nil {
			continue
		}
		if _, again := err.(errNotNow); again {
			c.readable = false // the kernel has no more, so the next byte raises a new edge
			if n > 0 {
				return n, nil
			}
			return 0, ErrAgain
		}
		if n > 0 {
			return n, nil // the next call returns the error again
		}
		c.readable = false
		if errors.Is(err, io.EOF) {
			c.eof = true
			return 0, io.EOF
		}
		return 0, fmt.Errorf("TLS: %w", err)
	}
	return n, nil
}

// reservePlain is Reserve for what TLS seals.
func (c *Conn) reservePlain(n int) []byte {
	if p := c.plain; p != nil && len(p.buf)-p.w < n {
		c.seal()
	}
	if c.plain == nil {
		c.plain = c.loop.pool.get(max(n, min(2*c.outBytes, sealAt)))
	}
	return c.plain.buf[c.plain.w : c.plain.w+n]
}

// commitPlain is Commit for what TLS seals.
func (c *Conn) commitPlain(n int) {
	if c.plain.w += n; c.plain.pending() >= sealAt && !c.seal() {
		return
	}
	if c.outBytes >= flushAt && !c.blocked && c.connect == nil {
		c.flush()
		return
	}
	c.markDirty()
}

func (c *Conn) writePlain(p []byte) {
	for len(p) > 0 && !c.closed {
		n := min(len(p), sealAt)
		copy(c.reservePlain(n), p[:n])
		c.commitPlain(n)
		p = p[n:]
	}
}

// seal makes records of what has gathered. It reports false when that has failed and the connection is closed.
func (c *Conn) seal() bool {
	p := c.plain
	if p == nil {
		return true
	}
	c.plain = nil
	_, err := c.tls.Write(p.buf[p.r:p.w])
	c.loop.pool.put(p)
	if err != nil && !c.closed {
		c.finish(fmt.Errorf("TLS: %w", err))
	}
	return !c.closed
}

// endTLS tells the peer that nothing follows what was written.
func (c *Conn) endTLS() {
	if c.tls != nil && c.seal() {
		_ = c.tls.CloseWrite() // fails only where a write has failed
	}
}
