package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// super makes a TCP packet over IPv4 or IPv6 that counts for several segments.
func super(v6 bool, data []byte, mss int) []byte {
	network, kind := 20, byte(gsoTCP4)
	if v6 {
		network, kind = 40, gsoTCP6
	}
	b := make([]byte, headerSize+network+32, headerSize+network+32+len(data))
	b[0], b[1] = needCSum, kind
	binary.NativeEndian.PutUint16(b[4:], uint16(mss))
	ip := b[headerSize:]
	if v6 {
		ip[0] = 6 << 4
		binary.BigEndian.PutUint16(ip[4:], uint16(32+len(data)))
		ip[6] = 6
	} else {
		ip[0] = 4<<4 | 5
		binary.BigEndian.PutUint16(ip[2:], uint16(20+32+len(data)))
		ip[9] = 6
	}
	tcp := ip[network:]
	binary.BigEndian.PutUint32(tcp[4:], 1000)
	tcp[12], tcp[13] = 8<<4, 0x10|8|0x80
	return append(b, data...)
}

// TestCut: the pieces of a packet have all its bytes, each with its place in the stream, lengths and sums that are right.
func TestCut(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		data := make([]byte, 10_000)
		for i := range data {
			data[i] = byte(i * 7)
		}
		p, ok := parse(super(v6, data, 1400))
		if !ok || p.segments != 8 {
			t.Fatalf("%d segments", p.segments)
		}
		got, total := make([]byte, len(data)), 0
		for from := 0; from < p.segments; from += 3 {
			to := min(from+3, p.segments)
			piece := p.cut(from, to, func(n int) []byte { return make([]byte, n) })
			q, ok := parse(piece)
			if !ok || q.segments != to-from || len(piece)-headerSize > p.sizeOf(from, to) {
				t.Fatalf("segments %d to %d: a packet of %d", from, to, q.segments)
			}
			ip := piece[headerSize:]
			tcp := ip[p.network:]
			at := binary.BigEndian.Uint32(tcp[4:]) - 1000
			total += copy(got[at:], tcp[32:])
			if v6 {
				if n := binary.BigEndian.Uint16(ip[4:]); int(n) != len(tcp) {
					t.Errorf("payload length %d of %d", n, len(tcp))
				}
			} else if n := binary.BigEndian.Uint16(ip[2:]); int(n) != len(ip) || fold(add(0, ip[:20])) != 0xffff {
				t.Errorf("total length %d of %d, sum %#x", n, len(ip), fold(add(0, ip[:20])))
			}
			if pushed := tcp[13]&8 != 0; pushed != (to == p.segments) {
				t.Errorf("segments %d to %d: push %v", from, to, pushed)
			}
			if reduced := tcp[13]&0x80 != 0; reduced != (from == 0) {
				t.Errorf("segments %d to %d: CWR %v", from, to, reduced)
			}
			if sum := binary.BigEndian.Uint16(tcp[16:]); sum != fold(6+uint32(len(tcp))) { // addresses are zero
				t.Errorf("sum of the pseudo header %#x", sum)
			}
		}
		if total != len(data) || !bytes.Equal(got, data) {
			t.Error("the pieces are not the packet")
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 20), make([]byte, 40), super(false, nil, 0)[:headerSize+22], super(false, []byte("x"), 0)} {
		if p, ok := parse(b); ok && p.segments != 1 {
			t.Errorf("%x: %d segments", b, p.segments)
		}
	}
}

// through puts packets of a size into a line at a steady pace for a time, and returns how long each took that came out.
func through(o Options, size int, gap, during time.Duration) (list []time.Duration, l *line, reordered int) {
	l = newLine(o)
	get := func(n int) []byte { return make([]byte, n) }
	out := func(now time.Duration, sent map[uint32]time.Duration, last *uint32) {
		for b := l.take(now); b != nil; b = l.take(now) {
			id := binary.BigEndian.Uint32(b[headerSize+24:])
			list = append(list, now-sent[id])
			if id < *last {
				reordered++
			}
			*last = max(*last, id)
		}
	}
	sent, last := map[uint32]time.Duration{}, uint32(0)
	k := uint32(0)
	step := func(until time.Duration) {
		for at, ok := l.next(); ok && at <= until; at, ok = l.next() {
			out(at, sent, &last)
		}
	}
	for now := time.Duration(0); now < during; now += gap {
		step(now)
		b := super(false, make([]byte, size-52), 0)
		k++
		binary.BigEndian.PutUint32(b[headerSize+24:], k)
		sent[k] = now
		l.put(b, now, get)
	}
	step(math.MaxInt64)
	return list, l, reordered
}

