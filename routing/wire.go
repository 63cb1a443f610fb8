package routing

import (
	"errors"
	"fmt"
	"sync/atomic"

	"sallyport/internal/cborhead"
)

// Limits on what is read from the network. They are far above what any real route needs.
const (
	maxRouteLen   = 64      // addresses in a route
	maxAddressLen = 1 << 10 // bytes in an address value
	maxSkipDepth  = 16      // nesting of items that are skipped
)

// MaxFrame is the largest routing message on a transport, in bytes (docs/protocol/01 §2.2).
const MaxFrame = 16 << 20

// ErrMalformed reports bytes that are no routing message.
var ErrMalformed = errors.New("routing: malformed message")

// errLongRoute reports a route with too many addresses.
var errLongRoute = fmt.Errorf("%w: a route", ErrMalformed)

// AppendRoute appends a route in wire form.
func AppendRoute(b []byte, r Route) []byte {
	b = cborhead.Append(b, cborhead.Array, uint64(r.n))
	return append(b, r.b...)
}

// AppendHeader appends what precedes the payload's bytes in a routing message: the head of an array of fields elements,
// both routes, and the head of a byte string of size bytes. The payload itself comes right after. Without a tracing
// context a message has 3 fields (docs/protocol/01 §2.3).
func AppendHeader(b []byte, onward, ret Route, size int) []byte {
	b = append(b, 0x83)
	b = AppendRoute(b, onward)
	b = AppendRoute(b, ret)
	return cborhead.Append(b, cborhead.Bytes, uint64(size))
}

// HeaderLen is the length of what AppendHeader appends.
func HeaderLen(onward, ret Route, size int) int {
	return 1 + cborhead.Len(uint64(onward.n)) + len(onward.b) + cborhead.Len(uint64(ret.n)) + len(ret.b) + cborhead.Len(uint64(size))
}

// AppendMessage appends a whole routing message.
func AppendMessage(b []byte, onward, ret Route, payload []byte) []byte {
	return append(AppendHeader(b, onward, ret, len(payload)), payload...)
}

// Parsed is a routing message taken apart. Its routes and the payload buf[Start:End] are borrowed from the bytes parsed.
type Parsed struct {
	Onward, Return Route
	Start, End     int
}

// ParseMessage reads the routing message in b (docs/protocol/01 §2.3): an array of at least onward route, return route
// and payload. What follows in the array and after it is ignored. Routes in other than the shortest encoding are
// accepted and copied. Errors match ErrMalformed.
func ParseMessage(b []byte) (Parsed, error) {
	var p Parsed
	if len(b) == 0 {
		return p, fmt.Errorf("%w: empty", ErrMalformed)
	}
	i := 1
	if b[0] < 0x83 || b[0] > 0x97 { // not a short definite array
		var err error
		if i, err = openArray(b); err != nil {
			return p, fmt.Errorf("message: %w", err)
		}
	}
	var err error
	if p.Onward, i, err = ReadRoute(b, i); err != nil {
		return p, fmt.Errorf("onward route: %w", err)
	}
	if p.Return, i, err = ReadRoute(b, i); err != nil {
		return p, fmt.Errorf("return route: %w", err)
	}
	n, i, err := bytesHead(b, i)
	if err != nil {
		return p, fmt.Errorf("payload: %w", err)
	}
	p.Start, p.End = i, i+n
	return p, nil
}

// Parse is ParseMessage of what came from the network, with the limit of the router for routes. It counts what is refused. Errors match ErrMalformed.
func (s *Shard) Parse(b []byte) (Parsed, error) {
	p, err := ParseMessage(b)
	if err == nil {
		longest := max(p.Onward.n, p.Return.n)
		if s.router.MaxRoute != 0 && longest > s.router.MaxRoute {
			err = fmt.Errorf("%w with %d addresses, the limit is %d", errLongRoute, longest, s.router.MaxRoute)
		} else {
			raise(&s.LongestRoute, longest)
			raise(&s.LargestMessage, len(b))
		}
	}
	if errors.Is(err, errLongRoute) {
		s.Drops.LongRoute.Add(1)
	}
	return p, err
}

// raise makes v n if that is more. Only its shard writes it.
func raise(v *atomic.Int64, n int) {
	if int64(n) > v.Load() {
		v.Store(int64(n))
	}
}

// openArray reads the head of a message's array when it is not the usual one.
func openArray(b []byte) (int, error) {
	h, i, err := ReadHead(b, 0)
	if err != nil {
		return 0, err
	}
	if h.Major != cborhead.Array || (!h.Indefinite && h.N < 3) {
		return 0, fmt.Errorf("%w: not an array of at least 3 items", ErrMalformed)
	}
	return i, nil
}

// bytesHead reads the head of a definite byte string at b[i:] and checks that its content is there.
func bytesHead(b []byte, i int) (n, at int, err error) {
	h, at, err := ReadHead(b, i)
	if err != nil {
		return 0, 0, err
	}
	if h.Major != cborhead.Bytes || h.Indefinite {
		return 0, 0, fmt.Errorf("%w: not a byte string at offset %d", ErrMalformed, i)
	}
	if h.N > uint64(len(b)-at) {
		return 0, 0, fmt.Errorf("%w: %d bytes announced, %d there", ErrMalformed, h.N, len(b)-at)
	}
	return int(h.N), at, nil
}

// ReadRoute reads a route at b[i:] and returns where it ends. It is borrowed from b unless its encoding is unusual. Errors match
// ErrMalformed.
func ReadRoute(b []byte, i int) (Route, int, error) {
	if i >= len(b) {
		return Route{}, 0, fmt.Errorf("%w: missing", ErrMalformed)
	}
	n := int(b[i]) - 0x80
	if n < 0 || n > 23 {
		return parseRouteSlow(b, i)
	}
	start := i + 1
	end := start
	for range n {
		next := canonicalAddress(b, end)
		if next < 0 {
			return parseRouteSlow(b, i)
		}
		end = next
	}
	return Route{b: b[start:end:end], n: n}, end, nil
}

