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
// Where segments are lost a TCP connection brings less than the line does, so there each transfer gets a lane, as far as the limit goes (wantedLanes). They are made
// when the first transfer runs: with more the answers that they need would wait behind what those bring.

const (
	// laneWait is how long the outlet's node may take to register for a lane.
	laneWait = 10 * time.Second
	// laneTick is how often the inlet looks who uses its lanes and whether segments are lost still, and lanesIdle how long nobody has until they end.
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
	isLossy bool          // segments are lost, as far as is known
	looked  time.Time     // when that was seen; both are of run

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
	var until time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.slow:
			l.look(ctx, nil)
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

// look looks from time to time whether segments are lost on the inlet's path or one of its lanes.
func (l *inletLanes) look(ctx context.Context, lanes []*session) {
	if time.Since(l.looked) < lossEvery {
		return
	}
	l.isLossy = l.lossy(ctx, lanes)
	l.looked = time.Now()
	l.in.portal.SetLossy(l.isLossy)
}

// serve has the lanes until they have not been used for a while.
func (l *inletLanes) serve(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	set := &laneSet{in: l.in, up: &l.up}
	var opening sync.WaitGroup
	defer opening.Wait()
	defer set.end()
	defer cancel()
	tick, look := time.NewTicker(laneTick), time.NewTicker(lossEvery)
	defer tick.Stop()
	defer look.Stop()
	for used := time.Now(); time.Since(used) < lanesIdle; {
		if n := wantedLanes(l.node.opts.Limits.Lanes, l.isLossy); n > len(set.sessions) {
			l.grow(ctx, set, n)
			list := slices.Clone(set.sessions)
			opening.Go(func() { set.open(ctx, list) })
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wanted:
		case <-l.slow:
			l.look(ctx, set.sessions)
		case <-look.C: // transfers that share a lane do not ask
			if l.in.portal.Transfers() > len(set.sessions) {
				l.look(ctx, set.sessions)
			}
		case now := <-tick.C:
			l.look(ctx, set.sessions)
			if l.in.portal.TidyLanes() > 0 || l.isLossy && l.in.portal.Transfers() > 0 {
				used = now
			}
		}
	}
}

// grow begins to make further lanes, until there are n.
func (l *inletLanes) grow(ctx context.Context, set *laneSet, n int) {
	set.room(n)
	for k := len(set.sessions); k < n; k++ {
		s := l.session(set, k)
		s.start(ctx)
		set.sessions = append(set.sessions, s)
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
	come   bool            // some are being made for the first time
	routes []routing.Route // empty for one that is not there
}

func (s *laneSet) put(k int, r routing.Route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes[k] = r
	s.tell()
}

// room makes room for lanes that come, until there are n.
func (s *laneSet) room(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes = append(s.routes, make([]routing.Route, n-len(s.routes))...)
	s.come = true
	s.tell()
}

// open waits until n lanes are there, or have been tried for a while. If no more come, they may be shared then.
func (s *laneSet) open(ctx context.Context, list []*session) {
	trying, cancel := context.WithTimeout(ctx, laneWait)
	defer cancel()
	for _, one := range list {
		one.first(trying)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(list) == len(s.routes) {
		s.come = false
		s.tell()
	}
}

// end gives up all lanes.
func (s *laneSet) end() {
	for _, one := range s.sessions {
		one.stop()
	}
	s.in.choose(func() { s.in.beside = nil })
}

// tell gives the inlet what there is. mu is held.
func (s *laneSet) tell() {
	list := slices.DeleteFunc(slices.Clone(s.routes), func(r routing.Route) bool { return r.Len() == 0 })
	s.up.Store(int32(len(list)))
	s.in.choose(func() { s.in.beside, s.in.lanesCome = list, s.come })
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
