package portal

import (
	"net"
	"slices"
	"testing"
	"time"

	"sallyport/routing"
)

// TestLanes: who is a transfer asks for lanes beside another connection and on a long path, takes the one with the fewest connections, and comes
// back when there are none any more, when it is still, and when the lane leads to somebody else.
func TestLanes(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 2, Limits{}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	type pair struct{ client, server *net.TCPConn }
	var pairs []pair
	enter := func() {
		client, server := s.pair(t, ch)
		pairs = append(pairs, pair{client, server})
	}
	// moved lets all connections carry n bytes over a path that is so long.
	moved := func(n int, rtt time.Duration) {
		t.Helper()
		done := make(chan struct{}, len(pairs))
		s.inlet.each(func(c *conn) {
			if p := c.window.path; p != nil {
				p.rtt, p.at = rtt, time.Now()
			}
			c.bulk.since, c.bulk.bytes, c.bulk.next = time.Time{}, 0, time.Time{}
			c.flows(n - 1)
			c.flows(1)
			c.post(func() { done <- struct{}{} }) // after what flows has posted
		})
		for range pairs {
			<-done
		}
	}
	users := func() (list []int) {
		s.inlet.mu.Lock()
		defer s.inlet.mu.Unlock()
		for _, l := range s.inlet.lanes {
			list = append(list, l.users)
		}
		return list
	}
	onLanes := func(what string, want int) {
		t.Helper()
		eventually(t, what, func() bool {
			on, alive := 0, 0
			for _, c := range s.all() {
				if c.outlet {
					continue
				}
				result := make(chan [2]bool, 1)
				c.post(func() {
					result <- [2]bool{c.terminal != nil && c.terminal != routing.Terminal(s.near), c.state == open}
				})
				select {
				case r := <-result:
					if r[0] {
						on++
					}
					if r[1] {
						alive++
					}
				case <-time.After(time.Second): // it was on the way to another shard
				}
			}
			return (on == want || want < 0) && alive == len(pairs)
		})
		for _, p := range pairs {
			talk(t, p.client, p.server)
		}
	}
	enter()
	moved(bulkBytes, 10*time.Millisecond)
	if s.wanted.Load() != 0 {
		t.Error("lanes are asked for without another connection")
	}
	s.inlet.SetLossy(true)
	if moved(slowBytes, 10*time.Millisecond); s.wanted.Load() == 0 {
		t.Error("no lanes are asked for by a transfer alone where segments are lost")
	}
	s.inlet.SetLossy(false)
	s.inlet.each((*conn).noTransfer)
	s.wanted.Store(0)
	enter()
	moved(bulkBytes-1, 10*time.Millisecond)
	moved(bulkBytes, time.Millisecond)
	if s.wanted.Load() != 0 {
		t.Error("lanes are asked for without a transfer, or on a short path")
	}
	if s.slow.Load() == 0 {
		t.Error("what would be a transfer where segments are lost does not say so")
	}
	rest := func() {
		t.Helper()
		s.inlet.each((*conn).noTransfer)
		eventually(t, "no transfers", func() bool { return s.inlet.Transfers() == 0 })
	}
	rest()
	s.inlet.SetLossy(true)
	moved(slowBytes-1, 10*time.Millisecond)
	moved(slowBytes, time.Millisecond)
	if n := s.inlet.Transfers(); n != 0 || s.wanted.Load() != 0 {
		t.Errorf("%d transfers of little where segments are lost, or on a short path", n)
	}
	moved(slowBytes, 10*time.Millisecond)
	if n := s.inlet.Transfers(); n != 2 || s.wanted.Load() == 0 {
		t.Errorf("%d transfers where segments are lost, lanes wanted %d times", n, s.wanted.Load())
	}
	s.inlet.SetLossy(false)
	rest()
	s.wanted.Store(0)
	moved(bulkBytes, 10*time.Millisecond)
	if s.wanted.Load() != 0 {
		t.Error("lanes are asked for beside a transfer alone")
	}
	s.inlet.requestAt.Store(time.Now().UnixNano())
	moved(bulkBytes, 10*time.Millisecond)
	if s.wanted.Load() == 0 {
		t.Error("no lanes are asked for")
	}
	enter()
	one, _ := s.lane(t)
	two, cut := s.lane(t)
	s.inlet.SetLanes(false, one, two) // the first two are transfers
	onLanes("the transfers are on lanes", 2)
	if u := users(); u[0] != 1 || u[1] != 1 {
		t.Errorf("the lanes have %v connections", u)
	}
	s.inlet.SetPath(routing.NewRoute(s.near.self.Address(), routing.LocalAddress("outlet")))
	onLanes("the path given again takes nobody off", 2)
	moved(bulkBytes, 10*time.Millisecond)
	onLanes("so is the third, which has become one", 3)
	cut()
	s.inlet.SetLanes(false, one)
	onLanes("who was on the lane that has gone has a path", -1)
	moved(bulkBytes, 10*time.Millisecond)
	onLanes("those of the lane that has gone are on the other", 3)
	if u := users(); u[0] != 3 {
		t.Errorf("the lane has %v connections", u)
	}
	if n := s.inlet.TidyLanes(); n != 3 {
		t.Errorf("%d on lanes", n)
	}
	s.inlet.each(func(c *conn) { c.bulk.last = time.Now().Add(-2 * laneIdle) })
	eventually(t, "who is still comes back", func() bool { return s.inlet.TidyLanes() == 0 })
	onLanes("none is on a lane", 0)
	if n := s.inlet.Transfers(); n != 0 {
		t.Errorf("%d of those that are still are transfers", n)
	}

	near, far := s.channel(t, [32]byte{8}, [32]byte{9})
	s.inlet.SetLanes(false, routing.NewRoute(near.self.Address(), routing.LocalAddress("outlet")))
	moved(bulkBytes, 10*time.Millisecond)
	onLanes("a lane to another identity carries nothing", 0)
	if u := users(); u[0] != 0 {
		t.Errorf("it has %v connections", u)
	}
	s.inlet.SetLanes(false)
	near.post(near.end)
	far.post(far.end)
	for _, p := range pairs {
		p.client.Close()
		p.server.Close()
	}
	s.idle(t)
	if n := s.inlet.Transfers(); n != 0 {
		t.Errorf("%d transfers of connections that have ended", n)
	}
}

