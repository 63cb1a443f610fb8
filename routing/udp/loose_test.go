package udp

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sallyport/crypto/channel"
)

// looseTraffic sends loose messages under a seal from the first side of a network to the second: in each is its number.
type looseTraffic struct {
	t      rapid.TB
	n      *network
	sealer channel.Sealer
	opener channel.LooseOpener
	size   func(k int) int
	sentAt []time.Time
	cameAt map[int]time.Time
}

func newLooseTraffic(t rapid.TB, n *network, size func(k int) int) *looseTraffic {
	l := &looseTraffic{t: t, n: n, size: size, cameAt: map[int]time.Time{}}
	key := [32]byte{1}
	l.sealer.InitLoose(&key)
	l.opener.Init(&key)
	n.whole = func(to int, b []byte) {
		if to != 1 {
			t.Fatal("a loose message came back")
		}
		again := bytes.Clone(b)
		plain, err := l.opener.Open(b)
		if err != nil {
			t.Fatal("a message that was sent does not open: ", err)
		}
		if _, err := l.opener.Open(again); err != channel.ErrCounter {
			t.Fatal("a repeated message: ", err)
		}
		k := int(binary.BigEndian.Uint64(plain))
		if _, twice := l.cameAt[k]; twice || len(plain) != l.size(k) {
			t.Fatalf("message %d twice, or of %d bytes", k, len(plain))
		}
		for i, c := range plain[8:] {
			if c != byte(k+i) {
				t.Fatalf("message %d is damaged", k)
			}
		}
		l.cameAt[k] = n.now
	}
	return l
}

// send sends the next message. It reports whether there was room.
func (l *looseTraffic) send() bool {
	k := len(l.sentAt)
	plain := make([]byte, l.size(k))
	binary.BigEndian.PutUint64(plain, uint64(k))
	for i := range plain[8:] {
		plain[8+i] = byte(k + i)
	}
	dst := l.n.sides[0].loose.reserve(len(plain) + channel.Overhead)
	if dst == nil {
		return false
	}
	if err := l.sealer.Seal(dst, plain); err != nil {
		l.t.Fatal(err)
	}
	l.n.sides[0].loose.commit(len(dst))
	l.sentAt = append(l.sentAt, l.n.now)
	return true
}

// TestLooseWaitsForNone: over a path that loses one packet in twenty and repeats as many each datagram comes as fast as the path is, whatever happened
// to those before it; what is lost stays lost, and nothing is doubled. Beside it a stream loses nothing.
func TestLooseWaitsForNone(t *testing.T) {
	const count, every = 5000, 2 * time.Millisecond
	for _, c := range []struct {
		name   string
		stream int           // bytes each way beside it
		most   time.Duration // from end to end
	}{
		{"alone", 0, 26 * time.Millisecond}, // the path's, and a step of the pace
		// Where a stream fills what may be under way, a datagram waits for an acknowledgement, as it does without losses.
		{"beside a stream", 8 << 20, 80 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(21)
			n.delay, n.jitter, n.lose, n.twice = 20*time.Millisecond, 5*time.Millisecond, 0.05, 0.05
			l := newLooseTraffic(t, n, func(k int) int { return []int{60, 200, 1000, 1100, 2500}[k%5] })
			stream := random(n.rnd, c.stream)
			left, got := [2][]byte{stream, stream}, [2][]byte{}
			next := n.now
			for len(l.sentAt) < count || n.sides[0].pending()+n.sides[1].pending() > 0 || n.sides[0].loose.waiting() > 0 || len(n.air) > 0 {
				for len(l.sentAt) < count && !n.now.Before(next) {
					if !l.send() {
						t.Fatal("no room")
					}
					next = next.Add(every)
				}
				for i, a := range n.sides {
					if k := min(len(left[i]), 256<<10-a.waiting()); k > 0 {
						copy(a.out.reserve(k), left[i][:k])
						a.out.commit(k)
						left[i] = left[i][k:]
					}
				}
				if n.until = next; len(l.sentAt) == count {
					n.until = time.Time{}
				}
				if !n.step() {
					break
				}
				for i, a := range n.sides {
					got[1-i] = append(got[1-i], drain(a)...)
					a.open()
				}
			}
			worst, lost := time.Duration(0), 0
			for k, at := range l.sentAt {
				came, ok := l.cameAt[k]
				if !ok {
					lost++
					continue
				}
				worst = max(worst, came.Sub(at))
			}
			t.Logf("%d of %d lost, the slowest of the others took %v; %d packets of streams sent again", lost, count, worst, n.sides[0].resent+n.sides[1].resent)
			if worst > c.most {
				t.Errorf("one took %v", worst)
			}
			if lost != len(n.gone) {
				t.Errorf("%d messages did not come, packets of %d were lost", lost, len(n.gone))
			}
			if lost < count/30 || lost > count/8 {
				t.Errorf("%d of %d lost", lost, count)
			}
			for i := range got {
				if !bytes.Equal(got[i], stream) {
					t.Errorf("stream %d: %d of %d bytes", i, len(got[i]), len(stream))
				}
			}
		})
	}
}

