package dataplane

import (
	"errors"
	"fmt"
	"io"
	"time"
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
	// OnFrame gets one frame: buf[start:end] without its head. buf[low:end], the frame and its head, may be overwritten; they are
	// borrowed until OnFrame returns, but what was given to WriteBorrowed is not to be touched. An error closes the connection.
	OnFrame(buf []byte, low, start, end int) error
	// OnDrain is Handler.OnDrain.
	OnDrain()
	// OnClose is called once, last. err is nil when the peer ended the connection between two frames.
	OnClose(err error)
}

// Framed reads frames from a connection and writes frames to it. How they lie in the stream is its Framing's. Every length is checked
// before memory is taken for it.
type Framed struct {
	*Conn
	handler  FrameHandler
	framing  Framing
	begun    bool   // the peer has said what it speaks
	backlog  bool   // part begins with frames that were not handed out for want of time, or that nobody has looked at
	part     *chunk // unfinished input, buf[r:w]; nil when there is none
	need     int    // how long the input must be that begins with part
	kept     int    // memory that the framing has of an unfinished frame
	reserved []byte // the frame of ReserveFrame, with its head
	err      error

	frameTime time.Duration // see Deadlines.Frame
	late      *Timer        // until the peer has begun, then while there is an unfinished frame
	got       uint64        // bytes read, ever
	before    progress      // when late last ran
}

// NewFramed makes c a framed connection. It sends what the framing begins with at once, without waiting for the peer's. early is input that
// was read from the socket before; it is copied.
func NewFramed(c *Conn, framing Framing, h FrameHandler, early []byte) *Framed {
	f := &Framed{Conn: c, handler: h, framing: framing}
	f.begun = framing.Begun()
	c.SetHandler((*framedConn)(f))
	c.Write(framing.Begin())
	if len(early) > 0 {
		p := c.loop.pool.get(len(early))
		p.w = copy(p.buf, early)
		(*framedConn)(f).hold(p)
		f.got, f.backlog, c.readable = uint64(len(early)), true, true
		c.offer()
	}
	return f
}

// Received returns how many bytes have come from the peer.
func (f *Framed) Received() uint64 { return f.got }

// ReserveFrame returns size contiguous bytes of the output for the body of a frame, as Conn.Reserve does; CommitFrame takes them over.
func (f *Framed) ReserveFrame(size int) []byte {
	head := f.framing.Head(size)
	f.reserved = f.Reserve(head + size)
	return f.reserved[head:]
}

// CommitFrame appends the frame of the last ReserveFrame to the output, and returns its length with its head.
func (f *Framed) CommitFrame(size int) int {
	frame := f.reserved
	f.reserved = nil
	if f.closed {
		return len(frame)
	}
	f.framing.Seal(frame, len(frame)-size)
	f.Commit(len(frame))
	return len(frame)
}

// Close is Conn.Close after the framing's last words.
func (f *Framed) Close() {
	if !f.closed && !f.IsClosing() {
		f.Write(f.framing.End(nil))
	}
	f.Conn.Close()
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
	f.loop.uses.unfinished.Add(int64(-f.kept))
	f.kept = 0
	if f.err == errEnded {
		err = nil
	} else if f.err != nil {
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
		f.got += uint64(n)
		used, err := f.frames(buf[:have+n], began)
		f.loop.settle()
		if f.closed {
			return
		}
		if err != nil {
			f.fail(err)
			return
		}
		f.account()
		f.keep(buf, used, have+n)
		if f.shutting == lingering {
			return // the last word was said
		}
		if f.backlog {
			f.readable = true // so that it is asked again, after the others
			return
		}
		if f.partial() && !f.unfinished() || !f.readable || f.paused {
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
	if need := f.need; need > len(p.buf) && have > len(p.buf)/2 {
		// The peer says how long the frame is; memory is taken for what it has sent.
		bigger := f.loop.pool.get(min(need, 2*len(p.buf)))
		copy(bigger.buf, p.buf[:have])
		bigger.w = have
		f.hold(bigger)
		f.loop.pool.put(p)
	}
	return f.part.buf, have
}

// release is called when nothing was read: what was there stays for the next time.
func (f *framedConn) release(buf []byte, have int) {
	if have > 0 && f.part == nil {
		f.keep(buf, 0, have)
	}
}

// frames hands out every whole frame in b and returns how many bytes they took.
// When its time is used up it sets backlog and leaves the rest for the next turn.
func (f *framedConn) frames(b []byte, began time.Time) (used int, err error) {
	for count := 1; used < len(b); count++ {
		if count%framesUnwatched == 0 && time.Since(began) > turnTime {
			f.backlog = true
			return used, nil
		}
		p, err := f.framing.Next(b[used:])
		if err != nil && (len(p.Reply) > 0 || err == io.EOF) {
			f.say(p.Reply, err)
			return len(b), nil
		} else if err != nil {
			return used, err
		}
		if len(p.Reply) > 0 && f.Pending() < mostReplies {
			f.Write(p.Reply)
		}
		if !f.begun {
			f.begun = f.framing.Begun()
		}
		if p.Used == 0 {
			f.need = p.Need
			break
		}
		from := b[used:]
		used += p.Used
		if p.End == 0 {
			continue
		}
		if p.Buf != nil {
			from = p.Buf
		}
		err = f.handler.OnFrame(from, p.Low, p.Start, p.End)
		if err != nil && !f.closed {
			if word := f.framing.End(err); len(word) > 0 {
				f.say(word, err)
				return len(b), nil
			}
		}
		if err != nil || f.closed {
			return used, err
		}
	}
	return used, nil
}

// mostReplies is how much may wait to be sent before the framing's replies are left out: a peer that asks and does not read costs no memory.
const mostReplies = 64 << 10

// say ends the connection after what was written to it and a last word.
func (f *framedConn) say(word []byte, err error) {
	f.Write(word)
	if f.err = err; err == io.EOF {
		f.err = errEnded
	}
	f.Conn.Close()
}

// errEnded stands for an end that the peer has announced.
var errEnded = errors.New("dataplane: ended")

// account notes what the framing keeps of an unfinished frame.
func (f *framedConn) account() {
	_, memory := f.framing.Kept()
	f.loop.uses.unfinished.Add(int64(memory - f.kept))
	f.kept = memory
}

// partial reports whether a frame has begun that is not whole.
func (f *framedConn) partial() bool { return f.part != nil || f.kept > 0 }

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
	if err == io.EOF && f.partial() {
		err = fmt.Errorf("within a frame: %w", io.ErrUnexpectedEOF)
	}
	f.err = err
	if err == io.EOF {
		f.err = nil
	}
	f.finish(err)
}
