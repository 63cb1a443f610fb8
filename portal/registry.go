package portal

import (
	"crypto/subtle"
	"sync"
	"time"
)

// registry is the connections of an outlet that may be resumed. Its methods are for any goroutine.
type registry struct {
	mu    sync.Mutex
	conns map[token]*conn
	away  map[[32]byte]map[*conn]time.Time // those of a peer whose paths are away, and since when
	nodes map[token]map[*conn]struct{}     // by the first half of the process of their inlets
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
	if c.line.process != ([32]byte{}) {
		node := token(c.line.process[:16])
		if r.nodes == nil {
			r.nodes = map[token]map[*conn]struct{}{}
		}
		if r.nodes[node] == nil {
			r.nodes[node] = map[*conn]struct{}{}
		}
		r.nodes[node][c] = struct{}{}
	}
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

// before returns the peer's connections of the same node as process, and of another process.
func (r *registry) before(process [32]byte, peer *[32]byte) (list []*conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.nodes[token(process[:16])] {
		if c.peer == *peer && followed(c.line.process, process) {
			list = append(list, c)
		}
	}
	return list
}

// remove forgets c and its secret.
func (r *registry) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.backLocked(c)
	if r.conns[c.line.id] == c {
		delete(r.conns, c.line.id)
	}
	if node := token(c.line.process[:16]); r.nodes[node] != nil {
		if delete(r.nodes[node], c); len(r.nodes[node]) == 0 {
			delete(r.nodes, node)
		}
	}
	c.line.id, c.line.secret = token{}, token{}
}