// TestLooseProperty: over any network each loose message comes once or not at all, as it was sent, and both streams beside them come whole.
func TestLooseProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNetwork(rapid.Uint64().Draw(t, "seed"))
		n.lose = rapid.Float64Range(0, 0.4).Draw(t, "loss")
		n.twice = rapid.Float64Range(0, 0.3).Draw(t, "duplication")
		n.jitter = time.Duration(rapid.IntRange(0, 100).Draw(t, "jitter")) * time.Millisecond
		n.queue = rapid.IntRange(8, 200).Draw(t, "queue")
		l := newLooseTraffic(t, n, func(k int) int { return 8 + k*k*7%9000 })
		for range rapid.IntRange(0, 60).Draw(t, "messages") {
			l.send()
		}
		streams := [2][]byte{random(n.rnd, rapid.IntRange(0, 100_000).Draw(t, "up")), random(n.rnd, rapid.IntRange(0, 20_000).Draw(t, "down"))}
		got := n.run(streams, 20_000)
		for range 100_000 {
			if !n.step() {
				break
			}
		}
		for i := range streams {
			if !bytes.Equal(got[i], streams[i]) {
				t.Fatalf("stream %d: %d of %d bytes", i, len(got[i]), len(streams[i]))
			}
		}
		if a := n.sides[0]; a.loose.waiting() != 0 || a.under != 0 || a.inFlight != 0 {
			t.Fatalf("%d bytes wait, %d packets under way with %d", a.loose.waiting(), a.under, a.inFlight)
		}
		if n.lose == 0 && n.lost == 0 && len(l.cameAt) != len(l.sentAt) {
			t.Fatalf("%d of %d came, nothing was lost", len(l.cameAt), len(l.sentAt))
		}
	})
}

// TestLoosePieces: messages are put together within a bound, whatever pieces come, and what nobody sends is refused.
func TestLoosePieces(t *testing.T) {
	packet := func(number uint64, flags byte, id, total, offset uint64, n int) []byte {
		b := append(binary.AppendUvarint(nil, number), flags)
		b = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, id), total), offset)
		return append(b, make([]byte, n)...)
	}
	now := time.Unix(1000, 0)
	a := newARQ(1191)
	for what, b := range map[string][]byte{
		"no bytes":                packet(0, arqLoose, 1, 10, 0, 0),
		"none in all":             packet(0, arqLoose, 1, 0, 0, 1),
		"more than there are":     packet(0, arqLoose, 1, 10, 5, 6),
		"behind the end":          packet(0, arqLoose, 1, 10, 10, 1),
		"an offset beyond all":    packet(0, arqLoose, 1, 10, 1<<63, 1),
		"too large":               packet(0, arqLoose, 1, looseMost+1, 0, 1),
		"a stream's too":          packet(0, arqLoose|arqData, 0, 10, 0, 10),
		"one that tries too":      packet(0, arqLoose|arqTry, 0, 10, 0, 10),
		"one that asks too":       packet(0, arqLoose|arqAsk, 0, 10, 0, 10),
		"cut short in its fields": packet(0, arqLoose, 1, 10, 0, 0)[:4],
	} {
		if err := a.receive(b, now); err == nil || len(a.seen) > 0 || a.due {
			t.Errorf("%s: %v", what, err)
		}
	}
	number := uint64(0)
	take := func(id, total, offset uint64, n int) []byte {
		t.Helper()
		if err := a.receive(packet(number, arqLoose, id, total, offset, n), now); err != nil {
			t.Fatal(err)
		}
		number++
		return a.looseIn.whole
	}
	if take(1, 100, 50, 50) != nil || len(take(1, 100, 0, 50)) != 100 || len(a.looseIn.parts) != 0 {
		t.Error("two halves are not a whole")
	}
	if len(take(2, 7, 0, 7)) != 7 {
		t.Error("a message in one packet")
	}
	for id := uint64(3); id < 1000; id++ {
		if take(id, looseMost, 1, 1) != nil || a.looseIn.bytes > looseParts || len(a.looseIn.parts) > looseParts/looseMost {
			t.Fatalf("%d bytes of %d messages are kept", a.looseIn.bytes, len(a.looseIn.parts))
		}
	}
	for offset := uint64(0); offset < 2*loosePieces+10; offset += 2 {
		take(5000, 60_000, offset, 1)
	}
	for _, p := range a.looseIn.parts {
		if p.id == 5000 && len(p.have) > loosePieces {
			t.Errorf("a message in %d pieces", len(p.have))
		}
	}
	a.trim()
	a.trim()
	if len(a.looseIn.parts) != 0 || a.looseIn.bytes != 0 || a.looseIn.incomplete == 0 {
		t.Errorf("%d messages are left, %d bytes", len(a.looseIn.parts), a.looseIn.bytes)
	}
	o := &newARQ(1191).loose
	if o.reserve(looseMost+1) != nil || o.reserve(0) != nil {
		t.Error("a message of a size that nobody takes")
	}
	kept := 0
	for b := o.reserve(looseMost); b != nil; b = o.reserve(looseMost) {
		o.commit(looseMost)
		kept += looseMost
	}
	if kept > looseWaits || kept < looseWaits-looseMost {
		t.Errorf("%d bytes wait", kept)
	}
}
