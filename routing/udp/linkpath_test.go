package udp

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/routing"
)

// nat stands between two sockets as a NAT does between its network and the world: the world knows its outer socket, its network the inner one.
type nat struct {
	t                testing.TB
	inner            *net.UDPConn
	mu               sync.Mutex
	outer            *net.UDPConn
	insider, outside netip.AddrPort
	stray            func(datagram []byte) bool // what goes out another way; nil for nothing
}

func natSocket(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func addressOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func newNAT(t testing.TB) *nat {
	n := &nat{t: t, inner: natSocket(t)}
	go func() {
		buf := make([]byte, 4096)
		for {
			k, from, err := n.inner.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			n.mu.Lock()
			if from == n.insider && n.outside.IsValid() && (n.stray == nil || !n.stray(buf[:k])) {
				_, _ = n.outer.WriteToUDPAddrPort(buf[:k], n.outside)
			}
			n.mu.Unlock()
		}
	}()
	n.rebind()
	return n
}

// rebind forgets the mapping: what the insider sends comes from another address, and what is sent to the old one is lost.
func (n *nat) rebind() {
	c := natSocket(n.t)
	n.mu.Lock()
	if n.outer != nil {
		n.outer.Close()
	}
	n.outer = c
	n.mu.Unlock()
	go func() {
		buf := make([]byte, 4096)
		for {
			k, err := c.Read(buf)
			if err != nil {
				return
			}
			n.mu.Lock()
			if n.insider.IsValid() {
				_, _ = n.inner.WriteToUDPAddrPort(buf[:k], n.insider)
			}
			n.mu.Unlock()
		}
	}()
}

// behindNAT makes a puncture whose initiator is behind a NAT.
func behindNAT(t *testing.T) (a, b *node, n *nat, p *Puncture) {
	t.Helper()
	n = newNAT(t)
	a, b, p, err := meet(t, patient, nil, func(l *Listener, o *Negotiation) {
		o.Public = func(_ context.Context, own *Bind) (netip.AddrPort, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.insider = netip.AddrPortFrom(loopback.Addr(), own.Local.Port())
			return addressOf(n.outer), nil
		}
		l.public = func(_ context.Context, own *Bind) (netip.AddrPort, error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.outside = netip.AddrPortFrom(loopback.Addr(), own.Local.Port())
			return addressOf(n.inner), nil
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, b, n, p
}

func echoes(t *testing.T, a *node, p *Puncture, when string) {
	t.Helper()
	payload := bytes.Repeat([]byte(when), 20_000)
	reply, err := a.router.Request(limited(t), routing.RouteOf(p.Sender).Concat(routing.LocalRoute("far echo")), payload)
	if err != nil || !bytes.Equal(reply.Payload, payload) {
		t.Fatalf("%s: %d bytes, %v", when, len(reply.Payload), err)
	}
}

// TestLinkAfterRebinding: a peer whose NAT has forgotten it is known by its token, and the link goes on at its new address, both for data and for what
// keeps the puncture open.
func TestLinkAfterRebinding(t *testing.T) {
	a, b, n, p := behindNAT(t)
	echoes(t, a, p, "before")
	for range 3 {
		n.rebind()
		echoes(t, a, p, "after")
	}
	time.Sleep(patient.silence * 3 / 2) // longer than a puncture lives without a pong
	select {
	case <-p.Done():
		t.Error("the puncture has ended")
	default:
	}
	echoes(t, a, p, "later")
	if len(b.udp.Binds()) != 2 {
		t.Error("the other side has ended the puncture")
	}
}

// TestLinkIsNotLuredAway: whoever repeats a peer's newest packet from an address that the peer does not have gets a few bytes there, and the link stays.
func TestLinkIsNotLuredAway(t *testing.T) {
	a, b, n, p := behindNAT(t)
	echoes(t, a, p, "before")
	victim := natSocket(t)
	var got, packets atomic.Int64
	go func() {
		buf := make([]byte, 4096)
		for {
			k, err := victim.Read(buf)
			if err != nil {
				return
			}
			got.Add(int64(k))
			packets.Add(1)
		}
	}()
	n.mu.Lock()
	n.stray = func(datagram []byte) bool { // each comes from the victim's address too, and first
		if isLinkPacket(datagram) {
			_, _ = victim.WriteToUDPAddrPort(datagram, n.outside)
		}
		return false
	}
	n.mu.Unlock()
	for range 5 {
		echoes(t, a, p, "meanwhile")
	}
	if k, bytes := packets.Load(), got.Load(); k == 0 || bytes > k*40 {
		t.Errorf("%d packets with %d bytes went to an address that answered nothing", k, bytes)
	}
	if len(b.udp.Binds()) != 2 {
		t.Error("the puncture has ended")
	}
}