func TestLine(t *testing.T) {
	const ms = time.Millisecond
	span := func(list []time.Duration) (least, most time.Duration) {
		least = list[0]
		for _, d := range list {
			least, most = min(least, d), max(most, d)
		}
		return least, most
	}
	t.Run("delay", func(t *testing.T) {
		list, _, _ := through(Options{Delay: 50 * ms}, 1500, ms, time.Second)
		if a, b := span(list); a != 50*ms || b != 50*ms || len(list) != 1000 {
			t.Errorf("%d packets, %v to %v", len(list), a, b)
		}
	})
	t.Run("jitter", func(t *testing.T) {
		list, _, reordered := through(Options{Delay: 50 * ms, Jitter: 10 * ms}, 1500, ms/10, time.Second)
		if a, b := span(list); a < 50*ms || b > 60*ms || b-a < 5*ms || reordered > 0 {
			t.Errorf("%v to %v, %d out of order", a, b, reordered)
		}
	})
	t.Run("rate", func(t *testing.T) { // twice what it carries
		list, l, _ := through(Options{Rate: 12e6, Queue: 20 * ms}, 1500, ms/2, time.Second)
		_, most := span(list)
		if len(list) < 990 || len(list) > 1030 || most > 22*ms || l.counts.Dropped != uint64(2000-len(list)) {
			t.Errorf("%d packets, at most %v, %d dropped", len(list), most, l.counts.Dropped)
		}
	})
	t.Run("loss", func(t *testing.T) {
		list, l, _ := through(Options{Loss: 0.05}, 1500, ms/100, time.Second)
		if len(list) < 94_000 || len(list) > 96_000 || l.counts.Lost != uint64(100_000-len(list)) {
			t.Errorf("%d packets of 100,000, %d lost", len(list), l.counts.Lost)
		}
		if list, _, _ := through(Options{Loss: 1}, 1500, ms, time.Second); len(list) != 0 {
			t.Errorf("%d packets when all are lost", len(list))
		}
	})
	t.Run("reorder", func(t *testing.T) {
		list, _, reordered := through(Options{Delay: 40 * ms, Reorder: 0.1}, 1500, ms, 10*time.Second)
		if _, most := span(list); len(list) != 10_000 || reordered < 800 || reordered > 1200 || most != 50*ms {
			t.Errorf("%d packets, %d out of order, at most %v", len(list), reordered, most)
		}
	})
	t.Run("segments", func(t *testing.T) { // losses are of segments, not of packets
		l := newLine(Options{Loss: 0.1, Rate: 1e9, Queue: time.Hour})
		rng := rand.New(rand.NewPCG(1, 2))
		total := 0
		for range 1000 {
			n := 1 + rng.IntN(40)
			total += n
			l.put(super(false, make([]byte, n*1400), 1400), 0, func(n int) []byte { return make([]byte, n) })
		}
		if share := float64(l.counts.Lost) / float64(total); share < 0.09 || share > 0.11 || l.counts.Carried+l.counts.Lost != uint64(total) {
			t.Errorf("%.3f of the segments lost, %d of %d carried", share, l.counts.Carried, total)
		}
	})
	for _, o := range []Options{{Delay: -1}, {Rate: -1}, {Loss: 1.1}, {Reorder: -0.1}} {
		if o.check() == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// TestWire carries TCP between two namespaces over a line that loses and reorders: all comes, as late and as fast as it should.
func TestWire(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("makes network namespaces: needs root")
	}
	a, err := New()
	if err != nil {
		t.Skip("no network namespaces here: ", err)
	}
	defer a.Close()
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, v6 := range []bool{false, true} {
		addr := [2]netip.Prefix{netip.MustParsePrefix("10.7.0.1/24"), netip.MustParsePrefix("10.7.0.2/24")}
		if v6 {
			addr = [2]netip.Prefix{netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("fd00::2/64")}
			for _, n := range []*Namespace{a, b} { // an address is usable at once
				if err := n.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0) }); err != nil {
					t.Skip("no IPv6 here: ", err)
				}
			}
		}
		o := Options{Delay: 5 * time.Millisecond, Rate: 200e6, Loss: 0.001, Reorder: 0.001, Seed: 3}
		w, err := Connect(End{a, "w0", addr[0]}, End{b, "w0", addr[1]}, o, o)
		if err != nil {
			t.Skip("no TUN devices here: ", err)
		}
		carry(t, w, a, b, addr[1].Addr())
		w.Close()
	}
}

