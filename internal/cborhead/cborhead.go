// Package cborhead reads and writes the heads of CBOR items (RFC 8949 §3), for the codecs that must not allocate or must give one exact form.
package cborhead

import (
	"encoding/binary"
	"errors"
	"math"
)

// Major types, as the bits that they have in a head.
const (
	Uint     = 0 << 5
	Negative = 1 << 5
	Bytes    = 2 << 5
	Text     = 3 << 5
	Array    = 4 << 5
	Map      = 5 << 5
	Tag      = 6 << 5
	Simple   = 7 << 5
)

// Break ends an item of indefinite length.
const Break = 0xff

var (
	// ErrShort reports that the bytes end before the head does.
	ErrShort = errors.New("cut short")
	// ErrReserved reports additional information that has no meaning (28 to 30).
	ErrReserved = errors.New("begins no item")
)

// Head is what an item is, and its argument.
type Head struct {
	Major byte // one of the major types
	Info  byte // the lower five bits of the first byte
	N     uint64
	// Indefinite is set for additional information 31: the item ends with a Break. A Break is itself a head of the type Simple.
	Indefinite bool
}

// Append appends a head in its shortest form.
func Append(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return append(b, major|25, byte(n>>8), byte(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// Len is how many bytes Append appends.
func Len(n uint64) int {
	switch {
	case n < 24:
		return 1
	case n <= math.MaxUint8:
		return 2
	case n <= math.MaxUint16:
		return 3
	case n <= math.MaxUint32:
		return 5
	}
	return 9
}

// ReadItem is Read for where an item has to begin: a Break and numbers of indefinite length are ErrReserved.
func ReadItem(b []byte) (h Head, size int, err error) {
	if h, size, err = Read(b); err == nil && h.Indefinite && (h.Major < Bytes || h.Major > Map) {
		return h, 0, ErrReserved
	}
	return h, size, err
}

// Definite reads a head of a major type and definite length, and returns its argument and what follows it.
func Definite(b []byte, major byte) (n uint64, rest []byte, ok bool) {
	h, size, err := Read(b)
	if err != nil || h.Major != major || h.Indefinite {
		return 0, nil, false
	}
	return h.N, b[size:], true
}

// Read reads the head that b begins with, in any of the forms that a number can have, and returns its length in bytes. Errors are ErrShort
// and ErrReserved.
func Read(b []byte) (h Head, size int, err error) {
	if len(b) == 0 {
		return h, 0, ErrShort
	}
	h.Major, h.Info = b[0]&0xe0, b[0]&0x1f
	switch {
	case h.Info < 24:
		h.N = uint64(h.Info)
		return h, 1, nil
	case h.Info == 31:
		h.Indefinite = true
		return h, 1, nil
	case h.Info > 27:
		return h, 0, ErrReserved
	}
	size = 1 + 1<<(h.Info-24)
	if len(b) < size {
		return h, 0, ErrShort
	}
	for _, c := range b[1:size] {
		h.N = h.N<<8 | uint64(c)
	}
	return h, size, nil
}
