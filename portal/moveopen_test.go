package portal

import (
	"net"
	"testing"
	"time"
)

// TestIdleConnectionsMoveTogether: many connections over which nothing has gone yet move to another path while the one before is there still. What the other end
// was told that it may send holds, though new ones may send less at first over a path that so many use.
func TestIdleConnectionsMoveTogether(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 1, Limits{Window: 5000}, time.Hour, OutletOptions{Target: target})
	s.connect(t)
	type both struct{ client, server net.Conn }
	var all []both
	for range 200 {
		client := dial(t, s.inlet)
		all = append(all, both{client, next(t, ch)})
	}
	eventually(t, "all are open", func() bool {
		n := 0
		_ = s.in.router.Shards()[0].Do(limited(t), func() {
			s.inlet.mu.Lock()
			defer s.inlet.mu.Unlock()
			for c := range s.inlet.conns {
				if c.state == open {
					n++
				}
			}
		})
		return n == len(all)
	})
	s.connect(t)
	eventually(t, "all go on over the other path", func() bool { return s.in.env.Stats.Resumed.Load() == uint64(len(all)) })
	for _, p := range all {
		talk(t, p.client, p.server)
	}
}
