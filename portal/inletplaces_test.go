package portal

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"sallyport/routing"
)

// TestInletIsFull: an inlet with as many clients as it may have resets the next, which is counted and recorded with the reason, and takes one again when one has
// gone. A change counts for those that come then.
func TestInletIsFull(t *testing.T) {
	target, ch := served(t)
	l := newLink(t, target, false, Limits{}, Limits{})
	r := &recorder{}
	if err := l.a.router.Shards()[0].Do(limited(t), func() { l.a.env.Records = r }); err != nil {
		t.Fatal(err)
	}
	l.in.SetMaxConnections(2)
	first := dial(t, l.in)
	server := next(t, ch)
	dial(t, l.in)
	next(t, ch)
	notServed(t, l.in, "beyond the limit")
	if rec := r.take(t); !rec.Refused || rec.Outcome != "too_many" || rec.By != "inlet" || rec.Client == "" {
		t.Errorf("%+v", rec)
	}
	if n, m := l.a.env.Stats.Limited.Load(), l.in.meter.Refused[ReasonLimit].Load(); n != 1 || m != 1 {
		t.Errorf("%d counted at the node, %d at the inlet", n, m)
	}
	if now, most := l.in.Connections(); now != 2 || most != 2 {
		t.Errorf("%d of %d", now, most)
	}
	first.Close()
	server.Close()
	eventually(t, "a place is free", func() bool { now, _ := l.in.Connections(); return now == 1 })
	again := dial(t, l.in)
	expectEcho(t, again, next(t, ch))
	l.in.SetMaxConnections(1)
	notServed(t, l.in, "beyond the limit")
	l.in.SetMaxConnections(0)
	expectEcho(t, dial(t, l.in), next(t, ch))
	if now, most := l.in.Connections(); now != 3 || most != 0 {
		t.Errorf("%d of %d without a limit", now, most)
	}
}

// TestWaitingClientsHavePlaces: clients that wait for a path are among those that an inlet may have, and keep their places when the path comes; one that leaves makes room.
func TestWaitingClientsHavePlaces(t *testing.T) {
	target, ch := served(t)
	l := newLink(t, target, false, Limits{}, Limits{})
	l.in.SetPath(routing.Route{})
	l.in.SetMaxConnections(2)
	leaves, stays := dial(t, l.in), dial(t, l.in)
	eventually(t, "both wait", func() bool { return l.a.env.Stats.Held.Load() == 2 })
	notServed(t, l.in, "beyond the limit")
	leaves.Close()
	eventually(t, "one has gone", func() bool { now, _ := l.in.Connections(); return now == 1 })
	other := dial(t, l.in)
	eventually(t, "another one waits", func() bool { return l.a.env.Stats.Held.Load() == 2 })
	l.in.SetPath(l.path)
	for range 2 {
		s := next(t, ch)
		go func() { _, _ = io.Copy(s, s) }()
	}
	for _, c := range []net.Conn{stays, other} {
		expectEcho(t, c, c)
	}
	notServed(t, l.in, "beyond the limit")
}

// TestPrefacedClientsHavePlaces: a client whose Preface or TLS has not ended has a place, and gives it back when that fails.
func TestPrefacedClientsHavePlaces(t *testing.T) {
	n := newNode(t, 1, Limits{})
	come := make(chan error)
	in, err := NewInlet(limited(t), n.env, n.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), MaxConnections: 1,
		Preface: func(_ context.Context, _ int, from netip.AddrPort) (netip.AddrPort, error) { return from, <-come }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(limited(t)) }()
	dial(t, in)
	eventually(t, "it has a place", func() bool { now, _ := in.Connections(); return now == 1 })
	notServed(t, in, "beyond the limit")
	come <- os.ErrInvalid
	eventually(t, "the place is free", func() bool { now, _ := in.Connections(); return now == 0 })
	dial(t, in)
	come <- nil
	eventually(t, "it waits", func() bool { return n.env.Stats.Held.Load() == 1 })
	notServed(t, in, "beyond the limit")
}
