package udp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

var arqNow = time.Unix(1000, 0)

// linkPacket makes a packet of numbers, and data behind them.
func linkPacket(number uint64, flags byte, rest []uint64, data string) []byte {
	b := append(binary.AppendUvarint(nil, number), flags)
	for _, v := range rest {
		b = binary.AppendUvarint(b, v)
	}
	return append(b, data...)
}

// sentPackets is a sender that has n packets under way.
func sentPackets(t *testing.T, n int) *arq {
	t.Helper()
	a := newARQ(1191)
	copy(a.out.reserve(n*a.size), make([]byte, n*a.size))
	a.out.commit(n * a.size)
	for range n {
		if a.packet(nil, arqNow) == nil {
			t.Fatal("not sent")
		}
	}
	return a
}

// TestLinkPacketNobodySends: what contradicts itself, or speaks of what was never sent or may not be, is refused and changes nothing; what is just
// within each bound is taken.
func TestLinkPacketNobodySends(t *testing.T) {
	const w = arqWindow
	ranges := func(k uint64) []uint64 { // of one packet each, with a gap of one
		v := []uint64{w, 99, k, 1}
		for range k - 1 {
			v = append(v, 1, 1)
		}
		return v
	}
	for _, c := range []struct {
		name   string
		packet []byte
		good   bool
	}{
		{"nothing", nil, false},
		{"no flags", linkPacket(0, 0, nil, "")[:1], false},
		{"the largest number", linkPacket(1<<62-1, arqData, []uint64{0}, "x"), true},
		{"a number too large", linkPacket(1<<62, arqData, []uint64{0}, "x"), false},
		{"an acknowledgement of all", linkPacket(0, arqAck, []uint64{w, 99, 1, 100}, ""), true},
		{"of a packet that was never sent", linkPacket(0, arqAck, []uint64{w, 100, 1, 1}, ""), false},
		{"of one before the first", linkPacket(0, arqAck, []uint64{w, 99, 1, 101}, ""), false},
		{"of no range", linkPacket(0, arqAck, []uint64{w, 99, 0}, ""), false},
		{"of an empty range", linkPacket(0, arqAck, []uint64{w, 99, 1, 0}, ""), false},
		{"of an empty second range", linkPacket(0, arqAck, []uint64{w, 99, 2, 1, 1, 0}, ""), false},
		{"without a gap", linkPacket(0, arqAck, []uint64{w, 99, 2, 1, 0, 1}, ""), false},
		{"a gap that ends at the first", linkPacket(0, arqAck, []uint64{w, 99, 2, 1, 98, 1}, ""), true},
		{"a gap with nothing behind it", linkPacket(0, arqAck, []uint64{w, 99, 2, 1, 99, 1}, ""), false},
		{"a gap beyond the first", linkPacket(0, arqAck, []uint64{w, 99, 2, 1, 100, 1}, ""), false},
		{"the most ranges", linkPacket(0, arqAck, ranges(arqRanges), ""), true},
		{"a range too many", linkPacket(0, arqAck, ranges(arqRanges+1), ""), false},
		{"cut short", linkPacket(0, arqAck, []uint64{w, 99, 2, 1, 1}, ""), false},
		{"without its limit", linkPacket(0, arqAck, nil, ""), false},
		{"data without an offset", linkPacket(0, arqData, nil, ""), false},
		{"the last byte of the window", linkPacket(0, arqData, []uint64{w - 1}, "x"), true},
		{"a byte behind the window", linkPacket(0, arqData, []uint64{w}, "x"), false},
		{"two bytes, one behind the window", linkPacket(0, arqData, []uint64{w - 1}, "xy"), false},
		{"an offset too large", linkPacket(0, arqData, []uint64{1 << 62}, ""), false},
		{"an offset that wraps", linkPacket(0, arqData, []uint64{1<<64 - 1}, "xy"), false},
		{"an acknowledgement with data that may not be", linkPacket(0, arqAck|arqData, []uint64{w, 99, 1, 100, w}, "x"), false},
	} {
		a := sentPackets(t, 30)
		a.number = 100
		flight, pending := a.under, a.pending()
		err := a.receive(c.packet, arqNow)
		if (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && (a.under != flight || a.pending() != pending || len(a.seen) != 0 || len(a.ready()) != 0 || len(a.early) != 0 || a.due || a.limit != w) {
			t.Errorf("%s: it is refused and has changed something", c.name)
		}
	}
}

// TestOldPacketIsTakenOnce: a packet that came before, or is older than what is remembered, is not taken again, and what it acknowledges neither.
func TestOldPacketIsTakenOnce(t *testing.T) {
	a := newARQ(1191)
	offset := uint64(0)
	send := func(number uint64) (taken bool) {
		t.Helper()
		a.due = false
		if err := a.receive(linkPacket(number, arqData, []uint64{offset}, "x"), arqNow); err != nil {
			t.Fatal(err)
		}
		if a.due {
			offset++
		}
		return a.due
	}
	if !send(1) || send(1) {
		t.Error("a packet is taken twice, or not at all")
	}
	for i := range uint64(arqSeen - 1) {
		if number := 3 + 2*i; !send(number) || send(number) {
			t.Errorf("packet %d", number)
		}
	}
	if send(0) || send(1) {
		t.Error("older than all that is remembered, and taken")
	}
	if !send(2) || send(2) {
		t.Error("one that fills a gap is not taken once")
	}
	if len(a.seen) > arqSeen || len(a.ready()) != int(offset) {
		t.Errorf("%d ranges, %d bytes of %d", len(a.seen), len(a.ready()), offset)
	}
}

// TestLossIsSeenByLaterPackets: a packet is lost when three later ones have come, and by time when fewer have, but not before its time.
func TestLossIsSeenByLaterPackets(t *testing.T) {
	ack := func(a *arq, number uint64, top, length uint64, at time.Time) {
		t.Helper()
		if err := a.receive(linkPacket(number, arqAck, []uint64{arqWindow, top, 1, length}, ""), at); err != nil {
			t.Fatal(err)
		}
	}
	rtt := 100 * time.Millisecond
	a := sentPackets(t, 10)
	ack(a, 0, 3, 3, arqNow.Add(rtt)) // 1 to 3: the first is lost
	if len(a.lost) != 1 || a.lost[0] != (span{0, uint64(a.size) - 3}) && a.lost[0].from != 0 || a.under != 6 {
		t.Errorf("three later ones have come: lost %v, %d under way", a.lost, a.under)
	}
	a = sentPackets(t, 10)
	ack(a, 0, 2, 2, arqNow.Add(rtt)) // 1 and 2
	if len(a.lost) != 0 || a.lossAt.IsZero() || a.under != 8 {
		t.Fatalf("two later ones have come: lost %v, %d under way", a.lost, a.under)
	}
	at := a.deadline()
	if at != a.lossAt || at.Before(arqNow.Add(rtt)) || at.After(arqNow.Add(3*rtt)) {
		t.Errorf("it is lost %v after it was sent", at.Sub(arqNow))
	}
	a.timeout(at.Add(-time.Millisecond))
	if len(a.lost) != 0 {
		t.Error("lost before its time")
	}
	a.timeout(at)
	if len(a.lost) != 1 || a.inFlight != sizeOf(a.flight) {
		t.Errorf("not lost at its time: %v, %d bytes under way", a.lost, a.inFlight)
	}
}

func sizeOf(flight []sentPacket) (n int) {
	for _, p := range flight {
		if !p.done {
			n += int(p.data.to - p.data.from)
		}
	}
	return n
}

// TestSilenceIsAskedLessAndLessOften: while nothing is answered the pauses double up to their bound; the first time only the oldest packet is sent again,
// then all count as lost and the window begins anew. An answer ends it.
func TestSilenceIsAskedLessAndLessOften(t *testing.T) {
	a := sentPackets(t, 10)
	now, pause := arqNow, time.Duration(0)
	for try := range 12 {
		at := a.deadline()
		if at.IsZero() {
			t.Fatal("nothing is tried any more")
		}
		if next := at.Sub(now); try > 0 && next != min(2*pause, arqMaxTimeout) {
			t.Errorf("attempt %d after %v, the one before after %v", try, next, pause)
		}
		if a.timeout(at.Add(-time.Millisecond)); a.tries != try {
			t.Fatalf("attempt %d before its time", try)
		}
		pause, now = at.Sub(now), at
		if a.timeout(at); a.tries != try+1 || a.probes != 1 {
			t.Fatalf("%d tries, %d probes", a.tries, a.probes)
		}
		if want := []int{10, 0}[min(try, 1)]; try < 2 && a.under != want {
			t.Errorf("after attempt %d %d packets are under way", try, a.under)
		}
		if try == 1 && (a.cwnd != arqMinimum*a.size || a.inFlight != 0) {
			t.Errorf("the window is %d, %d bytes under way", a.cwnd, a.inFlight)
		}
		if a.packet(nil, now) == nil {
			t.Fatal("nothing is sent")
		}
	}
	if pause != arqMaxTimeout {
		t.Errorf("the last pause was %v", pause)
	}
	if err := a.receive(linkPacket(0, arqAck, []uint64{arqWindow, a.number - 1, 1, 1}, ""), now.Add(time.Millisecond)); err != nil || a.tries != 0 {
		t.Errorf("%v, %d tries after an answer", err, a.tries)
	}
}

// TestLinkTakesItsPeersDatagrams: a datagram with another token is nobody's, and changes nothing.
func TestLinkTakesItsPeersDatagrams(t *testing.T) {
	tr := &Transport{}
	l := &link{p: &Puncture{bind: &Bind{t: tr}}, arq: newARQ(1191)}
	l.recv = [1 + tokenSize]byte{linkMark, 1, 2, 3, 4, 5, 6, 7, 8}
	datagram := append(bytes.Clone(l.recv[:]), linkPacket(0, arqData, []uint64{0}, "x")...)
	for i := range l.recv {
		forged := bytes.Clone(datagram)
		forged[i] ^= 0x10
		l.receive(forged, netip.AddrPort{})
	}
	if len(l.arq.ready()) != 0 || tr.Stats.Foreign.Load() != uint64(len(l.recv)) {
		t.Errorf("%d bytes taken, %d datagrams counted as foreign", len(l.arq.ready()), tr.Stats.Foreign.Load())
	}
	l.receive(append(bytes.Clone(l.recv[:]), linkPacket(1, arqAck, nil, "")...), netip.AddrPort{})
	if tr.Stats.Malformed.Load() != 1 {
		t.Error("a malformed one is not counted")
	}
	l.receive(datagram, netip.AddrPort{})
	if string(l.arq.ready()) != "x" || tr.Stats.Malformed.Load() != 1 {
		t.Errorf("its peer's is not taken: %q", l.arq.ready())
	}
	l.closed = true
	l.receive(append(bytes.Clone(l.recv[:]), linkPacket(2, arqData, []uint64{1}, "y")...), netip.AddrPort{})
	if string(l.arq.ready()) != "x" {
		t.Error("a link that is closed takes a datagram")
	}
}

// TestWindowIsToldWhenItHasOpened: a peer is told of a window that opened by much without waiting for something to acknowledge, and not of each byte.
func TestWindowIsToldWhenItHasOpened(t *testing.T) {
	a := newARQ(1191)
	a.expect = 1000
	if a.open(); a.due || a.allow <= a.told {
		t.Errorf("told of 1000 bytes: due %v, %d allowed, %d told", a.due, a.allow, a.told)
	}
	a.expect = arqWindow / 4
	before := a.allow
	if a.open(); !a.due || a.allow <= before {
		t.Errorf("not told of %d bytes: %d allowed, %d told", arqWindow/4, a.allow, a.told)
	}
	a.expect, before = 0, a.allow
	if a.open(); a.allow != before {
		t.Error("a window was taken back")
	}
}