// TestRequestsAreSeen: what shows that there are requests is a connection that has carried little for some round trips, or the second of short ones; not one that
// begins, nor a transfer, nor one that checks that there is an answer.
func TestRequestsAreSeen(t *testing.T) {
	const rtt = 10 * time.Millisecond
	for _, c := range []struct {
		what  string
		since time.Duration // for how long it has been counted
		rtt   time.Duration
		bytes int
		ends  int // how many like it end
		want  bool
	}{
		{"it carries little for a while", requestTrips*rtt + time.Millisecond, rtt, slowBytes - 1, 0, true},
		{"it has just begun", requestTrips*rtt - time.Millisecond, rtt, 1, 0, false},
		{"it carries much", requestTrips*rtt + time.Millisecond, rtt, slowBytes, 0, false},
		{"a long path", requestAfter + time.Millisecond, time.Second, 1, 0, true},
		{"it has just begun on a long path", requestAfter - time.Millisecond, time.Second, 1, 0, false},
		{"transfers are held back on a short path", time.Second, shortPath, 1, 0, false},
		{"one ends", 0, rtt, 1, 1, false},
		{"two end", 0, rtt, 1, 2, true},
		{"two end that have carried nothing", 0, rtt, 0, 2, false},
		{"two end that have carried much", 0, rtt, slowBytes, 2, false},
	} {
		target, ch := served(t)
		s := newSimulated(t, 1, 1, Limits{}, time.Minute, OutletOptions{Target: target})
		s.connect(t)
		s.pair(t, ch)
		var x *conn
		for _, one := range s.all() {
			if !one.outlet {
				x = one
			}
		}
		done := make(chan struct{})
		x.post(func() {
			defer close(done)
			x.window.path.rtt = c.rtt
			s.inlet.requestAt.Store(0)
			x.bulk = laneUse{since: x.shard.Loop().Now().Add(-c.since), next: x.shard.Loop().Now().Add(time.Minute)}
			if c.bytes > 0 {
				x.flows(c.bytes)
			}
			for range c.ends {
				x.wasRequest()
			}
		})
		<-done
		if got := s.inlet.requestAt.Load() != 0; got != c.want {
			t.Errorf("%s: %v, not %v", c.what, got, c.want)
		}
	}
}

