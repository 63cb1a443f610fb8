package portal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sallyport/routing/bare"
)

// Kinds of portal messages: the first byte (docs/protocol/03 §1.2). From Credit on they are of the extension (docs/protocol/04).
const (
	kindPing       = 0x00
	kindPong       = 0x01
	kindDisconnect = 0x02
	kindPayload    = 0x03
	kindCredit     = 0x10
	kindFinish     = 0x11
	kindResume     = 0x12
	kindResumed    = 0x13
)

// MaxPayload is the most bytes one Payload carries (docs/protocol/03 §1.2); a receiver takes more.
const MaxPayload = 128 << 10

// maxPayloadHeader is the kind byte and the length of a payload up to MaxPayload.
const maxPayloadHeader = 4

// counterSize is the flag byte and the counter after a numbered payload, confirmedSize what version 2 adds: how much has come.
const (
	counterSize   = 3
	confirmedSize = 4
)

// finishSize is the length of a Finish of version 1.
const finishSize = 3

// Versions of the extension: the first, and the one that is offered. The smaller of both ends' is spoken.
const (
	extensionVersion = 1
	resumeVersion    = 2
)

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
	ReasonUnknown                   // the other end does not know the connection, or has forgotten it
	ReasonHold                      // the path was away for too long
	ReasonLimit                     // the outlet, its node or its share of the peer has as many connections as it may
	ReasonGone                      // the process at the other end has ended
	reasonCount
)

var reasonText = [reasonCount]string{"closed", "target refused the connection", "target unreachable", "no answer in time",
	"reset", "refused by policy", "payload missing", "reader stalled", "window overrun", "path lost", "portal stopped", "unexpected protocol",
	"not known at the other end", "held for too long", "too many connections", "the process at the other end has ended"}

var reasonLabel = [reasonCount]string{"closed", "target_refused", "target_unreachable", "timeout", "reset", "policy", "payload_missing",
	"reader_stalled", "window_overrun", "path_lost", "portal_stopped", "protocol", "unknown", "hold_expired", "too_many", "gone"}

// Label is the reason as one word, for metrics and records.
func (r Reason) Label() string { return reasonLabel[min(r, reasonCount-1)] }

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
	confirms  bool   // confirmed is there (version 2)
	confirmed uint64 // how much has come at the sender; all of it in a Credit, else the low 32 bits
	fields    int    // where the fields begin, 0 for none
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
			n := 0
			if m.amount, n, err = bare.Uvarint(b[4:]); err != nil {
				return m, fmt.Errorf("%w: window: %w", ErrMessage, err)
			}
			if m.extension >= resumeVersion {
				m.fields = 4 + n
				_, err = parseFields(b[m.fields:])
				return m, err
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
		m.confirm(b[finishSize:])
	case kindCredit:
		n := 0
		if m.amount, n, err = bare.Uvarint(b[1:]); err != nil {
			return m, fmt.Errorf("%w: credit: %w", ErrMessage, err)
		}
		if at := 1 + n; at < len(b) {
			if m.confirmed, n, err = bare.Uvarint(b[at:]); err != nil {
				return m, fmt.Errorf("%w: confirmed: %w", ErrMessage, err)
			}
			m.confirms, m.fields = true, at+n
			_, err = parseFields(b[m.fields:])
			return m, err
		}
	case kindResume, kindResumed:
		_, err = parseResume(b)
		return m, err
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
			m.confirm(rest[counterSize:])
		}
	default:
		return m, fmt.Errorf("%w: unknown kind %#02x", ErrMessage, m.kind)
	}
	return m, nil
}

// confirm takes what version 2 adds to a message, the low 32 bits of what has come at its sender, if it is there.
func (m *message) confirm(b []byte) {
	if len(b) >= confirmedSize {
		m.confirms, m.confirmed = true, uint64(binary.LittleEndian.Uint32(b))
	}
}

// appendHandshake appends a Ping or Pong of version 1; window 0 leaves the extension out.
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
