// Package bare is the small part of the BARE encoding that messages use: variable-length integers, data and text
// (docs/protocol/01 §1.2).
//
// Nothing here allocates, apart from what append needs; slices that are returned alias the input.
package bare

import "errors"

// MaxVarint is the most bytes that one integer takes.
const MaxVarint = 10

// ErrMalformed reports input that ends too early, or an integer that does not fit 64 bits.
var ErrMalformed = errors.New("bare: malformed")

// AppendUvarint appends v, low seven bits first.
func AppendUvarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// UvarintSize returns how many bytes AppendUvarint appends for v.
func UvarintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// Uvarint reads an integer from the start of b and returns how many bytes it took. As in the reference, an integer need not be
// minimal, and the tenth byte, if there is one, must be exactly 1. On error v and n are 0.
func Uvarint(b []byte) (v uint64, n int, err error) {
	for i := 0; i < len(b) && i < MaxVarint; i++ {
		if i == MaxVarint-1 && b[i] != 1 {
			break
		}
		v |= uint64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1, nil
		}
	}
	return 0, 0, ErrMalformed
}

// AppendBytes appends data: its length, then itself.
func AppendBytes(b, data []byte) []byte {
	return append(AppendUvarint(b, uint64(len(data))), data...)
}

// AppendString appends text, which is encoded like data.
func AppendString(b []byte, text string) []byte {
	return append(AppendUvarint(b, uint64(len(text))), text...)
}

// Bytes reads data from the start of b and returns how many bytes it took, with its length. data aliases b. Text is read the same
// way; whether it must be UTF-8 is for the caller to say.
func Bytes(b []byte) (data []byte, n int, err error) {
	size, k, err := Uvarint(b)
	if err != nil || size > uint64(len(b)-k) {
		return nil, 0, ErrMalformed
	}
	end := k + int(size)
	return b[k:end:end], end, nil
}
