package node

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/node/admin"
)

// Application protocols over TLS (ALPN, RFC 7301). A client and a server of HTTP/2, gRPC among it, do without one another unless both
// named it in their TLS handshakes (RFC 9113 section 3.2), and a portal has two of those: of the inlet with the client, of the outlet with the
// target. Neither end sees the other's, so each is told with --alpn, or goes by what it sees itself.

const (
	http1 = "http/1.1"
	http2 = "h2"
	// noProtocol as the only name of a list offers none.
	noProtocol = "none"
)

// checkProtocols refuses a list of names that cannot stand in a handshake.
func checkProtocols(list []string) error {
	for _, name := range list {
		if len(name) == 0 || len(name) > 255 {
			return fmt.Errorf("%w: --alpn: %q must be a protocol's name of 1 to 255 bytes, such as h2 or http/1.1", admin.ErrInvalid, name)
		}
		if name == noProtocol && len(list) > 1 {
			return fmt.Errorf("%w: --alpn: %s stands alone", admin.ErrInvalid, noProtocol)
		}
	}
	return nil
}

// offered is the list for a TLS configuration.
func offered(list []string) []string {
	if len(list) == 1 && list[0] == noProtocol {
		return nil
	}
	return list
}

// choose returns what an inlet's TLS with one client may agree on. With a list that is what the list says, in its order; a client that has
// none of it is refused. Without, the inlet does not know what the target speaks: a client that can speak one protocol alone gets that, one
// that can speak HTTP/1.1 gets that, as every target of HTTP knows it, one of HTTP/2 without HTTP/1.1 gets h2, whatever else it offers, as gRPC
// does with names of its own, and another one gets none. What is to be rewritten has to be HTTP/1.1.
func choose(list, client []string, rewritten bool) []string {
	switch {
	case len(list) > 0:
		return offered(list)
	case slices.Contains(client, http1):
		return []string{http1}
	case rewritten:
		return nil
	case len(client) == 1:
		return client
	case slices.Contains(client, http2):
		return []string{http2}
	}
	return nil
}

const (
	// peekFor is how long an outlet waits for what the client says first: longer than the way of a first payload over any distance.
	// Servers that speak first are held up by as much; --alpn says that there is nothing to wait for.
	peekFor = time.Second
	// preface begins every HTTP/2 connection (RFC 9113 section 3.4).
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// serverFirst are the ports of protocols over TLS whose servers speak first: FTPS, NNTPS, SMTPS, IMAPS, POP3S.
var serverFirst = []string{"990", "563", "465", "993", "995"}

// httpRequest is the beginning of an HTTP/1 request (RFC 9112 section 3): a method, a blank, a target.
var httpRequest = regexp.MustCompile(`^([A-Z]{3,16} (/|\*|https?:)|CONNECT )`)

// spoken returns what the beginning of a stream says that its client speaks, and whether more of it is needed to tell.
func spoken(first []byte) (protocols []string, more bool) {
	switch {
	case len(first) >= len(preface) && string(first[:len(preface)]) == preface:
		return []string{http2}, false
	case len(first) < len(preface) && string(first) == preface[:len(first)]:
		return nil, true
	case httpRequest.Match(first):
		return []string{http1}, false
	}
	return nil, false
}

// peek looks at what waits on a socket without taking it, until it tells the protocol or ctx ends.
func peek(ctx context.Context, local *net.UnixConn) []string {
	raw, err := local.SyscallConn()
	if err != nil {
		return nil
	}
	until := time.Now().Add(peekFor)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	_ = local.SetReadDeadline(until)
	defer func() { _ = local.SetReadDeadline(time.Time{}) }()
	var protocols []string
	buf := make([]byte, len(preface))
	_ = raw.Read(func(fd uintptr) bool { // each time that something has come, until the deadline
		n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == unix.EAGAIN || err == unix.EINTR {
			return false
		}
		if err != nil || n == 0 {
			return true
		}
		more := false
		protocols, more = spoken(buf[:n])
		return !more
	})
	return protocols
}

// clientProtocols makes an inlet's TLS configuration of what each client offers.
func clientProtocols(base *tls.Config, list []string, rewritten bool) *tls.Config {
	config := base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		one := base.Clone()
		one.NextProtos = choose(list, hello.SupportedProtos, rewritten)
		known := func(name string) bool { return slices.Contains(one.NextProtos, name) }
		// The library would let a client of HTTP/1.1 go on as if nothing had been asked for.
		if len(one.NextProtos) > 0 && len(hello.SupportedProtos) > 0 && !slices.ContainsFunc(hello.SupportedProtos, known) {
			return nil, fmt.Errorf("the client speaks %q, not one of %q", hello.SupportedProtos, one.NextProtos)
		}
		return one, nil
	}
	return config
}
