// Package proxyproto reads and writes the header of the PROXY protocol, versions 1 and 2 (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt):
// what a proxy sends to a server, before all other bytes of a connection, to tell whose connection it is. It works on bytes; who may send a header,
// and who is to get one, is decided elsewhere.
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
)

// Version is a version of the protocol.
type Version int

// Versions: text, and binary with TLVs.
const (
	V1 Version = 1
	V2 Version = 2
)

// ParseVersion reads "v1" or "v2".
func ParseVersion(text string) (Version, error) {
	switch text {
	case "v1":
		return V1, nil
	case "v2":
		return V2, nil
	}
	return 0, fmt.Errorf("proxyproto: version %q must be v1 or v2", text)
}

// Types of TLVs. Those from 0xE0 to 0xEF are for whoever uses the protocol; what ours mean is in docs/portals.md.
const (
	TypeChecksum   byte = 0x03
	TypeIdentifier byte = 0xE0 // of the member that the client came through, as text
	TypeAttribute  byte = 0xE1 // one of the member's attributes: NAME=VALUE
)

// TLV is a piece of a header of version 2.
type TLV struct {
	Type  byte
	Value []byte
}

// Header says whose connection it is.
type Header struct {
	// Local tells that the proxy speaks for itself, as to check the server. The addresses mean nothing then.
	Local bool
	// Source is the client and Destination what it has connected to; not valid where that is not known.
	Source, Destination netip.AddrPort
	// TLVs are only in version 2.
	TLVs []TLV
}

var (
	// ErrShort reports that more bytes are needed to tell.
	ErrShort = errors.New("proxyproto: header not complete")
	// ErrNone reports bytes that are no header of the protocol.
	ErrNone = errors.New("proxyproto: not a PROXY protocol header")
)

const (
	maxV1 = 107
	fixed = 16 // of version 2
	// MaxHeader is the longest header that is read: more than this, of TLVs, nobody has to send. nginx takes 4096 too.
	MaxHeader = 4096
	// maxAppended is the longest header that Append makes.
	maxAppended = 2048
)

