package udp

import (
	"fmt"
	"slices"

	"sallyport/internal/cborhead"
	"sallyport/routing"
)

// Limits on what strangers send.
const (
	maxTextLen    = 300 // a public address
	maxRemoteLen  = 255 // the address of a puncture's worker
	maxExtensions = 8
)

// errMessage reports bytes that are no message of this package.
var errMessage = fmt.Errorf("udp: malformed control message")

// Kinds of messages. Each is a CBOR array of its number and an array (docs/protocol/01 §3.4, §3.5).
const (
	kindPing    = 0
	kindAddress = 1 // rendezvous: get my address
	kindPong    = 1 // puncture
	kindPayload = 2 // puncture
)

// appendKind appends a message without fields.
func appendKind(b []byte, kind byte) []byte { return append(b, 0x82, kind, 0x80) }

// openArray reads the head of an array of at least n items.
func openArray(b []byte, i, n int) (int, error) {
	h, i, err := routing.ReadHead(b, i)
	if err != nil {
		return 0, err
	}
	if h.Major != cborhead.Array || !h.Indefinite && h.N < uint64(n) {
		return 0, fmt.Errorf("%w: not an array of %d items at offset %d", errMessage, n, i)
	}
	return i, nil
}

// openKind reads the kind of a message, and returns where its fields begin.
func openKind(b []byte) (kind uint64, at int, err error) {
	h, i, err := routing.ReadHead(b, 0)
	if err != nil {
		return 0, 0, err
	}
	if h.Major != cborhead.Array || h.Indefinite || h.N != 2 {
		return 0, 0, fmt.Errorf("%w: not an array of a number and its fields", errMessage)
	}
	if h, i, err = routing.ReadHead(b, i); err != nil {
		return 0, 0, err
	}
	if h.Major != cborhead.Uint {
		return 0, 0, fmt.Errorf("%w: its kind is not a number", errMessage)
	}
	if i >= len(b) {
		return 0, 0, fmt.Errorf("%w: it has no fields", errMessage)
	}
	return h.N, i, nil
}

// readText reads a text of limited length.
func readText(b []byte, i int) (string, int, error) {
	h, i, err := routing.ReadHead(b, i)
	if err != nil {
		return "", 0, err
	}
	if h.Major != cborhead.Text || h.Indefinite || h.N > maxTextLen || h.N > uint64(len(b)-i) {
		return "", 0, fmt.Errorf("%w: no text of at most %d bytes at offset %d", errMessage, maxTextLen, i)
	}
	return string(b[i : i+int(h.N)]), i + int(h.N), nil
}

// appendInts appends bytes as an array of numbers, which is what the reference makes of them.
func appendInts(b, bytes []byte) []byte {
	b = cborhead.Append(b, cborhead.Array, uint64(len(bytes)))
	b = slices.Grow(b, 2*len(bytes))
	for _, c := range bytes {
		if c < 24 {
			b = append(b, c)
		} else {
			b = append(b, cborhead.Uint|24, c)
		}
	}
	return b
}

// readInts reads an array of at most limit numbers up to 255 and appends them to out.
func readInts(out, b []byte, i, limit int) ([]byte, int, error) {
	h, i, err := routing.ReadHead(b, i)
	if err != nil {
		return nil, 0, err
	}
	if h.Major != cborhead.Array || !h.Indefinite && h.N > uint64(limit) {
		return nil, 0, fmt.Errorf("%w: no array of at most %d numbers at offset %d", errMessage, limit, i)
	}
	for k := uint64(0); h.Indefinite || k < h.N; k++ {
		switch {
		case i >= len(b):
			return nil, 0, fmt.Errorf("%w: cut short", errMessage)
		case h.Indefinite && b[i] == 0xff:
			return out, i + 1, nil
		case k >= uint64(limit):
			return nil, 0, fmt.Errorf("%w: more than %d numbers", errMessage, limit)
		case b[i] < 24:
			out = append(out, b[i])
			i++
			continue
		}
		n, next, err := routing.ReadHead(b, i)
		if err != nil {
			return nil, 0, err
		}
		if n.Major != cborhead.Uint || n.N > 255 {
			return nil, 0, fmt.Errorf("%w: not a number up to 255 at offset %d", errMessage, i)
		}
		out, i = append(out, byte(n.N)), next
	}
	return out, i, nil
}

