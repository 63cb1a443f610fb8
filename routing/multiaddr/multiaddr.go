// Package multiaddr reads and writes multi-part addresses such as /dnsaddr/localhost/tcp/4000/secure/api/service/echo, as text,
// in binary and inside CBOR and JSON (docs/protocol/01 §4.3-§4.4, docs/protocol/03 §4.0), and expands what the command line
// accepts in their place (docs/protocol/03 §4.1).
//
// It connects to nothing: turning an address into a route is the node's work.
package multiaddr

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Protocol is the code of one kind of part.
type Protocol uint32

// The protocols and their codes (docs/protocol/01 §4.3; those of WebSocket and TLS, docs/protocol/06, as in the table of multiformats).
const (
	IP4      Protocol = 4
	TCP      Protocol = 6
	IP6      Protocol = 41
	DNSAddr  Protocol = 56
	UDP      Protocol = 273
	TLS      Protocol = 448 // without a value, as are WS and WSS
	SNI      Protocol = 449
	WS       Protocol = 477
	WSS      Protocol = 478
	HTTPPath Protocol = 481 // its text is percent-encoded
	Service  Protocol = 62526
	Node     Protocol = 72526
	Project  Protocol = 82526
	Space    Protocol = 92526
	Secure   Protocol = 99526
	Worker   Protocol = 102526
)

// String returns the protocol's name in text, or its number if it is unknown.
func (p Protocol) String() string {
	switch p {
	case IP4:
		return "ip4"
	case TCP:
		return "tcp"
	case IP6:
		return "ip6"
	case DNSAddr:
		return "dnsaddr"
	case UDP:
		return "udp"
	case TLS:
		return "tls"
	case SNI:
		return "sni"
	case WS:
		return "ws"
	case WSS:
		return "wss"
	case HTTPPath:
		return "http-path"
	case Service:
		return "service"
	case Node:
		return "node"
	case Project:
		return "project"
	case Space:
		return "space"
	case Secure:
		return "secure"
	case Worker:
		return "worker"
	}
	return strconv.FormatUint(uint64(p), 10)
}

// protocolByName is the inverse of Protocol.String for the known protocols.
func protocolByName(name string) (Protocol, bool) {
	for _, p := range [...]Protocol{IP4, TCP, IP6, DNSAddr, UDP, TLS, SNI, WS, WSS, HTTPPath, Service, Node, Project, Space, Secure, Worker} {
		if p.String() == name {
			return p, true
		}
	}
	return 0, false
}

// named reports whether the value of p is a string, which may be empty.
func (p Protocol) named() bool {
	switch p {
	case DNSAddr, SNI, HTTPPath, Service, Node, Project, Space, Secure, Worker:
		return true
	}
	return false
}

// bare reports whether p has no value.
func (p Protocol) bare() bool { return p == TLS || p == WS || p == WSS }

// Value is one part of an address.
type Value struct {
	Protocol Protocol
	// Text is an IP address, a decimal port, or a name without a slash, as the protocol wants it; empty for a protocol without a value.
	Text string
}

// String returns the part as text, with its leading slash.
func (v Value) String() string {
	if v.Protocol.bare() {
		return "/" + v.Protocol.String()
	}
	return "/" + v.Protocol.String() + "/" + v.Text
}

// Addr is an address: parts from left to right. What Parse, FromBytes and the unmarshalling methods return is valid and in
// canonical form, so two of them are the same address if slices.Equal says so. An Addr written by hand is checked when it is
// encoded.
type Addr []Value

// The reasons an address is refused; an *Error wraps one of them.
var (
	ErrEmpty           = errors.New("empty address")
	ErrSlash           = errors.New("doubled or trailing slash")
	ErrUnknownProtocol = errors.New("unknown protocol")
	ErrMissingValue    = errors.New("value missing")
	ErrInvalidValue    = errors.New("invalid value")
	ErrTruncated       = errors.New("input ends too early")
	ErrVarint          = errors.New("invalid number")
)

// Values that would be more than a path or a host where they are written into a request.
var (
	errControl = fmt.Errorf("%w: a path has no control characters", ErrInvalidValue)
	errHost    = fmt.Errorf("%w: must be the name of a host", ErrInvalidValue)
)

// Error says what is wrong with an address and where.
type Error struct {
	Input  string // the text that was parsed; empty for binary input
	Offset int    // where in the input the offending part starts, in bytes
	Part   string // the offending part, as text; may be empty
	Err    error  // one of the reasons above
}

