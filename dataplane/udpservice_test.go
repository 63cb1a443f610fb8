package dataplane

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

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
	eventually(t, "the refusal is counted", func() bool { return stats.Refused.Load() > 0 })
	if peer, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
		t.Skipf("somebody else has the port by now: %v", err)
	}
	send("back") // whatever the kernel said meanwhile of the one before
	peer.SetReadDeadline(time.Now().Add(30 * time.Second))
	if n, _, err := peer.ReadFromUDPAddrPort(buf); err != nil || string(buf[:n]) != "back" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}
