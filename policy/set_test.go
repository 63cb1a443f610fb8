package policy

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

func TestResourceTypes(t *testing.T) {
	names := []string{"tcp-inlet", "tcp-outlet", "echoer", "kafka-consumer", "kafka-producer", "relay", "lessor", "udp-inlet", "udp-outlet"}
	types := ResourceTypes()
	if len(types) != len(names) {
		t.Fatalf("%d types", len(types))
	}
	for i, name := range names {
		got, err := ParseResourceType(name)
		if err != nil || got != types[i] || int(got) != i+1 || got.String() != name || !got.Valid() {
			t.Errorf("%s: %v %v", name, got, err)
		}
		if ParseResource(name) != ByType(got) {
			t.Errorf("%s is no type", name)
		}
	}
	if _, err := ParseResourceType("tcp"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if r := ParseResource("db"); r != ByName("db") || r.String() != "db" {
		t.Error(r)
	}
	if ResourceType(0).Valid() || ResourceType(10).Valid() || ResourceType(10).String() != "resource-type(10)" {
		t.Error("invalid types")
	}
	if a, err := ParseAction("handle_message"); err != nil || a != HandleMessage || uint8(a) != 1 {
		t.Error(a, err)
	}
	if _, err := ParseAction("x"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if n, ok := ByName("relay").Name(); !ok || n != "relay" {
		t.Error("a resource may be named like a type")
	}
	if typ, ok := ByType(Relay).Type(); !ok || typ != Relay {
		t.Error(typ)
	}
}

func TestSetLookup(t *testing.T) {
	s := NewSet()
	for _, typ := range ResourceTypes() {
		if got := s.Lookup("x", typ); got.String() != "(= subject.has_credential true)" {
			t.Errorf("default of %v is %v", typ, got)
		}
	}
	byName, byType := mustFull(t, "(and false)"), mustFull(t, "(or true)")
	if s.Version() != 0 {
		t.Error("version of a new set")
	}
	if err := s.Set(ByName("db"), byName); err != nil {
		t.Fatal(err)
	}
	if err := s.Set(ByType(TCPOutlet), byType); err != nil {
		t.Fatal(err)
	}
	if s.Version() != 2 {
		t.Errorf("version %d", s.Version())
	}
	for _, c := range []struct {
		name string
		typ  ResourceType
		want *Expr
	}{
		{"db", TCPOutlet, byName}, {"db", TCPInlet, byName}, {"web", TCPOutlet, byType}, {"", TCPOutlet, byType},
		{"web", TCPInlet, DefaultExpr()}, {"web", 0, nil}, {"web", 99, nil},
	} {
		if got := s.Lookup(c.name, c.typ); !Equal(got, c.want) {
			t.Errorf("%s %v: %v, want %v", c.name, c.typ, got, c.want)
		}
	}
	if got := s.Get(ByName("web")); got != nil {
		t.Errorf("Get falls back to %v", got)
	}
	list := s.List()
	if len(list) != 8 || list[0].Resource != ByName("db") || list[1].Resource != ByType(TCPInlet) || list[7].Resource != ByType(Lessor) ||
		!Equal(list[2].Expr, byType) {
		t.Errorf("list %v", list)
	}
	if !s.Delete(ByName("db")) || s.Delete(ByName("db")) || !Equal(s.Lookup("db", TCPOutlet), byType) {
		t.Error("delete by name")
	}
	if !s.Delete(ByType(TCPOutlet)) || s.Lookup("db", TCPOutlet) != nil || s.Lookup("db", TCPOutlet).Allows(Env{}) {
		t.Error("delete by type must deny")
	}
	if s.Version() != 4 {
		t.Errorf("version %d", s.Version())
	}
}

func TestSetRefuses(t *testing.T) {
	s := NewSet()
	for _, e := range []*Expr{nil, Bool(true), list(), ident("x"), list(Str("and"))} {
		if err := s.Set(ByName("db"), e); !errors.Is(err, ErrNotPolicy) {
			t.Errorf("%v: %v", e, err)
		}
	}
	for _, r := range []Resource{{}, ByType(10), ByType(0), ByName("")} {
		if err := s.Set(r, DefaultExpr()); !errors.Is(err, ErrUnknown) {
			t.Errorf("%v: %v", r, err)
		}
	}
	if s.Version() != 0 {
		t.Error("a refused change counts")
	}
}

func TestSetZeroValue(t *testing.T) {
	var s Set
	if s.Lookup("db", TCPOutlet) != nil || s.Version() != 0 || len(s.List()) != 0 || s.Delete(ByName("x")) {
		t.Error("not empty")
	}
	if err := s.Set(ByName("db"), DefaultExpr()); err != nil || s.Lookup("db", TCPOutlet) == nil {
		t.Error(err)
	}
}

func TestSetSubscribe(t *testing.T) {
	s := NewSet()
	var calls, others int
	var seen *Expr
	cancel := s.Subscribe(func() { calls++; seen = s.Get(ByName("db")) })
	defer s.Subscribe(func() { others++ })()
	e := mustFull(t, "(and true)")
	for range 2 { // the second time changes nothing
		if err := s.Set(ByName("db"), mustFull(t, "(and true)")); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 1 || !Equal(seen, e) {
		t.Errorf("%d calls, saw %v", calls, seen)
	}
	s.Delete(ByName("nothing"))
	s.Delete(ByName("db"))
	if calls != 2 || seen != nil {
		t.Errorf("%d calls, saw %v", calls, seen)
	}
	cancel()
	cancel()
	if err := s.Set(ByName("db"), e); err != nil {
		t.Fatal(err)
	}
	if calls != 2 || others != 3 {
		t.Errorf("%d calls after the end, %d others", calls, others)
	}
}

// Run with -race: readers never see a half-made change.
func TestSetConcurrent(t *testing.T) {
	s := NewSet()
	var notified atomic.Int64
	defer s.Subscribe(func() { notified.Add(1) })()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 200 {
				r := ByName(fmt.Sprint(w, i))
				if err := s.Set(r, DefaultExpr()); err != nil {
					t.Error(err)
				}
				if s.Lookup(r.String(), Echoer) == nil {
					t.Error("lost")
				}
				s.Delete(r)
			}
		})
		wg.Go(func() {
			var last uint64
			for range 500 {
				v := s.Version()
				if v < last {
					t.Error("version went back")
				}
				last = v
				if n := len(s.List()); n < 7 || n > 11 {
					t.Errorf("%d entries", n)
				}
			}
		})
	}
	wg.Wait()
	if s.Version() != 1600 || notified.Load() != 1600 || len(s.List()) != 7 {
		t.Errorf("version %d, %d notifications, %d entries", s.Version(), notified.Load(), len(s.List()))
	}
}

// TestBaseOfType: portals for UDP have the policies of those for TCP until there is one of their own.
func TestBaseOfType(t *testing.T) {
	s := NewSet()
	tcp, udp := mustFull(t, `(= subject.a "1")`), mustFull(t, `(= subject.b "1")`)
	for _, c := range []struct {
		of   ResourceType
		set  *Expr
		want *Expr
	}{{TCPOutlet, tcp, tcp}, {UDPOutlet, udp, udp}, {UDPOutlet, nil, tcp}, {TCPOutlet, nil, nil}} {
		if c.set == nil {
			s.Delete(ByType(c.of))
		} else if err := s.Set(ByType(c.of), c.set); err != nil {
			t.Fatal(err)
		}
		if got := s.Lookup("x", UDPOutlet); !Equal(got, c.want) {
			t.Errorf("%v decides, want %v", got, c.want)
		}
		if got := s.LookupOwn(Own("udp-outlet", "x"), UDPOutlet); !Equal(got, c.want) {
			t.Errorf("%v decides about one that asks for nothing, want %v", got, c.want)
		}
	}
	if n := len(s.List()); n != 6 {
		t.Errorf("%d policies", n)
	}
}
