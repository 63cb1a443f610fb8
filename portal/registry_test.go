package portal

import "testing"

// TestLaterOfferWins: of two connections that were begun for one client the one that was offered later stays, in whatever order their
// targets answer, and nobody else's takes its place.
func TestLaterOfferWins(t *testing.T) {
	begun := func(offers uint64, peer byte) *conn {
		return &conn{line: &lifeline{id: token{1}, offers: offers}, peer: [32]byte{peer}}
	}
	var r registry
	first, second := begun(0, 1), begun(1, 1)
	for _, x := range []struct {
		what   string
		c      *conn
		before *conn
		ok     bool
	}{
		{"the second", second, nil, true},
		{"the first, whose target answered later", first, nil, false},
		{"another identity's", begun(2, 2), nil, false},
		{"the third", begun(2, 1), second, true},
	} {
		if before, ok := r.add(x.c); before != x.before || ok != x.ok {
			t.Errorf("%s: %v, %v", x.what, before != nil, ok)
		}
	}
}

// TestEndedIsNotAway: a connection that ends while its path is away is not counted among its peer's for longer.
func TestEndedIsNotAway(t *testing.T) {
	var r registry
	peer := [32]byte{1}
	var list []*conn
	for i := range 3 {
		c := &conn{line: &lifeline{id: token{byte(i + 1)}}, peer: peer}
		r.add(c)
		r.left(c)
		list = append(list, c)
	}
	for i, c := range list {
		if n := len(r.away[peer]); n != 3-i {
			t.Errorf("%d are away after %d have ended", n, i)
		}
		r.remove(c)
	}
	if len(r.away) != 0 || len(r.conns) != 0 {
		t.Errorf("%d peers and %d connections are left of those that have ended", len(r.away), len(r.conns))
	}
}

// TestProcesses: of all outlets' connections those of another process of the same node are found, of that peer alone, and nothing is left of those that
// have ended.
func TestProcesses(t *testing.T) {
	var rs registries
	peer, other := [32]byte{1}, [32]byte{2}
	process := func(node, number byte) [32]byte { return [32]byte{node, 16: number} }
	number := byte(0)
	begin := func(outlet string, peer, process [32]byte) *conn {
		number++
		c := &conn{line: &lifeline{id: token{number}, process: process}, peer: peer}
		rs.take(outlet).add(c)
		return c
	}
	a, b := begin("a", peer, process(1, 1)), begin("b", peer, process(1, 1))
	next := begin("a", peer, process(1, 2))
	strangers, silent, elsewhere := begin("a", other, process(1, 1)), begin("a", peer, [32]byte{}), begin("b", peer, process(2, 1))
	find := func(process [32]byte) map[*conn]bool {
		found := map[*conn]bool{}
		for _, c := range rs.processes.before(process, &peer) {
			found[c] = true
		}
		return found
	}
	if found := find(process(1, 2)); len(found) != 2 || !found[a] || !found[b] {
		t.Errorf("%d are of processes before the second one", len(found))
	}
	if found := find(process(1, 3)); len(found) != 3 || !found[next] {
		t.Errorf("%d are of processes before the third one", len(found))
	}
	for _, none := range [][32]byte{{}, process(2, 1), process(3, 1)} {
		if found := find(none); len(found) != 0 {
			t.Errorf("%d are of processes before %x", len(found), none)
		}
	}
	rs.byName["a"].remove(a)
	if found := find(process(1, 2)); len(found) != 1 || !found[b] {
		t.Errorf("%d are left when one has ended", len(found))
	}
	for _, c := range []*conn{a, b, next, strangers, silent, elsewhere} {
		rs.byName["a"].remove(c)
	}
	if len(rs.processes.nodes) != 0 {
		t.Errorf("%d nodes are left of connections that have ended", len(rs.processes.nodes))
	}
}
