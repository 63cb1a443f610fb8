package dataplane

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxIovecs bounds one writev. 64 large chunks are 16 MiB, more than any socket buffer takes.
	maxIovecs = 64
	// borrowedDirect is the size from which WriteBorrowed writes at once instead of copying: below it a system call
	// costs more than the copy (about 1 us against 0.1 us per KiB), and copies coalesce.
	borrowedDirect = 16 << 10
	// flushAt is how much output goes out at once instead of at the end of the turn: a few large frames stay in the cache
	// between their encryption and the kernel's copy.
	flushAt = 384 << 10
	// lingerTimeout is how long Close waits, when the kernel has taken all, for the peer to close its side.
	lingerTimeout = 5 * time.Second
	// drainTimeout is how long Close waits for a peer that takes nothing of what is still to be sent.
	drainTimeout = 5 * time.Minute
)

// MaxReadBlocks bounds one ReadBlocks.
const MaxReadBlocks = 8

var (
	// ErrAgain is returned by Conn.Read when nothing is there to read now.
	ErrAgain = errors.New("dataplane: no input now")
	// ErrConnClosed is what OnClose gets when this side closed the connection.
	ErrConnClosed = errors.New("dataplane: connection closed")
)

// Handler is called by a Conn, always on the Conn's loop.
type Handler interface {
	// OnReadable is called when input may be waiting. It calls Conn.Read until ErrAgain, or less: what it leaves is
	// offered again in the next turn, after other connections had theirs.
	OnReadable(c *Conn)
	// OnDrain is called once after WantDrain, when no more than the given number of bytes is waiting to be sent.
	OnDrain(c *Conn)
	// OnClose is called exactly once, when the descriptor has been closed, and is the last call. err is
	// ErrConnClosed when this side closed it.
	OnClose(c *Conn, err error)
}

// Conn is a non-blocking stream socket (TCP or Unix) on one loop. It is not safe for use on any other goroutine.
type Conn struct {
	loop    *Loop
	handler Handler
	fd      int

	out       []*chunk
	outBytes  int
	lent      [][]byte // output after out, in the loop's input; see WriteBorrowed
	lentBytes int
	lowWater  int // for OnDrain; -1 when not wanted

	readable bool // input, an end or an error may be there
	hup      bool // the kernel reported an end or an error: read until it shows
	paused   bool
	limits   *limits // nil for none
	delayed  bool    // was paused since somebody looked
	eof      bool    // the peer's end was read
	closed   bool
	blocked  bool // the kernel took less than offered; EPOLLOUT will come
	inDirty  bool
	inReady  bool
	shutting closeMode

	tls   *tls.Conn // between the socket and who uses the connection; nil without TLS
	plain *chunk    // output that TLS has not sealed; nil if there is none

	connect func(*Conn, error) // while connecting
	timer   *Timer             // connect or linger
	left    int                // output that waited when the linger timer was set
}

type closeMode uint8

const (
	stayOpen  closeMode = iota
	shutWrite           // send what is queued, then FIN
	shutDone            // FIN sent
	lingering           // Close was called: FIN, then wait for the peer's
)

// Adopt takes over a connected, non-blocking stream socket and registers it. The loop closes fd even on error.
func (l *Loop) Adopt(fd int, h Handler) (*Conn, error) {
	c := &Conn{loop: l, fd: fd, handler: h, lowWater: -1}
	if err := l.register(fd, c); err != nil {
		rawClose(fd)
		return nil, fmt.Errorf("add socket to poller: %w", err)
	}
	return c, nil
}

// Loop returns the loop that owns c.
func (c *Conn) Loop() *Loop { return c.loop }

// SetHandler replaces the handler.
func (c *Conn) SetHandler(h Handler) { c.handler = h }

// Handler returns the handler.
func (c *Conn) Handler() Handler { return c.handler }

// Closed reports whether the descriptor has been closed.
func (c *Conn) Closed() bool { return c.closed }

// Pending returns how many bytes wait to be taken by the kernel.
func (c *Conn) Pending() int {
	n := c.outBytes + c.lentBytes
	if c.plain != nil {
		n += c.plain.pending()
	}
	return n
}

