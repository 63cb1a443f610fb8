package dataplane

import (
	"bytes"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// echoDatagrams sends every datagram back, to where it came from.
type echoDatagrams struct {
	sock    *UDPSocket
	batches atomic.Int64
	flushes atomic.Int64
	drained chan struct{}
	refused atomic.Int64
	last    netip.AddrPort // whom the last came from; on the loop
}

func (e *echoDatagrams) OnDatagram(buf []byte, n int, from netip.AddrPort) {
	e.last = from
	out := e.sock.Reserve(n + 1)
	out[0] = '>'
	copy(out[1:], buf[:n])
	e.sock.Commit(n+1, from)
	clear(buf) // it is the handler's until it returns
}
func (e *echoDatagrams) OnBatchEnd() { e.batches.Add(1) }
func (e *echoDatagrams) OnFlush()    { e.flushes.Add(1) }
func (e *echoDatagrams) OnDrain()    { e.drained <- struct{}{} }
func (e *echoDatagrams) OnRefused()  { e.refused.Add(1) }

func newUDP(t *testing.T) (*echoDatagrams, *UDPStats, *Loop) {
	t.Helper()
	return newUDPAt(t, "127.0.0.1:0")
}

func newUDPAt(t *testing.T, at string) (*echoDatagrams, *UDPStats, *Loop) {
	t.Helper()
	l := newLoop(t)
	fd, bound, err := ListenUDP(netip.MustParseAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	e, stats := &echoDatagrams{drained: make(chan struct{}, 10)}, &UDPStats{}
	on(t, l, func() { e.sock, err = l.AdoptUDP(fd, e, stats) })
	if err != nil || e.sock.Local() != bound {
		t.Fatalf("%v, %v", bound, err)
	}
	return e, stats, l
}

// TestUDPSocket echoes more datagrams than fit into one batch, of all sizes, also empty ones.
func TestUDPSocket(t *testing.T) {
	e, stats, l := newUDP(t)
	c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e.sock.Local()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadBuffer(4 << 20)
	c.SetDeadline(time.Now().Add(90 * time.Second))
	const rounds, burst = 10, 3*udpBatch + 1
	buf := make([]byte, 4096)
	for round := range rounds {
		sent := make([][]byte, burst)
		for i := range sent {
			sent[i] = bytes.Repeat([]byte{byte(i)}, (i*37+round)%udpSlot)
			if _, err := c.Write(sent[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i := range sent { // one socket to another on one machine: nothing is lost and the order stays
			n, err := c.Read(buf)
			if err != nil || n != len(sent[i])+1 || buf[0] != '>' || !bytes.Equal(buf[1:n], sent[i]) {
				t.Fatalf("datagram %d: %d bytes, want %d, %v", i, n, len(sent[i])+1, err)
			}
		}
	}
	if stats.In.Load() != rounds*burst || stats.Out.Load() != rounds*burst || e.batches.Load() == 0 || e.flushes.Load() == 0 {
		t.Errorf("%d in, %d out, %d batches", stats.In.Load(), stats.Out.Load(), e.batches.Load())
	}
	if _, err := c.Write(make([]byte, udpSlot+1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a datagram that is too long is dropped", func() bool { return stats.Truncated.Load() == 1 })
	// An answer that cannot be delivered does not end the socket.
	gone, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(e.sock.Local()))
	if err != nil {
		t.Fatal(err)
	}
	gone.Write([]byte("x"))
	gone.Close()
	on(t, l, func() { e.sock.Send([]byte("nowhere"), netip.MustParseAddrPort("255.255.255.255:9")) })
	eventually(t, "a datagram that the kernel refuses is counted", func() bool { return stats.Failed.Load() == 1 })
	c.Write([]byte("still there"))
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != ">still there" {
		t.Errorf("%q, %v", buf[:n], err)
	}
}

// TestUDPQueue: what waits for the kernel is bounded, and OnDrain tells when nothing waits.
func TestUDPQueue(t *testing.T) {
	e, stats, l := newUDP(t)
	to := e.sock.Local()
	on(t, l, func() {
		e.sock.blocked = true // as if the kernel took nothing
		for range udpQueueLimit/1000 + 10 {
			e.sock.Send(make([]byte, 1000), to)
		}
		if e.sock.Pending() > udpQueueLimit || e.sock.Room() > 1000 {
			t.Errorf("%d bytes wait", e.sock.Pending())
		}
		e.sock.WantDrain()
	})
	if n := stats.Overflow.Load(); n != 10 {
		t.Errorf("%d dropped", n)
	}
	on(t, l, func() { e.sock.Close() }) // or the echo would go round for ever
	on(t, l, func() {
		e.sock.Send([]byte("x"), to)
		e.sock.Close()
		e.sock.WantFlush()
	})
	e, _, l = newUDP(t)
	on(t, l, func() {
		e.sock.Send([]byte("x"), netip.MustParseAddrPort("127.0.0.1:9"))
		e.sock.WantDrain()
	})
	select {
	case <-e.drained:
	case <-time.After(90 * time.Second):
		t.Error("not told that nothing waits")
	}
}

// TestUDPPace: what is sent too fast waits, and comes in order.
func TestUDPPace(t *testing.T) {
	e, stats, l := newUDP(t)
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(90 * time.Second))
	to := c.LocalAddr().(*net.UDPAddr).AddrPort()
	const pace, count = 10, 200
	began := time.Now()
	on(t, l, func() {
		e.sock.Pace(pace)
		for i := range count {
			e.sock.Send([]byte{byte(i)}, to)
		}
		e.sock.WantDrain()
	})
	if n := stats.Out.Load(); n > 4*pace && time.Since(began) < 2*time.Millisecond {
		t.Errorf("%d datagrams at once", n)
	}
	buf := make([]byte, 10)
	for i := range count {
		if n, err := c.Read(buf); err != nil || n != 1 || buf[0] != byte(i) {
			t.Fatalf("datagram %d: %x, %v", i, buf[:n], err)
		}
	}
	if took := time.Since(began); took < (count/pace-4)*time.Millisecond {
		t.Errorf("%d datagrams took %v", count, took)
	}
	<-e.drained
	on(t, l, func() {
		for range count {
			e.sock.Send([]byte("x"), to)
		}
		e.sock.Close() // sends what waits, at once
	})
	for range count {
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListenUDP(t *testing.T) {
	e, _, _ := newUDP(t)
	if _, _, err := ListenUDP(e.sock.Local()); err == nil {
		t.Error("an address was bound twice")
	}
}

// needIPv6 leaves a test out where there is none.
func needIPv6(t *testing.T) {
	t.Helper()
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	c.Close()
}

// TestUDPFamilies: a socket at [::] is for IPv4 and IPv6, and sees IPv4 addresses as such; one of IPv4 drops what is for IPv6.
func TestUDPFamilies(t *testing.T) {
	needIPv6(t)
	e, stats, l := newUDPAt(t, "[::]:0")
	on(t, l, func() { e.sock.Whole() })
	for _, host := range []string{"127.0.0.1", "::1"} {
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), e.sock.Local().Port()))
		c, err := net.DialUDP("udp", nil, to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		for range 40 {
			if _, err := c.Write([]byte(host)); err != nil {
				t.Fatal(err)
			}
		}
		buf := make([]byte, 100)
		for range 40 {
			if n, err := c.Read(buf); err != nil || string(buf[:n]) != ">"+host {
				t.Fatalf("%s: %q, %v", host, buf[:n], err)
			}
		}
		on(t, l, func() {
			if want := c.LocalAddr().(*net.UDPAddr).AddrPort(); e.last.Addr().Is4() != (host != "::1") || e.last != want {
				t.Errorf("from %v, want %v", e.last, want)
			}
		})
	}
	if stats.Failed.Load() != 0 {
		t.Errorf("%d failed", stats.Failed.Load())
	}
	four, stats, l := newUDP(t)
	on(t, l, func() { four.sock.Send([]byte("x"), netip.MustParseAddrPort("[::1]:9")) })
	eventually(t, "what a socket of IPv4 has for IPv6 is given up", func() bool { return stats.Failed.Load() == 1 })
}
