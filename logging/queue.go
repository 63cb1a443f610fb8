package logging

import (
	"io"
	"sync"
	"sync/atomic"
)

// queue keeps encoded records until they are written. Its Write never waits.
type queue struct {
	max              int
	mu               sync.Mutex
	waiting          []byte
	spare            []byte        // the other half of the double buffer
	filled           chan struct{} // has room for one: something waits
	written, dropped atomic.Uint64
	records          uint64 // in waiting
}

func (q *queue) init(size int) {
	q.max = size
	q.filled = make(chan struct{}, 1)
}

// Write takes one record.
func (q *queue) Write(record []byte) (int, error) {
	q.mu.Lock()
	if len(q.waiting)+len(record) > q.max {
		q.mu.Unlock()
		q.dropped.Add(1)
		return len(record), nil
	}
	q.waiting = append(q.waiting, record...)
	q.records++
	q.mu.Unlock()
	select {
	case q.filled <- struct{}{}:
	default:
	}
	return len(record), nil
}

// writeTo writes what waits. What w does not take is lost: a log on a full disk must not end the node.
func (q *queue) writeTo(w io.Writer) {
	q.mu.Lock()
	batch, records := q.waiting, q.records
	q.waiting, q.spare, q.records = q.spare[:0], nil, 0
	q.mu.Unlock()
	if len(batch) > 0 {
		if _, err := w.Write(batch); err != nil {
			q.dropped.Add(records)
		} else {
			q.written.Add(records)
		}
	}
	if cap(batch) > 64<<10 {
		batch = nil // a quiet log keeps nothing of a burst
	}
	q.mu.Lock()
	q.spare = batch[:0]
	q.mu.Unlock()
}
