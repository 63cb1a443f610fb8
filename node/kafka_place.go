package node

import (
	"fmt"
	"net/netip"
	"strings"

	"sallyport/node/admin"
)

// maxKafkaMessage bounds how long messages may be that are collected in memory, in bytes. Kafka itself has 2 GiB.
const maxKafkaMessage = 1 << 30

// announced is the host that a client is told to connect to.
func (in *kafkaInlet) announced(reached netip.Addr) string {
	if in.request.Advertise != "" {
		return in.request.Advertise
	}
	at, err := netip.ParseAddr(in.host)
	if everywhere := in.host == "" || err == nil && at.IsUnspecified(); everywhere && reached.IsValid() {
		return reached.Unmap().WithZone("").String()
	}
	return in.host
}

// checkAdvertised checks --advertise: a name or an address, without a port.
func checkAdvertised(host string) error {
	if host == "" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() {
			return fmt.Errorf("%w: --advertise %s is no address that clients can connect to", admin.ErrInvalid, host)
		}
		return nil
	}
	if len(host) > 253 || strings.ContainsAny(host, ":/[]@, \t\n") || strings.HasPrefix(host, ".") {
		return fmt.Errorf("%w: --advertise %q must be a host name or an address, without a port: brokers have the ports of --brokers-port-range", admin.ErrInvalid, host)
	}
	return nil
}
