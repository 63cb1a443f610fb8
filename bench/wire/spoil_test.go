package wire

import (
	"bytes"
	"math/bits"
	"testing"
	"time"
)

// TestSpoil: of some segments one bit of what they carry is wrong, some come twice, and all others are as they were.
func TestSpoil(t *testing.T) {
	const packets, segments = 500, 8
	l := newLine(Options{Duplicate: 0.1, Corrupt: 0.05, Seed: 3})
	data := make([]byte, segments*1000)
	for i := range data {
		data[i] = byte(i * 7)
	}
	whole := super(false, data, 1000)
	p, _ := parse(whole)
	for range packets {
		l.put(whole, 0, func(n int) []byte { return make([]byte, n) })
	}
	come, wrong := 0, 0
	for b := l.take(time.Second); b != nil; b = l.take(time.Second) {
		differs, which := 0, -1
		for i := range segments {
			want := p.cut(i, i+1, func(n int) []byte { return make([]byte, n) })
			if len(want) == len(b) && bytes.Equal(want[:headerSize+40], b[:headerSize+40]) {
				for k := range want {
					differs += bits.OnesCount8(want[k] ^ b[k])
				}
				which = i
				break
			}
		}
		if come++; which < 0 || differs > 1 {
			t.Fatalf("a segment that was none of the packet, or has %d wrong bits", differs)
		}
		wrong += differs
	}
	if twice := come - packets*segments; twice < 300 || twice > 500 || wrong < 150 || wrong > 300 {
		t.Errorf("%d twice of %d, %d wrong", come-packets*segments, packets*segments, wrong)
	}
	if l.counts.Corrupted > uint64(wrong) || l.counts.Corrupted < 150 {
		t.Errorf("%d counted, %d wrong", l.counts.Corrupted, wrong)
	}
}
