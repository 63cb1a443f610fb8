package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/crypto/identity"
	"sallyport/internal/poll"
	"sallyport/node/admin"
	"sallyport/portal"
	"sallyport/portal/proxyproto"
)

// dialer opens the target of an outlet for whom a connection was begun.
type dialer = func(ctx context.Context, from portal.Origin) (portal.Piped, error)

// greeting makes what a target at an address gets before the client's bytes; nil makes nothing.
type greeting func(from portal.Origin, at netip.AddrPort) []byte

// write sends it over a connection that has just been opened.
func (p greeting) write(c net.Conn, from portal.Origin) error {
	if p == nil {
		return nil
	}
	at := netip.AddrPort{}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		at = a.AddrPort()
	}
	_, err := c.Write(p(from, at))
	return err
}

// checkProxyProtocol refuses a --proxy-protocol that there is not.
func checkProxyProtocol(text string) error {
	if text == "" {
		return nil
	}
	if _, err := proxyproto.ParseVersion(text); err != nil {
		return fmt.Errorf("%w: --proxy-protocol %q must be v1 or v2", admin.ErrInvalid, text)
	}
	return nil
}

// greetingOf returns the greeting of an outlet that tells its target whose connections it brings, in a version of the PROXY protocol; nil for one that
// tells nothing. Whoever the outlet's policy admits is believed about its client's address, and nothing else is: identifier and attributes are those of
// the channel and of the credential.
func (n *Node) greetingOf(version string) (greeting, error) {
	if version == "" {
		return nil, nil
	}
	v, err := proxyproto.ParseVersion(version)
	if err != nil {
		return nil, fmt.Errorf("%w: --proxy-protocol %q must be v1 or v2", admin.ErrInvalid, version)
	}
	return func(from portal.Origin, at netip.AddrPort) []byte {
		h := proxyproto.Header{Source: from.Address, Destination: at}
		if from.Peer != nil {
			id := identity.Identifier(*from.Peer)
			h.TLVs = append(h.TLVs, proxyproto.TLV{Type: proxyproto.TypeIdentifier, Value: []byte(id.String())})
			attributes := n.Attributes(id)
			names := make([]string, 0, len(attributes))
			for name := range attributes {
				names = append(names, name)
			}
			slices.Sort(names)
			for _, name := range names {
				h.TLVs = append(h.TLVs, proxyproto.TLV{Type: proxyproto.TypeAttribute, Value: []byte(name + "=" + attributes[name])})
			}
		}
		return proxyproto.Append(nil, v, h)
	}, nil
}

// Attributes returns what the node's authority attests of another node, in a credential that is in effect; nil if it attests nothing.
func (n *Node) Attributes(id identity.Identifier) map[string]string {
	authority := n.authority()
	if authority == nil {
		return nil
	}
	attributes, _ := n.access.attributes(id, *authority)
	return attributes
}

// trustedNetworks reads the networks, or addresses, of a flag.
func trustedNetworks(flag string, list []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(text); err == nil {
				p = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s %q must be a network, as 10.0.0.0/8, or an address", admin.ErrInvalid, flag, text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// headerReader returns an inlet's Preface, or a listener's, which takes the PROXY protocol's header from clients of trusted networks, and nothing from others;
// nil for no network. Clients of a Unix socket are in no network: with isUnix it is taken from all, as the socket's permissions say who may connect.
func headerReader(trusted []netip.Prefix, isUnix bool) func(context.Context, int, netip.AddrPort) (netip.AddrPort, error) {
	if len(trusted) == 0 {
		return nil
	}
	return func(ctx context.Context, fd int, from netip.AddrPort) (netip.AddrPort, error) {
		ip := from.Addr().Unmap()
		if !isUnix && !slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			return from, nil
		}
		h, err := readHeader(ctx, fd)
		if err != nil {
			who := "a client of the Unix socket"
			if !isUnix {
				who = from.String()
			}
			return from, fmt.Errorf("PROXY protocol of %s: %w", who, err)
		}
		if h.Local || !h.Source.IsValid() {
			return from, nil
		}
		return h.Source, nil
	}
}

// readHeader takes a header from a socket and no byte behind it. fd stays the caller's.
func readHeader(ctx context.Context, fd int) (proxyproto.Header, error) {
	var none proxyproto.Header
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return none, os.NewSyscallError("dup", err)
	}
	f := os.NewFile(uintptr(dup), "client") // non-blocking, as fd is: the runtime waits for it
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	raw, err := f.SyscallConn()
	if err != nil {
		return none, err
	}
	buf := make([]byte, proxyproto.MaxHeader)
	var h proxyproto.Header
	var failed error
	look := func(fd uintptr) bool {
		over := ended(int(fd)) // asked before: what comes between looking and asking would be taken for missing
		n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_PEEK)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return false
		case err != nil:
			failed = os.NewSyscallError("recv", err)
			return true
		case n == 0:
			failed = io.ErrUnexpectedEOF
			return true
		}
		var size int
		if h, size, err = proxyproto.Parse(buf[:n]); errors.Is(err, proxyproto.ErrShort) {
			if over {
				failed = io.ErrUnexpectedEOF
				return true
			}
			return false // what comes next is a new edge: the bytes stay where they are
		}
		if failed = err; err == nil {
			_, _, failed = unix.Recvfrom(int(fd), buf[:size], 0)
		}
		return true
	}
	if err := raw.Read(look); err != nil {
		return none, err
	}
	return h, failed
}

// ended reports whether the other end of a socket has sent its last byte.
func ended(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	return poll.Now(fds) == nil && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