func (e *Error) Error() string {
	where := "address"
	if e.Input != "" {
		where += " " + strconv.Quote(e.Input)
	}
	if e.Part == "" {
		return fmt.Sprintf("%s: at byte %d: %v", where, e.Offset, e.Err)
	}
	return fmt.Sprintf("%s: at byte %d: %v: %q", where, e.Offset, e.Err, e.Part)
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// Parse reads an address as text. The first slash may be missing, and the whole text `self` stands for /secure/api. A name may be
// empty only at the very end (`/service`). Errors are of type *Error.
func Parse(text string) (Addr, error) {
	if text == "self" {
		return Addr{{Secure, "api"}}, nil
	}
	fail := func(offset int, part string, err error) (Addr, error) {
		return nil, &Error{Input: text, Offset: offset, Part: part, Err: err}
	}
	if text == "" {
		return fail(0, "", ErrEmpty)
	}
	at := 0
	if text[0] == '/' {
		at = 1
	}
	addr := make(Addr, 0, min(strings.Count(text[at:], "/")/2+1, 16))
	for {
		name, rest, more := strings.Cut(text[at:], "/")
		if name == "" {
			return fail(at, "", ErrSlash)
		}
		p, known := protocolByName(name)
		if !known {
			return fail(at, name, ErrUnknownProtocol)
		}
		if p.bare() {
			addr = append(addr, Value{Protocol: p})
			if !more {
				return addr, nil
			}
			at += len(name) + 1
			continue
		}
		if !more {
			if !p.named() {
				return fail(at, name, ErrMissingValue)
			}
			return append(addr, Value{Protocol: p}), nil
		}
		valueAt := at + len(name) + 1
		value, _, more := strings.Cut(rest, "/")
		if value == "" {
			return fail(valueAt, "", ErrSlash)
		}
		v, err := canonical(Value{p, value})
		if err != nil {
			return fail(valueAt, value, err)
		}
		addr = append(addr, v)
		if !more {
			return addr, nil
		}
		at = valueAt + len(value) + 1
	}
}

// control reports whether r is a control character of ASCII.
func control(r rune) bool { return r < ' ' || r == 0x7f }

// canonical checks v and returns it in the one form used for comparison and output.
func canonical(v Value) (Value, error) {
	switch v.Protocol {
	case IP4, IP6:
		ip, err := netip.ParseAddr(v.Text)
		if err != nil || ip.Zone() != "" || ip.Is4() != (v.Protocol == IP4) {
			return Value{}, ErrInvalidValue
		}
		v.Text = ip.String()
	case TCP, UDP:
		port, err := strconv.ParseUint(v.Text, 10, 16)
		if err != nil {
			return Value{}, ErrInvalidValue
		}
		v.Text = strconv.FormatUint(port, 10)
	case TLS, WS, WSS:
		if v.Text != "" {
			return Value{}, ErrInvalidValue
		}
	case HTTPPath:
		path, err := url.PathUnescape(v.Text)
		if err != nil || !utf8.ValidString(path) {
			return Value{}, ErrInvalidValue
		}
		if strings.ContainsFunc(path, control) {
			return Value{}, errControl
		}
		v.Text = url.PathEscape(path)
	case DNSAddr, SNI:
		if !utf8.ValidString(v.Text) || strings.ContainsFunc(v.Text, func(r rune) bool { return control(r) || strings.ContainsRune(" \"#/<>?@\\", r) }) {
			return Value{}, errHost
		}
	default:
		if !v.Protocol.named() {
			return Value{}, ErrUnknownProtocol
		}
		if strings.Contains(v.Text, "/") || !utf8.ValidString(v.Text) {
			return Value{}, ErrInvalidValue
		}
	}
	return v, nil
}

// String returns the address as text; the empty address is empty text. An empty name at the end is left out with its slash, so that
// the text can be parsed again.
func (a Addr) String() string {
	var b strings.Builder
	for i, v := range a {
		b.WriteByte('/')
		b.WriteString(v.Protocol.String())
		if !v.Protocol.bare() && (v.Text != "" || i < len(a)-1) {
			b.WriteByte('/')
			b.WriteString(v.Text)
		}
	}
	return b.String()
}

// HostPort finds the first host (ip4, ip6, dnsaddr) that is followed by a port (tcp, udp). network is "tcp" or "udp", address is
// `host:port` or `[v6]:port` as package net takes it, at is the index of the host; the port is at at+1. ok is false if there is none.
func (a Addr) HostPort() (network, address string, at int, ok bool) {
	for i := 0; i+1 < len(a); i++ {
		switch a[i].Protocol {
		case IP4, IP6, DNSAddr:
		default:
			continue
		}
		if p := a[i+1].Protocol; (p == TCP || p == UDP) && a[i].Text != "" {
			return p.String(), net.JoinHostPort(unbracketed(a[i].Text), a[i+1].Text), i, true
		}
	}
	return "", "", 0, false
}

// unbracketed takes the brackets from [v6], as people write it where a port may follow: /dnsaddr/[::1]/tcp/4000.
func unbracketed(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			if ip, err := netip.ParseAddr(inner); err == nil && ip.Is6() {
				return inner
			}
		}
	}
	return host
}

// FromHostPort makes an address of a host, which is an IP address or a name, and a port. network is "tcp" or "udp".
func FromHostPort(network, address string) (Addr, error) {
	p, known := protocolByName(network)
	if !known || (p != TCP && p != UDP) {
		return nil, fmt.Errorf("multiaddr: network %q: %w", network, ErrUnknownProtocol)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("multiaddr: %w", err)
	}
	kind := DNSAddr
	if ip, err := netip.ParseAddr(host); err == nil {
		if kind = IP6; ip.Is4() {
			kind = IP4
		}
	}
	if host == "" {
		return nil, fmt.Errorf("multiaddr: %q: %w", address, ErrMissingValue)
	}
	a := Addr{{kind, host}, {p, port}}
	for i := range a {
		if a[i], err = canonical(a[i]); err != nil {
			return nil, fmt.Errorf("multiaddr: %q: %w: %q", address, err, a[i].Text)
		}
	}
	return a, nil
}

// ReplaceNode returns the address with every /node/NAME replaced by what resolve returns for NAME. a is not changed.
func (a Addr) ReplaceNode(resolve func(name string) (Addr, error)) (Addr, error) {
	out := make(Addr, 0, len(a))
	for _, v := range a {
		if v.Protocol != Node {
			out = append(out, v)
			continue
		}
		to, err := resolve(v.Text)
		if err != nil {
			return nil, fmt.Errorf("node %q: %w", v.Text, err)
		}
		out = append(out, to...)
	}
	return slices.Clip(out), nil
}
