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
