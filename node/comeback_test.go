package node

import (
	"context"
	"sync/atomic"
	"testing"

	"sallyport/routing"
)

// TestHandshakeLostAtAName: a session's handshake through a relay's name whose first message is lost there is begun again beside it, long before the attempt is given up.
func TestHandshakeLostAtAName(t *testing.T) {
	relay, client := newMember(t), newMember(t)
	ctx := within(t)
	var seen atomic.Int64
	loses := routing.WorkerFunc(func(s *routing.Shard, m *routing.Message) {
		if seen.Add(1) == 1 {
			return
		}
		m.PopOnward() // to the relay's own listener
		s.Deliver(m)
	})
	if err := relay.router.StartNamed(ctx, routing.RelayPrefix+"x", func(*routing.Shard) routing.Worker { return loses }, relay.api.Flow); err != nil {
		t.Fatal(err)
	}
	watched := context.WithValue(ctx, reportKey{}, func(error) {})
	c, err := client.connect(watched, mustRoute(t, relay.route()+"/secure/api/service/forward_to_x/secure/api"), connectOptions{self: client.self})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if len(c.channels) != 2 || seen.Load() < 2 {
		t.Errorf("%d channels, %d messages", len(c.channels), seen.Load())
	}
}
