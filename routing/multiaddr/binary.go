package multiaddr

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/fxamacker/cbor/v2"

	"sallyport/routing/bare"
)

// Bytes returns the binary form: for each part its code and its value (docs/protocol/01 §4.4). It fails only for an address
// written by hand with a value that its protocol does not allow.
func (a Addr) Bytes() ([]byte, error) {
	b := make([]byte, 0, 24*len(a))
	for _, v := range a {
		c, err := canonical(v)
		if err != nil {
			return nil, fmt.Errorf("multiaddr: %w: %q", err, v.String())
		}
		b = bare.AppendUvarint(b, uint64(c.Protocol))
		switch c.Protocol {
		case IP4, IP6:
			b = append(b, netip.MustParseAddr(c.Text).AsSlice()...)
		case TCP, UDP:
			port, err := strconv.ParseUint(c.Text, 10, 16)
			if err != nil {
				return nil, fmt.Errorf("multiaddr: %w: %q", ErrInvalidValue, v.String())
			}
			b = binary.BigEndian.AppendUint16(b, uint16(port))
		case TLS, WS, WSS:
		case HTTPPath:
			path, err := url.PathUnescape(c.Text)
			if err != nil {
				return nil, fmt.Errorf("multiaddr: %w: %q", ErrInvalidValue, v.String())
			}
			b = bare.AppendString(b, path)
		default:
			b = bare.AppendString(b, c.Text)
		}
	}
	return b, nil
}

// minimalUvarint reads a number of at most max bytes in its shortest form; unlike in BARE no other form is allowed here.
func minimalUvarint(b []byte, max int) (v uint64, n int, err error) {
	v, n, err = bare.Uvarint(b)
	switch {
	case err != nil && len(b) < max && (len(b) == 0 || b[len(b)-1] >= 0x80):
		return 0, 0, ErrTruncated
	case err != nil || n > max || n != bare.UvarintSize(v):
		return 0, 0, ErrVarint
	}
	return v, n, nil
}

// FromBytes reads the binary form. It keeps nothing of b. Numbers must be minimal, text UTF-8 and without a slash. Errors are of
// type *Error.
func FromBytes(b []byte) (Addr, error) {
	var addr Addr
	for at := 0; at < len(b); {
		v, n, err := readValue(b[at:])
		if err != nil {
			e := &Error{Offset: at, Err: err}
			if v.Protocol != 0 {
				e.Part = v.Protocol.String()
			}
			return nil, e
		}
		addr = append(addr, v)
		at += n
	}
	return addr, nil
}

// readValue reads one part. On error the protocol is set if it was read.
func readValue(b []byte) (v Value, n int, err error) {
	code, n, err := minimalUvarint(b, 5)
	if err != nil {
		return Value{}, 0, err
	}
	if code > 1<<32-1 {
		return Value{}, 0, ErrVarint
	}
	v.Protocol, b = Protocol(code), b[n:]
	size := 0
	switch v.Protocol {
	case IP4:
		size = 4
	case IP6:
		size = 16
	case TCP, UDP:
		size = 2
	case TLS, WS, WSS:
	default:
		if !v.Protocol.named() {
			return v, 0, ErrUnknownProtocol
		}
		length, k, err := minimalUvarint(b, bare.MaxVarint)
		if err != nil {
			return v, 0, err
		}
		n, b = n+k, b[k:]
		if length > uint64(len(b)) {
			return v, 0, ErrTruncated
		}
		size = int(length)
	}
	if size > len(b) {
		return v, 0, ErrTruncated
	}
	b = b[:size]
	switch v.Protocol {
	case IP4, IP6:
		ip, _ := netip.AddrFromSlice(b) // 4 or 16 bytes: cannot fail
		v.Text = ip.String()
	case TCP, UDP:
		v.Text = strconv.Itoa(int(binary.BigEndian.Uint16(b)))
	case TLS, WS, WSS:
	case HTTPPath:
		v.Text = url.PathEscape(string(b))
	default:
		v.Text = string(b)
	}
	if _, err := canonical(v); err != nil {
		return v, 0, err
	}
	return v, n + size, nil
}

// MarshalText returns the text form; JSON and YAML use it. It fails for an address with an empty name before its end, which the binary form can have
// and a text cannot. See encoding.TextMarshaler.
func (a Addr) MarshalText() ([]byte, error) {
	if _, err := a.Bytes(); err != nil {
		return nil, err
	}
	for i, v := range a {
		if v.Protocol.named() && v.Text == "" && i < len(a)-1 {
			return nil, fmt.Errorf("multiaddr: %w: an empty name before the end: %q", ErrMissingValue, a.String())
		}
	}
	return []byte(a.String()), nil
}

// UnmarshalText parses the text form; empty text is the empty address. See encoding.TextUnmarshaler.
func (a *Addr) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*a = nil
		return nil
	}
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}

// MarshalCBOR returns a CBOR byte string with the binary form. See cbor.Marshaler.
func (a Addr) MarshalCBOR() ([]byte, error) {
	b, err := a.Bytes()
	if err != nil {
		return nil, err
	}
	return cbor.Marshal(b)
}

// UnmarshalCBOR reads a CBOR byte string with the binary form. See cbor.Unmarshaler.
func (a *Addr) UnmarshalCBOR(data []byte) error {
	var b []byte
	// A null or an array of numbers would also fill b; only a byte string is an address.
	if len(data) == 0 || data[0]>>5 != 2 {
		return fmt.Errorf("multiaddr: %w: a CBOR byte string is expected", ErrInvalidValue)
	}
	if err := cbor.Unmarshal(data, &b); err != nil {
		return fmt.Errorf("multiaddr: %w", err)
	}
	parsed, err := FromBytes(b)
	if err != nil {
		return err
	}
	*a = parsed
	return nil
}
