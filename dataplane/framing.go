package dataplane

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var (
	// ErrPreamble reports that the peer did not begin with the expected byte.
	ErrPreamble = errors.New("dataplane: peer speaks another version of the transport")
	// ErrFrameSize reports a frame of length zero or above the limit.
	ErrFrameSize = errors.New("dataplane: frame length out of bounds")
)

// Framing is how frames lie in the stream of one Framed connection. It has no socket, and is used on the connection's loop only.
type Framing interface {
	// Begin returns what is sent first; nil for nothing.
	Begin() []byte
	// Begun reports whether the peer has said what it speaks.
	Begun() bool
	// Next looks at the beginning of b, input that nobody has looked at, and says what it is. It changes b only where the piece is whole.
	// An error ends the connection, io.EOF as an end that the peer has announced: at once, or after the piece's Reply if it has one.
	Next(b []byte) (Piece, error)
	// Kept returns what the framing has of a frame that came in several pieces and is not whole: how many bytes of the stream that
	// was, and how much memory it takes.
	Kept() (stream uint64, memory int)
	// Head returns how long the head of a frame with a body of size bytes is that is sent.
	Head(size int) int
	// Seal writes the head of a frame whose body is frame[head:], and makes of the body what is sent.
	Seal(frame []byte, head int)
	// End returns what is sent last when this side closes, because of what was in a frame if why is not nil; nil for nothing.
	End(why error) []byte
}

// Piece is the beginning of the input, as a Framing sees it.
type Piece struct {
	// Used is how long the piece is; 0 if it is not whole. Then Need is how long it will be at least, of which the size was checked.
	Used, Need int
	// End is 0 for a piece that brings no frame. Else Buf[Start:End] is one, and Buf[Low:Start] may be overwritten too. A nil Buf is the input.
	Buf             []byte
	Low, Start, End int
	// Reply is to be sent, unless too much waits already. It is copied before the next call.
	Reply []byte
}

// Lengths is the Framing of the TCP transport: one preamble byte, then u32 big-endian length and that many bytes, again and again
// (docs/protocol/01 §2.1, §2.2).
type Lengths struct {
	preamble byte
	max      int
	begun    bool
}

// NewLengths makes the framing of one connection; frames of up to max bytes are taken.
func NewLengths(preamble byte, max int) *Lengths { return &Lengths{preamble: preamble, max: max} }

// Begin implements Framing.
func (l *Lengths) Begin() []byte { return []byte{l.preamble} }

// Begun implements Framing.
func (l *Lengths) Begun() bool { return l.begun }

// Next implements Framing.
func (l *Lengths) Next(b []byte) (Piece, error) {
	if !l.begun {
		if b[0] != l.preamble {
			return Piece{}, fmt.Errorf("%w: began with %#02x instead of %#02x", ErrPreamble, b[0], l.preamble)
		}
		l.begun = true
		return Piece{Used: 1}, nil
	}
	if len(b) < 4 {
		return Piece{Need: 4}, nil
	}
	size := int(binary.BigEndian.Uint32(b))
	if size <= 0 || size > l.max {
		return Piece{}, fmt.Errorf("%w: %d bytes, must be 1 to %d", ErrFrameSize, size, l.max)
	}
	if len(b) < 4+size {
		return Piece{Need: 4 + size}, nil
	}
	return Piece{Used: 4 + size, Start: 4, End: 4 + size}, nil
}

// Kept implements Framing: a frame is one piece.
func (l *Lengths) Kept() (uint64, int) { return 0, 0 }

// Head implements Framing.
func (l *Lengths) Head(int) int { return 4 }

// Seal implements Framing.
func (l *Lengths) Seal(frame []byte, head int) {
	binary.BigEndian.PutUint32(frame, uint32(len(frame)-head))
}

// End implements Framing.
func (l *Lengths) End(error) []byte { return nil }
