//go:build !small

package node

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"

	"sallyport/node/admin"
	"sallyport/node/resource"
)

// TestKafkaAnnounced: clients of an inlet on all addresses are led to the address that they have reached, or to what --advertise says.
func TestKafkaAnnounced(t *testing.T) {
	outlet, inlet := newMember(t), newMember(t)
	if _, err := outlet.kafkaOutlets().Create(within(t), admin.KafkaOutletRequest{Bootstrap: metadataServer(t), Allow: only(inlet)}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from, advertise string
		want            map[string]string // by address that the client connects to
	}{
		"every IPv4":     {"0.0.0.0", "", map[string]string{"127.0.0.1": "127.0.0.1", "127.0.0.2": "127.0.0.2"}},
		"every":          {"::", "", map[string]string{"127.0.0.3": "127.0.0.3", "::1": "::1"}},
		"one":            {"127.0.0.1", "", map[string]string{"127.0.0.1": "127.0.0.1"}},
		"advertised":     {"0.0.0.0", "kafka.example.com", map[string]string{"127.0.0.1": "kafka.example.com"}},
		"one advertised": {"127.0.0.1", "192.0.2.7", map[string]string{"127.0.0.1": "192.0.2.7"}},
	} {
		in := inlet.kafkaInlet(admin.KafkaInletRequest{From: c.from, Advertise: c.advertise, To: outlet.route() + "/secure/api", NoContentEncryption: true})
		_, port, _ := net.SplitHostPort(in.request.From)
		for reach, want := range c.want {
			eventually(t, func() error {
				host, p, err := metadata(net.JoinHostPort(reach, port))
				if err == nil && host != want {
					t.Errorf("%s: a client of %s is told %s, want %s", name, reach, host, want)
				}
				if err == nil { // the broker's inlet is there as well
					_, _, err = metadata(net.JoinHostPort(reach, strconv.Itoa(int(p))))
				}
				return err
			})
		}
		if err := inlet.kafkaInlets().Delete(within(t), "kafka_inlet"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKafkaAnnouncedFallback: without a client's address there is nothing better than what the inlet was given.
func TestKafkaAnnouncedFallback(t *testing.T) {
	in := &kafkaInlet{host: "0.0.0.0"}
	if got := in.announced(netip.Addr{}); got != "0.0.0.0" {
		t.Error(got)
	}
	if got := in.announced(netip.MustParseAddr("::ffff:192.0.2.1")); got != "192.0.2.1" {
		t.Error(got)
	}
	if got := in.announced(netip.MustParseAddr("fe80::1%eth0")); got != "fe80::1" {
		t.Error(got)
	}
	in.host = "box.example.com"
	if got := in.announced(netip.MustParseAddr("192.0.2.1")); got != "box.example.com" {
		t.Error(got)
	}
}

// TestAllAddressesHoweverWritten: an address that stands for all of them is never announced, nor taken as one to announce, in any spelling.
func TestAllAddressesHoweverWritten(t *testing.T) {
	reached := netip.MustParseAddr("192.0.2.1")
	for _, all := range []string{"", "0.0.0.0", "::", "::ffff:0.0.0.0", "::%lo", "0:0:0:0:0:0:0:0", "::ffff:0:0", "::ffff:0.0.0.0%lo"} {
		if got := (&kafkaInlet{host: all}).announced(reached); got != "192.0.2.1" {
			t.Errorf("an inlet at %q announces %s", all, got)
		}
		if err := checkAdvertised(all); all != "" && !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("--advertise %q: %v", all, err)
		}
		r := resource.KafkaInlet{From: net.JoinHostPort(all, "9092"), TLSProvider: "/service/tls"}
		if err := checkKafkaTLS(&r); !errors.Is(err, admin.ErrInvalid) {
			t.Errorf("TLS at %q: %v", all, err)
		}
	}
	for _, one := range []string{"127.0.0.1", "::1", "fe80::1%eth0", "::ffff:192.0.2.7"} {
		if got := (&kafkaInlet{host: one}).announced(reached); got != one {
			t.Errorf("an inlet at %s announces %s", one, got)
		}
		if err := checkAdvertised(one); err != nil {
			t.Errorf("--advertise %s: %v", one, err)
		}
	}
}