func carry(t *testing.T, w *Wire, a, b *Namespace, to netip.Addr) {
	t.Helper()
	var ln net.Listener
	var err error
	if err := b.Do(func() error {
		ln, err = net.Listen("tcp", netip.AddrPortFrom(to, 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	data := make([]byte, 8<<20)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	sum := make(chan [32]byte, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		h := sha256.New()
		io.Copy(h, c)
		sum <- [32]byte(h.Sum(nil))
	}()
	var c net.Conn
	began := time.Now()
	if err := a.Do(func() error {
		c, err = net.DialTimeout("tcp", ln.Addr().String(), 20*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if d := time.Since(began); d < 10*time.Millisecond {
		t.Errorf("connected after %v, sooner than the delay lets it", d)
	}
	began = time.Now()
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	select {
	case got := <-sum:
		if got != sha256.Sum256(data) {
			t.Error("what came is not what was sent")
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not arrive")
	}
	if least := time.Duration(float64(len(data)) * 8 / 200e6 * 1e9); time.Since(began) < least*9/10 {
		t.Errorf("8 MiB took %v, less than the rate allows", time.Since(began))
	}
	there, back := w.Counts()
	t.Logf("%v; there %+v, back %+v", time.Since(began), there, back)
	if there.Lost == 0 || there.Carried < 5000 || there.Bytes < uint64(len(data)) || back.Carried == 0 {
		t.Errorf("there %+v, back %+v", there, back)
	}
}

// TestCutUDP: the pieces of a run of datagrams have all its bytes, with lengths and sums that are right.
func TestCutUDP(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		data := make([]byte, 10_000)
		for i := range data {
			data[i] = byte(i * 7)
		}
		tcp := super(v6, nil, 1400)
		network := len(tcp) - headerSize - 32
		whole := append(tcp[:headerSize+network:headerSize+network], make([]byte, udpHeader)...)
		whole[1] = gsoUDP
		if v6 {
			whole[headerSize+6] = protocolUDP
		} else {
			whole[headerSize+9] = protocolUDP
		}
		p, ok := parse(append(whole, data...))
		if !ok || p.segments != 8 {
			t.Fatalf("%d datagrams", p.segments)
		}
		var got []byte
		for from := 0; from < p.segments; from += 3 {
			to := min(from+3, p.segments)
			piece := p.cut(from, to, func(n int) []byte { return make([]byte, n) })
			if q, ok := parse(piece); !ok || q.segments != to-from {
				t.Fatalf("datagrams %d to %d: a packet of %d", from, to, q.segments)
			}
			udp := piece[headerSize+network:]
			got = append(got, udp[udpHeader:]...)
			if n := binary.BigEndian.Uint16(udp[4:]); int(n) != len(udp) {
				t.Errorf("a datagram of %d bytes says %d", len(udp), n)
			}
			if sum := binary.BigEndian.Uint16(udp[6:]); sum != fold(protocolUDP+uint32(len(udp))) { // addresses are zero
				t.Errorf("sum of the pseudo header %#x", sum)
			}
		}
		if !bytes.Equal(got, data) {
			t.Error("the pieces are not the run")
		}
	}
}
