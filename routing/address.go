package routing

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sallyport/internal/cborhead"
)

// Transport types of an address (docs/protocol/01 §4.1).
const (
	Local     uint8 = 0
	TCP       uint8 = 1
	UDP       uint8 = 2
	WebSocket uint8 = 3
	BLE       uint8 = 4
	Unix      uint8 = 5
)

// ErrAddress reports text that is no address.
var ErrAddress = errors.New("routing: not an address")

// Address names a worker on a node (type Local) or a peer of a transport.
type Address struct {
	Type  uint8
	Value string // arbitrary bytes, usually UTF-8
}

// LocalAddress returns the address of a worker.
func LocalAddress(value string) Address { return Address{Value: value} }

// ParseAddress reads `type#value` or `value`.
func ParseAddress(text string) (Address, error) {
	kind, value, found := strings.Cut(text, "#")
	if !found {
		return Address{Value: text}, nil
	}
	if strings.Contains(value, "#") {
		return Address{}, fmt.Errorf("%w: %q has more than one '#'", ErrAddress, text)
	}
	n, err := strconv.ParseUint(kind, 10, 8)
	if err != nil {
		return Address{}, fmt.Errorf("%w: %q: the part before '#' must be a number from 0 to 255", ErrAddress, text)
	}
	return Address{Type: uint8(n), Value: value}, nil
}

func (a Address) String() string { return strconv.Itoa(int(a.Type)) + "#" + a.Value }

// append appends the wire form: the CBOR array [type, bytes].
func (a Address) append(b []byte) []byte {
	b = append(b, 0x82)
	b = cborhead.Append(b, cborhead.Uint, uint64(a.Type))
	b = cborhead.Append(b, cborhead.Bytes, uint64(len(a.Value)))
	return append(b, a.Value...)
}

// Route is a sequence of addresses, kept in wire form. The zero Route is empty. A Route inside a Message is borrowed; one made
// with NewRoute, ParseRoute or Clone is not, and is never changed.
type Route struct {
	b []byte // addresses one after the other, canonical CBOR, without the array's head
	n int
}

// NewRoute makes a route of addresses.
func NewRoute(addresses ...Address) Route {
	r := Route{n: len(addresses)}
	for _, a := range addresses {
		r.b = a.append(r.b)
	}
	return r
}

// LocalRoute makes a route of workers' addresses.
func LocalRoute(values ...string) Route {
	r := Route{n: len(values)}
	for _, v := range values {
		r.b = Address{Value: v}.append(r.b)
	}
	return r
}

// ParseRoute reads addresses separated by `=>`.
func ParseRoute(text string) (Route, error) {
	var list []Address
	for part := range strings.SplitSeq(text, "=>") {
		a, err := ParseAddress(strings.TrimSpace(part))
		if err != nil {
			return Route{}, err
		}
		list = append(list, a)
	}
	return NewRoute(list...), nil
}

// Len returns the number of addresses.
func (r Route) Len() int { return r.n }

// Clone returns a copy that is not borrowed.
func (r Route) Clone() Route { return Route{b: append([]byte(nil), r.b...), n: r.n} }

// Addresses returns the addresses, copied.
func (r Route) Addresses() []Address {
	list := make([]Address, 0, r.n)
	for range r.n {
		kind, value := r.first()
		list = append(list, Address{Type: kind, Value: string(value)})
		r = r.rest()
	}
	return list
}

func (r Route) String() string {
	var parts []string
	for _, a := range r.Addresses() {
		parts = append(parts, a.String())
	}
	return strings.Join(parts, " => ")
}

// Concat returns r followed by others, not borrowed.
func (r Route) Concat(others ...Route) Route {
	out := r.Clone()
	for _, o := range others {
		out.b = append(out.b, o.b...)
		out.n += o.n
	}
	return out
}

// First returns the first address of a route that is not empty.
func (r Route) First() Address {
	kind, value := r.first()
	return Address{Type: kind, Value: string(value)}
}

// Last returns the last address of a route that is not empty.
func (r Route) Last() Address {
	for range r.n - 1 {
		r = r.rest()
	}
	return r.First()
}

// WithoutFirst returns r without its first address (borrowed as r is). An empty route stays empty.
func (r Route) WithoutFirst() Route { return r.rest() }

// Key returns what is the same for equal routes (borrowed as r is).
func (r Route) Key() []byte { return r.b }

// WithoutLast returns r without its last address (borrowed as r is).
func (r Route) WithoutLast() Route {
	if r.n == 0 {
		return r
	}
	rest, used := r, 0
	for range r.n - 1 {
		next := rest.rest()
		used += len(rest.b) - len(next.b)
		rest = next
	}
	return Route{b: r.b[:used], n: r.n - 1}
}

// first returns the type and the bytes of the first address; zero values for an empty route.
func (r Route) first() (kind uint8, value []byte) {
	if r.n == 0 {
		return 0, nil
	}
	value, _ = r.cut()
	if t := r.b[1]; t < 24 {
		return t, value
	}
	return r.b[2], value
}

// rest returns the route after its first address.
func (r Route) rest() Route {
	if r.n == 0 {
		return r
	}
	_, rest := r.cut()
	return Route{b: rest, n: r.n - 1}
}

// cut splits canonical bytes after the first address. They were checked when the route was made.
func (r Route) cut() (value, rest []byte) {
	b := r.b
	i := 2
	if b[1] == 24 {
		i = 3
	}
	var n int
	switch h := b[i]; {
	case h < 0x58:
		n, i = int(h-0x40), i+1
	case h == 0x58:
		n, i = int(b[i+1]), i+2
	default:
		n, i = int(b[i+1])<<8|int(b[i+2]), i+3
	}
	return b[i : i+n], b[i+n:]
}

// Equal reports whether r and o hold the same addresses.
func (r Route) Equal(o Route) bool { return r.n == o.n && string(r.b) == string(o.b) }

// FirstValue returns the value of the first address, borrowed; nil for an empty route.
func (r Route) FirstValue() []byte {
	if r.n == 0 {
		return nil
	}
	_, v := r.first()
	return v
}
