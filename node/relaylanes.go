package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
)

// relayLease is how long a lane's registration stays that nobody has asked for again: inlets ask every few seconds.
const relayLease = time.Minute

// relayLanes are further registrations of a relay's node, each over a connection of its own, for inlets that have lanes. They are made when an inlet
// asks, and end when none does.
type relayLanes struct {
	mu      sync.Mutex
	stopped bool
	list    map[uint64]*relayLane
	running sync.WaitGroup
}

type relayLane struct {
	name   string // that is registered
	rel    *relay
	access multiaddr.Addr // the project's node where it is
	asked  time.Time      // under relayLanes.mu
	end    context.CancelFunc
}

// answerLane registers a relay once more, for an inlet whose channel came through it.
func (n *Node) answerLane(c *control.Call) {
	if n.opts.Limits.Lanes < 2 || c.Request.Have > uint64(lossyLanes(n.opts.Limits.Lanes)) {
		c.Answer(control.StatusAbsent, control.Fields{})
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, max(c.Request.Wait, time.Second))
	go func() {
		defer cancel()
		if f, ok := n.laneOf(ctx, c); ok {
			c.Answer(control.StatusOK, f)
		} else {
			c.Answer(control.StatusAbsent, control.Fields{})
		}
	}()
	c.Await(control.Fields{}, cancel) // so it counts among those that wait
}

// laneOf makes the lane that is asked for if it is not there, and returns what to answer; false where there can be none.
func (n *Node) laneOf(ctx context.Context, c *control.Call) (f control.Fields, ok bool) {
	ch := n.channels.Find(c.Way())
	if ch == nil {
		return f, false
	}
	way := ch.Way(ctx)
	if way.Len() == 0 {
		return f, false
	}
	for _, i := range n.relays.List() {
		if !i.IsOpen || relayNameOf(&i.Request) != c.Request.Name {
			continue
		}
		up, conn, _ := i.Value.session.state()
		if !up || conn.route.First() != way.First() {
			continue
		}
		lanes := &i.Value.lanes
		if c.Request.Have > 0 {
			lane := lanes.get(ctx, n, i.Request, c.Request.Have, conn.access)
			if lane == nil {
				return f, false
			}
			lane.rel.session.first(ctx)
			if up, _, _ := lane.rel.session.state(); !up {
				return f, false
			}
			f.Name = lane.name
		}
		f.State = control.StateUp
		if conn.isLossy(ctx) || lanes.lossy(ctx) {
			f.State = control.StateDegraded
		}
		return f, true
	}
	return f, false
}

// lossy reports whether segments are lost on one of the lanes.
func (l *relayLanes) lossy(ctx context.Context) bool {
	l.mu.Lock()
	list := slices.Collect(maps.Values(l.list))
	l.mu.Unlock()
	return slices.ContainsFunc(list, func(lane *relayLane) bool {
		_, c, _ := lane.rel.session.state()
		return c.isLossy(ctx)
	})
}

// get returns a lane of the relay with the request r, whose node is connected to the project's node at access.
func (l *relayLanes) get(ctx context.Context, n *Node, r resource.Relay, number uint64, access multiaddr.Addr) *relayLane {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || n.ctx.Err() != nil {
		return nil
	}
	lane := l.list[number]
	if lane != nil && lane.access.String() != access.String() { // the relay has moved to another of the project's nodes
		lane.end()
		lane = nil
	}
	if lane == nil {
		r.RelayAddress = routing.LaneName(relayNameOf(&r))
		r.Rule, r.Share, r.Priority = "", "", 0 // a lane leads to this member
		rel, err := n.openRelay(ctx, &table.Opening[resource.Relay]{Request: r}, retryMaxSlow, access)
		if err != nil {
			return nil
		}
		lane = &relayLane{name: r.RelayAddress, rel: rel, access: access}
		if l.list == nil {
			l.list = map[uint64]*relayLane{}
		}
		l.list[number] = lane
		running, end := context.WithCancel(n.ctx)
		lane.end = end
		l.running.Go(func() { l.keep(running, number, lane) })
	}
	lane.asked = time.Now()
	return lane
}

// keep ends a lane that nobody has asked for in a while.
func (l *relayLanes) keep(ctx context.Context, number uint64, lane *relayLane) {
	defer lane.rel.session.stop()
	tick := time.NewTicker(relayLease / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			l.mu.Lock()
			unused := now.Sub(lane.asked) > relayLease
			if unused && l.list[number] == lane {
				delete(l.list, number)
			}
			l.mu.Unlock()
			if unused {
				lane.end()
				return
			}
		}
	}
}

// stop ends all lanes, for good.
func (l *relayLanes) stop() {
	l.mu.Lock()
	l.stopped = true
	for _, lane := range l.list {
		lane.end()
	}
	l.mu.Unlock()
	l.running.Wait()
}
