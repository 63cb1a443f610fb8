package portal

import (
	"net"
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
	s.out.env.Ended(&stranger, other[:])
	s.out.env.Ended(&peer, same[:])
	s.out.env.Ended(&peer, []byte{3})
	if n := s.out.env.Stats.Active.Load(); n != 1 {
		t.Fatalf("%d connections; another's word, or that of the same process, ended some", n)
	}
	s.out.env.Ended(&peer, other[:])
	expectReset(t, "server", away)
	if n := s.out.env.Stats.Ended[ReasonGone].Load(); n != 2 {
		t.Errorf("%d were counted, want 2", n)
	}
	all := &s.out.env.lines.processes
	all.mu.Lock()
	if len(all.nodes) != 0 {
		t.Error("something is left of them")
	}
	all.mu.Unlock()
	eventually(t, "the inlet's ends wait for a path", func() bool { return s.in.env.Stats.Away.Load() == 2 })
	route := routing.NewRoute(s.near.self.Address(), routing.LocalAddress("outlet"))
	s.inlet.Gone(stranger, route)
	s.inlet.Gone(s.ids[1], route)
	eventually(t, "ended", func() bool { return s.in.env.Stats.Active.Load() == 0 })
	if n := s.in.env.Stats.Ended[ReasonGone].Load(); n != 2 {
		t.Errorf("%d of the inlet's ends were counted, want 2", n)
	}
}

// TestRestart: a client that has no answer over a path begins anew over another one when it is told to, and one over another path does not.
func TestRestart(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 5, 1, Limits{}, time.Hour, OutletOptions{Target: target})
	s.connect(t)
	mute := routing.NewRoute(s.near.self.Address(), routing.LocalAddress("nobody"))
	s.inlet.SetPath(mute)
	client, err := net.Dial("tcp", s.inlet.Bound().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	eventually(t, "it asks", func() bool { return s.inlet.Active() == 1 })
	s.connect(t)
	s.inlet.Restart(routing.NewRoute(s.near.self.Address(), routing.LocalAddress("outlet"))) // which nobody waits at
	for range 2 {
		if err := s.in.router.Shards()[0].Do(limited(t), func() {}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(ch); n != 0 {
		t.Fatal("it began anew though another path was meant")
	}
	s.inlet.Restart(mute)
	server := <-ch
	defer server.Close()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if now, _ := s.inlet.Connections(); now != 1 {
		t.Errorf("%d places are taken by one client that has begun anew", now)
	}
	client.Close()
	server.Close()
	s.idle(t)
}
