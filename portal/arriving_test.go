package portal

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/routing"
)

// TestArrivals: each connection is taken up once, whether it is asked for or its turn comes, and what waits for all is done once, by the last one.
func TestArrivals(t *testing.T) {
	n := newSimNode(t, 2, Limits{})
	var all arrivals
	list := make([]CarriedConn, 5*arriveTurn)
	for i := range list {
		list[i].ID = []byte{15: byte(i), 14: 1}
		list[i].Attempt = uint64(i)
	}
	list[3].ID = list[2].ID // another's, which is found in its turn
	list[4].ID = []byte{1}
	taken := make([]atomic.Int32, len(list))
	var last atomic.Int32
	if all.underWay() || all.later(func() { t.Error("it was to be done at once") }) {
		t.Error("some are on their way")
	}
	a := newArriving(&all, list, func(_ *routing.Shard, k *CarriedConn) { taken[k.Attempt].Add(1) })
	if !all.underWay() || a.number() != len(list) {
		t.Errorf("%d are on their way", a.number())
	}
	for range maxLater + 1 {
		if !all.later(func() { last.Add(1) }) {
			t.Fatal("not all are there")
		}
	}
	shard := n.router.Shards()[0]
	for _, id := range []token{token(list[100].ID), token(list[2].ID), {9}} {
		for range 2 {
			if err := shard.Do(limited(t), func() { a.want(shard, id) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if taken[100].Load() != 1 || taken[2].Load() != 1 || taken[3].Load() != 0 || a.number() != len(list)-2 || last.Load() != 0 {
		t.Errorf("two were asked for, %d are still to come", a.number())
	}
	a.begin(n.router.Shards())
	eventually(t, "all are there", func() bool { return !all.underWay() && last.Load() == maxLater })
	for i := range taken {
		if k := taken[i].Load(); k != 1 {
			t.Errorf("%d was taken up %d times", i, k)
		}
	}
	if all.later(func() {}) || a.number() != 0 {
		t.Error("some are on their way")
	}
	(*arriving)(nil).want(shard, token{})
	if (*arriving)(nil).number() != 0 {
		t.Error("there are some of none")
	}
}

// expected puts another program in the place of the outlet's node, which knows of the connections and has not taken them up.
func (s *simulated) expected(t *testing.T, o OutletOptions) *arriving {
	t.Helper()
	next := leave(t, s.out, s.far, s.near, s.outlet.Carry)
	process := s.out.env.Process
	s.out = newSimNode(t, 2, Limits{})
	s.out.env.Process = process
	o.Name, o.Flows, o.Hold = "outlet", []*routing.Flow{s.out.flow}, time.Minute
	var err error
	if s.outlet, err = NewOutlet(t.Context(), s.out.env, s.out.router, o); err != nil {
		t.Fatal(err)
	}
	return s.outlet.expect(Take(&next.Outlets, "outlet"))
}

// TestAskedForBeforeItIsThere: connections that are resumed before their turn has come go on, and from the start they have their places and count as open.
func TestAskedForBeforeItIsThere(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 6, 2, Limits{}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	var pairs [][2]net.Conn
	for range 3 {
		client, server := s.pair(t, ch)
		pairs = append(pairs, [2]net.Conn{client, server})
	}
	a := s.expected(t, OutletOptions{Target: target, MaxConnections: 3})
	stats := s.out.env.Stats
	if a.number() != 3 || stats.Active.Load() != 3 || stats.Away.Load() != 3 {
		t.Errorf("%d to come, %d open, %d away", a.number(), stats.Active.Load(), stats.Away.Load())
	}
	if ok, _ := s.outlet.places.take(&s.ids[0]); ok {
		t.Error("a place of one that is to come was given away")
	}
	if err := s.outlet.Carry(&Carried{}, false); !errors.Is(err, ErrMoving) {
		t.Errorf("carried on before all are there: %v", err)
	}
	s.connect(t)
	for _, p := range pairs {
		talk(t, p[0], p[1])
	}
	if a.number() != 0 || stats.Active.Load() != 3 || stats.Away.Load() != 0 {
		t.Errorf("%d to come, %d open, %d away", a.number(), stats.Active.Load(), stats.Away.Load())
	}
	for _, p := range pairs {
		p[0].Close()
		p[1].Close()
	}
	eventually(t, "all have ended", func() bool { return stats.Active.Load() == 0 })
	if ok, _ := s.outlet.places.take(&s.ids[0]); !ok {
		t.Error("places are not given back")
	}
}

// TestEndedBeforeItIsThere: what is said of the process of connections that have not had their turn is heard when they have.
func TestEndedBeforeItIsThere(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 7, 1, Limits{}, time.Minute, OutletOptions{Target: target})
	s.in.env.Process, s.out.env.Process = [32]byte{1, 20: 1}, [32]byte{2}
	s.connect(t)
	_, server := s.pair(t, ch)
	a := s.expected(t, OutletOptions{Target: target})
	next := [32]byte{1, 20: 2}
	s.out.env.Ended(&s.ids[0], next[:])
	if a.number() != 1 || s.out.env.Stats.Active.Load() != 1 {
		t.Fatal("it is there")
	}
	a.begin(s.out.router.Shards())
	expectReset(t, "server", server)
	eventually(t, "it was counted", func() bool { return s.out.env.Stats.Ended[ReasonGone].Load() == 1 })
}
