package routing

import (
	"crypto/rand"
	"encoding/binary"
	"sync/atomic"
)

// relayName is a name with all who are registered under it. They are of one owner. The newest of them whose node can be reached gets
// the messages; the others take its place when it goes.
type relayName struct {
	name    string
	self    WireAddress
	owner   *[32]byte
	current atomic.Pointer[registration] // nil: nobody can be reached
	regs    []*registration              // oldest first; under Relays.mu
}

// registration is one request for a name that was granted. It is known by the connection or channel that it came through, and lasts as
// long as that.
type registration struct {
	relays   *Relays
	name     *relayName
	id       uint64
	forward  Route // from this node to the registered one, without the last hop
	shard    *Shard
	terminal Terminal // what forward goes out through, on shard; nil for a worker of this node
	holder   string   // whose names are counted together
	away     bool     // there is no way to the node now; under Relays.mu
	gone     bool     // under Relays.mu
}

// producer returns whose messages come back from the registered node.
func (g *registration) producer() *Producer {
	if g.terminal == nil {
		return nil
	}
	return g.terminal.TerminalProducer()
}

// TerminalClosed implements Watcher: the registration has ended.
func (g *registration) TerminalClosed() { g.relays.left(g) }

// TerminalAway implements AwayWatcher: there is no way to the node, until it comes by another one.
func (g *registration) TerminalAway(away bool) { g.relays.setAway(g, away) }

// choose makes the newest registration that can be reached the current one, and reports whether that is a change. Relays.mu is held.
func (n *relayName) choose() bool {
	var best *registration
	for _, g := range n.regs {
		if !g.away {
			best = g
		}
	}
	return n.current.Swap(best) != best
}

// laneMark stands between a relay name and what tells its lanes apart: further registrations of the same node over other connections.
const laneMark = '~'

// LaneName returns a name for another registration under name, which nobody can guess.
func LaneName(name string) string { return name + string(laneMark) + randomHex() }

// LaneOf returns the name that name is a lane of; ok is false if it is none.
func LaneOf(name string) (of string, ok bool) {
	at := len(name) - 2*16 - 1
	if at < 1 || name[at] != laneMark {
		return "", false
	}
	for _, c := range []byte(name[at+1:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return name[:at], true
}

// randomID returns a number that nobody can guess, and that is not 0.
func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint64(b[:]) | 1
}

// RelayState says what a relay name stands for now.
type RelayState struct {
	// ID is of the registration that gets the messages; 0 if there is none.
	ID uint64
	// Registrations is how many there are, with those that can't be reached now.
	Registrations int
}

// relayWait is somebody who wants to be told of a change.
type relayWait struct {
	have uint64
	tell func(RelayState)
}

// state returns what is registered under a name. rs.mu is held.
func (rs *Relays) state(name string) (st RelayState) {
	if n := rs.named[name]; n != nil {
		st.Registrations = len(n.regs)
		if g := n.current.Load(); g != nil {
			st.ID = g.id
		}
	}
	return st
}

// State returns what is registered under a name, which is given without the prefix. Any goroutine.
func (rs *Relays) State(name string) RelayState {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.state(name)
}

// Way returns the address of this node's worker that leads to who is registered under a name, or led there a moment ago; "" if there is none. Any goroutine.
func (rs *Relays) Way(name string) string {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	n := rs.named[name]
	if n == nil {
		return ""
	}
	g := n.current.Load()
	if g == nil && len(n.regs) > 0 {
		g = n.regs[len(n.regs)-1]
	}
	if g == nil || g.forward.Len() == 0 {
		return ""
	}
	return g.forward.First().Value
}

// Held reports whether peer has a registration under name that came by way, the address of this node's worker that leads to it: whether or
// not it is the one that gets the messages. Any goroutine.
func (rs *Relays) Held(name string, peer [32]byte, way string) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if n := rs.named[name]; n != nil && n.owner != nil && *n.owner == peer {
		for _, g := range n.regs {
			if g.forward.Len() > 0 && g.forward.First().Value == way {
				return true
			}
		}
	}
	return false
}

// Await calls tell once, as soon as name stands for another registration than have (0: none), at once if it does so now. What it returns
// undoes it. tell may be called on any goroutine and must not block. Any goroutine.
func (rs *Relays) Await(name string, have uint64, tell func(RelayState)) (cancel func()) {
	rs.mu.Lock()
	st := rs.state(name)
	if st.ID != have {
		rs.mu.Unlock()
		tell(st)
		return func() {}
	}
	w := &relayWait{have: have, tell: tell}
	set := rs.waits[name]
	if set == nil {
		set = map[*relayWait]struct{}{}
		rs.waits[name] = set
	}
	set[w] = struct{}{}
	rs.mu.Unlock()
	return func() {
		rs.mu.Lock()
		delete(rs.waits[name], w)
		if len(rs.waits[name]) == 0 {
			delete(rs.waits, name)
		}
		rs.mu.Unlock()
	}
}

// changed takes those who wait for a change of name and are to be told; the result tells them, without rs.mu. rs.mu is held.
func (rs *Relays) changed(name string) (tell func()) {
	st := rs.state(name)
	var list []*relayWait
	for w := range rs.waits[name] {
		if w.have != st.ID {
			list = append(list, w)
			delete(rs.waits[name], w)
		}
	}
	if len(rs.waits[name]) == 0 {
		delete(rs.waits, name)
	}
	return func() {
		for _, w := range list {
			w.tell(st)
		}
	}
}
