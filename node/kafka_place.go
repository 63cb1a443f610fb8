//go:build !small

package node

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing/multiaddr"
)

// maxKafkaMessage bounds how long messages may be that are collected in memory, in bytes. Kafka itself has 2 GiB.
const maxKafkaMessage = 1 << 30

// announced is the host that a client is told to connect to.
func (in *kafkaInlet) announced(reached netip.Addr) string {
	if in.request.Advertise != "" {
		return in.request.Advertise
	}
	if everywhere(in.host) && reached.IsValid() {
		return reached.Unmap().WithZone("").String()
	}
	return in.host
}

// everywhere tells whether a host stands for all addresses.
func everywhere(host string) bool {
	at, err := netip.ParseAddr(host)
	return host == "" || err == nil && unspecified(at)
}

// unspecified tells whether an address stands for all addresses, however it is written.
func unspecified(at netip.Addr) bool { return at.Unmap().WithZone("").IsUnspecified() }

// checkKafkaTLS checks what clients that speak TLS need: the certificate's name.
func checkKafkaTLS(r *resource.KafkaInlet) error {
	if r.TLSProvider == "" {
		return nil
	}
	if _, err := multiaddr.Parse(r.TLSProvider); err != nil {
		return fmt.Errorf("%w: --tls-certificate-provider: %w", admin.ErrInvalid, err)
	}
	if host, _, _ := net.SplitHostPort(r.From); r.Advertise == "" && everywhere(host) {
		return fmt.Errorf("%w: with TLS on all addresses --advertise must say for which host the certificate is", admin.ErrInvalid)
	}
	return nil
}

// checkAdvertised checks --advertise: a name or an address, without a port.
func checkAdvertised(host string) error {
	if host == "" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if unspecified(a) {
			return fmt.Errorf("%w: --advertise %s is no address that clients can connect to", admin.ErrInvalid, host)
		}
		return nil
	}
	if len(host) > 253 || strings.ContainsAny(host, ":/[]@, \t\n") || strings.HasPrefix(host, ".") {
		return fmt.Errorf("%w: --advertise %q must be a host name or an address, without a port: brokers have the ports of --brokers-port-range", admin.ErrInvalid, host)
	}
	return nil
}