// TestTakeLane: a transfer goes to the lane with the fewest connections, and leaves its own only for one with at least two fewer: else two would change places for
// ever. Alone, or without lanes, it stays where it is.
func TestTakeLane(t *testing.T) {
	for _, c := range []struct {
		what         string
		users        []int // of the lanes
		own          int   // its lane, which counts it; -1 for none
		others       int   // connections of the inlet
		come         bool  // more lanes come
		want         int
		beside, some bool
	}{
		{"the first takes the emptiest", []int{2, 1, 3}, -1, 1, false, 1, true, true},
		{"its own is the only one", []int{1}, 0, 1, false, 0, true, true},
		{"as many elsewhere", []int{2, 2}, 0, 3, false, 0, true, true},
		{"one fewer elsewhere", []int{2, 1}, 0, 2, false, 0, true, true},
		{"alone on its own, another is empty", []int{1, 0}, 0, 1, false, 0, true, true},
		{"two fewer elsewhere", []int{2, 0}, 0, 1, false, 1, true, true},
		{"nobody beside it", []int{2, 0}, 0, 0, false, 0, false, false},
		{"more lanes come, and there is one for it alone", []int{1, 0}, -1, 1, true, 1, true, true},
		{"more lanes come, and none is for it alone", []int{1, 1}, -1, 1, true, -1, true, false},
		{"more lanes come, and it shares its own", []int{2, 0}, 0, 1, true, 1, true, true},
		{"no lanes", nil, -1, 1, false, -1, true, false},
	} {
		in, x := &Inlet{conns: map[*conn]struct{}{}, lanesCome: c.come}, &conn{}
		for _, n := range c.users {
			in.lanes = append(in.lanes, &path{users: n})
		}
		if x.inlet = in; c.own >= 0 {
			x.bulk.lane = in.lanes[c.own]
		}
		in.lossy.Store(true)
		in.conns[x] = struct{}{}
		for range c.others {
			in.conns[&conn{}] = struct{}{}
		}
		for range 2 { // and it stays there
			if beside, some := in.takeLane(x, time.Now()); beside != c.beside || some != c.some {
				t.Errorf("%s: beside %v, some %v", c.what, beside, some)
			}
			if got := slices.Index(in.lanes, x.bulk.lane); got != c.want {
				t.Errorf("%s: lane %d, not %d", c.what, got, c.want)
			}
		}
		if in.transfers != 1 {
			t.Errorf("%s: %d transfers", c.what, in.transfers)
		}
		for i, n := range c.users {
			if i == c.own {
				n--
			}
			if i == c.want {
				n++
			}
			if in.lanes[i].users != n {
				t.Errorf("%s: lane %d has %d, not %d", c.what, i, in.lanes[i].users, n)
			}
		}
	}
}

// TestBeginsOnLane: where segments are lost a client begins on a lane that nobody uses, and on the inlet's path where all are used or nothing is lost; it is a user of the
// lane until it ends.
func TestBeginsOnLane(t *testing.T) {
	target, ch := served(t)
	s := newSimulated(t, 1, 2, Limits{}, time.Minute, OutletOptions{Target: target})
	s.connect(t)
	one, _ := s.lane(t)
	two, cut := s.lane(t)
	s.inlet.SetLanes(false, one, two)
	users := func(want ...int) {
		t.Helper()
		eventually(t, "users of lanes", func() bool {
			s.inlet.mu.Lock()
			defer s.inlet.mu.Unlock()
			return slices.EqualFunc(s.inlet.lanes, want, func(p *path, n int) bool { return p.users == n })
		})
	}
	var ends []func()
	enter := func() {
		t.Helper()
		client, server := s.pair(t, ch)
		talk(t, client, server)
		ends = append(ends, func() { client.Close(); server.Close() })
	}
	enter()
	users(0, 0)
	s.inlet.SetLossy(true)
	for range 3 {
		enter()
	}
	users(1, 1)
	onLanes := 0
	for _, c := range s.all() {
		if !c.outlet {
			is := make(chan bool, 1)
			c.post(func() { is <- c.terminal != nil && c.terminal != routing.Terminal(s.near) })
			if <-is {
				onLanes++
			}
		}
	}
	if onLanes != 2 {
		t.Errorf("%d are on lanes", onLanes)
	}
	ends[1]()
	ends[1] = func() {}
	users(0, 1)
	cut() // the lane of the other, which goes on over the inlet's path
	s.inlet.SetLanes(false, one)
	users(0)
	enter()
	users(1)
	s.inlet.SetLanes(false)
	for _, end := range ends {
		end()
	}
	s.idle(t)
}
