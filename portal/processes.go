package portal

import "sync"

// processes is the connections of all outlets of a node by the process of the node that their inlets belong to: each path of hundreds of inlets that come back
// tells its process. Its methods are for any goroutine; a nil processes has none.
type processes struct {
	mu    sync.Mutex
	nodes map[token]map[[32]byte]map[*conn]struct{} // by the first half of the process, which is the node, then by process
}

// add enters a connection whose inlet has said which process it is of.
func (ps *processes) add(c *conn) {
	process := c.line.process
	if ps == nil || process == ([32]byte{}) {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	node := token(process[:16])
	if ps.nodes == nil {
		ps.nodes = map[token]map[[32]byte]map[*conn]struct{}{}
	}
	if ps.nodes[node] == nil {
		ps.nodes[node] = map[[32]byte]map[*conn]struct{}{}
	}
	if ps.nodes[node][process] == nil {
		ps.nodes[node][process] = map[*conn]struct{}{}
	}
	ps.nodes[node][process][c] = struct{}{}
}

func (ps *processes) remove(c *conn) {
	if ps == nil {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	process := c.line.process
	node := token(process[:16])
	if delete(ps.nodes[node][process], c); len(ps.nodes[node][process]) > 0 {
		return
	}
	if delete(ps.nodes[node], process); len(ps.nodes[node]) == 0 {
		delete(ps.nodes, node)
	}
}

// before returns the peer's connections of the same node as process, and of another process.
func (ps *processes) before(process [32]byte, peer *[32]byte) (list []*conn) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for p, conns := range ps.nodes[token(process[:16])] {
		if p == process {
			continue
		}
		for c := range conns {
			if c.peer == *peer {
				list = append(list, c)
			}
		}
	}
	return list
}

// Ended ends the connections of an identity's node that are of another process than the one given: that has followed theirs. Any goroutine.
func (e *Env) Ended(peer *[32]byte, process []byte) {
	if len(process) != len(e.Process) {
		return
	}
	who, what := *peer, [32]byte(process)
	if e.arrivals.later(func() { e.Ended(&who, what[:]) }) {
		return
	}
	for _, c := range e.lines.processes.before([32]byte(process), peer) {
		c.post(c.PeerGone)
	}
}
