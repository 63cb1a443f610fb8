package policy

import (
	"fmt"
	"unicode/utf8"

	"sallyport/internal/cborhead"
)

const (
	cborNull     = 0xf6
	maxSkipDepth = 16
)

func appendText(b []byte, s string) []byte {
	return append(cborhead.Append(b, cborhead.Text, uint64(len(s))), s...)
}

// reader reads CBOR. Its first error sticks; reads after it return zero values.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
	r.b = nil
}

// head reads an item head. indefinite is set for the additional information 31, which covers the break code.
func (r *reader) head() (major, info byte, n uint64, indefinite bool) {
	h, size, err := cborhead.Read(r.b)
	if err != nil {
		r.fail("%v", err)
		return 0, 0, 0, false
	}
	r.b = r.b[size:]
	return h.Major, h.Info, h.N, h.Indefinite
}

// want reads a definite head of the given major type.
func (r *reader) want(want byte, what string) uint64 {
	major, _, n, indefinite := r.head()
	if r.err == nil && (major != want || indefinite) {
		r.fail("expected %s", what)
		return 0
	}
	return n
}

func (r *reader) uint(what string) uint64 { return r.want(cborhead.Uint, what) }

func (r *reader) text() string {
	n := r.want(cborhead.Text, "text")
	if n > uint64(len(r.b)) {
		r.fail("text longer than the input")
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	if !utf8.ValidString(s) {
		r.fail("text is not UTF-8")
		return ""
	}
	return s
}

// array reads the elements of an array, definite or not, by calling element for each, which must consume exactly one
// item. It returns the number of elements. Nothing is allocated on the announced length.
func (r *reader) array(what string, element func(i int)) int {
	major, _, n, indefinite := r.head()
	if r.err == nil && major != cborhead.Array {
		r.fail("expected %s", what)
	}
	i := 0
	for r.err == nil && (indefinite || uint64(i) < n) {
		if indefinite && len(r.b) > 0 && r.b[0] == cborhead.Break {
			r.b = r.b[1:]
			break
		}
		element(i)
		i++
	}
	return i
}

// variant reads an enum with payload: [number, [field…]]. field is called for every field of the payload and must
// consume it; the count of fields is returned. number is set before the first call.
func (r *reader) variant(what string, number *uint64, field func(i int)) (fields int) {
	n := r.array(what, func(i int) {
		switch i {
		case 0:
			*number = r.uint("variant number of " + what)
		case 1:
			fields = r.array("fields of "+what, field)
		default:
			r.fail("%s is no pair", what)
		}
	})
	if r.err == nil && n != 2 {
		r.fail("%s is no pair", what)
	}
	return fields
}

// skip reads past one item of any kind.
func (r *reader) skip(depth int) {
	if depth > maxSkipDepth {
		r.fail("unknown item nested too deep")
		return
	}
	major, info, n, indefinite := r.head()
	switch {
	case r.err != nil:
	case indefinite:
		if major < cborhead.Bytes || major >= cborhead.Tag {
			r.fail("unexpected break or indefinite length")
			return
		}
		for r.err == nil {
			if len(r.b) > 0 && r.b[0] == cborhead.Break {
				r.b = r.b[1:]
				return
			}
			r.skip(depth + 1)
		}
	case major == cborhead.Bytes || major == cborhead.Text:
		if n > uint64(len(r.b)) {
			r.fail("string longer than the input")
			return
		}
		r.b = r.b[n:]
	case major == cborhead.Array || major == cborhead.Map:
		if n > uint64(len(r.b)) { // every item takes a byte at least
			r.fail("container longer than the input")
			return
		}
		if major == cborhead.Map {
			n *= 2
		}
		for i := uint64(0); i < n && r.err == nil; i++ {
			r.skip(depth + 1)
		}
	case major == cborhead.Tag:
		r.skip(depth + 1)
	case major == cborhead.Simple && info == 24 && n < 32:
		r.fail("invalid simple value")
	}
}
