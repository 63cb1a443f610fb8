package routing

import "hash/maphash"

// maxFlows is how many flows of groups one shard remembers of each of two generations. The older ones are forgotten when the younger ones are as many; a
// flow that is used is young again.
const maxFlows = 1 << 14

// flowTable remembers on one shard to which members flows of groups were given, by a hash of the name and of the return route.
type flowTable struct {
	seed       maphash.Seed
	young, old map[uint64]*member
	watching   map[flowSource]*flowWatch
}

func newFlowTable() *flowTable {
	return &flowTable{seed: maphash.MakeSeed(), young: map[uint64]*member{}, watching: map[flowSource]*flowWatch{}}
}

// of returns what a flow is remembered by; known is false for a message without a return route, which is no flow.
func (t *flowTable) of(name string, m *Message) (key uint64, known bool) {
	if m.Return.n == 0 {
		return 0, false
	}
	var h maphash.Hash
	h.SetSeed(t.seed)
	_, _ = h.WriteString(name)
	_ = h.WriteByte(0)
	_, _ = h.Write(m.Return.b)
	return h.Sum64(), true
}

func (t *flowTable) get(key uint64) *member {
	if m := t.young[key]; m != nil {
		return m
	}
	m := t.old[key]
	if m != nil {
		t.put(key, m)
	}
	return m
}

func (t *flowTable) put(key uint64, m *member) {
	if len(t.young) >= maxFlows {
		t.old, t.young = t.young, make(map[uint64]*member, maxFlows)
	}
	t.young[key] = m
}

// flowSource is a channel that brings flows for a member.
type flowSource struct {
	from Terminal
	to   *member
}

// flowWatch counts a flowSource for as long as it is there.
type flowWatch struct {
	table *flowTable
	of    flowSource
}

// TerminalClosed implements Watcher.
func (w *flowWatch) TerminalClosed() {
	delete(w.table.watching, w.of)
	w.of.to.channels.Add(-1)
}

// count counts the channel that m came from among those of a member.
func (t *flowTable) count(s *Shard, m *Message, to *member) {
	from := s.FirstTerminal(m.Return)
	if from == nil {
		return
	}
	source := flowSource{from, to}
	if t.watching[source] != nil {
		return
	}
	w := &flowWatch{table: t, of: source}
	t.watching[source] = w
	to.channels.Add(1)
	from.Watch(w)
}

// flowTo returns where a message for a group goes: all of one flow to one member, and nowhere when that cannot be reached. nil for nowhere.
func (rs *Relays) flowTo(s *Shard, m *Message, n *relayName) *registration {
	table := rs.flows[s.id]
	key, isFlow := table.of(n.name, m)
	if isFlow {
		if to := table.get(key); to != nil {
			return to.current.Load()
		}
	}
	to := n.give()
	if to == nil {
		return nil
	}
	if isFlow {
		table.put(key, to)
		if n.among.Load() != nil {
			table.count(s, m, to)
		}
	}
	return to.current.Load()
}
