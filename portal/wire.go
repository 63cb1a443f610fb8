package portal

import "net/netip"

// Kind is what a portal message is: its first byte (docs/protocol/03 §1.2).
type Kind = byte

// Kinds of messages without the extension, for what sits between an inlet and an outlet.
const (
	KindPing       Kind = kindPing
	KindPong       Kind = kindPong
	KindDisconnect Kind = kindDisconnect
	KindPayload    Kind = kindPayload
)

// Read takes a portal message apart: its kind, a payload's data, borrowed, and the counter that a payload carries, or -1. Errors match
// ErrMessage.
func Read(b []byte) (kind Kind, data []byte, counter int, err error) {
	m, err := parse(b)
	if err != nil {
		return 0, nil, -1, err
	}
	counter = -1
	if m.counted {
		counter = int(m.counter)
	}
	if m.kind == kindPayload {
		data = b[m.from:m.to]
	}
	return m.kind, data, counter, nil
}

// PayloadHeaderSize is how many bytes a payload of size bytes has in front of its data; size is at most MaxPayload.
func PayloadHeaderSize(size int) int {
	n := 2
	for size >>= 7; size > 0; size >>= 7 {
		n++
	}
	return n
}

// PutPayloadHeader writes the header of a payload of size bytes so that it ends at b[end].
func PutPayloadHeader(b []byte, end, size int) { payloadHeader(b, end, size) }

// Client is an inlet's end of a portal connection, for what sits between an inlet and an outlet.
type Client interface {
	// Reached returns the address that the client has connected to. Not valid for an outlet's end, and for a client that did not come over
	// TCP. On the shard only.
	Reached() netip.AddrPort
}

// Reached implements Client.
func (c *conn) Reached() netip.AddrPort {
	if c.outlet || c.sock == nil {
		return netip.AddrPort{}
	}
	return c.sock.LocalAddr()
}
