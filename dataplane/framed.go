package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

var (
	// ErrPreamble reports that the peer did not begin with the expected byte.
	ErrPreamble = errors.New("dataplane: peer speaks another version of the transport")
	// ErrFrameSize reports a frame of length zero or above the limit.
	ErrFrameSize = errors.New("dataplane: frame length out of bounds")
)

// keepPartial is the size up to which the beginning of an unfinished frame is moved to a block of its own size, and back into the
// loop's buffer for the next read; above it the connection keeps reading into the block where the frame already is.
const keepPartial = 64 << 10

const (
	// turnTime is how long one connection's frames are handled before others have their turn: 512 KiB may be thousands of small messages
	// that each cost much, such as first messages of handshakes.
	turnTime = 2 * time.Millisecond
	// framesUnwatched is after how many frames the clock is looked at.
	framesUnwatched = 16
)

// FrameHandler is called by a Framed connection on its loop.
type FrameHandler interface {
	// OnFrame gets one frame: buf[start:end] without its length. The frame and the four bytes before it, its length, may be
	// overwritten; they are borrowed until OnFrame returns, but what was given to WriteBorrowed is not to be touched. An error
	// closes the connection.
	OnFrame(buf []byte, start, end int) error
	// OnDrain is Handler.OnDrain.
	OnDrain()
	// OnClose is called once, last. err is nil when the peer ended the connection between two frames.
	OnClose(err error)
}

// Framed reads frames from a connection: first one preamble byte, then u32 big-endian length and that many bytes, again
// and again (docs/protocol/01 §2.1, §2.2). Every length is checked before memory is taken for it.
type Framed struct {
	*Conn
	handler  FrameHandler
	preamble byte
	maxFrame int
	begun    bool   // preamble read
	backlog  bool   // part begins with frames that were not handed out for want of time
	part     *chunk // unfinished input, buf[r:w]; nil when there is none
	err      error

	frameTime time.Duration // see Deadlines.Frame
	late      *Timer        // for the preamble, then while there is a part
	got       uint64        // bytes read, ever
	before    progress      // when late last ran
}

// NewFramed makes c a framed connection. It sends the preamble at once, without waiting for the peer's.
func NewFramed(c *Conn, preamble byte, maxFrame int, h FrameHandler) *Framed {
	f := &Framed{Conn: c, handler: h, preamble: preamble, maxFrame: maxFrame}
	c.SetHandler((*framedConn)(f))
	c.Write([]byte{preamble})
	return f
}

// framedConn is Framed in its part as the connection's Handler.
type framedConn Framed

func (f *framedConn) OnDrain(*Conn) { f.handler.OnDrain() }

