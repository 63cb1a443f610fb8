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
