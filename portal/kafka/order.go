package kafka

import (
	"encoding/binary"
	"math"
	"sync"
	"time"
)

// Where a batch says who made it and which number its first record has (KIP-98).
const (
	batchProducerAt = 43
	batchEpochAt    = 51
	batchSequenceAt = 53
)

// heldFor is how long a batch that was refused is waited for: producers give up after two minutes by default (delivery.timeout.ms).
const heldFor = 5 * time.Minute

// maxHeld is how many refused batches are remembered.
const maxHeld = 10_000

// writer is an idempotent producer's sequence of batches for a partition.
type writer struct {
	part     fetchPart
	producer int64
	epoch    int16
}

// order keeps batches behind an earlier one that was refused for now. Producers have several requests under way. A broker that does not know a
// producer yet takes whatever number comes first, and would refuse the earlier batch for ever.
type order struct {
	mu   sync.Mutex
	held map[writer]heldBatch
}

type heldBatch struct {
	sequence int32
	since    time.Time
}

// writerOf returns whose batch it is and its first number; false for a producer that does not count.
func writerOf(part fetchPart, records []byte) (w writer, sequence int32, counts bool) {
	if len(records) < batchHeadSize {
		return w, 0, false
	}
	w = writer{part, int64(binary.BigEndian.Uint64(records[batchProducerAt:])), int16(binary.BigEndian.Uint16(records[batchEpochAt:]))}
	sequence = int32(binary.BigEndian.Uint32(records[batchSequenceAt:]))
	return w, sequence, w.producer >= 0 && sequence >= 0
}

// follows tells whether a number comes after another one. Behind the largest one, 2^31-1, comes 0 (KIP-98).
func follows(number, other int32) bool {
	distance := uint32(number-other) & math.MaxInt32
	return distance > 0 && distance < 1<<30
}

// behind tells whether an earlier batch has to come first.
func (o *order) behind(part fetchPart, records []byte) bool {
	w, sequence, counts := writerOf(part, records)
	if !counts {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	h, held := o.held[w]
	if held && time.Since(h.since) > heldFor {
		delete(o.held, w)
		return false
	}
	return held && follows(sequence, h.sequence)
}

// refused notes a batch that its producer is to send again, passed one that goes on.
func (o *order) refused(part fetchPart, records []byte) {
	w, sequence, counts := writerOf(part, records)
	if !counts {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held == nil {
		o.held = map[writer]heldBatch{}
	}
	if h, held := o.held[w]; held && follows(sequence, h.sequence) {
		return
	}
	if len(o.held) >= maxHeld {
		for w, h := range o.held {
			if time.Since(h.since) > heldFor {
				delete(o.held, w)
			}
		}
	}
	if len(o.held) < maxHeld {
		o.held[w] = heldBatch{sequence, time.Now()}
	}
}

func (o *order) passed(part fetchPart, records []byte) {
	if w, _, counts := writerOf(part, records); counts {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.held, w)
	}
}
