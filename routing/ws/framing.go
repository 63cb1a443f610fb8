package ws

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"sallyport/dataplane"
)

// Framing is dataplane's Framing of one WebSocket connection.
type Framing struct {
	accepts *Accepts // of a server until the handshake is done; nil then, and at a client
	front   *front   // of a server that a trusted proxy has connected to, until the handshake is done
	client  bool
	max     int

	message []byte // the payload so far of a message that comes in several frames; nil between messages
	within  bool   // such a message has begun
	stream  uint64 // bytes that its frames took
	closed  bool   // a Close frame was sent

	keys   [256]byte // random bytes for keys of frames, of which the last unused are left
	unused int
}

// ErrProtocol ends a connection whose peer does not keep to RFC 6455.
var ErrProtocol = errors.New("websocket: the peer violates the protocol")

// NewClient makes the framing of a client whose handshake is done. Messages of up to max bytes are taken.
func NewClient(max int) *Framing { return &Framing{client: true, max: max} }

// NewServer makes the framing of a server that waits for the request.
func NewServer(a Accepts, max int) *Framing { return &Framing{accepts: &a, max: max} }

// Begin implements dataplane.Framing: the client has spoken first.
func (f *Framing) Begin() []byte { return nil }

// Begun implements dataplane.Framing.
func (f *Framing) Begun() bool { return f.accepts == nil }

// Kept implements dataplane.Framing.
func (f *Framing) Kept() (uint64, int) { return f.stream, cap(f.message) }

// Head implements dataplane.Framing.
func (f *Framing) Head(size int) int { return headLen(size, f.client) }

// Seal implements dataplane.Framing.
func (f *Framing) Seal(frame []byte, head int) {
	at := putHead(frame, opBinary, len(frame)-head, f.client)
	if f.client {
		key := f.key()
		copy(frame[at:], key[:])
		mask(frame[head:], key)
	}
}

// key returns a key that nobody can foretell (RFC 6455 section 5.3).
func (f *Framing) key() (key [4]byte) {
	if f.unused == 0 {
		_, _ = rand.Read(f.keys[:]) // never fails (crypto/rand)
		f.unused = len(f.keys)
	}
	f.unused -= 4
	copy(key[:], f.keys[f.unused:])
	return key
}

// control makes a control frame.
func (f *Framing) control(opcode byte, payload []byte) []byte {
	head := headLen(len(payload), f.client)
	b := append(make([]byte, head, head+len(payload)), payload...)
	at := putHead(b, opcode, len(payload), f.client)
	if f.client {
		key := f.key()
		copy(b[at:], key[:])
		mask(b[head:], key)
	}
	return b
}

// Ping returns a frame that the peer answers.
func (f *Framing) Ping() []byte { return f.control(opPing, nil) }

// End implements dataplane.Framing.
func (f *Framing) End(why error) []byte {
	switch {
	case f.accepts != nil || f.closed:
		return nil
	case why != nil:
		return f.bye(statusProtocol)
	}
	return f.bye(statusNormal)
}

// bye makes a Close frame.
func (f *Framing) bye(status uint16) []byte {
	f.closed = true
	return f.control(opClose, binary.BigEndian.AppendUint16(nil, status))
}

// refuse ends the connection for what the peer did. Nothing follows a Close frame (RFC 6455 section 5.5.1).
func (f *Framing) refuse(status uint16, err error) (dataplane.Piece, error) {
	if f.closed {
		return dataplane.Piece{}, err
	}
	return dataplane.Piece{Reply: f.bye(status)}, err
}

func (f *Framing) violates(what string) (dataplane.Piece, error) {
	return f.refuse(statusProtocol, fmt.Errorf("%w: %s", ErrProtocol, what))
}

// Next implements dataplane.Framing.
func (f *Framing) Next(b []byte) (p dataplane.Piece, err error) {
	if f.accepts != nil {
		request, used, reply, err := f.accepts.answer(b)
		if err == nil && used > 0 {
			if f.front != nil && !f.front.admits(&request) {
				return dataplane.Piece{Reply: refusal("503 Service Unavailable", "", "")}, ErrRefused
			}
			f.accepts, f.front = nil, nil
		}
		return dataplane.Piece{Used: used, Need: min(len(b)+1, MaxHeader), Reply: reply}, err
	}
	h, need := parseHead(b)
	if need > 0 {
		return dataplane.Piece{Need: need}, nil
	}
	op := h.opcode()
	switch {
	case h.first&reserved != 0:
		return f.violates("a reserved bit is set")
	case h.masked == f.client:
		return f.violates("frames of clients are masked, and no others")
	case op >= opClose && (!h.fin() || h.size > maxControl):
		return f.violates("a control frame is in pieces or too long")
	case h.size > uint64(f.max-len(f.message)):
		return f.refuse(statusTooLarge, fmt.Errorf("%w: %d bytes and more, must be 1 to %d", dataplane.ErrFrameSize, uint64(len(f.message))+h.size, f.max))
	}
	end := h.length + int(h.size)
	if len(b) < end {
		return dataplane.Piece{Need: end}, nil
	}
	payload := b[h.length:end]
	if h.masked {
		mask(payload, h.key)
	}
	p.Used = end
	switch op {
	case opBinary:
		if f.within {
			return f.violates("a message begins within another")
		}
		if h.fin() {
			if h.size == 0 {
				return f.empty()
			}
			p.Start, p.End = h.length, end
			return p, nil
		}
		f.within = true
		f.append(payload, end)
	case opContinuation:
		if !f.within {
			return f.violates("a message goes on that has not begun")
		}
		f.append(payload, end)
		if h.fin() {
			message := f.message
			f.message, f.within, f.stream = nil, false, 0
			if len(message) == 0 {
				return f.empty()
			}
			p.Buf, p.End = message, len(message)
		}
	case opPing:
		if !f.closed {
			p.Reply = f.control(opPong, payload)
		}
	case opPong:
	case opClose:
		status := uint16(statusNormal)
		if len(payload) > 0 {
			if len(payload) == 1 || !sendable(binary.BigEndian.Uint16(payload)) {
				return f.violates("a Close frame has no valid status")
			}
			if !utf8.Valid(payload[2:]) {
				return f.refuse(statusInvalid, fmt.Errorf("%w: the reason of a Close frame is no UTF-8", ErrProtocol))
			}
			status = binary.BigEndian.Uint16(payload)
		}
		if !f.closed {
			p.Reply = f.bye(status)
		}
		return p, io.EOF
	case opText:
		return f.refuse(statusUnsupported, fmt.Errorf("%w: a text message", ErrProtocol))
	default:
		return f.violates("an unknown opcode")
	}
	return p, nil
}

// sendable reports whether a status may stand in a Close frame: one of those registered that are not for local use, of a library or of an application.
func sendable(status uint16) bool {
	switch {
	case status >= 1004 && status <= 1006:
		return false
	case status >= 1000 && status <= 1014:
		return true
	}
	return status >= 3000 && status <= 4999
}

func (f *Framing) empty() (dataplane.Piece, error) {
	return f.refuse(statusUnsupported, fmt.Errorf("%w: an empty message", dataplane.ErrFrameSize))
}

// append adds a piece to the message. Memory is taken for what has come.
func (f *Framing) append(payload []byte, took int) {
	f.stream += uint64(took)
	f.message = append(f.message, payload...)
}
