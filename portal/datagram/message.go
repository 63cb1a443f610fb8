package datagram

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxSize is the largest datagram of UDP over IPv4, in bytes; that of IPv6 is larger only in jumbograms.
const MaxSize = 65507

// Kinds of messages.
const (
	kindDatagram = 0x40
	kindMark     = 0x41
	kindMarked   = 0x42
	kindEnd      = 0x43
)

// sessionSize is the length of a session's name, headMost that of all before a datagram.
const (
	sessionSize = 8
	headMost    = 1 + sessionSize + binary.MaxVarintLen64
)

// ErrMalformed reports bytes that are no message of this package.
var ErrMalformed = errors.New("datagram: malformed message")

// Reason is why a flow has ended.
type Reason uint8

// The reasons, as they go over the wire.
const (
	ReasonIdle   Reason = 0
	ReasonPolicy Reason = 1
	ReasonLimit  Reason = 2
	ReasonClosed Reason = 3
	ReasonTarget Reason = 4
	reasonCount         = 5
)

var reasonNames = [reasonCount]string{"idle", "policy", "limit", "closed", "target"}

// String is the reason's name in logs and metrics.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// allFlows is the number that an End has which is about all flows of the session. No flow has it.
const allFlows = 0

// session names an inlet of one process.
type session [sessionSize]byte

// message is one of the protocol's, docs/protocol/07.
type message struct {
	kind    byte
	session session
	number  uint64 // of a flow or a mark
	data    []byte // of a datagram; borrowed from what was parsed
	reason  Reason // of an end
}

// parse reads a message. Any error is ErrMalformed.
func parse(b []byte) (m message, err error) {
	if len(b) < 1+sessionSize {
		return m, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	m.kind, m.session = b[0], session(b[1:])
	number, n := binary.Uvarint(b[1+sessionSize:])
	if n <= 0 {
		return m, fmt.Errorf("%w: no number", ErrMalformed)
	}
	m.number, b = number, b[1+sessionSize+n:]
	switch m.kind {
	case kindDatagram:
		if len(b) > MaxSize {
			return m, fmt.Errorf("%w: a datagram of %d bytes", ErrMalformed, len(b))
		}
		m.data = b
	case kindMark, kindMarked:
		if err := checkFields(b); err != nil {
			return m, err
		}
	case kindEnd:
		if len(b) == 0 {
			return m, fmt.Errorf("%w: an end without a reason", ErrMalformed)
		}
		m.reason = Reason(b[0])
	default:
		return m, fmt.Errorf("%w: kind %#x", ErrMalformed, m.kind)
	}
	return m, nil
}

// checkFields reads the fields of a mark, of which none is known yet.
func checkFields(b []byte) error {
	for len(b) > 0 {
		_, n := binary.Uvarint(b)
		if n <= 0 {
			return fmt.Errorf("%w: a field without a tag", ErrMalformed)
		}
		b = b[n:]
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return fmt.Errorf("%w: a field that does not fit", ErrMalformed)
		}
		b = b[n+int(size):]
	}
	return nil
}

// appendHead appends what comes before a datagram, and all of a mark.
func appendHead(b []byte, kind byte, s session, number uint64) []byte {
	b = append(b, kind)
	b = append(b, s[:]...)
	return binary.AppendUvarint(b, number)
}

// appendEnd appends an End.
func appendEnd(b []byte, s session, flow uint64, why Reason) []byte {
	return append(appendHead(b, kindEnd, s, flow), byte(why))
}
