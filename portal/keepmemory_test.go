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
		free := int64(0)
		for _, class := range pool.free {
			for _, b := range class {
				free += int64(len(b.buf))
			}
		}
		if free > budget/16 {
			t.Errorf("budget %d: %d bytes are kept free", budget, free)
		}
	}
}