// canonicalAddress returns the end of the address at b[i:] if it is in its shortest form, else -1.
func canonicalAddress(b []byte, i int) int {
	if len(b)-i < 3 || b[i] != 0x82 {
		return -1
	}
	i++
	if b[i] >= 24 {
		if b[i] != 24 || b[i+1] < 24 || len(b)-i < 3 {
			return -1
		}
		i++
	}
	i++
	var n int
	switch h := b[i]; {
	case h >= 0x40 && h < 0x58:
		n, i = int(h-0x40), i+1
	case h == 0x58 && len(b)-i > 1 && b[i+1] >= 24:
		n, i = int(b[i+1]), i+2
	case h == 0x59 && len(b)-i > 2 && b[i+1] != 0:
		n, i = int(b[i+1])<<8|int(b[i+2]), i+3
		if n > maxAddressLen {
			return -1
		}
	default:
		return -1
	}
	if n > len(b)-i {
		return -1
	}
	return i + n
}

// parseRouteSlow reads a route in any encoding and makes a canonical copy.
func parseRouteSlow(b []byte, i int) (Route, int, error) {
	h, i, err := ReadHead(b, i)
	if err != nil {
		return Route{}, 0, err
	}
	if h.Major != cborhead.Array {
		return Route{}, 0, fmt.Errorf("%w: not an array", ErrMalformed)
	}
	var r Route
	for k := uint64(0); h.Indefinite || k < h.N; k++ {
		if h.Indefinite && i < len(b) && b[i] == 0xff {
			i++
			break
		}
		if r.n == maxRouteLen {
			return Route{}, 0, fmt.Errorf("%w with more than %d addresses", errLongRoute, maxRouteLen)
		}
		var a Address
		if a, i, err = parseAddress(b, i); err != nil {
			return Route{}, 0, fmt.Errorf("address %d: %w", r.n+1, err)
		}
		r.b = a.append(r.b)
		r.n++
	}
	return r, i, nil
}

func parseAddress(b []byte, i int) (Address, int, error) {
	arr, i, err := ReadHead(b, i)
	if err != nil {
		return Address{}, 0, err
	}
	if arr.Major != cborhead.Array || (!arr.Indefinite && arr.N < 2) {
		return Address{}, 0, fmt.Errorf("%w: not an array of type and value", ErrMalformed)
	}
	kind, i, err := ReadHead(b, i)
	if err != nil {
		return Address{}, 0, err
	}
	if kind.Major != cborhead.Uint || kind.N > 255 {
		return Address{}, 0, fmt.Errorf("%w: transport type is not a number up to 255", ErrMalformed)
	}
	n, i, err := bytesHead(b, i)
	if err != nil {
		return Address{}, 0, err
	}
	if n > maxAddressLen {
		return Address{}, 0, fmt.Errorf("%w: value of %d bytes, at most %d", ErrMalformed, n, maxAddressLen)
	}
	a := Address{Type: uint8(kind.N), Value: string(b[i : i+n])}
	i += n
	if arr.Indefinite {
		for i < len(b) && b[i] != 0xff {
			if i, err = skipItem(b, i, 0); err != nil {
				return Address{}, 0, err
			}
		}
		return a, i + 1, need(b, i)
	}
	for k := uint64(2); k < arr.N; k++ {
		if i, err = skipItem(b, i, 0); err != nil {
			return Address{}, 0, err
		}
	}
	return a, i, nil
}

func need(b []byte, i int) error {
	if i >= len(b) {
		return fmt.Errorf("%w: cut short", ErrMalformed)
	}
	return nil
}

// ReadHead reads a CBOR head at b[i:] and returns where what follows it begins. Errors match ErrMalformed.
func ReadHead(b []byte, i int) (h cborhead.Head, next int, err error) {
	if err := need(b, i); err != nil {
		return h, 0, err
	}
	h, size, err := cborhead.ReadItem(b[i:])
	if err != nil {
		return h, 0, fmt.Errorf("%w: byte %#02x: %w", ErrMalformed, b[i], err)
	}
	return h, i + size, nil
}

// SkipItem returns the end of the CBOR item at b[i:]. Errors match ErrMalformed.
func SkipItem(b []byte, i int) (int, error) { return skipItem(b, i, 0) }

func skipItem(b []byte, i, depth int) (int, error) {
	if depth > maxSkipDepth {
		return 0, fmt.Errorf("%w: nested too deeply", ErrMalformed)
	}
	h, i, err := ReadHead(b, i)
	if err != nil {
		return 0, err
	}
	items := h.N
	switch h.Major {
	case cborhead.Uint, cborhead.Negative, cborhead.Simple:
		return i, nil
	case cborhead.Bytes, cborhead.Text:
		if !h.Indefinite {
			if h.N > uint64(len(b)-i) {
				return 0, fmt.Errorf("%w: cut short", ErrMalformed)
			}
			return i + int(h.N), nil
		}
	case cborhead.Map:
		if items > uint64(len(b)) {
			return 0, fmt.Errorf("%w: cut short", ErrMalformed)
		}
		items *= 2
	case cborhead.Tag:
		items = 1
	}
	for k := uint64(0); h.Indefinite || k < items; k++ {
		if h.Indefinite && i < len(b) && b[i] == 0xff {
			return i + 1, nil
		}
		if i, err = skipItem(b, i, depth+1); err != nil {
			return 0, err
		}
	}
	return i, nil
}
