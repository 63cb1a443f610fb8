package portal

import (
	"cmp"
	"slices"
	"time"

	"sallyport/routing"
)

// One path of an inlet is one TCP connection on each leg, whatever the number of its streams: a segment that is lost holds all of them up, and a
// request waits behind what transfers have in the kernel's buffers. So an inlet may have further paths to the same identity, its lanes, each over
// TCP connections of its own. A connection begins on the inlet's path. One that turns out to be a transfer goes on over a lane, as it would over any
// other path (docs/protocol/04, rule 5), so the order of its bytes is kept; what stays behind is requests. Where segments are lost it begins on a lane if nobody uses one.
//
// Lanes are asked for when there is a transfer beside requests, or where segments are lost, taken beside another connection, and left by what has been still for a while:
// what is under way when a transfer changes its path is sent again, over connections that begin slowly. On short paths transfers are held back beside
// requests (pacer), which costs less.

const (
	// bulkBytes within bulkWithin make a connection a transfer.
	bulkBytes  = 1 << 20
	bulkWithin = 4 * time.Second
	// slowBytes within that make one a transfer where segments are lost, since no connection brings more there.
	slowBytes = 64 << 10
	// requestTrips is after how many round trips a connection that has carried less than slowBytes is one of requests, but at most requestAfter, and
	// requestFor how long there are such connections then.
	requestTrips = 10
	requestAfter = 3 * time.Second
	requestFor   = 10 * time.Second
	// laneEvery is how often a transfer looks for a lane.
	laneEvery = 250 * time.Millisecond
	// laneIdle is how long a connection is still until it leaves its lane.
	laneIdle = 10 * time.Second
	// laneRest is how long a connection takes no lane after one that did not work.
	laneRest = 30 * time.Second
)

// laneUse is what an inlet's connection remembers of how much it carries, and its lane. On its shard only.
type laneUse struct {
	lane  *path // nil: the inlet's path
	is    bool  // the connection is a transfer, and counted; changes under Inlet.mu
	bytes int   // both ways, since
	since time.Time
	last  time.Time // when something was last carried
	next  time.Time // no lane is looked for before
	asked time.Time // the same for what would be a transfer where segments are lost
}

// flows notes that n bytes of the stream went by, whichever way.
func (c *conn) flows(n int) {
	if c.line == nil || c.inlet == nil || c.inlet.opts.WantLanes == nil {
		return
	}
	now, b := c.shard.Loop().Now(), &c.bulk
	if b.last = now; now.Sub(b.since) > bulkWithin {
		b.since, b.bytes = now, 0
	}
	rtt := c.window.rtt()
	if b.bytes += n; b.bytes < slowBytes && !b.is && rtt > shortPath && now.Sub(b.since) > min(requestTrips*rtt, requestAfter) {
		c.inlet.requestAt.Store(now.UnixNano())
	}
	if b.bytes < slowBytes || b.lane != nil || now.Before(b.next) || rtt <= shortPath {
		return
	}
	if slow := b.bytes < bulkBytes; slow && !c.inlet.lossy.Load() {
		if !now.Before(b.asked) {
			b.asked = now.Add(laneEvery)
			c.inlet.opts.WantLanes(true)
		}
		return
	}
	b.next = now.Add(laneEvery)
	c.post(c.seekLane) // what is handled now is of the path that there is
}

// wasRequest notes that a connection ends that has carried little. The second of them shows that there are requests, each on a connection of its own.
func (c *conn) wasRequest() {
	b := &c.bulk
	if b.is || b.bytes == 0 || b.bytes >= slowBytes {
		return
	}
	now := b.last.UnixNano()
	if before := c.inlet.endedAt.Swap(now); time.Duration(now-before) < requestFor {
		c.inlet.requestAt.Store(now)
	}
}

// seekLane takes a transfer to a lane; where there is none for it lanes are asked for.
func (c *conn) seekLane() {
	if c.state != open {
		return
	}
	beside, some := c.inlet.takeLane(c, c.shard.Loop().Now())
	switch {
	case !beside && !c.inlet.lossy.Load():
		c.inlet.opts.WantLanes(true)
	case !some:
		c.inlet.opts.WantLanes(false)
	case c.terminal != c.shard.FirstTerminal(c.bulk.lane.route):
		c.losePath() // which asks over the lane; what is still on its way here is sent again
	}
}

// takeLane gives c the lane with the fewest connections, unless c's own has as few. While more lanes come none is shared: who moved twice would send twice what is
// under way, and a TCP connection that begins where segments are lost is no place for all. beside tells whether there is another connection that gains by it, some
// whether c has a lane.
func (in *Inlet) takeLane(c *conn, now time.Time) (beside, some bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !c.bulk.is {
		c.bulk.is = true
		in.transfers++
	}
	gains := in.lossy.Load() || now.Sub(time.Unix(0, in.requestAt.Load())) < requestFor
	if beside = gains && len(in.conns) > 1; !beside || len(in.lanes) == 0 {
		return beside, false
	}
	best := slices.MinFunc(in.lanes, func(a, b *path) int { return a.users - b.users })
	switch own := c.bulk.lane; {
	case own == nil || !slices.Contains(in.lanes, own):
		if in.giveLane(c); best.users > 0 && in.lanesCome {
			return true, false
		}
	case best.users+1 >= own.users:
		return true, true
	}
	in.giveLane(c)
	best.users++
	c.bulk.lane = best
	return true, true
}

