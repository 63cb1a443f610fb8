package names

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxAddresses is how many addresses of one name are tried.
	MaxAddresses = 16
	// patience is how long both families are waited for before what one of them has is taken. A resolver that never answers for IPv6 would
	// otherwise hold up IPv4 for its own timeout, ten seconds and more (RFC 8305 section 3).
	patience = 300 * time.Millisecond
	// resolutionDelay is how long an answer for IPv4 waits for the one for IPv6 after that (RFC 8305 section 3).
	resolutionDelay = 50 * time.Millisecond
)

var (
	// ErrNoAddress reports a name that has no address of the kind that is needed.
	ErrNoAddress = errors.New("host has no address")
	// ErrHostPort reports a text that is not host:port.
	ErrHostPort = errors.New("not host:port")
)

// Resolver asks for the addresses of names. The zero value asks the system.
type Resolver struct {
	// LookupIP returns the addresses of a host's name; network is "ip", "ip4" or "ip6". For "ip" they are in the order of
	// RFC 6724 section 6. Nil asks the system, whose answers are.
	LookupIP func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// Spread, if not empty, decides in which order the addresses of one family are tried: for each text in another one, so that many who use a name are
	// divided among what is behind it, and who has the same text comes to the same. It is the order of rendezvous hashing: without an address that goes the others
	// keep theirs.
	Spread string
}

// Lookup asks the system for the addresses of host:port; see Resolver.Lookup.
func Lookup(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	return (&Resolver{}).Lookup(ctx, hostport)
}

// LookupIPv4 is Lookup for what is carried over IPv4 alone.
func LookupIPv4(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	return (&Resolver{}).LookupIPv4(ctx, hostport)
}

// Listen returns where to listen for host:port: a name's first IPv4 address if it has one, as programs that listen at "localhost"
// mostly do.
func Listen(ctx context.Context, hostport string) (netip.AddrPort, error) {
	list, err := Lookup(ctx, hostport)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for _, a := range list {
		if a.Addr().Is4() {
			return a, nil
		}
	}
	return list[0], nil
}

// Lookup returns the addresses of host:port, at least one, in the order in which they are to be tried. It may ask a server, so it is
// not for an event loop. A name may end in a dot, which says that it is complete (RFC 1034 section 3.1).
func (r *Resolver) Lookup(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	host, port, literal, err := split(hostport)
	if err != nil || literal.IsValid() {
		return []netip.AddrPort{literal}, err
	}
	ips, err := r.both(ctx, host)
	ips = withLoopback(host, ips)
	if len(ips) == 0 {
		return nil, noAddress(host, "", err)
	}
	return withPort(inTurn(ips, r.Spread), port), nil
}

// LookupIPv4 is Lookup for what is carried over IPv4 alone.
func (r *Resolver) LookupIPv4(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	host, port, literal, err := split(hostport)
	if err != nil {
		return nil, err
	}
	if literal.IsValid() {
		if !literal.Addr().Is4() {
			return nil, fmt.Errorf("%w: %s is not IPv4", ErrNoAddress, hostport)
		}
		return []netip.AddrPort{literal}, nil
	}
	ips, err := r.lookup(ctx, "ip4", host)
	var v4 []netip.Addr
	for _, ip := range withLoopback(host, ips) {
		if ip.Is4() {
			v4 = append(v4, ip)
		}
	}
	if len(v4) == 0 {
		return nil, noAddress(host, "IPv4 ", err)
	}
	return withPort(v4, port), nil
}

func noAddress(host, kind string, err error) error {
	if err != nil {
		return fmt.Errorf("resolve %s: %w", host, err)
	}
	return fmt.Errorf("%w: %s has no %saddress", ErrNoAddress, host, kind)
}

// split takes host:port apart. literal is set when the host is an address.
func split(hostport string) (host string, port uint16, literal netip.AddrPort, err error) {
	if ap, err := netip.ParseAddrPort(hostport); err == nil {
		return "", 0, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
	}
	host, text, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", 0, literal, fmt.Errorf("%w: %q: %w", ErrHostPort, hostport, err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, literal, fmt.Errorf("%w: %q: the port must be a number from 0 to 65535", ErrHostPort, hostport)
	}
	if host == "" {
		return "", 0, literal, fmt.Errorf("%w: %q: the host is missing", ErrHostPort, hostport)
	}
	return host, uint16(n), literal, nil
}

func (r *Resolver) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	ask := r.LookupIP
	if ask == nil {
		ask = net.DefaultResolver.LookupNetIP
	}
	ips, err := ask(ctx, network, host)
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, err
}

// both asks for both families at once. When that takes long it asks for each alone, and takes what is there first.
func (r *Resolver) both(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		ips []netip.Addr
		err error
	}
	ask := func(network string) chan answer {
		c := make(chan answer, 1)
		go func() {
			ips, err := r.lookup(ctx, network, host)
			c <- answer{ips, err}
		}()
		return c
	}
	together := ask("ip")
	select {
	case a := <-together:
		return a.ips, a.err
	case <-time.After(patience):
	}
	v4, v6 := ask("ip4"), ask("ip6")
	var late <-chan time.Time // runs once IPv4 has answered
	var first []netip.Addr
	for {
		select {
		case a := <-together:
			return a.ips, a.err
		case a := <-v6:
			if v6 = nil; len(a.ips) > 0 {
				return append(a.ips, first...), nil
			}
			if len(first) > 0 {
				return first, nil
			}
		case a := <-v4:
			if v4 = nil; len(a.ips) == 0 {
				continue
			}
			if v6 == nil {
				return a.ips, nil
			}
			first, late = a.ips, time.After(resolutionDelay)
		case <-late:
			return first, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// withLoopback adds what localhost always means (RFC 6761 section 6.3): a hosts file often names one family only, and a server may listen
// on the other.
func withLoopback(host string, ips []netip.Addr) []netip.Addr {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name != "localhost" && !strings.HasSuffix(name, ".localhost") {
		return ips
	}
	for _, loopback := range [...]netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})} {
		there := false
		for _, ip := range ips {
			there = there || ip.Is4() == loopback.Is4()
		}
		if !there {
			ips = append(ips, loopback)
		}
	}
	return ips
}

// inTurn lets the families take turns, beginning with that of the best address, and leaves out what comes twice (RFC 8305 section 4). See Resolver.Spread.
func inTurn(ips []netip.Addr, spread string) []netip.Addr {
	var families [2][]netip.Addr // that of the first address, and the other one
	seen := map[netip.Addr]bool{}
	for _, ip := range ips {
		if !seen[ip] {
			seen[ip] = true
			k := 0
			if ip.Is4() != ips[0].Is4() {
				k = 1
			}
			families[k] = append(families[k], ip)
		}
	}
	if spread != "" {
		for _, f := range families {
			slices.SortFunc(f, func(a, b netip.Addr) int {
				x, y := score(spread, a), score(spread, b)
				return bytes.Compare(x[:], y[:])
			})
		}
	}
	out := make([]netip.Addr, 0, len(seen))
	for i := 0; len(out) < len(seen); i++ {
		for _, f := range families {
			if i < len(f) {
				out = append(out, f[i])
			}
		}
	}
	return out
}

func score(spread string, a netip.Addr) [sha256.Size]byte {
	return sha256.Sum256([]byte(spread + "\x00" + a.String()))
}

func withPort(ips []netip.Addr, port uint16) []netip.AddrPort {
	ips = ips[:min(len(ips), MaxAddresses)]
	out := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		out[i] = netip.AddrPortFrom(ip, port)
	}
	return out
}
