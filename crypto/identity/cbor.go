package identity

import "fmt"

// A small CBOR reader and writer for signed objects: they are kept as the bytes that were signed, so the reader hands out
// slices and the writer makes the one deterministic form (docs/protocol/02 §1, RFC 8949).

const maxDepth = 16 // nesting of items that are skipped

func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major<<5|byte(n))
	case n <= 0xff:
		return append(b, major<<5|24, byte(n))
	case n <= 0xffff:
		return append(b, major<<5|25, byte(n>>8), byte(n))
	case n <= 0xffffffff:
		return append(b, major<<5|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, major<<5|27, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func appendUint(b []byte, n uint64) []byte { return appendHead(b, 0, n) }
func appendArray(b []byte, n int) []byte   { return appendHead(b, 4, uint64(n)) }
func appendBytes(b []byte, data []byte) []byte {
	return append(appendHead(b, 2, uint64(len(data))), data...)
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
	if r.at >= len(r.b) {
		r.fail("cut short")
		return 0, 0, false
	}
	first := r.b[r.at]
	major, low := first>>5, first&0x1f
	r.at++
	switch {
	case low < 24:
		return major, uint64(low), false
	case low <= 27:
		k := 1 << (low - 24)
		if len(r.b)-r.at < k {
			r.fail("cut short")
			return 0, 0, false
		}
		for _, c := range r.b[r.at : r.at+k] {
			n = n<<8 | uint64(c)
		}
		r.at += k
		return major, n, false
	case low == 31 && major >= 2 && major <= 5:
		return major, 0, true
	}
	r.fail("byte %#02x begins no item", first)
	return 0, 0, false
}

// uint reads an unsigned integer of at most max.
func (r *reader) uint(max uint64) uint64 {
	major, n, _ := r.head()
	if r.err == nil && (major != 0 || n > max) {
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
	if major != 2 || indefinite || n > uint64(len(r.b)-r.at) || (size >= 0 && n != uint64(size)) {
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
	if r.err == nil && major != 4 {
		r.fail("not an array")
	}
	for i := 0; r.err == nil && (indefinite || uint64(i) < n); i++ {
		if indefinite && r.at < len(r.b) && r.b[r.at] == 0xff {
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
	if r.err == nil && (major != 4 || indefinite || n != 2) {
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
	case 0, 1, 7:
		return
	case 2, 3:
		if !indefinite {
			if n > uint64(len(r.b)-r.at) {
				r.fail("cut short")
				return
			}
			r.at += int(n)
			return
		}
	case 5:
		if n > uint64(len(r.b)) {
			r.fail("cut short")
			return
		}
		n *= 2
	case 6:
		n = 1
	}
	for i := uint64(0); r.err == nil && (indefinite || i < n); i++ {
		if indefinite && r.at < len(r.b) && r.b[r.at] == 0xff {
			r.at++
			return
		}
		r.skipItem(depth + 1)
	}
}