// parseAddress reads the rendezvous service's answer to kindAddress.
func parseAddress(b []byte) (string, error) {
	kind, i, err := openKind(b)
	if err != nil {
		return "", err
	}
	if kind != kindAddress {
		return "", fmt.Errorf("%w: kind %d, want %d", errMessage, kind, kindAddress)
	}
	if i, err = openArray(b, i, 1); err != nil {
		return "", err
	}
	text, _, err := readText(b, i)
	return text, err
}

// appendAddress appends that answer.
func appendAddress(b []byte, address string) []byte {
	b = append(b, 0x82, kindAddress, 0x81)
	b = cborhead.Append(b, cborhead.Text, uint64(len(address)))
	return append(b, address...)
}

// offer is Initiate and Acknowledge: where a side can be reached, and its puncture's worker.
type offer struct {
	address string
	remote  []byte
	// link is the version of the Link that the side knows, 0 for none. It is a third item, which the reference skips.
	link uint64
}

// linkVersion is the version of the Link that is offered; from looseVersion on it carries messages beside the stream.
const (
	linkVersion  = 2
	looseVersion = 2
)

func appendOffer(b []byte, o offer) []byte {
	n := uint64(2)
	if o.link > 0 {
		n = 3
	}
	b = cborhead.Append(b, cborhead.Array, n)
	b = cborhead.Append(b, cborhead.Text, uint64(len(o.address)))
	b = append(b, o.address...)
	b = appendInts(b, o.remote)
	if o.link > 0 {
		b = append(b, "\x82\x62SP"...)
		b = cborhead.Append(b, cborhead.Uint, o.link)
	}
	return b
}

func parseOffer(b []byte) (o offer, err error) {
	h, i, err := routing.ReadHead(b, 0)
	if err != nil {
		return o, err
	}
	if h.Major != cborhead.Array || !h.Indefinite && (h.N < 2 || h.N > maxExtensions) {
		return o, fmt.Errorf("%w: not an array of an address and a worker", errMessage)
	}
	if o.address, i, err = readText(b, i); err != nil {
		return o, err
	}
	if o.remote, i, err = readInts(nil, b, i, maxRemoteLen); err != nil {
		return o, err
	}
	if len(o.remote) == 0 {
		return o, fmt.Errorf("%w: a worker without an address", errMessage)
	}
	if more := b[i:]; !h.Indefinite && h.N > 2 && len(more) > 4 && string(more[:4]) == "\x82\x62SP" {
		if v, _, err := routing.ReadHead(more, 4); err == nil && v.Major == cborhead.Uint {
			o.link = v.N
		}
	}
	return o, nil
}

// punched is a message of a puncture.
type punched struct {
	kind         uint64
	onward, back routing.Route // borrowed
	payload      []byte
}

// parsePunched reads it. The payload is appended to scratch.
func parsePunched(b, scratch []byte) (p punched, err error) {
	var i int
	if p.kind, i, err = openKind(b); err != nil {
		return p, err
	}
	if p.kind != kindPayload {
		if p.kind > kindPayload {
			err = fmt.Errorf("%w: kind %d", errMessage, p.kind)
		}
		return p, err
	}
	if i, err = openArray(b, i, 3); err != nil {
		return p, err
	}
	if p.onward, i, err = routing.ReadRoute(b, i); err != nil {
		return p, err
	}
	if p.back, i, err = routing.ReadRoute(b, i); err != nil {
		return p, err
	}
	p.payload, _, err = readInts(scratch, b, i, routing.MaxFrame)
	return p, err
}

// appendPunched appends a kindPayload.
func appendPunched(b []byte, onward, ret routing.Route, payload []byte) []byte {
	b = append(b, 0x82, kindPayload, 0x83)
	b = routing.AppendRoute(b, onward)
	b = routing.AppendRoute(b, ret)
	return appendInts(b, payload)
}
