package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/crypto/identity"
	"sallyport/fleet"
	"sallyport/names"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/rpc"
	"sallyport/routing/secure"
)

// A project may have several nodes that act as its node, and several authorities. Members try them in an order that spreads members over them, and hear from
// those that they are connected to where the others are.

const (
	// accessDelay is how long one of several nodes has for itself before the next is tried beside it: longer than a handshake takes over a long line.
	accessDelay = 500 * time.Millisecond
	// routesInterval is how often a node asks where the others are.
	routesInterval = 10 * time.Minute
	routesTimeout  = 5 * time.Second
	// routesAgain is how long it pauses when no answer has come, at first.
	routesAgain = 5 * time.Second
)

// spread sorts routes by rendezvous hashing: for each key in an order of its own, and when one route goes the others keep their order.
func spread(routes []multiaddr.Addr, key string) []multiaddr.Addr {
	score := func(a multiaddr.Addr) [sha256.Size]byte { return sha256.Sum256([]byte(key + "\x00" + a.String())) }
	return slices.SortedFunc(slices.Values(routes), func(a, b multiaddr.Addr) int {
		x, y := score(a), score(b)
		return bytes.Compare(x[:], y[:])
	})
}

// relayNameIn returns the first relay's name in a route, empty if there is none.
func relayNameIn(to multiaddr.Addr) string {
	for _, v := range to {
		if name, ok := strings.CutPrefix(v.Text, routing.RelayPrefix); ok && v.Protocol == multiaddr.Service {
			return name
		}
	}
	return ""
}

// eachAccess opens a route through one of the nodes of the project that it begins with.
func (n *Node) eachAccess(ctx context.Context, to multiaddr.Addr, o connectOptions, open func(context.Context, connectOptions) (*connection, error)) (*connection, error) {
	if len(to) == 0 || to[0].Protocol != multiaddr.Project {
		return open(ctx, o)
	}
	key := cmp.Or(o.name, relayNameIn(to))
	if of, ok := routing.LaneOf(key); ok {
		key = of
	}
	o.spread = cmp.Or(key, n.opts.Self.String())
	if o.access != nil {
		return open(ctx, o)
	}
	p, err := n.project(ctx, to[0].Text)
	if err != nil || len(p.Routes) == 0 || len(p.Route) == 0 {
		return open(ctx, o) // which says what is wrong
	}
	list := spread(append([]multiaddr.Addr{p.Route}, p.Routes...), o.spread)
	hurry, ctx := whereAbsent(ctx, len(list))
	return names.RaceEach(ctx, accessDelay, hurry, list, func(ctx context.Context, a multiaddr.Addr) (*connection, error) {
		o := o
		o.access = a
		return open(ctx, o)
	}, (*connection).close)
}

// whereAbsent has the next node tried at once when one says that it does not have a relay's name and waits for it. Only when all have said so is it the
// session's to tell.
func whereAbsent(ctx context.Context, nodes int) (<-chan struct{}, context.Context) {
	report, watched := ctx.Value(reportKey{}).(func(error))
	if !watched {
		return nil, ctx
	}
	hurry := make(chan struct{}, nodes)
	var mu sync.Mutex
	absent := 0
	return hurry, context.WithValue(ctx, reportKey{}, func(err error) {
		mu.Lock()
		absent++
		all := absent >= nodes
		mu.Unlock()
		if !errors.Is(err, secure.ErrAbsent) || all {
			report(err)
			return
		}
		select {
		case hurry <- struct{}{}:
		default:
		}
	})
}

// routesOf is what routes are learned of.
type routesOf int

const (
	projectRoutes routesOf = iota
	authorityRoutes
)

// routeStore is a Store that keeps what is learned of a project's nodes for the next connection and the next start.
type routeStore interface {
	PutRoutes(ctx context.Context, project string, of routesOf, routes []string) error
}

// routesLearned is what a node has asked and heard of further routes.
type routesLearned struct {
	mu    sync.Mutex
	asked map[string]time.Time   // by project, of its nodes
	paths map[string]projectPath // the last one to a project's node
	// authorities are further routes to the authority; nil until one has told, then in place of those of the start.
	authorities []multiaddr.Addr
	told        bool
	askedThat   time.Time // the authority
}

// projectPath is a channel to a project's node.
type projectPath struct {
	route routing.Route
	done  <-chan struct{}
}

// due reports whether it is time to ask again, and notes that it is asked.
func due(asked *time.Time) bool {
	now := time.Now()
	if !asked.IsZero() && now.Sub(*asked) < routesInterval {
		return false
	}
	*asked = now
	return true
}

// learnRoutes asks the project's node at the end of c where the others are, unless that was asked lately.
func (n *Node) learnRoutes(name string, c *connection) {
	store, ok := n.opts.Store.(routeStore)
	if !ok {
		return
	}
	l := &n.routes
	l.mu.Lock()
	if l.asked == nil {
		l.asked, l.paths = map[string]time.Time{}, map[string]projectPath{}
	}
	path := projectPath{c.route, c.done()}
	l.paths[name] = path
	at := l.asked[name]
	ask := due(&at)
	l.asked[name] = at
	l.mu.Unlock()
	if ask {
		go n.untilTold(path.done, func() bool { return n.askRoutes(store, name, path.route) }, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.asked, name)
		})
	}
}

