package portal

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
)

// TestKeepMemory: what is kept is accounted for by the memory that it takes; when that is spent little is not kept in large blocks, and little memory
// keeps few free blocks. All is given back.
func TestKeepMemory(t *testing.T) {
	for _, budget := range []int64{0, 1 << 20, 8 << 20, 256 << 20} {
		var total, memory atomic.Int64
		pool := &keepPool{payload: 64 << 10, budget: budget, memory: &memory}
		list := make([]keep, 800)
		for i := range list {
			list[i] = keep{pool: pool, total: &total}
		}
		for range 20 {
			for i := range list {
				k := &list[i]
				if room := 8<<10 - k.size; room > 0 {
					k.add(make([]byte, 1+rand.IntN(room)))
				}
				if rand.IntN(2) == 0 {
					k.drop(rand.IntN(k.size + 1))
				}
			}
			// At most two blocks of each are not full.
			if most := budget + total.Load() + int64(len(list))*2*smallBlock; memory.Load() > most && budget < 256<<20 {
				t.Fatalf("budget %d: %d bytes are kept in %d", budget, total.Load(), memory.Load())
			}
		}
		for i := range list {
			list[i].drop(list[i].size)
		}
		if total.Load() != 0 || memory.Load() != 0 {
			t.Errorf("budget %d: %d bytes in %d are left", budget, total.Load(), memory.Load())
		}
		free := func() (n int64) {
			for _, class := range pool.free {
				for _, b := range class {
					n += int64(len(b.buf))
				}
			}
			return n
		}
		if n := free(); n > budget/2 {
			t.Errorf("budget %d: %d bytes are kept free", budget, n)
		}
		trims := 0
		for pool.trim() {
			trims++
		}
		if n := free(); n > budget/16 || trims > 20 {
			t.Errorf("budget %d: %d bytes are kept free for good, after %d times", budget, n, trims)
		}
	}
}

// TestKeepBusyBlocks: what several transfers take in one moment and give back in the next is not made anew each time, as long as it is used now and then; what is
// not used any more is given back.
func TestKeepBusyBlocks(t *testing.T) {
	var memory atomic.Int64
	grown := 0
	pool := &keepPool{payload: 64 << 10, budget: 256 << 20, memory: &memory, grown: func() { grown++ }}
	const busy = 300
	list := make([]*keepBlock, busy)
	turn := func() {
		for i := range list {
			list[i] = pool.large()
		}
		for _, b := range list {
			pool.put(b)
		}
	}
	turn()
	if grown != 1 {
		t.Errorf("told %d times that there are many", grown)
	}
	if n := testing.AllocsPerRun(100, func() { turn(); turn(); pool.trim() }); n > 0 {
		t.Errorf("%v blocks are made anew in each turn", n)
	}
	if len(pool.free[1]) != busy {
		t.Fatalf("%d free blocks of %d", len(pool.free[1]), busy)
	}
	for range 10 {
		pool.trim()
	}
	if n := len(pool.free[1]); n != keepFree[1] {
		t.Errorf("%d free blocks that nobody uses", n)
	}
}
