package portal

import (
	"testing"
	"time"

	"sallyport/routing"
)

// TestPeerGone: when the process at the other end has ended, both kinds of ends reset their sockets at once, with a path or without.
func TestPeerGone(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 5, 1, Limits{}, time.Hour, OutletOptions{Target: target})
	s.in.env.Process, s.out.env.Process = [32]byte{1, 20: 1}, [32]byte{2}
	s.connect(t)
	_, server := s.pair(t, ch)
	s.far.post(s.far.TellGone)
	expectReset(t, "server", server)

	_, away := s.pair(t, ch)
	s.cut()
	eventually(t, "away", func() bool { return s.out.env.Stats.Away.Load() == 1 })
	peer, same, other := s.ids[0], [32]byte{1, 20: 1}, [32]byte{1, 20: 2}
	stranger := peer
	stranger[0]++
	s.outlet.Ended(&stranger, other[:])
	s.outlet.Ended(&peer, same[:])
	s.outlet.Ended(&peer, []byte{3})
	if n := s.out.env.Stats.Active.Load(); n != 1 {
		t.Fatalf("%d connections; another's word, or that of the same process, ended some", n)
	}
	s.outlet.Ended(&peer, other[:])
	expectReset(t, "server", away)
	if n := s.out.env.Stats.Ended[ReasonGone].Load(); n != 2 {
		t.Errorf("%d were counted, want 2", n)
	}
	s.outlet.lines.mu.Lock()
	if len(s.outlet.lines.nodes) != 0 {
		t.Error("something is left of them")
	}
	s.outlet.lines.mu.Unlock()
	eventually(t, "the inlet's ends wait for a path", func() bool { return s.in.env.Stats.Away.Load() == 2 })
	route := routing.NewRoute(s.near.self.Address(), routing.LocalAddress("outlet"))
	s.inlet.Gone(stranger, route)
	s.inlet.Gone(s.ids[1], route)
	eventually(t, "ended", func() bool { return s.in.env.Stats.Active.Load() == 0 })
	if n := s.in.env.Stats.Ended[ReasonGone].Load(); n != 2 {
		t.Errorf("%d of the inlet's ends were counted, want 2", n)
	}
}
