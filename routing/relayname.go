package routing

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// relayName is a name with all who are registered under it: its owner, and those whom the owner lets share it (docs/protocol/08).
type relayName struct {
	name  string
	self  WireAddress
	owner *[32]byte
	share string // whom the owner admits; under Relays.mu, as all that has no words of its own
	group
	// current is of the member that gets new flows with RuleFailover; nil: nobody can be reached.
	current atomic.Pointer[registration]
	regs    []*registration // oldest first
	// grouped tells that flows are told apart: there are several members, or may be.
	grouped atomic.Bool
	// among are the members that RuleSpread chooses from; nil for RuleFailover.
	among atomic.Pointer[[]*member]
	picks sync.Mutex // makes one choice at a time
	given uint64     // under picks
	// state is what is told of RuleSpread: another number whenever ids, of the registrations there are, has changed.
	state uint64
	ids   []uint64
	timer *timer // chooses again; may be nil
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
	member   *member  // under Relays.mu
	// elsewhere tells that forward leads to another relay of the fleet; never changed.
	elsewhere bool
	away      bool // there is no way to the node now; under Relays.mu
	gone      bool // under Relays.mu
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

// choose decides anew who gets what, and reports whether what is told of the name is another thing now, and when to choose again, zero for when
// something changes. Relays.mu is held.
func (n *relayName) choose(now time.Time) (changed bool, again time.Time) {
	before := n.id()
	for _, m := range n.members {
		var newest *registration
		for _, g := range m.regs {
			if !g.away {
				newest = g
			}
		}
		m.current.Store(newest)
		m.note(now)
	}
	n.tidy(now)
	again = n.group.choose(now)
	var chosen *registration
	if n.chosen != nil {
		chosen = n.chosen.current.Load()
	}
	n.current.Store(chosen)
	if n.rule != RuleSpread {
		n.among.Store(nil)
		return n.id() != before, again
	}
	list := n.candidates()
	n.among.Store(&list)
	var ids []uint64
	for _, m := range list {
		ids = append(ids, m.current.Load().id)
	}
	if !slices.Equal(ids, n.ids) {
		n.ids, n.state = ids, randomID()
	}
	return n.id() != before, time.Time{}
}

// remove takes registrations out of the name. Relays.mu is held.
func (n *relayName) remove(list ...*registration) {
	for _, g := range slices.Clone(list) {
		same := func(o *registration) bool { return o == g }
		g.gone = true
		n.regs, g.member.regs = slices.DeleteFunc(n.regs, same), slices.DeleteFunc(g.member.regs, same)
	}
}

// living is how many members there are. Relays.mu is held.
func (n *relayName) living() (count int) {
	for _, m := range n.members {
		if len(m.regs) > 0 {
			count++
		}
	}
	return count
}

// id is what is told of the name: of the registration that gets new flows, or of all that may. 0 if nobody can be reached. Relays.mu is held.
func (n *relayName) id() uint64 {
	g := n.current.Load()
	switch {
	case g == nil:
		return 0
	case n.among.Load() != nil:
		return n.state
	}
	return g.id
}

// give chooses a member for a new flow; nil if nobody can be reached. Any goroutine.
func (n *relayName) give() *member {
	if among := n.among.Load(); among != nil {
		n.picks.Lock()
		defer n.picks.Unlock()
		n.given++
		return pick(*among, n.given)
	}
	if g := n.current.Load(); g != nil {
		return g.member
	}
	return nil
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
	// Rule is how new flows are given to members; RuleNone if nobody has asked for one.
	Rule Rule
	// Way is the address of this node's worker that leads to the member that gets new flows; empty if each goes to another, or the name is not shared.
	Way string
}

// relayWait is somebody who wants to be told of a change.
type relayWait struct {
	have uint64
	tell func(RelayState)
}

// state returns what is registered under a name. rs.mu is held.
func (rs *Relays) state(name string) (st RelayState) {
	if n := rs.named[name]; n != nil {
		st.Registrations, st.Rule, st.ID = len(n.regs), n.rule, n.id()
		if g := n.current.Load(); g != nil && n.grouped.Load() && n.among.Load() == nil && g.forward.Len() > 0 {
			st.Way = g.forward.First().Value
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
	if n := rs.named[name]; n != nil {
		for _, g := range n.regs {
			if k := g.member.key; k.isIdentity && k.identity == peer && g.forward.Len() > 0 && g.forward.First().Value == way {
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
