package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newService opens a socket for a service on a loop, at an address or with a peer.
func newService(t *testing.T, at, peer string) (*echoDatagrams, *UDPStats, *Loop) {
	t.Helper()
	g, err := NewGroup(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	parse := func(text string) netip.AddrPort {
		a, _ := netip.ParseAddrPort(text)
		return a
	}
	fd, _, err := g.OpenUDP(parse(at), parse(peer), 1<<20)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Skip("no IPv6 here")
	}
	if err != nil {
		t.Fatal(err)
	}
	e, stats, l := &echoDatagrams{drained: make(chan struct{}, 10)}, &UDPStats{}, g.Loop(0)
	on(t, l, func() {
		if e.sock, err = l.AdoptUDP(fd, e, stats); err == nil {
			e.sock.ForService(1 << 20)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, stats, l
}

// TestUDPServiceSizes: datagrams of every size up to the largest keep their boundaries, over IPv4, IPv6, and from an IPv4 client of a socket for both.
func TestUDPServiceSizes(t *testing.T) {
	for _, c := range []struct{ at, to string }{{"127.0.0.1:0", "127.0.0.1"}, {"[::1]:0", "::1"}, {"[::]:0", "127.0.0.1"}} {
		t.Run(c.at, func(t *testing.T) {
			e, stats, _ := newService(t, c.at, "")
			client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.to), e.sock.Local().Port())))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.SetDeadline(time.Now().Add(30 * time.Second))
			buf := make([]byte, 1<<16)
			for i, size := range []int{0, 1, 508, udpSlot, udpSlot + 1, 9000, 65506} { // the echo adds a byte
				sent := bytes.Repeat([]byte{byte(i + 1)}, size)
				for range 3 { // some come as one run
					if _, err := client.Write(sent); err != nil {
						t.Fatal(err)
					}
				}
				for range 3 {
					n, err := client.Read(buf)
					if err != nil || n != size+1 || !bytes.Equal(buf[1:n], sent) {
						t.Fatalf("%d bytes came back of %d: %v", n-1, size, err)
					}
				}
			}
			if n := stats.Truncated.Load(); n != 0 {
				t.Errorf("%d dropped", n)
			}
		})
	}
}

// TestUDPServicePeer: a socket with a peer hears nobody else, and goes on after the peer was away.
func TestUDPServicePeer(t *testing.T) {
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { peer.Close() }()
	at := peer.LocalAddr().(*net.UDPAddr).AddrPort()
	e, stats, l := newService(t, "", at.String())
	var local netip.AddrPort
	send := func(text string) {
		on(t, l, func() { e.sock.Send([]byte(text), at) })
	}
	on(t, l, func() { local = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), e.sock.Local().Port()) })
	stranger, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(local))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	_, _ = stranger.Write([]byte("hello"))
	if _, err := peer.WriteToUDPAddrPort([]byte("peer"), local); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	peer.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, _, err := peer.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != ">peer" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if n := stats.In.Load(); n != 1 {
		t.Errorf("%d datagrams came, one was the peer's", n)
	}
	peer.Close()
	send("nobody hears")
	eventually(t, "the refusal is counted, and told", func() bool { return stats.Refused.Load() > 0 && e.refused.Load() > 0 })
	if peer, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
		t.Skipf("somebody else has the port by now: %v", err)
	}
	send("back") // whatever the kernel said meanwhile of the one before
	peer.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, _, err := peer.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != "back" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}

// hereDatagrams answers from where it was asked.
type hereDatagrams struct{ echoDatagrams }

func (h *hereDatagrams) OnDatagram(buf []byte, n int, from netip.AddrPort) {
	h.sock.SendFrom(buf[:n], from, h.sock.Here())
}

// TestUDPServiceHere: a socket at all addresses answers from the one that was asked, also where many answers go at once, and in runs.
func TestUDPServiceHere(t *testing.T) {
	four, six := []string{"127.0.0.1", "127.0.0.2", "127.0.0.5"}, []string{"::1"}
	for _, c := range []struct {
		at    string
		hosts []string
		not   string // of this machine
	}{{"0.0.0.0:0", four, "192.0.2.1"}, {"[::]:0", four, "192.0.2.1"}, {"[::]:0", six, "2001:db8::1"}} {
		t.Run(c.at+" for "+c.hosts[0], func(t *testing.T) {
			hosts, not := c.hosts, netip.MustParseAddr(c.not)
			e, stats, l := newService(t, c.at, "")
			on(t, l, func() { e.sock.handler = &hereDatagrams{echoDatagrams{sock: e.sock}} })
			client, err := net.ListenPacket("udp", netip.AddrPortFrom(netip.MustParseAddr(hosts[0]), 0).String())
			if err != nil {
				t.Fatal(err)
			}
			c := client.(*net.UDPConn)
			defer c.Close()
			c.SetDeadline(time.Now().Add(60 * time.Second))
			buf := make([]byte, 1000)
			hears := func(want string) {
				t.Helper()
				n, from, err := c.ReadFromUDPAddrPort(buf)
				if err != nil || string(buf[:n]) != want || from.Addr().Unmap() != netip.MustParseAddr(want) {
					t.Fatalf("%q from %v, %v", buf[:n], from, err)
				}
			}
			for _, host := range hosts {
				to := netip.AddrPortFrom(netip.MustParseAddr(host), e.sock.Local().Port())
				for range 3 {
					if _, err := c.WriteToUDPAddrPort([]byte(host), to); err != nil {
						t.Fatal(err)
					}
				}
				for range 3 {
					hears(host)
				}
			}
			to := c.LocalAddr().(*net.UDPAddr).AddrPort()
			const turns, each = 20, 3
			on(t, l, func() {
				for i := range turns * each {
					host := hosts[i/each%len(hosts)]
					e.sock.SendFrom([]byte(host), to, netip.MustParseAddr(host))
				}
			})
			for i := range turns * each {
				hears(hosts[i/each%len(hosts)])
			}
			on(t, l, func() { e.sock.SendFrom([]byte("lost"), to, not) })
			eventually(t, "what has another machine's address is not sent", func() bool { return stats.Failed.Load() == 1 })
		})
	}
}