// Unacknowledged returns how many bytes the kernel has taken that the peer's system has not acknowledged.
func (c *Conn) Unacknowledged() int {
	if c.closed {
		return 0
	}
	n, err := unix.IoctlGetInt(c.fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// RoundTrip returns the shortest round trip to the peer's system in the last minutes, 0 where the kernel has none. The smoothed one has the peer's
// delayed acknowledgements in it.
func (c *Conn) RoundTrip() time.Duration {
	if c.closed {
		return 0
	}
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	if info.Min_rtt == 0 || info.Min_rtt == ^uint32(0) {
		return time.Duration(info.Rtt) * time.Microsecond
	}
	return time.Duration(info.Min_rtt) * time.Microsecond
}

// Losses are the segments with data of a TCP connection since it began, as the kernel counts them.
type Losses struct {
	Sent, Again          uint32 // Again: those that were sent again, which are among Sent
	Received, OutOfOrder uint32 // OutOfOrder: those that came before others that belong before them; Linux 5.4
	// RTT is the smoothed round trip lately, with what waits in the line and the peer's delayed acknowledgements, Least the shortest in the last minutes.
	RTT, Least time.Duration
}

// Losses returns what was lost so far; zero where the kernel does not say.
func (c *Conn) Losses() Losses {
	if c.closed {
		return Losses{}
	}
	info, err := unix.GetsockoptTCPInfo(c.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return Losses{}
	}
	return Losses{
		Sent: info.Data_segs_out, Again: info.Total_retrans, Received: info.Data_segs_in, OutOfOrder: info.Rcv_ooopack,
		RTT: time.Duration(info.Rtt) * time.Microsecond, Least: time.Duration(info.Min_rtt) * time.Microsecond,
	}
}

// Pause stops OnReadable. The kernel's receive buffer fills and TCP stops the peer.
func (c *Conn) Pause() { c.paused, c.delayed = true, true }

// Paused reports whether c is paused.
func (c *Conn) Paused() bool { return c.paused }

// Resume undoes Pause; input that came meanwhile is offered at the end of this turn.
func (c *Conn) Resume() {
	if c.paused {
		c.paused = false
		c.offer()
	}
}

// offer queues c for OnReadable at the end of the turn if there may be input.
func (c *Conn) offer() {
	if c.readable && !c.paused && !c.closed && !c.inReady && c.connect == nil && !c.waitsToRead() {
		c.inReady = true
		c.loop.ready = append(c.loop.ready, c)
	}
}

func (c *Conn) onEvents(events uint32) {
	if c.closed {
		return
	}
	if c.connect != nil {
		c.connected()
		return
	}
	// The kernel repeats the peer's end with every other event; it is offered once.
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 && !c.eof {
		c.readable = true
		if events&^(unix.EPOLLIN|unix.EPOLLOUT) != 0 {
			c.hup = true
		}
	}
	if events&unix.EPOLLOUT != 0 && c.blocked {
		c.blocked = false
		c.flush()
	}
	if events&unix.EPOLLERR != 0 && (c.paused || c.eof || c.waitsToRead()) && !c.closed {
		// Nobody will read the error; without this a reset peer would keep a paused connection for ever, or one whose end was
		// read already (the kernel goes on telling of the end, not of the reset).
		if errno := rawSocketError(c.fd); errno != 0 {
			c.finish(asError("read", errno))
			return
		}
	}
	c.readInput()
}

func (c *Conn) readInput() {
	if c.closed || !c.readable || c.paused || c.waitsToRead() {
		return
	}
	if c.shutting == lingering {
		c.discard()
		return
	}
	c.handler.OnReadable(c)
	c.offer()
}

// Read reads once into p. It returns ErrAgain when there is nothing now, and io.EOF when the peer has sent its last byte
// (writing remains possible: half-close). Any other error is final and the caller is expected to call Abort.
func (c *Conn) Read(p []byte) (int, error) {
	if c.closed {
		return 0, ErrConnClosed
	}
	if !c.readable {
		return 0, ErrAgain
	}
	if c.tls != nil {
		return c.readTLS(p)
	}
	if p = p[:c.readRoom(len(p))]; len(p) == 0 && c.waitsToRead() {
		return 0, ErrAgain
	}
	n, errno := rawRead(c.fd, p)
	for errno == unix.EINTR {
		n, errno = rawRead(c.fd, p)
	}
	return c.taken(n, errno, len(p))
}

// ReadBlocks is one Read into p[i*stride+head:][:size] for every i for which p has room, at most MaxReadBlocks: into the blocks of
// a row, each with room around. It returns the bytes read, which fill one block after the other. One call for several blocks costs the
// kernel less than several calls, and it tells the peer once what was taken.
func (c *Conn) ReadBlocks(p []byte, head, size, stride int) (int, error) {
	if c.closed {
		return 0, ErrConnClosed
	}
	if !c.readable {
		return 0, ErrAgain
	}
	var v [MaxReadBlocks]unix.Iovec
	k, most := 0, c.readRoom(math.MaxInt)
	if most == 0 {
		return 0, ErrAgain
	}
	room := 0
	for ; k < MaxReadBlocks && len(p) >= stride && room < most; k++ {
		part := min(size, most-room)
		v[k] = iovec(p[head : head+part])
		room += part
		p = p[stride:]
	}
	n, errno := rawReadv(c.fd, v[:k])
	for errno == unix.EINTR {
		n, errno = rawReadv(c.fd, v[:k])
	}
	return c.taken(n, errno, room)
}

// ReadVector is one Read into the parts of p, of which there are at most MaxReadBlocks, one after the other.
func (c *Conn) ReadVector(p [][]byte) (int, error) {
	if c.closed {
		return 0, ErrConnClosed
	}
	if !c.readable {
		return 0, ErrAgain
	}
	var v [MaxReadBlocks]unix.Iovec
	k, room, most := 0, 0, c.readRoom(math.MaxInt)
	if most == 0 {
		return 0, ErrAgain
	}
	for ; k < min(len(p), MaxReadBlocks) && room < most; k++ {
		part := p[k][:min(len(p[k]), most-room)]
		v[k] = iovec(part)
		room += len(part)
	}
	n, errno := rawReadv(c.fd, v[:k])
	for errno == unix.EINTR {
		n, errno = rawReadv(c.fd, v[:k])
	}
	return c.taken(n, errno, room)
}

// taken makes of the kernel's answer what Read returns, and remembers whether there may be more. room is what it could have taken.
func (c *Conn) taken(n int, errno unix.Errno, room int) (int, error) {
	switch {
	case errno == 0 && n > 0:
		c.moved(n)
		if n < room && !c.hup {
			c.readable = false // a short read: drained; the next byte raises a new edge
		}
		return n, nil
	case errno == 0:
		c.readable, c.eof = false, true
		return 0, io.EOF
	case errno == unix.EAGAIN:
		c.readable = false
		return 0, ErrAgain
	}
	c.readable = false
	return 0, asError("read", errno)
}

// CloseWrite sends FIN after all output: the peer reads an end, and may go on sending.
func (c *Conn) CloseWrite() {
	if c.shutting == stayOpen {
		c.endTLS()
		c.shutting = shutWrite
		c.markDirty()
	}
}

// Close sends all output and FIN, however slowly the peer takes it, then waits up to five seconds for the peer's FIN, throwing away
// what it still sends: closing a socket with unread input would reset it and could destroy what was sent. A peer that takes nothing
// for five minutes is reset. The handler gets OnClose only.
func (c *Conn) Close() {
	if c.closed || c.shutting == lingering {
		return
	}
	if c.connect != nil {
		c.Abort()
		return
	}
	if c.eof && c.Pending() == 0 {
		c.endWell() // sends FIN unless that was done, as nothing is left to be read
		return
	}
	c.endTLS()
	if c.closed {
		return
	}
	c.shutting, c.paused, c.lowWater = lingering, false, -1
	c.left = c.Pending()
	c.timer = c.loop.After(c.loop.drainFor, c.lingered)
	c.markDirty()
	c.offer()
}

// lingered ends a connection that has lingered long enough.
func (c *Conn) lingered() {
	switch {
	case c.Pending() == 0:
		c.endWell()
	case c.outBytes < c.left: // slow, but not stuck
		c.left = c.outBytes
		c.timer.Reset(c.loop.drainFor)
	default:
		c.Abort() // an end would look as if all had been sent
	}
}

// discard reads and forgets input of a connection that is lingering.
func (c *Conn) discard() {
	buf := c.loop.ReadBuffer()
	for range 4 {
		if _, err := c.Read(buf); err == ErrAgain {
			return
		} else if err != nil {
			if c.outBytes == 0 {
				c.endWell()
			} else if err != io.EOF {
				c.finish(ErrConnClosed)
			}
			return
		}
	}
	c.offer()
}

// Abort closes c at once with a reset; output that was not sent is lost.
func (c *Conn) Abort() {
	if c.closed {
		return
	}
	rawResetOnClose(c.fd)
	c.finish(ErrConnClosed)
}

// Reset closes a socket that belongs to no loop; its peer reads a reset. Any goroutine.
func Reset(fd int) {
	rawResetOnClose(fd)
	rawClose(fd)
}

// Detach gives the descriptor up without closing it: c is done with, and the caller owns fd. It is for a connection that was not
// read or written yet; output that waits is lost. OnClose is not called.
func (c *Conn) Detach() (fd int, ok bool) {
	if c.closed || c.connect != nil {
		return -1, false
	}
	c.closed = true
	c.endLimits()
	c.timer.Stop()
	c.dropOutput()
	c.loop.unregister(c.fd)
	c.loop.poller.del(c.fd)
	return c.fd, true
}

// endWell closes a connection of which all was sent, so that its peer reads an end.
func (c *Conn) endWell() {
	if !c.closed {
		rawEndOnClose(c.fd)
	}
	c.finish(ErrConnClosed)
}

// finish closes the descriptor and tells the handler. A socket with ResetOnCrash is reset by it.
func (c *Conn) finish(err error) {
	if c.closed {
		return
	}
	c.closed = true
	c.endLimits()
	c.timer.Stop()
	c.dropOutput()
	c.loop.unregister(c.fd)
	rawClose(c.fd)
	if connect := c.connect; connect != nil {
		c.connect = nil
		connect(nil, err)
		return
	}
	if c.handler != nil {
		c.handler.OnClose(c, err)
	}
}
