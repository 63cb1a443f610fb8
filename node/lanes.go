package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
)

// An inlet's lanes are paths to the same outlet beside its own, each over TCP connections of its own on every leg (portal.Inlet.SetLanes). They are made
// when a transfer runs beside other connections, and end when none has for a while. Where the way leads through a relay, the outlet's node is asked to
// register there once more, under a name that it tells (docs/protocol/05, lane). One that does not know the request leaves the inlet with its one path.
//
// Where segments are lost a TCP connection brings less than the line does, so the transfers are spread over more lanes, and stay there if that brings more
// (laneTrial).

const (
	// laneWait is how long the outlet's node may take to register for a lane.
	laneWait = 10 * time.Second
	// laneTick is how often the inlet looks who uses its lanes, and lanesFor how long none has until they end.
	laneTick  = 10 * time.Second
	lanesIdle = time.Minute
	// lanesAgain is when lanes are tried again over a path where there are none.
	lanesAgain = 5 * time.Minute
)

var (
	errNoLane    = errors.New("the node at the end of the path has no lane there")
	errLaneMoved = errors.New("the outlet's node is registered for the lane under another name")
)

// inletLanes makes an inlet's lanes and ends them. Its methods can be called on nil.
type inletLanes struct {
	node    *Node
	in      *inlet
	options connectOptions
	wanted  chan struct{}
	slow    chan struct{} // the same, only if segments are lost
	up      atomic.Int32  // how many lanes there are

	cancel context.CancelFunc
	done   chan struct{}
}

// lanesFor returns what makes the lanes of an inlet; nil where it has none.
func (n *Node) lanesFor(in *inlet, o connectOptions) *inletLanes {
	if n.opts.Limits.Lanes < 2 {
		return nil
	}
	return &inletLanes{node: n, in: in, options: o, wanted: make(chan struct{}, 1), slow: make(chan struct{}, 1)}
}

// want returns what asks for lanes; nil where there are none.
func (l *inletLanes) want() func(slow bool) {
	if l == nil {
		return nil
	}
	return func(slow bool) {
		wish := l.wanted
		if slow {
			wish = l.slow
		}
		select {
		case wish <- struct{}{}:
		default:
		}
	}
}

// start begins to wait for wishes, until stop.
func (l *inletLanes) start(parent context.Context) {
	if l == nil {
		return
	}
	ctx, cancel := context.WithCancel(parent)
	l.cancel, l.done = cancel, make(chan struct{})
	go func() {
		defer close(l.done)
		l.run(ctx)
	}()
}

func (l *inletLanes) stop() {
	if l != nil {
		l.cancel()
		<-l.done
	}
}

func (l *inletLanes) run(ctx context.Context) {
	var without *connection // has no lanes, until
	var until, looked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.slow:
			if time.Since(looked) > lossEvery {
				l.in.portal.SetLossy(l.lossy(ctx, nil))
				looked = time.Now()
			}
			continue
		case <-l.wanted:
		}
		up, c, _ := l.in.session.state()
		if !up || l.in.path() != l.in.session || c == without && time.Now().Before(until) {
			continue
		}
		if _, err := l.route(ctx, c, 1); err != nil {
			without, until = c, time.Now().Add(lanesAgain)
			continue
		}
		l.serve(ctx)
	}
}

// serve has the lanes until they have not been used for a while.
func (l *inletLanes) serve(ctx context.Context) {
	set := &laneSet{in: l.in, up: &l.up}
	defer set.end()
	lanes := l.node.opts.Limits.Lanes
	trial := laneTrial{least: lanes - 1, most: lossyLanes(lanes), now: lanes - 1}
	l.resize(ctx, set, trial.now)
	tick, look := time.NewTicker(laneTick), time.NewTicker(laneLook)
	defer tick.Stop()
	defer look.Stop()
	moved, lossy, asked := l.in.portal.Moved(), false, time.Time{}
	for used := time.Now(); time.Since(used) < lanesIdle; {
		select {
		case <-ctx.Done():
			return
		case <-l.wanted: // there are some, or will be
		case <-l.slow:
		case now := <-look.C:
			transfers := l.in.portal.Transfers()
			if trial.wants(transfers) && now.Sub(asked) > lossEvery {
				lossy, asked = l.lossy(ctx, set.sessions), now
				l.in.portal.SetLossy(lossy)
			}
			before := moved
			moved = l.in.portal.Moved()
			if n := trial.look(moved-before, transfers, lossy); n != len(set.sessions) {
				l.resize(ctx, set, n)
			}
		case now := <-tick.C:
			if l.in.portal.TidyLanes() > 0 {
				used = now
			}
		}
	}
}

// resize makes as many lanes as that, or tries to.
func (l *inletLanes) resize(ctx context.Context, set *laneSet, n int) {
	list := set.cut(n)
	for k := len(set.sessions); k < n; k++ {
		s := l.session(set, k)
		s.start(ctx)
		set.sessions = append(set.sessions, s)
	}
	first, cancel := context.WithTimeout(ctx, attemptTimeout)
	for _, s := range set.sessions {
		s.first(first)
	}
	cancel()
	set.open() // together, so that transfers are spread over them
	for _, s := range list {
		s.stop()
	}
}

