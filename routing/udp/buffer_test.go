package udp

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// TestSendingProperty: any part of what was written and not dropped can be read again, and no more is kept than that and a block at each end.
func TestSendingProperty(t *testing.T) {
	noise := random(rand.New(rand.NewPCG(1, 2)), 2*blockSize+1)
	rapid.Check(t, func(t *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		s := sending{blocks: &blocks{}}
		var all []byte
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			n := rapid.SampledFrom([]int{1, 100, 65_700, blockSize - 1, blockSize, blockSize + 1}).Draw(t, "size")
			b := s.reserve(n)
			if rapid.Bool().Draw(t, "given up") {
				b = s.reserve(n) // what was reserved and not taken over is nothing
			}
			copy(b, noise[rnd.IntN(blockSize):])
			all = append(all, b...)
			s.commit(n)
			from := s.base + rnd.Uint64N(s.end-s.base)
			to := from + 1 + rnd.Uint64N(s.end-from)
			if got := s.appendTo([]byte("head"), span{from, to}); !bytes.Equal(got[4:], all[from:to]) {
				t.Fatalf("%d to %d of %d is not what was written", from, to, s.end)
			}
			if rapid.Bool().Draw(t, "acknowledged") {
				s.drop(s.base + rnd.Uint64N(s.end-s.base+1))
			}
			kept := 0
			for _, b := range s.list[:len(s.list)-1] {
				kept += len(b.data)
			}
			if most := int(s.end-s.base) + 2*blockSize; kept > most {
				t.Fatalf("%d bytes kept of %d", kept, s.end-s.base)
			}
		}
	})
}

// TestReceivingProperty: parts of a stream in any order, some twice and some overlapping, come out as the stream, and nothing is kept at the end but a block.
func TestReceivingProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		stream := random(rnd, rapid.IntRange(1, 3*blockSize).Draw(t, "bytes"))
		most := rapid.SampledFrom([]int{1200, 70_000, 2 * blockSize}).Draw(t, "largest part")
		var parts []span
		for at := 0; at < len(stream); {
			to := min(at+1+rnd.IntN(most), len(stream))
			parts = append(parts, span{uint64(at), uint64(to)}, span{uint64(at - rnd.IntN(at+1)), uint64(to)})
			at = to
		}
		if rapid.Bool().Draw(t, "out of order") {
			rnd.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		}
		r := receiving{blocks: &blocks{}}
		var got []byte
		for _, p := range parts {
			if p.to > r.expect {
				r.put(p.from, stream[p.from:p.to])
			}
			for rnd.IntN(3) > 0 {
				k := rnd.IntN(len(r.ready()) + 1)
				got = append(got, r.ready()[:k]...)
				r.take(k)
				if !r.more() {
					break
				}
			}
		}
		for more := true; more; more = r.more() {
			got = append(got, r.ready()...)
			r.take(len(r.ready()))
		}
		if !bytes.Equal(got, stream) || r.expect != uint64(len(stream)) || len(r.early) != 0 || len(r.waits) != 0 {
			t.Fatalf("%d of %d bytes, %d early, %d blocks wait", len(got), len(stream), len(r.early), len(r.waits))
		}
	})
}

// TestBlocksAreGivenUp: a link that has nothing to do keeps nothing of a burst.
func TestBlocksAreGivenUp(t *testing.T) {
	a := newARQ(1191)
	a.out.reserve(3 * blockSize / 2)
	a.out.commit(3 * blockSize / 2)
	for range 100 {
		a.blocks.put(make([]byte, blockSize))
	}
	if len(a.blocks.free) != blocksKept {
		t.Errorf("%d blocks kept", len(a.blocks.free))
	}
	a.out.drop(a.out.end)
	for range 10 {
		a.trim()
	}
	if len(a.blocks.free) != 0 || len(a.out.list) != 0 {
		t.Errorf("%d blocks kept, %d in use", len(a.blocks.free), len(a.out.list))
	}
}