var (
	signature1 = []byte("PROXY ")
	signature2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Parse reads a header at the beginning of b and returns its length. The TLVs are in b. Errors match ErrShort, for which more of b may help, or ErrNone.
func Parse(b []byte) (h Header, n int, err error) {
	switch {
	case begins(b, signature1):
		return parse1(b)
	case begins(b, signature2):
		return parse2(b)
	}
	return h, 0, ErrNone
}

// begins reports whether b may begin with a signature, as far as there is of it.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

func parse1(b []byte) (h Header, n int, err error) {
	end := bytes.Index(b[:min(len(b), maxV1)], []byte("\r\n"))
	if end < 0 {
		if len(b) >= maxV1 {
			return h, 0, fmt.Errorf("%w: line longer than %d bytes", ErrNone, maxV1)
		}
		return h, 0, ErrShort
	}
	n = end + 2
	words := strings.Split(string(b[:end]), " ")
	if len(words) >= 2 && words[1] == "UNKNOWN" {
		return h, n, nil
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return h, 0, fmt.Errorf("%w: line with other fields", ErrNone)
	}
	for i, to := range []*netip.AddrPort{&h.Source, &h.Destination} {
		ip, err := netip.ParseAddr(words[2+i])
		if err != nil || ip.Zone() != "" || ip.Is4() != (words[1] == "TCP4") {
			return Header{}, 0, fmt.Errorf("%w: address of another family", ErrNone)
		}
		port, err := strconv.ParseUint(words[4+i], 10, 16)
		if err != nil {
			return Header{}, 0, fmt.Errorf("%w: port", ErrNone)
		}
		*to = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return h, n, nil
}

func parse2(b []byte) (h Header, n int, err error) {
	if len(b) < fixed {
		return h, 0, ErrShort
	}
	if b[12]>>4 != 2 || b[12]&15 > 1 {
		return h, 0, fmt.Errorf("%w: version or command %#02x", ErrNone, b[12])
	}
	size := int(binary.BigEndian.Uint16(b[14:]))
	if n = fixed + size; n > MaxHeader {
		return h, 0, fmt.Errorf("%w: %d bytes, more than %d", ErrNone, n, MaxHeader)
	}
	if len(b) < n {
		return h, 0, ErrShort
	}
	h.Local = b[12]&15 == 0
	rest := b[fixed:n]
	ip := 0 // bytes of an address
	switch b[13] >> 4 {
	case 1:
		ip = 4
	case 2:
		ip = 16
	case 3:
		ip = 106 // Unix sockets: two names
	}
	block := 2*ip + 4
	if b[13]>>4 == 3 {
		block = 2 * 108
	}
	if ip == 0 { // the length of what is not known is not known either: there may be no TLVs to read
		if b[13] != 0 {
			return h, n, nil
		}
		block = 0
	}
	if len(rest) < block {
		return Header{}, 0, fmt.Errorf("%w: addresses cut off", ErrNone)
	}
	if ip == 4 || ip == 16 {
		from, _ := netip.AddrFromSlice(rest[:ip])
		to, _ := netip.AddrFromSlice(rest[ip : 2*ip])
		ports := rest[2*ip:]
		h.Source = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(ports))
		h.Destination = netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	}
	at := fixed + block
	for at < n {
		if n-at < 3 {
			return Header{}, 0, fmt.Errorf("%w: TLV cut off", ErrNone)
		}
		k := int(binary.BigEndian.Uint16(b[at+1:]))
		if k > n-at-3 {
			return Header{}, 0, fmt.Errorf("%w: TLV cut off", ErrNone)
		}
		value := b[at+3 : at+3+k : at+3+k]
		if b[at] == TypeChecksum && !sums(b[:n], at+3, k) {
			return Header{}, 0, fmt.Errorf("%w: wrong checksum", ErrNone)
		}
		h.TLVs = append(h.TLVs, TLV{b[at], value})
		at += 3 + k
	}
	return h, n, nil
}

// sums checks the checksum of size bytes at b[at], which is made with zeros there.
func sums(b []byte, at, size int) bool {
	if size != 4 {
		return false
	}
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, b[at+4:])
	return sum == binary.BigEndian.Uint32(b[at:])
}

// Append appends h in a version of the protocol. Without a Source, version 1 says UNKNOWN and version 2 names no address. TLVs beyond 2 KiB in all are
// left out.
func Append(b []byte, v Version, h Header) []byte {
	from, to := h.Source, h.Destination
	known := from.IsValid() && !h.Local
	if known && !to.IsValid() {
		to = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		if from.Addr().Unmap().Is4() {
			to = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
	}
	four := known && from.Addr().Unmap().Is4() && to.Addr().Unmap().Is4()
	if v == V1 {
		switch {
		case !known:
			return append(b, "PROXY UNKNOWN\r\n"...)
		case four:
			return fmt.Appendf(b, "PROXY TCP4 %s %s %d %d\r\n", from.Addr().Unmap(), to.Addr().Unmap(), from.Port(), to.Port())
		}
		return fmt.Appendf(b, "PROXY TCP6 %s %s %d %d\r\n", six(from.Addr()), six(to.Addr()), from.Port(), to.Port())
	}
	start := len(b)
	command, family := byte(0x21), byte(0)
	if h.Local {
		command = 0x20
	}
	b = append(append(b, signature2...), command, 0, 0, 0)
	switch {
	case four:
		family = 0x11
		b = append(append(b, from.Addr().Unmap().AsSlice()...), to.Addr().Unmap().AsSlice()...)
	case known:
		family = 0x21
		b = append(append(b, six(from.Addr()).AsSlice()...), six(to.Addr()).AsSlice()...)
	}
	if known {
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, from.Port()), to.Port())
	}
	for _, t := range h.TLVs {
		if len(b)-start+3+len(t.Value) > maxAppended {
			continue
		}
		b = append(b, t.Type)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(t.Value))), t.Value...)
	}
	b[start+13] = family
	binary.BigEndian.PutUint16(b[start+14:], uint16(len(b)-start-fixed))
	return b
}

// six is an address as one of IPv6, without its zone.
func six(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }
