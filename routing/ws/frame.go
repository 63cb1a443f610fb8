package ws

import "encoding/binary"

// Opcodes (RFC 6455 section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

// Status codes of a Close frame (RFC 6455 section 7.4.1).
const (
	statusNormal      = 1000
	statusProtocol    = 1002
	statusUnsupported = 1003
	statusInvalid     = 1007
	statusTooLarge    = 1009
)

const (
	finBit      = 0x80
	reserved    = 0x70
	maskBit     = 0x80
	maxControl  = 125
	maxHead     = 14
	uint16Bytes = 126 // in place of a length: it follows in two bytes
	uint64Bytes = 127 // it follows in eight
)

// head is the head of a frame.
type head struct {
	first  byte // FIN, reserved bits, opcode
	masked bool
	key    [4]byte
	size   uint64 // of the payload
	length int    // of the head
}

func (h *head) opcode() byte { return h.first & 0x0f }
func (h *head) fin() bool    { return h.first&finBit != 0 }

// parseHead reads a head. need is how many bytes it takes if b has fewer; the first two say so.
func parseHead(b []byte) (h head, need int) {
	if len(b) < 2 {
		return h, 2
	}
	h.first, h.masked, h.length = b[0], b[1]&maskBit != 0, 2
	switch n := b[1] &^ maskBit; n {
	case uint16Bytes:
		h.length += 2
	case uint64Bytes:
		h.length += 8
	default:
		h.size = uint64(n)
	}
	at := h.length
	if h.masked {
		h.length += 4
	}
	if len(b) < h.length {
		return h, h.length
	}
	switch at {
	case 4:
		h.size = uint64(binary.BigEndian.Uint16(b[2:]))
	case 10:
		h.size = binary.BigEndian.Uint64(b[2:])
	}
	if h.masked {
		h.key = [4]byte(b[at:])
	}
	return h, 0
}

// headLen is how long the head of a frame with size bytes is.
func headLen(size int, masked bool) int {
	n := 2
	switch {
	case size > 0xffff:
		n += 8
	case size >= uint16Bytes:
		n += 2
	}
	if masked {
		n += 4
	}
	return n
}

// putHead writes the head of a frame of one piece, without its key, into b, and returns where the key goes.
func putHead(b []byte, opcode byte, size int, masked bool) int {
	bit := byte(0)
	if masked {
		bit = maskBit
	}
	b[0] = finBit | opcode
	switch {
	case size > 0xffff:
		b[1] = bit | uint64Bytes
		binary.BigEndian.PutUint64(b[2:], uint64(size))
		return 10
	case size >= uint16Bytes:
		b[1] = bit | uint16Bytes
		binary.BigEndian.PutUint16(b[2:], uint16(size))
		return 4
	}
	b[1] = bit | byte(size)
	return 2
}

// mask combines b with the key in place, which masks and unmasks it (RFC 6455 section 5.3).
func mask(b []byte, key [4]byte) {
	half := uint64(binary.NativeEndian.Uint32(key[:]))
	k := half<<32 | half
	// Eight words at a time: as fast as subtle.XORBytes with the key laid out, without laying it out.
	for len(b) >= 64 {
		c := b[:64:64]
		binary.NativeEndian.PutUint64(c, binary.NativeEndian.Uint64(c)^k)
		binary.NativeEndian.PutUint64(c[8:], binary.NativeEndian.Uint64(c[8:])^k)
		binary.NativeEndian.PutUint64(c[16:], binary.NativeEndian.Uint64(c[16:])^k)
		binary.NativeEndian.PutUint64(c[24:], binary.NativeEndian.Uint64(c[24:])^k)
		binary.NativeEndian.PutUint64(c[32:], binary.NativeEndian.Uint64(c[32:])^k)
		binary.NativeEndian.PutUint64(c[40:], binary.NativeEndian.Uint64(c[40:])^k)
		binary.NativeEndian.PutUint64(c[48:], binary.NativeEndian.Uint64(c[48:])^k)
		binary.NativeEndian.PutUint64(c[56:], binary.NativeEndian.Uint64(c[56:])^k)
		b = b[64:]
	}
	for len(b) >= 8 {
		binary.NativeEndian.PutUint64(b, binary.NativeEndian.Uint64(b)^k)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= key[i&3]
	}
}
