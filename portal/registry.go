package portal

import (
	"crypto/subtle"
	"sync"
	"sync/atomic"
	"time"
)

// registries are the registries of a node's outlets by name. An outlet that is made anew with the name of one that was deleted, as to change what it is, finds the
// connections that this one has left.
type registries struct {
	mu     sync.Mutex
	byName map[string]*registry
	left   map[string]*registry // those of byName whose outlet was closed while it had connections

	processes processes
}

// take returns the registry for an outlet, which gives it back when it has closed.
func (rs *registries) take(name string) *registry {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.sweep()
	r := rs.byName[name]
	if r == nil {
		r = &registry{processes: &rs.processes}
		if rs.byName == nil {
			rs.byName, rs.left = map[string]*registry{}, map[string]*registry{}
		}
		rs.byName[name] = r
	}
	delete(rs.left, name)
	r.outlets.Add(1)
	return r
}

func (rs *registries) give(name string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r := rs.byName[name]; r.outlets.Add(-1) == 0 {
		rs.left[name] = r
	}
	rs.sweep()
}

// sweep forgets what has no outlet and no connections. rs.mu is held.
func (rs *registries) sweep() {
	for name, r := range rs.left {
		if r.empty() {
			delete(rs.left, name)
			delete(rs.byName, name)
		}
	}
}

// registry is the connections of an outlet that may be resumed. Its methods are for any goroutine.
type registry struct {
	outlets   atomic.Int32 // 0: the outlet was deleted
	processes *processes

	mu    sync.Mutex
	conns map[token]*conn
	comes *arriving                        // what an upgrade has carried; nil for nothing
	away  map[[32]byte]map[*conn]time.Time // those of a peer whose paths are away, and since when
}

// expect tells of connections that an upgrade has carried.
func (r *registry) expect(a *arriving) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.comes = a
}

// expected returns what expect was told.
func (r *registry) expected() *arriving {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.comes
}

// add enters c by the id of its line and returns the connection that had the id, if there was one. Another peer's keeps it, and so does one
// whose client was offered later: targets do not answer in the order in which they are asked. Then ok is false.
func (r *registry) add(c *conn) (before *conn, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before = r.conns[c.line.id]; before != nil && (before.peer != c.peer || before.line.offers > c.line.offers) {
		return nil, false
	}
	if r.conns == nil {
		r.conns = map[token]*conn{}
	}
	r.conns[c.line.id] = c
	r.processes.add(c)
	return before, true
}

// find returns the connection with the id if it is that peer's and the secret is right, else nil.
func (r *registry) find(id, secret token, peer *[32]byte) *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Where no connection has the id, nobody's is compared, so that the answer takes as long.
	var nobody struct {
		secret token
		peer   [32]byte
	}
	wanted, owner := &nobody.secret, &nobody.peer
	c, there := r.conns[id]
	if there {
		wanted, owner = &c.line.secret, &c.peer
	}
	right := subtle.ConstantTimeCompare(wanted[:], secret[:]) & subtle.ConstantTimeCompare(owner[:], peer[:])
	if right == 1 && there {
		return c
	}
	return nil
}

func (r *registry) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.conns) == 0 && r.comes.number() == 0
}

// left notes that the path of c is away, and back that it has one again or has ended.
func (r *registry) left(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away == nil {
		r.away = map[[32]byte]map[*conn]time.Time{}
	}
	if r.away[c.peer] == nil {
		r.away[c.peer] = map[*conn]time.Time{}
	}
	r.away[c.peer][c] = time.Now()
}

func (r *registry) back(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backLocked(c)
}

func (r *registry) backLocked(c *conn) {
	if list := r.away[c.peer]; list != nil {
		if delete(list, c); len(list) == 0 {
			delete(r.away, c.peer)
		}
	}
}

// held returns how many of a peer's connections are away, and the one that has been for longest of those that another process of the same node has
// left: nil if there is none. That one is returned once.
func (r *registry) held(peer *[32]byte, process [32]byte) (n int, lost *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.away[*peer]
	n = len(list)
	for c, at := range list {
		if followed(c.line.process, process) && (lost == nil || at.Before(list[lost])) {
			lost = c
		}
	}
	if lost != nil {
		r.backLocked(lost)
	}
	return n, lost
}

// followed reports whether process is another one of the same node as before. Nodes that do not say what they are, are none.
func followed(before, process [32]byte) bool {
	return before != process && token(before[:16]) == token(process[:16]) && before != [32]byte{}
}

// remove forgets c and its secret.
func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backLocked(c)
	if r.conns[c.line.id] == c {
		delete(r.conns, c.line.id)
	}
	r.processes.remove(c)
	c.line.id, c.line.secret = token{}, token{}
}
