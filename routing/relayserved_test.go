package routing_test

import (
	"testing"

	"sallyport/routing"
)

// TestFleetShown: each relay of a fleet tells of all names, with who has them where, and counts what goes between relays.
func TestFleetShown(t *testing.T) {
	n := newNetwork(t, "a", "b")
	a, b := n.stations["a"], n.stations["b"]
	outlet, inlet := a.guest(1), b.guest(2)
	terms := routing.Terms{Member: routing.MemberID{7}, Rule: routing.RuleSpread, Share: "with 2", Priority: 3}
	for _, name := range []string{"n", routing.LaneName("n")} {
		if k := outlet.registers(name, &terms); k != 0 {
			t.Fatal(k)
		}
		b.members(name, 1)
	}
	for _, s := range []*station{a, b} {
		soon(t, "the terms at "+s.id, func() bool { list := s.relays.Served(); return len(list) == 1 && list[0].Rule == routing.RuleSpread })
		one := s.relays.Served()[0]
		if one.Name != "n" || one.Owner == nil || *one.Owner != outlet.peer.ID || one.Share != terms.Share || len(one.Members) != 1 {
			t.Fatalf("at %s: %+v", s.id, one)
		}
		at := "a"
		if s == a {
			at = ""
		}
		if m := one.Members[0]; m.Identity != outlet.peer.ID || m.Member != terms.Member || m.Priority != 3 || !m.Up || m.Down || !m.Chosen || m.Relay != at {
			t.Errorf("at %s: %+v", s.id, m)
		}
	}
	inlet.reaches(outlet, "n", "first")
	use := func(s *station) routing.FleetUse {
		u, ok := s.relays.FleetUse()
		if !ok {
			t.Errorf("%s is no part of a fleet", s.id)
		}
		return u
	}
	at, by := use(a), use(b)
	if at.Taken == 0 || by.PassedOn < at.Taken || at.PassedOn != 0 || by.Taken != 0 {
		t.Errorf("passed on and taken: %+v and %+v", by, at)
	}
	at.Taken, by.PassedOn = 0, 0
	soon(t, "a way from each", func() bool { return use(a).Linked == 1 && use(b).Linked == 1 })
	at.Linked, by.Linked = 1, 1
	if want := (routing.FleetUse{Relays: 1, Linked: 1, Here: 2}); at != want {
		t.Errorf("where they are: %+v", at)
	}
	if want := (routing.FleetUse{Relays: 1, Linked: 1, Elsewhere: 2}); by != want {
		t.Errorf("elsewhere: %+v", by)
	}
	outlet.leaves()
	soon(t, "nobody is shown", func() bool { return len(a.relays.Served())+len(b.relays.Served()) == 0 })
}
