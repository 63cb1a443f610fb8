package portal

import (
	"testing"
	"time"

	"sallyport/routing"
)

// TestSilentLane: a connection whose lane does not answer, or has ended, goes on over the inlet's path at once, whether that was there already or is made then. How long
// the lane was asked does not count there, and the lane is left alone for a while.
func TestSilentLane(t *testing.T) {
	const lane, main, other = 0, 1, 2
	type tools struct {
		*simulated
		ends   [3]*simEnd
		routes [3]routing.Route
	}
	for _, c := range []struct {
		name  string
		from  int  // where the connection is
		waits bool // it has been told that this is silent, or has asked there for the first time, and has no answer
		do    func(x tools)
		to    int  // where it asks then
		rests bool // looks for no lane for a while
	}{
		{"the lane is silent", lane, false, func(x tools) { x.inlet.Silent(x.routes[lane], time.Now()) }, main, true},
		{"the lane that was asked ends", lane, true, func(x tools) { x.ends[lane].post(x.ends[lane].end) }, main, true},
		{"the lane that was asked is none any more", lane, true, func(x tools) { x.inlet.SetLanes(false) }, main, false},
		{"there is another path than the lane that was asked", lane, true, func(x tools) { x.inlet.SetPath(x.routes[other]) }, other, false},
		{"there is another path than the one that was asked", main, true, func(x tools) { x.inlet.SetPath(x.routes[other]) }, other, false},
		{"the path is said again", lane, true, func(x tools) { x.inlet.SetPath(x.routes[main]) }, lane, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			target, ch := served(t)
			s := newSimulated(t, 1, 1, Limits{}, time.Minute, OutletOptions{Target: target})
			s.connect(t)
			x := tools{simulated: s}
			x.ends[main] = s.near
			for _, k := range []int{lane, other} {
				x.ends[k], _ = s.channel(t, s.ids[0], s.ids[1])
			}
			for k, e := range x.ends {
				x.routes[k] = routing.NewRoute(e.self.Address(), routing.LocalAddress("outlet"))
			}
			s.pair(t, ch)
			s.inlet.requestAt.Store(time.Now().UnixNano()) // what makes lanes worth it
			idle := s.all()
			client, server := s.pair(t, ch)
			var one *conn
			for _, is := range s.all() {
				if !is.outlet && is != idle[0] && is != idle[1] {
					one = is
				}
			}
			shard := s.in.router.Shards()[0]
			on := func(f func()) {
				t.Helper()
				for range 2 { // what f would see may have been posted by what was posted
					if err := shard.Do(limited(t), func() {}); err != nil {
						t.Fatal(err)
					}
				}
				if err := shard.Do(limited(t), f); err != nil {
					t.Fatal(err)
				}
			}
			mute := func(k int) {
				far := x.ends[k].other
				if err := far.shard.Do(limited(t), func() { far.lose, far.quiet = 10_000, true }); err != nil {
					t.Fatal(err)
				}
			}
			if c.waits {
				mute(c.from)
			}
			if s.inlet.SetLanes(false, x.routes[lane]); c.from == lane {
				on(one.seekLane)
			} else {
				s.inlet.Silent(x.routes[main], time.Now())
			}
			if !c.waits {
				eventually(t, "the connection is on its lane", func() (is bool) {
					on(func() { is = one.state == open && one.terminal == routing.Terminal(x.ends[c.from]) })
					return is
				})
				mute(c.from)
			}
			asked := uint64(0)
			on(func() {
				if one.terminal != routing.Terminal(x.ends[c.from]) || c.waits && one.state != away {
					t.Error("the connection is not where it should be")
				}
				asked = one.line.attempt
			})
			c.do(x)
			on(func() {
				if one.terminal != routing.Terminal(x.ends[c.to]) {
					t.Error("it is asked over another path, or none")
				}
				if one.line.pause != 2*askFirst {
					t.Errorf("the next time after %v", one.line.pause)
				}
				if again := one.line.attempt != asked; again != (c.to != c.from) {
					t.Errorf("asked again: %v", again)
				}
				if rests := one.bulk.next.After(time.Now().Add(laneRest / 2)); rests != c.rests {
					t.Errorf("it looks for no lane for a while: %v", rests)
				}
			})
			if c.to != c.from {
				talk(t, client, server)
			}
		})
	}
}
