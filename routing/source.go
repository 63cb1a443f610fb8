package routing

import "net/netip"

// HostSource names the machine at an address for a Sourced: all of an IPv6 network of 64 bits, which is what one machine gets, counts as
// one.
func HostSource(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
