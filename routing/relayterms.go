package routing

import (
	"errors"
	"slices"

	"sallyport/dataplane"
)

// Terms are on what terms a node registers (docs/protocol/08 §1).
type Terms struct {
	Member MemberID
	// Priority is at most 1000; the lower is taken first.
	Priority uint32
	// Rule and Share count if the node is the owner of the name. Share is a policy expression.
	Rule  Rule
	Share string
	// Down tells that the target of the node's outlets does not answer.
	Down bool
	// Connections is how many portal connections are open at the node.
	Connections uint64
}

// maxShare is how long Terms.Share is at most, in bytes.
const maxShare = 1024

// ErrTerms reports a request that cannot be carried out: its channel has ended, or the name or an expression is too long.
var ErrTerms = errors.New("routing: not a registration")

// Register registers peer under name, on terms, as if it had asked through the channel of this node whose address on s is way. done is told what the name stands for, or
// why it was refused, once, on any goroutine; it must not block. ErrTerms: done is not called. Any goroutine.
func (rs *Relays) Register(s *Shard, way string, peer [32]byte, name string, terms Terms, done func(RelayState, NoticeKind)) error {
	if name == "" || len(name) > maxRelayName || len(terms.Share) > maxShare || terms.Rule > RuleSpread {
		return ErrTerms
	}
	if !s.loop.Post(dataplane.TaskFunc(func() {
		if refused := rs.registerOn(s, way, peer, name, terms, done); refused != 0 {
			done(RelayState{}, refused)
		}
	})) {
		return ErrTerms
	}
	return nil
}

// registerOn is Register on the shard.
func (rs *Relays) registerOn(s *Shard, way string, peer [32]byte, name string, terms Terms, done func(RelayState, NoticeKind)) (refused NoticeKind) {
	forward := LocalRoute(way)
	terminal := s.wayOut(forward)
	if terminal == nil {
		return NoticeAbsent
	}
	who := terminal.TerminalPeer()
	if who == nil || who.ID != peer {
		return NoticeDenied
	}
	if rs.opts.Allow != nil {
		m := s.NewMessage()
		m.Peer = who
		ok := rs.opts.Allow(m, name)
		s.Free(m)
		if !ok {
			rs.opts.Log.Warn("relay refused", "relay", name, "reason", "policy or ockam-relay attribute", "peer", peerText(who))
			return NoticeDenied
		}
	}
	q := request{
		name: name, owner: &peer, terms: &terms, done: done,
		reg: &registration{relays: rs, id: randomID(), forward: forward, shard: s, terminal: terminal, holder: string(peer[:])},
	}
	if !rs.enqueue(q) {
		s.Drops.Overflow.Add(1)
		return NoticeFull
	}
	return 0
}

// MemberState is what a relay knows of a member of a name.
type MemberState struct {
	// Way is the address of the relay's worker that leads to the member; empty if it cannot be reached.
	Way      string
	Member   MemberID
	Identity [32]byte
	Priority uint32
	// Up tells that it can be reached, and Down that its target does not answer, as it says.
	Up, Down bool
	// Chosen tells that it gets new flows; with RuleSpread that is all that may.
	Chosen bool
	// Connections is how many it has, as it says, or else how many channels brought flows for it.
	Connections uint64
	// Relay is where it is registered, empty for this node.
	Relay string
	// Tag is what relays of a fleet call the member among themselves.
	Tag string
}

// Members returns the members of a name in the order in which they came. Any goroutine.
func (rs *Relays) Members(name string) (list []MemberState) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	n := rs.named[name]
	if n == nil {
		return nil
	}
	may := n.candidates()
	for _, m := range n.members {
		if len(m.regs) == 0 {
			continue
		}
		st := MemberState{Member: m.key.id, Identity: m.key.identity, Priority: m.priority, Up: m.reachable(), Down: m.down, Relay: m.key.relay, Tag: m.key.tag()}
		if g := m.current.Load(); g != nil && g.forward.Len() > 0 {
			st.Way = g.forward.First().Value
		}
		if n.rule == RuleSpread {
			for _, c := range may {
				st.Chosen = st.Chosen || c == m
			}
		} else {
			st.Chosen = n.chosen == m
		}
		if st.Connections = uint64(max(m.channels.Load(), 0)); m.reports.Load() {
			st.Connections = uint64(max(m.connections.Load()+m.given.Load(), 0))
		}
		list = append(list, st)
	}
	return list
}

// GroupUse is what the members of a shared name are: how many are up, whose target is down, and that cannot be reached, and how often new flows went to another
// member than before.
type GroupUse struct {
	Up, Down, Away int
	Changes        uint64
}

// Groups returns the shared names with what their members are; beyond 128 names they are summed under OtherNames. Any goroutine.
func (rs *Relays) Groups() map[string]GroupUse {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	list := map[string]GroupUse{}
	var names []string
	for name, n := range rs.named {
		if _, isLane := LaneOf(name); !isLane && n.grouped.Load() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for i, name := range names {
		n := rs.named[name]
		if i >= maxTraffic {
			name = OtherNames
		}
		u := list[name]
		u.Changes += n.changes
		for _, m := range n.members {
			switch {
			case len(m.regs) == 0:
			case !m.reachable():
				u.Away++
			case m.down:
				u.Down++
			default:
				u.Up++
			}
		}
		list[name] = u
	}
	return list
}