// untilTold asks until there is an answer, with longer and longer pauses: who is asked may be busy, or not know the question. Where the path ends before it, the next one is
// asked at once: lost says so.
func (n *Node) untilTold(done <-chan struct{}, ask func() bool, lost func()) {
	for pause := routesAgain; !ask() && pause < routesInterval/4; pause *= 3 {
		again := time.NewTimer(pause)
		select {
		case <-again.C:
			continue
		case <-n.ctx.Done():
		case <-done:
			lost()
		}
		again.Stop()
		return
	}
}

// askRoutes asks one node, keeps what it says, and reports whether it has said something. One of the reference, or an older one of ours, does not answer.
func (n *Node) askRoutes(store routeStore, name string, route routing.Route) bool {
	ctx, cancel := context.WithTimeout(n.ctx, routesTimeout)
	defer cancel()
	client := &fleet.Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		return n.call(ctx, route.Concat(routing.LocalRoute(fleet.Service)), req)
	}}
	said, err := client.Nodes(ctx)
	if err == nil {
		err = store.PutRoutes(ctx, name, projectRoutes, said.Routes)
	}
	if err != nil {
		n.log.Debug("the project's node does not tell where others are", "project", name, "reason", err.Error())
	}
	return err == nil
}

// keepRoutes asks again from time to time, over paths that are there.
func (n *Node) keepRoutes(ctx context.Context) {
	store, ok := n.opts.Store.(routeStore)
	if !ok {
		return
	}
	for {
		pause := time.NewTimer(routesInterval + rand.N(routesInterval/5))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		l := &n.routes
		l.mu.Lock()
		paths := maps.Clone(l.paths)
		for name := range paths {
			l.asked[name] = time.Now()
		}
		l.mu.Unlock()
		for name, p := range paths {
			select {
			case <-p.done:
			default:
				n.askRoutes(store, name, p.route)
			}
		}
	}
}

// authorityRoutes returns the routes to the authority in the order in which they are tried; skip is how many at the beginning go to the end.
func (n *Node) authorityRoutes(self identity.Identifier, skip int) []multiaddr.Addr {
	l := &n.routes
	l.mu.Lock()
	more := n.opts.Trust.Routes
	if l.told {
		more = l.authorities
	}
	l.mu.Unlock()
	list := spread(append([]multiaddr.Addr{n.opts.Trust.Route}, more...), self.String())
	skip %= len(list)
	return append(slices.Clone(list[skip:]), list[:skip]...)
}

// connectAuthority opens a channel to one of the authorities.
func (n *Node) connectAuthority(ctx context.Context, o connectOptions, skip int) (*connection, error) {
	o.spread = o.self.String()
	list := n.authorityRoutes(o.self, skip)
	if len(list) == 1 {
		return n.connectListener(ctx, list[0], o)
	}
	return names.RaceEach(ctx, accessDelay, nil, list, func(ctx context.Context, a multiaddr.Addr) (*connection, error) {
		return n.connectListener(ctx, a, o)
	}, (*connection).close)
}

// learnAuthorities asks the authority at the end of a channel where the others are, unless that was asked lately.
func (n *Node) learnAuthorities(ctx context.Context, c *connection) {
	store, ok := n.opts.Store.(routeStore)
	name := n.opts.Trust.Project
	l := &n.routes
	l.mu.Lock()
	ask := ok && name != "" && due(&l.askedThat)
	l.mu.Unlock()
	if ask {
		n.untilTold(c.done(), func() bool { return n.askAuthorities(ctx, store, c) }, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.askedThat = time.Time{}
		})
	}
}

// askAuthorities asks one authority, keeps what it says, and reports whether it has said something.
func (n *Node) askAuthorities(ctx context.Context, store routeStore, c *connection) bool {
	ctx, cancel := context.WithTimeout(ctx, routesTimeout)
	defer cancel()
	client := &fleet.Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		return n.call(ctx, c.route.Concat(routing.LocalRoute(fleet.Service)), req)
	}}
	said, err := client.Nodes(ctx)
	if err == nil {
		var list []multiaddr.Addr
		for _, text := range said.Routes {
			if a, err := multiaddr.Parse(text); err == nil && a.String() != n.opts.Trust.Route.String() {
				list = append(list, a)
			}
		}
		l := &n.routes
		l.mu.Lock()
		l.authorities, l.told = list, true
		l.mu.Unlock()
		err = store.PutRoutes(ctx, n.opts.Trust.Project, authorityRoutes, said.Routes)
	}
	if err != nil {
		n.log.Debug("the authority does not tell where others are", "reason", err.Error())
	}
	return err == nil
}
