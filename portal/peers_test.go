package portal

import (
	"testing"
	"time"

	"sallyport/routing"
)

// TestOnlyItsPeer: a connection, and what is left of one that ended early, listens to the peer that it began with and to nobody else.
func TestOnlyItsPeer(t *testing.T) {
	mine, other := &routing.Peer{ID: [32]byte{1}}, &routing.Peer{ID: [32]byte{2}}
	n := newNode(t, 1, Limits{})
	s := n.router.Shards()[0]
	for _, c := range []struct {
		name     string
		began    *routing.Peer // who the connection began with; nil: without a secure channel
		from     *routing.Peer
		listened bool
	}{
		{"its peer", mine, mine, true}, {"another one", mine, other, false}, {"nobody, after a channel", mine, nil, false},
		{"somebody, after none", nil, other, false}, {"nobody, after none", nil, nil, true},
	} {
		if err := s.Do(t.Context(), func() {
			conn := n.env.newConn(s, n.env.meters.take(EndInlet, "test"))
			if c.began != nil {
				conn.peer, conn.hasPeer = c.began.ID, true
			}
			m := s.NewMessage()
			defer s.Free(m)
			m.Peer = c.from
			denied := n.env.Stats.Denied.Load()
			if got := conn.from(m); got != c.listened || (n.env.Stats.Denied.Load() != denied) == c.listened {
				t.Errorf("%s: listened %v, counted as denied %v", c.name, got, n.env.Stats.Denied.Load() != denied)
			}
			conn.self = s.Start(conn)
			conn.leaveLate(ReasonTimeout)
			left, ok := s.Worker(conn.self.Text()).(*late)
			if !ok {
				t.Fatalf("%s: nothing is left", c.name)
			}
			m.SetPayloadBytes([]byte{kindDisconnect})
			left.HandleMessage(s, m)
			if gone := s.Worker(conn.self.Text()) == nil; gone != c.listened {
				t.Errorf("%s: what is left listened %v", c.name, gone)
			}
			left.timer.Stop()
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoAnswerIsNotWaitedForLong: what is left of a connection that ended early goes when the outlet has had its time, without an answer.
func TestNoAnswerIsNotWaitedForLong(t *testing.T) {
	n := newNode(t, 1, Limits{OpenTimeout: 50 * time.Millisecond})
	s := n.router.Shards()[0]
	var self routing.WireAddress
	if err := s.Do(t.Context(), func() {
		conn := n.env.newConn(s, n.env.meters.take(EndInlet, "test"))
		conn.self = s.Start(conn)
		self = conn.self
		conn.leaveLate(ReasonTimeout)
		if _, ok := s.Worker(self.Text()).(*late); !ok {
			t.Error("nothing is left in its place")
		}
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() (gone bool) {
		if err := s.Do(t.Context(), func() { gone = s.Worker(self.Text()) == nil }); err != nil {
			t.Fatal(err)
		}
		return gone
	})
}
