package routing

import (
	"testing"

	"sallyport/dataplane"
)

// TestLargeMessageTakesTurns: a large message that is handed on often lets others have their turns in between, comes whole, and pauses
// its source meanwhile; one of the usual size goes through in one turn.
func TestLargeMessageTakesTurns(t *testing.T) {
	for _, c := range []struct {
		name     string
		size     int
		hops     int
		atLeast  int // turns of others while it passes
		straight bool
	}{{"large", 15 << 20, 200, 100, false}, {"usual", 128 << 10, 20, 0, true}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRouter(t, 1)
			s := r.shards[0]
			done := make(chan struct{})
			turns, running := 0, true
			var route []Address
			var other dataplane.TaskFunc
			other = func() {
				if turns++; running {
					s.loop.Post(other)
				}
			}
			source := &pouring{s: s}
			payload := make([]byte, c.size)
			payload[0], payload[c.size-1] = 1, 2
			paused := false
			on(t, s, func() {
				for range c.hops {
					route = append(route, s.Start(WorkerFunc(func(s *Shard, m *Message) {
						m.PopOnward()
						paused = paused || source.paused.Load()
						s.Deliver(m)
					})).Address())
				}
				route = append(route, s.Start(WorkerFunc(func(_ *Shard, m *Message) {
					if p := m.Payload(); len(p) != c.size || p[0] != 1 || p[c.size-1] != 2 {
						t.Error("the message is not whole")
					}
					running = false
					close(done)
				})).Address())
				source.throttle = NewThrottle(s, source)
				m := s.NewMessage()
				m.Onward = NewRoute(route...)
				m.SetPayloadBytes(payload)
				m.From = source.throttle
				s.loop.Post(other)
				s.Deliver(m)
				s.Free(m)
			})
			select {
			case <-done:
			case <-limited(t).Done():
				t.Fatal("the message did not come")
			}
			on(t, s, func() {
				if turns < c.atLeast || c.straight && turns > 1 {
					t.Errorf("others had %d turns", turns)
				}
				if paused == c.straight {
					t.Errorf("source paused: %v", paused)
				}
			})
			eventually(t, "the source goes on", func() bool { return !source.paused.Load() })
		})
	}
}