func (f *framedConn) OnClose(_ *Conn, err error) {
	f.late.Stop()
	if p := f.part; p != nil {
		f.hold(nil)
		if f.loop.input == nil { // else parts of it may be lent
			f.loop.pool.put(p)
		}
	}
	if f.err != nil {
		err = f.err
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	f.handler.OnClose(err)
}

// OnReadable reads a few buffers full, so that one fast peer does not keep the loop from the others.
func (f *framedConn) OnReadable(*Conn) {
	began := time.Now()
	for range 2 {
		buf, have := f.input()
		n, err := 0, error(nil)
		if f.backlog {
			f.backlog = false
		} else if n, err = f.Read(buf[have:]); err != nil {
			f.release(buf, have)
			if err != ErrAgain {
				f.fail(err)
			}
			return
		}
		f.loop.handOut(buf[:have+n])
		used, err := f.frames(buf[:have+n], began)
		f.loop.settle()
		if f.closed {
			return
		}
		if err != nil {
			f.fail(err)
			return
		}
		f.got += uint64(n)
		f.keep(buf, used, have+n)
		if f.backlog {
			f.readable = true // so that it is asked again, after the others
			return
		}
		if f.part != nil && !f.unfinished() || !f.readable || f.paused {
			return
		}
	}
}

// input returns where to read: a buffer whose first have bytes are the unfinished frame.
func (f *framedConn) input() (buf []byte, have int) {
	if f.part == nil {
		return f.loop.ReadBuffer(), 0
	}
	p := f.part
	have = p.pending()
	if have <= keepPartial {
		buf = f.loop.ReadBuffer()
		copy(buf, p.buf[p.r:p.w])
		f.hold(nil)
		f.loop.pool.put(p)
		return buf, have
	}
	if p.r > 0 { // make room by moving the beginning of one frame to the front
		copy(p.buf, p.buf[p.r:p.w])
		p.r, p.w = 0, have
	}
	if need := f.need(p.buf[:have]); need > len(p.buf) && have > len(p.buf)/2 {
		// The peer says how long the frame is; memory is taken for what it has sent.
		bigger := f.loop.pool.get(min(need, 2*len(p.buf)))
		copy(bigger.buf, p.buf[:have])
		bigger.w = have
		f.hold(bigger)
		f.loop.pool.put(p)
	}
	return f.part.buf, have
}

// need returns the length of the frame that begins b with its prefix, as far as it is known. The length was checked.
func (f *framedConn) need(b []byte) int {
	if len(b) < 4 {
		return 4
	}
	return 4 + int(binary.BigEndian.Uint32(b))
}

// release is called when nothing was read: what was there stays for the next time.
func (f *framedConn) release(buf []byte, have int) {
	if have > 0 && f.part == nil {
		f.keep(buf, 0, have)
	}
}

// frames hands out every whole frame in b and returns how many bytes they and the preamble took.
// When its time is used up it sets backlog and leaves the rest for the next turn.
func (f *framedConn) frames(b []byte, began time.Time) (used int, err error) {
	if !f.begun {
		if b[0] != f.preamble {
			return 0, fmt.Errorf("%w: began with %#02x instead of %#02x", ErrPreamble, b[0], f.preamble)
		}
		f.begun = true
		used = 1
	}
	for count := 1; len(b)-used >= 4; count++ {
		if count%framesUnwatched == 0 && time.Since(began) > turnTime {
			f.backlog = true
			return used, nil
		}
		size := int(binary.BigEndian.Uint32(b[used:]))
		if size == 0 || size > f.maxFrame {
			return used, fmt.Errorf("%w: %d bytes, must be 1 to %d", ErrFrameSize, size, f.maxFrame)
		}
		start := used + 4
		if len(b)-start < size {
			break
		}
		used = start + size
		if err := f.handler.OnFrame(b, start, used); err != nil || f.closed {
			return used, err
		}
	}
	return used, nil
}

// keep remembers buf[used:filled], the beginning of a frame, for the next read.
func (f *framedConn) keep(buf []byte, used, filled int) {
	left := filled - used
	if p := f.part; p != nil { // buf is p's
		p.r, p.w = used, filled
		if left == 0 {
			f.hold(nil)
			f.loop.pool.put(p)
		}
		return
	}
	if left == 0 {
		return
	}
	if left <= keepPartial {
		p := f.loop.pool.get(left)
		p.w = copy(p.buf, buf[used:filled])
		f.hold(p)
		return
	}
	// The loop's buffer becomes this connection's block, and a free block of the same size the loop's buffer.
	p := f.loop.pool.get(readBufferSize)
	p.buf, f.loop.readBuf = buf, p.buf
	p.r, p.w = used, filled
	f.hold(p)
}

// hold makes p the connection's part, and accounts for the memory.
func (f *framedConn) hold(p *chunk) {
	change := 0
	if f.part != nil {
		change -= len(f.part.buf)
	}
	if f.part = p; p != nil {
		change += len(p.buf)
	}
	f.loop.uses.unfinished.Add(int64(change))
}

func (f *framedConn) fail(err error) {
	if err == io.EOF && f.part != nil {
		err = fmt.Errorf("within a frame: %w", io.ErrUnexpectedEOF)
	}
	f.err = err
	if err == io.EOF {
		f.err = nil
	}
	f.finish(err)
}