// session keeps the k-th lane.
func (l *inletLanes) session(set *laneSet, k int) *session {
	in, number := l.in, uint64(k+1)
	var name atomic.Pointer[string] // that the relay knows the outlet's node by, for the path that was made last
	return &session{
		log: l.node.log.With("inlet", in.request.Alias, "lane", k+1), router: l.node.router, longest: retryMaxSlow,
		connect: func(ctx context.Context) (*connection, error) {
			main, err := in.mainPath(ctx)
			if err != nil {
				return nil, err
			}
			r, err := l.route(ctx, main, number)
			if err != nil {
				return nil, err
			}
			name.Store(&r.name)
			o := l.options
			o.access = main.access
			o.pin, o.authorized = nil, []identity.Identifier{identity.Identifier(main.channels[len(main.channels)-1].Peer.ID)}
			return l.node.connect(ctx, r.to, o)
		},
		up: func(_ context.Context, c *connection) error {
			set.put(k, in.outletRoute(c))
			return nil
		},
		down: func() { set.put(k, routing.Route{}) },
		silent: func(c *connection, since time.Time) {
			in.silent(c, since)
			c.close() // its connections have the inlet's path meanwhile, and no other is to go there
		},
		check: func(ctx context.Context, _ *connection) error { // and the outlet's node hears that the lane is used
			if up, main, _ := in.session.state(); up {
				if r, err := l.route(ctx, main, number); err == nil && r.name != *name.Load() {
					return errLaneMoved
				}
			}
			return nil
		},
	}
}

// laneWay is where a lane leads.
type laneWay struct {
	to    multiaddr.Addr
	name  string // of the relay; empty where the way leads through none
	lossy bool   // segments are lost between the relay and the outlet's node
}

// route asks for the k-th lane beside main, and returns where it leads; number 0 asks for none, and how the outlet's node is connected.
func (l *inletLanes) route(ctx context.Context, main *connection, number uint64) (w laneWay, err error) {
	relays := 0
	at := -1
	for i, piece := range l.in.to {
		if piece.Protocol == multiaddr.Service && strings.HasPrefix(piece.Text, routing.RelayPrefix) {
			relays, at = relays+1, i
		}
	}
	switch {
	case len(main.channels) == 0:
		return w, errNoLane
	case relays == 0:
		return laneWay{to: l.in.to}, nil
	case relays > 1 || l.in.to[at].Text != routing.RelayPrefix+main.name:
		return w, errNoLane
	}
	asking, cancel := context.WithTimeout(ctx, laneWait+2*time.Second)
	defer cancel()
	asking, end := whilePath(asking, main.done())
	defer end()
	m, err := l.node.askNode(asking, main, control.OpLane, control.Fields{Name: main.name, Have: number, Wait: laneWait})
	if err != nil {
		return w, err
	}
	if err := m.Err(); err != nil {
		return w, err
	}
	lossy := m.State == control.StateDegraded
	if number == 0 {
		return laneWay{lossy: lossy}, nil
	}
	if of, ok := routing.LaneOf(m.Name); !ok || of != main.name {
		return w, errNoLane
	}
	w = laneWay{to: slices.Clone(l.in.to), name: m.Name, lossy: lossy}
	w.to[at].Text = routing.RelayPrefix + m.Name
	return w, nil
}

// laneSet is the lanes that there are now.
type laneSet struct {
	in       *inlet
	up       *atomic.Int32 // how many
	sessions []*session    // of serve

	mu     sync.Mutex
	isOpen bool
	routes []routing.Route // empty for one that is not there
}

func (s *laneSet) put(k int, r routing.Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k >= len(s.routes) {
		return // it is cut
	}
	s.routes[k] = r
	s.up.Store(int32(len(s.there())))
	s.tell()
}

// cut makes room for n lanes, of which nothing is told until open, and returns the sessions of those that are beyond, to be stopped.
func (s *laneSet) cut(n int) (beyond []*session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < len(s.sessions) {
		beyond, s.sessions = slices.Clone(s.sessions[n:]), s.sessions[:n]
	}
	s.isOpen = false
	routes := make([]routing.Route, n)
	copy(routes, s.routes)
	s.routes = routes
	s.up.Store(int32(len(s.there())))
	return beyond
}

func (s *laneSet) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isOpen = true
	s.tell()
}

// end gives up all lanes.
func (s *laneSet) end() {
	list := s.cut(0)
	s.in.choose(func() { s.in.beside = nil })
	for _, one := range list {
		one.stop()
	}
}

// tell gives the inlet what there is. mu is held.
func (s *laneSet) tell() {
	if s.isOpen {
		list := s.there()
		s.in.choose(func() { s.in.beside = list })
	}
}

// there returns the routes of those that are there. mu is held.
func (s *laneSet) there() []routing.Route {
	return slices.DeleteFunc(slices.Clone(s.routes), func(r routing.Route) bool { return r.Len() == 0 })
}

// mostLanes returns how many connections the inlet has that has most.
func (n *Node) mostLanes() (most int64) {
	for _, i := range n.inlets.List() {
		if i.IsOpen {
			most = max(most, 1)
			if l := i.Value.lanes; l != nil {
				most = max(most, 1+int64(l.up.Load()))
			}
		}
	}
	return most
}
