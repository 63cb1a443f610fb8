package portal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sallyport/routing/bare"
)

// Kinds of portal messages: the first byte (docs/protocol/03 §1.2). Credit and Finish are of the extension.
const (
	kindPing       = 0x00
	kindPong       = 0x01
	kindDisconnect = 0x02
	kindPayload    = 0x03
	kindCredit     = 0x10
	kindFinish     = 0x11
)

// MaxPayload is the most bytes one Payload carries (docs/protocol/03 §1.2); a receiver takes more.
const MaxPayload = 128 << 10

// maxPayloadHeader is the kind byte and the length of a payload up to MaxPayload.
const maxPayloadHeader = 4

// counterSize is the flag byte and the counter after a numbered payload.
const counterSize = 3

// finishSize is the length of a Finish.
const finishSize = 3

// extensionVersion is the version of the extension offered.
const extensionVersion = 1

// Reason says why a connection was ended; it travels in the extension's Disconnect.
type Reason uint8

// Reasons.
const (
	ReasonNone        Reason = iota // both directions had finished, or the peer does not say
	ReasonRefused                   // the target refused the connection
	ReasonUnreachable               // the target's address cannot be found or reached
	ReasonTimeout                   // the target, or the outlet, did not answer in time
	ReasonReset                     // one of the sockets was reset
	ReasonPolicy                    // a policy or an expired credential
	ReasonGap                       // a payload is missing
	ReasonStalled                   // the reader took nothing for too long
	ReasonOverrun                   // more was sent than the window allows
	ReasonPath                      // the path between the nodes was lost
	ReasonShutdown                  // the portal was deleted or the node stopped
	ReasonProtocol                  // what was sent is not what the portal carries
	reasonCount
)

var reasonText = [reasonCount]string{"closed", "target refused the connection", "target unreachable", "no answer in time",
	"reset", "refused by policy", "payload missing", "reader stalled", "window overrun", "path lost", "portal stopped", "unexpected protocol"}

func (r Reason) String() string {
	if r < reasonCount {
		return reasonText[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// ErrMessage reports bytes that are no portal message.
var ErrMessage = errors.New("portal: malformed message")

// message is a portal message taken apart.
type message struct {
	kind byte
	// from and to bound a payload's data in the bytes parsed.
	from, to  int
	counted   bool
	counter   uint16
	extension uint8  // version, 0 for none (Ping, Pong)
	amount    uint64 // window or credit
	reason    Reason
}

// parse reads one message (docs/protocol/03 §1.2). Data is not copied.
func parse(b []byte) (m message, err error) {
	if len(b) == 0 {
		return m, fmt.Errorf("%w: empty", ErrMessage)
	}
	m.kind = b[0]
	switch m.kind {
	case kindPing, kindPong:
		if len(b) >= 4 && b[1] == 'S' && b[2] == 'P' {
			m.extension = b[3]
			if m.amount, _, err = bare.Uvarint(b[4:]); err != nil {
				return m, fmt.Errorf("%w: window: %w", ErrMessage, err)
			}
		}
	case kindDisconnect:
		if len(b) > 1 {
			m.reason = Reason(b[1])
		}
	case kindFinish:
		if len(b) < finishSize {
			return m, fmt.Errorf("%w: finish without its counter", ErrMessage)
		}
		m.counted, m.counter = true, binary.LittleEndian.Uint16(b[1:])
	case kindCredit:
		if m.amount, _, err = bare.Uvarint(b[1:]); err != nil {
			return m, fmt.Errorf("%w: credit: %w", ErrMessage, err)
		}
	case kindPayload:
		size, n, err := bare.Uvarint(b[1:])
		if err != nil {
			return m, fmt.Errorf("%w: payload length: %w", ErrMessage, err)
		}
		m.from = 1 + n
		if size > uint64(len(b)-m.from) {
			return m, fmt.Errorf("%w: payload of %d bytes, %d there", ErrMessage, size, len(b)-m.from)
		}
		m.to = m.from + int(size)
		if rest := b[m.to:]; len(rest) >= counterSize && rest[0] == 1 {
			m.counted, m.counter = true, binary.LittleEndian.Uint16(rest[1:])
		}
	default:
		return m, fmt.Errorf("%w: unknown kind %#02x", ErrMessage, m.kind)
	}
	return m, nil
}

// appendHandshake appends a Ping or Pong; window 0 leaves the extension out.
func appendHandshake(b []byte, kind byte, window int) []byte {
	b = append(b, kind)
	if window > 0 {
		b = append(b, 'S', 'P', extensionVersion)
		b = bare.AppendUvarint(b, uint64(window))
	}
	return b
}

// payloadHeader writes a payload's kind and length so that they end at b[end], and returns where they begin.
func payloadHeader(b []byte, end, size int) int {
	var head [maxPayloadHeader + 1]byte
	h := bare.AppendUvarint(append(head[:0], kindPayload), uint64(size))
	return end - copy(b[end-len(h):end], h)
}

// appendCredit appends a Credit.
func appendCredit(b []byte, amount uint64) []byte {
	return bare.AppendUvarint(append(b, kindCredit), amount)
}
