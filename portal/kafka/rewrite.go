package kafka

import (
	"encoding/binary"
	"fmt"
)

// rewriter reads a message and writes it anew: what is not replaced is copied as it was. The first error stays; after it
// everything reads as zero.
type rewriter struct {
	in    []byte
	at    int // read so far
	kept  int // copied to out so far
	out   []byte
	flex  bool // the version is a flexible one: compact lengths and tagged fields (KIP-482)
	fault error
}

func (r *rewriter) fail(format string, args ...any) {
	if r.fault == nil {
		r.fault = fmt.Errorf("%w: "+format, append([]any{ErrMessage}, args...)...)
		r.at = len(r.in)
	}
}

// take reads n bytes, borrowed; nil after an error.
func (r *rewriter) take(n int) []byte {
	if n < 0 || n > len(r.in)-r.at {
		r.fail("%d bytes wanted, %d there", n, len(r.in)-r.at)
		return nil
	}
	b := r.in[r.at : r.at+n]
	r.at += n
	return b
}

func (r *rewriter) skip(n int) { r.take(n) }

func (r *rewriter) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *rewriter) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// uvarint reads an unsigned LEB128 number of at most 32 bits.
func (r *rewriter) uvarint() uint32 {
	v, n := binary.Uvarint(r.in[r.at:])
	if n <= 0 || v > 1<<32-1 {
		r.fail("number at %d", r.at)
		return 0
	}
	r.at += n
	return uint32(v)
}

// length reads the length of a string, bytes or an array; -1 is null. wide is the size of the length in versions that are not flexible.
func (r *rewriter) length(wide int) int {
	n := 0
	switch {
	case r.flex:
		n = int(r.uvarint()) - 1
	case wide == 2:
		n = int(r.int16())
	default:
		n = int(r.int32())
	}
	if n < -1 || n > len(r.in)-r.at { // an element of an array takes at least a byte
		r.fail("length %d, %d bytes there", n, len(r.in)-r.at)
		return 0
	}
	return n
}

// text reads a string, borrowed; null reads as empty.
func (r *rewriter) text() []byte { return r.take(max(r.length(2), 0)) }

// array reads the number of elements; null reads as none.
func (r *rewriter) array() int { return max(r.length(4), 0) }

// appendCount appends the number of an array's elements in the version's form.
func (r *rewriter) appendCount(b []byte, n int) []byte {
	if r.flex {
		return binary.AppendUvarint(b, uint64(n)+1)
	}
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// ints skips an array of int32.
func (r *rewriter) ints() {
	n := r.array()
	r.skip(4 * n)
}

// tags skips the tagged fields that end every structure of a flexible version.
func (r *rewriter) tags() { r.eachTag(nil) }

// eachTag reads the tagged fields; f may replace a field's content and says whether it did.
func (r *rewriter) eachTag(f func(tag uint32, content []byte) (with []byte, replace bool)) {
	if !r.flex {
		return
	}
	for n := r.uvarint(); n > 0 && r.fault == nil; n-- {
		tag := r.uvarint()
		from := r.at
		content := r.take(int(r.uvarint()))
		if f == nil || r.fault != nil {
			continue
		}
		if with, replace := f(tag, content); replace {
			r.replace(from, append(binary.AppendUvarint(nil, uint64(len(with))), with...))
		}
	}
}

// replace writes b in place of what was read since from.
func (r *rewriter) replace(from int, b []byte) {
	if r.fault != nil {
		return
	}
	r.out = append(append(r.out, r.in[r.kept:from]...), b...)
	r.kept = r.at
}

// replaceBytes is replace with bytes in the version's form; it does not copy them twice.
func (r *rewriter) replaceBytes(from int, content []byte) {
	if r.fault != nil {
		return
	}
	r.out = r.appendBytes(append(r.out, r.in[r.kept:from]...), content)
	r.kept = r.at
}

// appendText appends a string in the version's form.
func (r *rewriter) appendText(b []byte, s string) []byte {
	if r.flex {
		b = binary.AppendUvarint(b, uint64(len(s))+1)
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	}
	return append(b, s...)
}

// appendBytes appends bytes in the version's form; nil is null.
func (r *rewriter) appendBytes(b, content []byte) []byte {
	switch {
	case r.flex && content == nil:
		b = append(b, 0)
	case r.flex:
		b = binary.AppendUvarint(b, uint64(len(content))+1)
	case content == nil:
		b = binary.BigEndian.AppendUint32(b, 0xffffffff)
	default:
		b = binary.BigEndian.AppendUint32(b, uint32(len(content)))
	}
	return append(b, content...)
}

// done returns the message as it is now. Everything must have been read.
func (r *rewriter) done() ([]byte, error) {
	if r.fault == nil && r.at != len(r.in) {
		r.fail("%d bytes too many", len(r.in)-r.at)
	}
	return r.rest()
}

// rest is done for a message whose end was not read: it is copied.
func (r *rewriter) rest() ([]byte, error) {
	if r.fault != nil {
		return nil, r.fault
	}
	if r.kept == 0 {
		return r.in, nil
	}
	r.out = append(r.out, r.in[r.kept:]...)
	r.kept = len(r.in)
	return r.out, nil
}
