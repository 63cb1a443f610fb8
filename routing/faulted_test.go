package routing

import (
	"testing"
)

// TestFaultLeavesNoDepth: after a worker's fault a shard delivers as deeply as before. Without that each fault would take away some of
// the depth, until every message waits for its turn.
func TestFaultLeavesNoDepth(t *testing.T) {
	r := newRouter(t, 1)
	s := r.Shards()[0]
	var self WireAddress
	on(t, s, func() {
		self = s.Start(WorkerFunc(func(*Shard, *Message) { panic("a fault") }))
	})
	for range maxDepth + 1 {
		r.Inject(RouteOf(self), Route{}, nil)
	}
	depth := -1
	on(t, s, func() { depth = s.depth })
	if depth != 0 {
		t.Errorf("depth %d after faults", depth)
	}
}
