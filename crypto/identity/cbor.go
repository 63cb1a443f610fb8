package identity

import (
	"fmt"

	"sallyport/internal/cborhead"
)

// A small CBOR reader and writer for signed objects: they are kept as the bytes that were signed, so the reader hands out
// slices and the writer makes the one deterministic form (docs/protocol/02 §1, RFC 8949).

const maxDepth = 16 // nesting of items that are skipped

func appendUint(b []byte, n uint64) []byte { return cborhead.Append(b, cborhead.Uint, n) }
func appendArray(b []byte, n int) []byte   { return cborhead.Append(b, cborhead.Array, uint64(n)) }
func appendBytes(b []byte, data []byte) []byte {
	return append(cborhead.Append(b, cborhead.Bytes, uint64(len(data))), data...)
}

func appendList(b []byte, items [][]byte) []byte {
	b = appendArray(b, len(items))
	for _, item := range items {
		b = append(b, item...)
	}
	return b
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0xf5)
	}
	return append(b, 0xf4)
}

// reader reads CBOR items one after the other. The first error stays.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %w at offset %d", ErrEncoding, fmt.Errorf(format, args...), r.at)
	}
}

func (r *reader) head() (major byte, n uint64, indefinite bool) {
	if r.err != nil {
		return 0, 0, false
	}
	h, size, err := cborhead.ReadItem(r.b[r.at:])
	if err != nil {
		r.fail("%w", err)
		return 0, 0, false
	}
	r.at += size
	return h.Major, h.N, h.Indefinite
}

// uint reads an unsigned integer of at most max.
func (r *reader) uint(max uint64) uint64 {
	major, n, _ := r.head()
	if r.err == nil && (major != cborhead.Uint || n > max) {
		r.fail("not a number up to %d", max)
	}
	return n
}

func (r *reader) bool() bool {
	if r.err == nil && r.at < len(r.b) && (r.b[r.at] == 0xf4 || r.b[r.at] == 0xf5) {
		r.at++
		return r.b[r.at-1] == 0xf5
	}
	r.fail("not true or false")
	return false
}

// bytes reads a definite byte string; size -1 takes any length.
func (r *reader) bytes(size int) []byte {
	major, n, indefinite := r.head()
	if r.err != nil {
		return nil
	}
	if major != cborhead.Bytes || indefinite || n > uint64(len(r.b)-r.at) || (size >= 0 && n != uint64(size)) {
		if size >= 0 {
			r.fail("not a byte string of %d bytes", size)
		} else {
			r.fail("not a byte string")
		}
		return nil
	}
	b := r.b[r.at : r.at+int(n) : r.at+int(n)]
	r.at += int(n)
	return b
}

// null reports whether the next item is null, and reads it if so.
func (r *reader) null() bool {
	if r.err == nil && r.at < len(r.b) && r.b[r.at] == 0xf6 {
		r.at++
		return true
	}
	return false
}

// array reads an array: item is called for each element with its position, and must read it or skip it.
func (r *reader) array(item func(i int)) (count int) {
	major, n, indefinite := r.head()
	if r.err == nil && major != cborhead.Array {
		r.fail("not an array")
	}
	for i := 0; r.err == nil && (indefinite || uint64(i) < n); i++ {
		if indefinite && r.at < len(r.b) && r.b[r.at] == cborhead.Break {
			r.at++
			return i
		}
		item(i)
		count = i + 1
	}
	return count
}

// fields reads an array of at least n elements and skips further ones.
func (r *reader) fields(n int, item func(i int)) {
	count := r.array(func(i int) {
		if i < n {
			item(i)
		} else {
			r.skip()
		}
	})
	if r.err == nil && count < n {
		r.fail("array of %d elements, must have %d", count, n)
	}
}

// variant reads [number, [fields...]]: a definite array of two, whose first element chooses what field reads
// (docs/protocol/01 §1.1).
func (r *reader) variant(max uint64, field func(variant uint64)) {
	major, n, indefinite := r.head()
	if r.err == nil && (major != cborhead.Array || indefinite || n != 2) {
		r.fail("not a definite array of two elements")
	}
	v := r.uint(max)
	r.fields(1, func(int) { field(v) })
}

// raw reads any item and returns its bytes.
func (r *reader) raw() []byte {
	from := r.at
	r.skip()
	if r.err != nil {
		return nil
	}
	return r.b[from:r.at:r.at]
}

func (r *reader) skip() { r.skipItem(0) }

func (r *reader) skipItem(depth int) {
	if depth > maxDepth {
		r.fail("nested too deeply")
		return
	}
	major, n, indefinite := r.head()
	if r.err != nil {
		return
	}
	switch major {
	case cborhead.Uint, cborhead.Negative, cborhead.Simple:
		return
	case cborhead.Bytes, cborhead.Text:
		if !indefinite {
			if n > uint64(len(r.b)-r.at) {
				r.fail("cut short")
				return
			}
			r.at += int(n)
			return
		}
	case cborhead.Map:
		if n > uint64(len(r.b)) {
			r.fail("cut short")
			return
		}
		n *= 2
	case cborhead.Tag:
		n = 1
	}
	for i := uint64(0); r.err == nil && (indefinite || i < n); i++ {
		if indefinite && r.at < len(r.b) && r.b[r.at] == cborhead.Break {
			r.at++
			return
		}
		r.skipItem(depth + 1)
	}
}
