package portal

import (
	"sallyport/dataplane"
	"sallyport/routing"
)

// keeper is what the connections of one shard share that outlive their paths: blocks, and who owes the other end a word.
type keeper struct {
	shard   *routing.Shard
	pool    keepPool
	owing   []*conn
	spare   []*conn // the other half of the double buffer
	timer   *dataplane.Timer
	ticking bool
}

func (e *Env) keeper(s *routing.Shard) *keeper {
	k, ok := e.keepers.Load(s)
	if !ok {
		made := &keeper{shard: s, pool: keepPool{payload: e.Limits.PayloadSize, budget: e.Limits.KeepBudget, memory: &e.Stats.KeptMemory}}
		made.pool.grown = made.tickLater
		k, _ = e.keepers.LoadOrStore(s, made)
	}
	return k.(*keeper)
}

// owe sees to it that c's other end is told within confirmWithin what has come, unless something that is sent says so before.
func (k *keeper) owe(c *conn) {
	k.owing = append(k.owing, c)
	k.tickLater()
}

func (k *keeper) tickLater() {
	if k.ticking {
		return
	}
	k.ticking = true
	if k.timer == nil {
		k.timer = k.shard.Loop().After(confirmWithin, k.tick)
	} else {
		k.timer.Reset(confirmWithin)
	}
}

// tick tells all other ends that were not told meanwhile, and gives memory back.
func (k *keeper) tick() {
	k.ticking = false
	list := k.owing
	k.owing = k.spare[:0]
	for i, c := range list {
		list[i] = nil
		if c.line.owing = false; c.got() != c.line.told {
			c.confirm(false)
		}
	}
	k.spare = list[:0]
	if k.pool.trim() {
		k.tickLater()
	}
}

// leave forgets c, which goes to another shard.
func (k *keeper) leave(c *conn) {
	if !c.line.owing {
		return
	}
	c.line.owing = false
	for i, other := range k.owing {
		if other == c {
			last := len(k.owing) - 1
			k.owing[i], k.owing[last] = k.owing[last], nil
			k.owing = k.owing[:last]
			return
		}
	}
}