// TestReadControl: what the kernel says is taken as far as it is whole, whatever is beside it.
func TestReadControl(t *testing.T) {
	message := func(level, kind int32, data ...byte) []byte {
		b := make([]byte, unix.CmsgSpace(len(data)))
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		h.Level, h.Type = level, kind
		h.SetLen(unix.CmsgLen(len(data)))
		copy(b[unix.CmsgLen(0):], data)
		return b
	}
	number := func(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
	four := func(to, header string) []byte { // struct in_pktinfo
		return message(unix.IPPROTO_IP, unix.IP_PKTINFO, slices.Concat(number(7), netip.MustParseAddr(to).AsSlice(), netip.MustParseAddr(header).AsSlice())...)
	}
	six := func(to string) []byte { // struct in6_pktinfo
		a := netip.MustParseAddr(to).As16()
		return message(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, slices.Concat(a[:], number(7))...)
	}
	run, other := message(unix.SOL_UDP, unix.UDP_GRO, number(100)...), message(unix.SOL_SOCKET, unix.SO_TIMESTAMP, make([]byte, 16)...)
	long := four("192.0.2.1", "192.0.2.1")
	(*unix.Cmsghdr)(unsafe.Pointer(&long[0])).SetLen(len(long) + 1)
	none := four("192.0.2.1", "192.0.2.1")
	(*unix.Cmsghdr)(unsafe.Pointer(&none[0])).SetLen(0)
	for name, c := range map[string]struct {
		b    []byte
		size int
		here string
	}{
		"nothing":             {nil, 1000, ""},
		"less than a header":  {run[:unix.SizeofCmsghdr-1], 1000, ""},
		"a run":               {run, 100, ""},
		"IPv4":                {four("192.0.2.1", "192.0.2.1"), 1000, "192.0.2.1"},
		"a broadcast":         {four("192.0.2.1", "192.0.2.255"), 1000, "192.0.2.1"},
		"no address":          {four("0.0.0.0", "192.0.2.255"), 1000, ""},
		"IPv6":                {six("2001:db8::1"), 1000, "2001:db8::1"},
		"on a link":           {six("fe80::1"), 1000, "fe80::1%7"},
		"a multicast of IPv6": {six("ff02::1"), 1000, ""},
		"both families":       {slices.Concat(six("::ffff:192.0.2.255"), four("192.0.2.1", "192.0.2.255")), 1000, "192.0.2.1"},
		"all":                 {slices.Concat(run, other, six("::ffff:192.0.2.1"), four("192.0.2.1", "192.0.2.1")), 100, "192.0.2.1"},
		"cut":                 {slices.Concat(run, four("192.0.2.1", "192.0.2.1")[:unix.CmsgLen(11)]), 100, ""},
		"too short":           {slices.Concat(message(unix.IPPROTO_IP, unix.IP_PKTINFO, 1, 2, 3), message(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, 1), run), 100, ""},
		"a run without size":  {message(unix.SOL_UDP, unix.UDP_GRO, 1, 2), 1000, ""},
		"longer than it is":   {long, 1000, ""},
		"without a length":    {slices.Concat(none, run), 1000, ""},
	} {
		size, here := readControl(slices.Clip(c.b), 1000)
		if want, _ := netip.ParseAddr(c.here); size != c.size || here != want {
			t.Errorf("%s: %d, %v, want %d, %v", name, size, here, c.size, want)
		}
	}
}

// TestUDPServicePeerIPv6: a socket with an IPv6 peer is one of IPv6.
func TestUDPServicePeerIPv6(t *testing.T) {
	peer, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Skip("no IPv6 here")
	}
	defer peer.Close()
	peer.SetDeadline(time.Now().Add(30 * time.Second))
	e, _, _ := newService(t, "", peer.LocalAddr().String())
	if _, err := peer.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(netip.IPv6Loopback(), e.sock.Local().Port())); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := peer.Read(b); err != nil || string(b[:n]) != ">hello" {
		t.Errorf("%q, %v", b[:n], err)
	}
}
