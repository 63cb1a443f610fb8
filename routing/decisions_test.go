package routing

import (
	"testing"
	"time"
)

// TestBacklogOfManyBytes: a destination with a backlog stops a shared source again only while it takes much and very much waits, or when its room is spent;
// one whose room is spent and whose source has been stopped enough is cut off.
func TestBacklogOfManyBytes(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	const high = 1000 // of a sink
	for name, c := range map[string]struct {
		slow    bool
		over    int // bytes beyond the high water mark
		owed    bool
		room    int64
		mode    backlogMode
		stopped bool
		cut     int
	}{
		"little":                                 {over: 1, room: 64 << 20, mode: lagging},
		"what a quick one may have":              {over: 8 << 20, room: 64 << 20, mode: lagging},
		"more, and it takes much":                {over: 8<<20 + 1, room: 64 << 20, mode: throttling, stopped: true},
		"more, and its source was stopped":       {over: 8<<20 + 1, owed: true, room: 64 << 20, mode: lagging},
		"more, and it is slow":                   {slow: true, over: 8<<20 + 1, room: 64 << 20, mode: lagging},
		"no room":                                {over: 1, room: 0, mode: throttling, stopped: true},
		"no room, and it is slow":                {slow: true, over: 1, room: 0, mode: throttling, stopped: true},
		"no room, and its source was stopped":    {over: 1, owed: true, room: 0, cut: 1, mode: lagging},
		"no room, slow, its source was stopped":  {slow: true, over: 1, owed: true, room: 0, cut: 1, mode: lagging},
		"not much, its source was stopped":       {over: 5 << 20, owed: true, room: 64 << 20, mode: lagging},
		"not much and slow, its source may wait": {slow: true, over: 5 << 20, room: 64 << 20, mode: lagging},
	} {
		r.Backlogs.SetLimit(c.room)
		var w stopwatch
		from := NewSharedThrottle(s, &w)
		on(t, s, func() {
			d := newSink(s)
			now := s.loop.Now()
			d.backlog.begin(lagging, now)
			d.backlog.slow, d.backlog.moved = c.slow, now
			if c.owed {
				from.owed.Store(now.Add(time.Hour).UnixNano())
			}
			d.waits = high + c.over
			d.backlog.Over(d.waits, from)
			if d.backlog.mode != c.mode || w.since.IsZero() == c.stopped || d.stalled != c.cut {
				t.Errorf("%s: mode %d, stopped %v, cut off %d times", name, d.backlog.mode, !w.since.IsZero(), d.stalled)
			}
			d.backlog.Close()
			if r.Backlogs.Used() != 0 {
				t.Errorf("%s: %d bytes are left in the budget", name, r.Backlogs.Used())
			}
		})
	}
}

// TestRoomToTheByte: a backlog takes of the budget what waits beyond the high water mark, in steps; a slow destination of several senders has so much and no more.
func TestRoomToTheByte(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	var w stopwatch
	one, two := NewSharedThrottle(s, &w), NewSharedThrottle(s, &w)
	on(t, s, func() {
		d := newSink(s)
		for _, c := range []struct {
			over int
			used int64
		}{{0, 0}, {1, backlogStep}, {backlogStep, backlogStep}, {backlogStep + 1, 2 * backlogStep}} {
			if !d.backlog.room(1000+c.over) || r.Backlogs.Used() != c.used {
				t.Errorf("%d bytes beyond: %d taken, want %d", c.over, r.Backlogs.Used(), c.used)
			}
		}
		d.backlog.Close()
		node := newNodeSink(s, time.Minute)
		node.backlog.slow = true
		for i, from := range []*Throttle{one, two} {
			node.backlog.crowd.count(from, 1)
			for over, want := range map[int]bool{slowRoom: true, slowRoom + 1: i == 0} {
				if got := node.backlog.room(1000 + over); got != want {
					t.Errorf("%d senders, %d bytes beyond: room %v", i+1, over, got)
				}
			}
		}
		node.backlog.Close()
	})
}

// TestWorkOfOneTurn: one message is handed on in a turn while what workers were handed for it is at most maxWork, wherever its payload lies in its buffer;
// the next delivery waits for another turn.
func TestWorkOfOneTurn(t *testing.T) {
	for _, offset := range []int{0, HeadRoom} {
		r := newRouter(t, 1)
		s := r.shards[0]
		depths := make(chan int, 20)
		var self WireAddress
		on(t, s, func() {
			self = s.Start(WorkerFunc(func(s *Shard, m *Message) {
				depths <- s.depth
				if len(depths) == 7 {
					return
				}
				m.PopOnward()
				m.PushOnward(RouteOf(self))
				s.Deliver(m)
			}))
			m := s.NewMessage()
			m.SetRoutes(RouteOf(self), Route{})
			m.SetPayload(make([]byte, offset+maxWork/4), 0, offset, offset+maxWork/4, offset+maxWork/4)
			s.Deliver(m)
			s.Free(m)
		})
		eventually(t, "seven deliveries", func() bool { return len(depths) == 7 })
		for i, want := range []int{1, 2, 3, 4, 5, 1, 2} { // after five the work is more than maxWork
			if got := <-depths; got != want {
				t.Errorf("payload at %d: delivery %d is at depth %d, want %d", offset, i+1, got, want)
			}
		}
	}
}

// TestLastHop: a message is delivered maxHops times on a node, and not once more.
func TestLastHop(t *testing.T) {
	r := newRouter(t, 1)
	s := r.shards[0]
	for before, want := range map[uint8]uint32{maxHops - 1: 1, maxHops: 0} {
		on(t, s, func() {
			c := &counter{}
			at := s.Start(c)
			m := s.NewMessage()
			m.SetRoutes(RouteOf(at), Route{})
			m.hops = before
			s.Deliver(m)
			s.Free(m)
			if c.n != want {
				t.Errorf("after %d deliveries: %d more, want %d", before, c.n, want)
			}
			s.Stop(at)
		})
	}
	if n := s.Drops.Loop.Load(); n != 1 {
		t.Errorf("%d messages dropped", n)
	}
}
