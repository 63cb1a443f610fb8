package routing

import "sallyport/dataplane"

const (
	// inboxHigh is how many bytes of messages wait for a shard before the sources that send there are paused: a shard that cannot keep up
	// would gather without bound what is read for it.
	inboxHigh = 4 << 20
	// inboxLow is how many are left when they go on.
	inboxLow = 1 << 20
)

// enqueued notes n bytes of a message on their way to a shard, read from source. It may be this shard, when the message takes its turn.
func (s *Shard) enqueued(to *Shard, n int64, source *Throttle) {
	if to.waiting.Add(n) <= inboxHigh || source == nil {
		return
	}
	s.inboxGate.Pause(source)
	// Whoever takes the last bytes out looks at clogged afterwards, so one of the two sees the other.
	to.clogged.Store(true)
	if to.waiting.Load() <= inboxLow {
		s.inboxGate.Open()
	}
}

// dequeued notes that n bytes were handled, on the shard that they came to.
func (s *Shard) dequeued(n int64) {
	if s.waiting.Add(-n) > inboxLow || !s.clogged.Load() || !s.clogged.CompareAndSwap(true, false) {
		return
	}
	for _, from := range s.router.shards {
		from.loop.Post(dataplane.TaskFunc(from.inboxGate.Open))
	}
}
