package portal

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"sallyport/names"
	"sallyport/routing"
)

// TestOutletIsFull: an outlet with as many connections as it may have refuses the next, says why, and takes one again when one has ended;
// and so does a node.
func TestOutletIsFull(t *testing.T) {
	for name, limits := range map[string]Limits{"outlet": {OutletConnections: 3}, "node": {Connections: 3}} {
		t.Run(name, func(t *testing.T) {
			target, ch := served(t)
			l := newLink(t, target, false, Limits{}, limits)
			c := dial(t, l.in)
			first := next(t, ch)
			for range 2 {
				dial(t, l.in)
				next(t, ch)
			}
			for k := range 5 {
				refused, err := net.Dial("tcp", l.in.Bound().String())
				if err == nil { // else the reset was faster than the connecting
					_ = refused.SetDeadline(time.Now().Add(90 * time.Second))
					if n, err := refused.Read(make([]byte, 1)); err == nil || err == io.EOF {
						t.Fatalf("beyond the limit: read %d, %v; a reset is right", n, err)
					}
					refused.Close()
				} else if !errors.Is(err, syscall.ECONNRESET) {
					t.Fatal(err)
				}
				if got := l.b.env.Stats.Limited.Load(); got != uint64(k+1) {
					t.Errorf("%d refusals counted, want %d", got, k+1)
				}
			}
			if n := l.a.env.Stats.Ended[ReasonLimit].Load(); n != 5 {
				t.Errorf("the inlet's node was told %d times why", n)
			}
			if n, want := l.b.env.Stats.Crowded.Load(), map[string]uint64{"node": 5}[name]; n != want {
				t.Errorf("%d refused because the node is full, not %d", n, want)
			}
			c.Close()
			first.Close()
			eventually(t, "a place is free", func() bool { return l.b.env.Stats.Active.Load() == 2 })
			again := dial(t, l.in)
			expectEcho(t, again, next(t, ch))
		})
	}
}

func expectEcho(t *testing.T, c, s io.ReadWriter) {
	t.Helper()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(s, b); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
}

// TestPlacesComeBack: an outlet for a few serves any number, one after the other.
func TestPlacesComeBack(t *testing.T) {
	nobody, ch := served(t)
	l := newLink(t, "", false, Limits{}, Limits{})
	ctx := limited(t)
	out, err := NewOutlet(ctx, l.b.env, l.b.router, OutletOptions{
		Name: "outlet", Target: nobody, Resolve: names.Lookup, Flows: []*routing.Flow{l.b.ln.Flow}, MaxConnections: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		c := dial(t, l.in)
		s := next(t, ch)
		if now, limit := out.Connections(); now != 1 || limit != 2 {
			t.Fatalf("%d connections of %d", now, limit)
		}
		c.Close()
		s.Close()
		eventually(t, "place given back", func() bool { now, _ := out.Connections(); return now == 0 })
	}
}

// TestOnePeerLeavesRoom: a member that takes all it can get leaves a fifth to others.
func TestOnePeerLeavesRoom(t *testing.T) {
	p := places{max: 10, each: PeerShare(10)}
	greedy, modest := [32]byte{1}, [32]byte{2}
	count := func(peer *[32]byte) (n int) {
		for range 20 {
			if ok, _ := p.take(peer); ok {
				n++
			}
		}
		return n
	}
	if n := count(&greedy); n != 8 {
		t.Errorf("one peer got %d of 10", n)
	}
	if n := count(&modest); n != 2 {
		t.Errorf("another got %d of the 2 left", n)
	}
	p.leave(&greedy)
	if ok, _ := p.take(&greedy); !ok {
		t.Error("a place that was given back is not to be had")
	}
	for range 8 {
		p.leave(&greedy)
	}
	for range 2 {
		p.leave(&modest)
	}
	if now, _ := p.taken(); now != 0 || len(p.peers) != 0 {
		t.Errorf("%d places, %d peers left", now, len(p.peers))
	}
	if n := count(nil); n != 10 {
		t.Errorf("peers without identity got %d of 10", n)
	}
	for most, want := range map[int]int{1: 1, 2: 2, 3: 2, 4: 3, 5: 4, 9: 8, 10: 8, 1000: 800} {
		if got := PeerShare(most); got != want {
			t.Errorf("one peer gets %d of %d places, want %d", got, most, want)
		}
	}
	_, first := p.take(&greedy)
	_, second := p.take(&greedy)
	if first || second { // the refusals above told already
		t.Error("the log is told of each refusal")
	}
}

// TestPlacesOfAMember: an outlet that says how many places one peer gets gives it so many, be it less or more than its share, and follows a change.
func TestPlacesOfAMember(t *testing.T) {
	var p places
	count := func(peer [32]byte) (n int) {
		for range 20 {
			if ok, _ := p.take(&peer); ok {
				n++
			}
		}
		return n
	}
	p.limit(10, 3)
	if a, b := count([32]byte{1}), count([32]byte{2}); a != 3 || b != 3 {
		t.Errorf("two peers got %d and %d, each may have 3", a, b)
	}
	p.limit(10, 10)
	if n := count([32]byte{1}); n != 4 {
		t.Errorf("a peer that may have all got %d of the 4 left", n)
	}
	p.limit(20, 8)
	if n := count([32]byte{1}); n != 1 {
		t.Errorf("a peer with 7 that may have 8 got %d more", n)
	}
}

// TestPlacesFollow: the number of places changes while an outlet serves; who has one keeps it.
func TestPlacesFollow(t *testing.T) {
	target, ch := served(t)
	l := newLink(t, "", false, Limits{}, Limits{})
	out, err := NewOutlet(limited(t), l.b.env, l.b.router, OutletOptions{Name: "outlet", Target: target, Flows: []*routing.Flow{l.b.ln.Flow}, MaxConnections: 2})
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, l.in)
	s := next(t, ch)
	dial(t, l.in)
	next(t, ch)
	out.SetMaxConnections(1, 0)
	expectEcho(t, c, s)
	refused := func(want uint64) {
		t.Helper()
		if c, err := net.Dial("tcp", l.in.Bound().String()); err == nil { // else it was reset sooner
			t.Cleanup(func() { c.Close() })
		}
		eventually(t, "a refusal", func() bool { return out.Refused() == want })
	}
	refused(1)
	out.SetMaxConnections(3, 0)
	dial(t, l.in)
	next(t, ch)
	refused(2)
	if now, most := out.Connections(); now != 3 || most != 3 {
		t.Errorf("%d of %d", now, most)
	}
	out.SetMaxConnections(0, 0)
	if _, most := out.Connections(); most != l.b.env.Limits.OutletConnections {
		t.Errorf("%d places by default", most)
	}
}
