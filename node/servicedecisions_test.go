package node

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/routing"
	"sallyport/routing/fair"
	"sallyport/routing/rpc"
)

// callers is a Server that notes who calls it, and never answers.
type callers chan *identity.Identifier

func (c callers) Serve(_ context.Context, caller *identity.Identifier, _ *rpc.Request) *rpc.Response {
	c <- caller
	return nil
}

// handed gives a worker a message on a shard, and returns how many have been dropped as malformed there by then.
func handed(t *testing.T, n *Node, w routing.Worker, peer *routing.Peer, back routing.Route, payload []byte) (malformed uint64) {
	t.Helper()
	s := n.router.Shards()[0]
	if err := s.Do(within(t), func() {
		m := s.NewMessage()
		m.SetRoutes(routing.LocalRoute("s"), back)
		m.SetPayloadBytes(payload)
		m.Peer = peer
		w.HandleMessage(s, m)
		s.Free(m)
		malformed = s.Drops.Malformed.Load()
	}); err != nil {
		t.Fatal(err)
	}
	return malformed
}

// TestServiceIsToldWhoCalls: a service hears the identity at the other end of the channel that a request came through, and of nobody if it came through none. What
// is no request, or leads to no answer, does not come to it.
func TestServiceIsToldWhoCalls(t *testing.T) {
	n := plainNode(t, "n", "127.0.0.1:0")
	calls := make(callers, 10)
	w := n.rpcWorker("s", calls)
	back, req := routing.LocalRoute("nobody"), rpc.NewRequest(rpc.Get, "/", nil).Encode()
	long := rpc.NewRequest(rpc.Post, "/", make([]byte, maxRequest)).Encode()
	dropped := handed(t, n, w, &routing.Peer{ID: aMember}, back, req)
	if got := <-calls; got == nil || *got != aMember {
		t.Errorf("called by %v", got)
	}
	if more := handed(t, n, w, nil, back, req); more != dropped {
		t.Errorf("%d dropped", more-dropped)
	}
	if got := <-calls; got != nil {
		t.Errorf("without a channel called by %v", got)
	}
	fits := rpc.NewRequest(rpc.Post, "/", make([]byte, maxRequest-(len(long)-maxRequest))).Encode()
	for len(fits) < maxRequest { // the header's length depends on the body's
		fits = append(fits, 0)
	}
	if more := handed(t, n, w, nil, back, fits); more != dropped {
		t.Errorf("one of %d bytes is dropped", len(fits))
	}
	<-calls
	for what, c := range map[string]struct {
		back    routing.Route
		payload []byte
	}{"no answer": {routing.Route{}, req}, "too long": {back, long}, "no request": {back, []byte("junk")}} {
		dropped++
		if now := handed(t, n, w, &routing.Peer{ID: aMember}, c.back, c.payload); now != dropped || len(calls) != 0 {
			t.Errorf("%s: %d dropped, %d calls", what, now, len(calls))
		}
	}
}

// TestWhoIsToldOfRevocations: who asks through a channel in so many words, and can be answered. There is a place for each way back, and for so many of them.
func TestWhoIsToldOfRevocations(t *testing.T) {
	p := newProject(t, 0)
	r := newNewsroom(p.Node, p.auth)
	r.places = fair.NewShares[string](2)
	peer := &routing.Peer{ID: aMember}
	query := func(q authority.Query) []byte { return rpc.NewRequest(rpc.Get, "/", q.Encode()).Encode() }
	req := query(authority.Query{List: []byte("list"), Since: 3, Beats: true})
	dropped := handed(t, p.Node, r, peer, routing.LocalRoute("one"), req)
	if sub := r.subscribers[routing.LocalRoute("one").String()]; sub == nil || sub.query.Since != 3 || !sub.query.Beats || sub.re == nil || time.Until(sub.until) < subscription/2 {
		t.Errorf("%+v", sub)
	}
	for what, c := range map[string]struct {
		peer    *routing.Peer
		back    routing.Route
		payload []byte
	}{
		"no channel": {nil, routing.LocalRoute("two"), req}, "no way back": {peer, routing.Route{}, req}, "no request": {peer, routing.LocalRoute("two"), []byte("junk")},
		"no query": {peer, routing.LocalRoute("two"), rpc.NewRequest(rpc.Get, "/", []byte("junk")).Encode()},
		"too long": {peer, routing.LocalRoute("two"), query(authority.Query{List: bytes.Repeat([]byte{1}, 1024)})},
	} {
		dropped++
		if now := handed(t, p.Node, r, c.peer, c.back, c.payload); now != dropped || len(r.subscribers) != 1 {
			t.Errorf("%s: %d dropped, %d are told", what, now, len(r.subscribers))
		}
	}
	if now := handed(t, p.Node, r, peer, routing.LocalRoute("one"), query(authority.Query{Since: 4})); now != dropped || len(r.subscribers) != 1 {
		t.Errorf("again: %d dropped, %d are told", now, len(r.subscribers))
	}
	if sub := r.subscribers[routing.LocalRoute("one").String()]; sub.query.Since != 4 || sub.query.Beats {
		t.Errorf("%+v", sub.query)
	}
	for _, name := range []string{"two", "three", "four"} {
		handed(t, p.Node, r, peer, routing.LocalRoute(name), req)
		if k := len(r.subscribers); k != 2 || r.subscribers[routing.LocalRoute(name).String()] == nil {
			t.Errorf("%s: %d are told", name, k)
		}
	}
	if r.beat() != newsBeat {
		t.Errorf("a beat of %v", r.beat())
	}
	r.mu.Lock() // who asked is still being told
	for k := range 2*beatsPerSecond + 8 {
		r.subscribers[fmt.Sprint(k)] = &subscriber{}
	}
	r.mu.Unlock()
	if b := r.beat(); b != 2*time.Second+5*time.Millisecond {
		t.Errorf("a beat of %v for %d", b, len(r.subscribers))
	}
}

// TestProcessGoesOn: the next program is known by what the one before was, so that nobody takes its connections for those of a process that has ended; without
// that, and where it is none, by another one than before.
func TestProcessGoesOn(t *testing.T) {
	ids, self := newIdentities(t)
	process := bytes.Repeat([]byte{7}, 32)
	seen := map[[32]byte]bool{}
	for _, carried := range []*Carried{{Format: StateFormat, Process: process}, {Format: StateFormat, Process: process[:31]}, {Format: StateFormat}, nil} {
		n, err := Start(t.Context(), Options{Name: "n", Self: self, Identities: ids, Store: forgetful{}, Listen: "127.0.0.1:0", Shards: 1, Log: testLog, Upgrade: UpgradeOptions{Carried: carried}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Stop)
		got := n.portals.Process
		if same := bytes.Equal(got[:], process); same != (carried != nil && len(carried.Process) == 32) || seen[got] {
			t.Errorf("%+v: it is known as %x", carried, got)
		}
		seen[got] = true
	}
}