// pick returns the path for a new client: where segments are lost a lane that nobody uses, which the client then does, as if it had connections of its own on each leg;
// else the inlet's path. nil: there is none.
func (in *Inlet) pick(o *offer) *path {
	p := in.path.Load()
	if p == nil || o.lane != nil || !in.lossy.Load() || in.opts.Hold == 0 || in.opts.Plain {
		return cmp.Or(o.lane, p)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if k := slices.IndexFunc(in.lanes, func(p *path) bool { return p.users == 0 }); k >= 0 {
		o.lane = in.lanes[k]
		o.lane.users++
	}
	return cmp.Or(o.lane, p)
}

// unpick undoes pick for a client that does not begin.
func (in *Inlet) unpick(o *offer) {
	if o.lane == nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	o.lane.users--
	o.lane = nil
}

// giveLane takes c off its lane. mu is held.
func (in *Inlet) giveLane(c *conn) {
	if c.bulk.lane != nil {
		c.bulk.lane.users--
		c.bulk.lane = nil
	}
}

// leaveLane lets c go on over the inlet's path the next time that it looks for one; how long the lane did not answer says nothing of that one. It does not look
// for a lane for the time given.
func (c *conn) leaveLane(rest time.Duration) {
	if c.bulk.lane == nil {
		return
	}
	c.inlet.mu.Lock()
	c.inlet.giveLane(c)
	c.inlet.mu.Unlock()
	c.bulk.next = c.shard.Loop().Now().Add(rest)
	c.line.pause = askFirst
}

// noTransfer undoes that c is a transfer, and takes it off its lane.
func (c *conn) noTransfer() {
	if !c.bulk.is && c.bulk.lane == nil {
		return
	}
	c.inlet.mu.Lock()
	defer c.inlet.mu.Unlock()
	c.inlet.giveLane(c)
	if c.bulk.is {
		c.bulk.is = false
		c.inlet.transfers--
	}
}

// Transfers returns how many connections are transfers now. Any goroutine.
func (in *Inlet) Transfers() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.transfers
}

// SetLossy says whether segments are lost on the inlet's paths: there connections are transfers that carry less. Any goroutine.
func (in *Inlet) SetLossy(is bool) { in.lossy.Store(is) }

// Moved returns how many bytes the inlet's clients have sent and were sent so far. Any goroutine.
func (in *Inlet) Moved() uint64 { return in.meter.BytesIn.Load() + in.meter.BytesOut.Load() }

// hasLane reports whether a path is one of the inlet's lanes still.
func (in *Inlet) hasLane(p *path) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Contains(in.lanes, p)
}

// way is the path that c is to go on over; nil if there is none now.
func (c *conn) way() *path {
	if l := c.bulk.lane; l != nil {
		if c.inlet.hasLane(l) {
			return l
		}
		c.leaveLane(0)
	}
	return c.inlet.path.Load()
}

// SetLanes gives the paths that transfers go over beside the inlet's own; none for none. more: others come, so that none of these is shared yet. Connections go back to
// the inlet's path from those that are no more. Any goroutine.
func (in *Inlet) SetLanes(more bool, routes ...routing.Route) {
	in.mu.Lock()
	var lanes []*path
	for _, r := range routes {
		r = in.opts.Prefix.Concat(r)
		k := slices.IndexFunc(in.lanes, func(p *path) bool { return p.route.Equal(r) })
		if k >= 0 {
			lanes = append(lanes, in.lanes[k])
		} else {
			lanes = append(lanes, &path{route: r, shard: in.router.ShardFor(r)})
		}
	}
	in.lanes, in.lanesCome = lanes, more
	in.mu.Unlock()
	in.each((*conn).relane)
}

// each runs f for every connection, on its shard.
func (in *Inlet) each(f func(*conn)) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for c := range in.conns {
		c.post(func() { f(c) })
	}
}

// relane follows a change of the lanes.
func (c *conn) relane() {
	switch l := c.bulk.lane; {
	case l != nil && !c.inlet.hasLane(l):
		c.leaveLane(0)
		if !c.losePath() && c.state == away { // what it asked over the lane may have no answer
			c.leavePath()
			c.ask()
			c.wait()
		}
	case c.bulk.is:
		c.bulk.next = time.Time{} // what did not work may do so now
		c.seekLane()
	}
}

// TidyLanes takes connections off the lanes that have been still for a while, and returns how many were on one. Any goroutine.
func (in *Inlet) TidyLanes() (users int) {
	in.mu.Lock()
	for _, p := range in.lanes {
		users += p.users
	}
	in.mu.Unlock()
	in.each(func(c *conn) {
		still := c.shard.Loop().Now().Sub(c.bulk.last) > laneIdle
		if still && c.state == open && c.line != nil && (c.bulk.is || c.bulk.lane != nil) && (c.sock == nil || c.sock.Pending() == 0) && c.line.confirmed == c.line.end() {
			on := c.bulk.lane != nil
			if c.noTransfer(); on {
				c.losePath()
			}
		}
	})
	return users
}
