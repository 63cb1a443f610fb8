package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
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
	// accessDelay is how long one of several nodes has for itself before the next is tried beside it: longer than a handshake takes over a long line. One that
	// takes connections, and goes on answering, has accessBusy each time: where all come back at once it is late, and to ask the others too would make all later.
	accessDelay = 500 * time.Millisecond
	accessBusy  = 2 * time.Second
	// accessPatience is how many times as long as it took to say so one has that waits for a relay's name that was there before: where the relays know of each other's
	// names the next knows no more, and where they are late for all that come back it would be one more to wait at.
	accessPatience = 8
	// routesInterval is how often a node asks where the others are that does not tell by itself, and the longest pause before one is asked that does not answer.
	routesInterval = 10 * time.Minute
	routesTimeout  = 5 * time.Second
	// routesAgain is how long it pauses when no answer has come, at first, routesRest about how long after one.
	routesAgain = 5 * time.Second
	routesRest  = time.Second
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
	wait := make(chan time.Duration, 4*len(list))
	ctx = context.WithValue(ctx, waitKey{}, wait)
	each := whereAbsent(ctx, len(list))
	return names.RaceEach(ctx, accessDelay, wait, list, func(ctx context.Context, a multiaddr.Addr) (*connection, error) {
		o := o
		o.access, o.project = a, p
		return open(each(ctx), o)
	}, (*connection).close)
}

// waitKey is of the context's value that takes how long the next of several nodes waits until it is tried, from then on.
type waitKey struct{}

// nextAfter has the next of several nodes tried after d. It does nothing where there are none, or where that has been said more often than makes a difference.
func nextAfter(ctx context.Context, d time.Duration) {
	if wait, ok := ctx.Value(waitKey{}).(chan time.Duration); ok {
		select {
		case wait <- d:
		default:
		}
	}
}

// whereAbsent returns what the context of the attempt at each of several nodes is: when one says that it does not have a relay's name and waits for it the next is
// tried at once, or a little later where the name was there before, since it will be there again. Only when all have said so is it the session's to tell.
func whereAbsent(ctx context.Context, nodes int) func(context.Context) context.Context {
	report, watched := ctx.Value(reportKey{}).(func(error))
	if !watched {
		return func(ctx context.Context) context.Context { return ctx }
	}
	comesBack, _ := ctx.Value(comesBackKey{}).(bool)
	var mu sync.Mutex
	absent := 0
	return func(ctx context.Context) context.Context {
		said, began := false, time.Now()
		return context.WithValue(ctx, reportKey{}, func(err error) {
			mu.Lock()
			first := !said
			if said = true; first {
				absent++
			}
			all := absent >= nodes
			mu.Unlock()
			switch {
			case !errors.Is(err, secure.ErrAbsent) || all:
				report(err)
			case first && comesBack:
				nextAfter(ctx, min(max(accessDelay, accessPatience*time.Since(began)), attemptTimeout/2))
			case first:
				nextAfter(ctx, 0)
			}
		})
	}
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

// routesLearned is what a node has heard of further routes.
type routesLearned struct {
	mu        sync.Mutex
	paths     map[string]projectPath // by project, the last one to a project's node
	following map[string]bool        // projects whose node is asked
	// authorities are further routes to the authority; nil until one has told, then in place of those of the start.
	authorities []multiaddr.Addr
	told        bool
	version     []byte // of authorities
}

// projectPath is a channel to a project's node.
type projectPath struct {
	route routing.Route
	done  <-chan struct{}
}

// learnRoutes has the project's node at the end of c, or of another connection to one, asked where the others are for as long as there is one.
func (n *Node) learnRoutes(name string, c *connection) {
	store, ok := n.opts.Store.(routeStore)
	if !ok {
		return
	}
	l := &n.routes
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.following == nil {
		l.following, l.paths = map[string]bool{}, map[string]projectPath{}
	}
	l.paths[name] = projectPath{c.route, c.done()}
	if !l.following[name] {
		l.following[name] = true
		n.writers.Go(func() { n.followProject(store, name) })
	}
}

// followProject asks over the last path to a project's node until there is none.
func (n *Node) followProject(store routeStore, name string) {
	l := &n.routes
	var have []byte
	for n.ctx.Err() == nil {
		l.mu.Lock()
		path := l.paths[name]
		select {
		case <-path.done:
			delete(l.following, name)
			delete(l.paths, name)
			l.mu.Unlock()
			return
		default:
		}
		l.mu.Unlock()
		have = n.followRoutes(path.done, n.othersAlong(path.route), have, func(ctx context.Context, routes []string) error {
			return store.PutRoutes(ctx, name, projectRoutes, routes)
		})
	}
}

// othersAlong asks the node at the end of a route.
func (n *Node) othersAlong(route routing.Route) func(ctx context.Context, have []byte) (fleet.Nodes, bool, error) {
	client := &fleet.Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		return n.call(ctx, route.Concat(routing.LocalRoute(fleet.Service)), req)
	}}
	return client.Others
}

// followRoutes asks a node where the others are, again and again until the path to it ends, and has what is new kept. A node that has a list other than the one whose version is have answers
// at once, one that has the same when it has another. One that does not answer, for it is busy or of the reference, is asked with longer and longer pauses; an older one of ours, which
// does not wait, from time to time. It returns the version of what was kept last.
func (n *Node) followRoutes(done <-chan struct{}, others func(context.Context, []byte) (fleet.Nodes, bool, error), have []byte, keep func(context.Context, []string) error) []byte {
	path, end := whilePath(n.ctx, done)
	defer end()
	failed := routesAgain
	for {
		asked := time.Now()
		ctx, cancel := context.WithTimeout(path, fleet.MaxWait+routesTimeout)
		said, same, err := others(ctx, have)
		cancel()
		if err == nil && !same {
			ctx, cancel := context.WithTimeout(n.ctx, routesTimeout)
			err = keep(ctx, said.Routes)
			cancel()
		}
		var pause time.Duration
		switch {
		case err != nil:
			n.log.Debug("a node does not tell where others are", "reason", err.Error())
			pause, failed = failed, min(3*failed, routesInterval)
		case said.Version == nil:
			pause = routesInterval + rand.N(routesInterval/5)
		case same && time.Since(asked) < routesAgain: // it has no place for who waits
			pause = jitter(2 * routesAgain)
		default:
			have, pause, failed = said.Version, jitter(routesRest), routesAgain
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-path.Done():
			again.Stop()
			return have
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
	wait := make(chan time.Duration, 4*len(list))
	return names.RaceEach(context.WithValue(ctx, waitKey{}, wait), accessDelay, wait, list, func(ctx context.Context, a multiaddr.Addr) (*connection, error) {
		return n.connectListener(ctx, a, o)
	}, (*connection).close)
}

// learnAuthorities asks the authority at the end of a channel where the others are, until that ends.
func (n *Node) learnAuthorities(c *connection) {
	store, ok := n.opts.Store.(routeStore)
	name := n.opts.Trust.Project
	if !ok || name == "" {
		return
	}
	l := &n.routes
	l.mu.Lock()
	have := l.version
	l.mu.Unlock()
	have = n.followRoutes(c.done(), n.othersAlong(c.route), have, func(ctx context.Context, routes []string) error {
		var list []multiaddr.Addr
		for _, text := range routes {
			if a, err := multiaddr.Parse(text); err == nil && a.String() != n.opts.Trust.Route.String() {
				list = append(list, a)
			}
		}
		l.mu.Lock()
		l.authorities, l.told = list, true
		l.mu.Unlock()
		return store.PutRoutes(ctx, name, authorityRoutes, routes)
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.version = have
}
