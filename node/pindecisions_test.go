package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/policy"
	"sallyport/project"
	"sallyport/routing"
	"sallyport/routing/rpc"
)

// pinsKept is a Store that keeps whom inlets expect.
type pinsKept struct {
	forgetful
	data       []byte
	err        error
	puts, gets int
}

func (s *pinsKept) PutPins(data []byte) error { s.data = data; s.puts++; return s.err }
func (s *pinsKept) Pins() ([]byte, error)     { s.gets++; return s.data, s.err }

// pinning is a node that was not started, with what it has said.
func pinning(store Store) *Node {
	n := &Node{access: newAccess(policy.NewSet()), events: &events{}, opts: Options{Store: store}}
	n.log = slog.New(&eventHandler{inner: slog.NewTextHandler(io.Discard, nil), to: n.events})
	n.pins.node = n
	return n
}

func pinAt(n *Node, inlet string) *pin {
	return &pin{pins: &n.pins, inlet: inlet, name: inlet + " /x", accept: "accept"}
}

// TestPinsAreKept: whom an inlet expects is known until somebody else is accepted, also where it cannot be kept, and after a restart if it can.
func TestPinsAreKept(t *testing.T) {
	for what, c := range map[string]struct {
		store Store
		kept  bool
	}{"kept": {&pinsKept{}, true}, "a store that has no place": {forgetful{}, false}, "a store that fails": {&pinsKept{err: errors.New("disk")}, false}} {
		n := pinning(c.store)
		at, beside := pinAt(n, "in"), pinAt(n, "in2")
		at.keep(ours)
		at.keep(theirs)
		if at.check(ours, nil) != nil || !errors.Is(at.check(theirs, nil), errPinned) || beside.check(theirs, nil) != nil {
			t.Errorf("%s: %v, %v, of another inlet %v", what, at.check(ours, nil), at.check(theirs, nil), beside.check(theirs, nil))
		}
		next := pinning(c.store)
		if err := pinAt(next, "in").check(theirs, nil); errors.Is(err, errPinned) != c.kept {
			t.Errorf("%s, after a restart: %v", what, err)
		}
		if s, ok := c.store.(*pinsKept); ok && (s.gets != 2 || s.puts != 1) {
			t.Errorf("%s: read %d times, written %d times", what, s.gets, s.puts)
		}
	}
	store := &pinsKept{}
	n := pinning(store)
	at := pinAt(n, "in")
	at.keep(ours)
	at.note(ours, true)
	if store.puts != 1 {
		t.Errorf("written %d times for one", store.puts)
	}
	at.note(theirs, true)
	if store.puts != 2 || at.check(theirs, nil) != nil || at.check(ours, nil) == nil {
		t.Errorf("written %d times, the other one is expected: %v", store.puts, at.check(theirs, nil))
	}
	at.shared(theirs, dbGroup)
	at.shared(theirs, dbGroup)
	if store.puts != 3 {
		t.Errorf("written %d times, with whom it shares its name", store.puts)
	}
	pinAt(pinning(store), "in").shared(theirs, dbGroup+" ") // by a node that was started again
	at.shared(theirs, "")
	pinAt(pinning(store), "in").shared(theirs, dbGroup)
	if store.puts != 6 {
		t.Errorf("written %d times, twice after a restart", store.puts)
	}
	var kept map[string]string
	if err := json.Unmarshal(store.data, &kept); err != nil || !maps.Equal(kept, map[string]string{"in /x": theirs.String(), sharePrefix + "in /x": dbGroup}) {
		t.Errorf("%v, %v", kept, err)
	}
}

// TestPinsThatCannotBeRead: it is said, once, and what can be read of them counts.
func TestPinsThatCannotBeRead(t *testing.T) {
	good := `"in /x": "` + ours.String() + `"`
	for what, c := range map[string]struct {
		store       pinsKept
		said, knows bool
	}{
		"nothing": {pinsKept{}, false, false}, "one": {pinsKept{data: []byte("{" + good + "}")}, false, true}, "junk": {pinsKept{data: []byte("junk")}, true, false},
		"one, and one that is none": {pinsKept{data: []byte("{" + good + `, "other /x": "nobody"}`)}, true, true},
		"a store that fails":        {pinsKept{data: []byte("{" + good + "}"), err: errors.New("disk")}, true, false},
	} {
		n := pinning(&c.store)
		at := pinAt(n, "in")
		first, second := at.check(theirs, nil), at.check(theirs, nil)
		if said := len(n.Events()); (first != nil) != c.knows || (second != nil) != c.knows || said != map[bool]int{true: 1}[c.said] {
			t.Errorf("%s: %v, %v, said %d times", what, first, second, said)
		}
	}
}

// TestAcceptAnother: an inlet goes on with who was refused last, or else with whoever answers next; not where the member's ticket names somebody. Other inlets
// expect whom they did.
func TestAcceptAnother(t *testing.T) {
	store := &pinsKept{}
	n := pinning(store)
	at, beside := pinAt(n, "in"), pinAt(n, "in2")
	accept := func(what, before, now string) {
		t.Helper()
		got, err := n.AcceptOutlet(t.Context(), "in")
		if err != nil || got.Name != "in" || got.Before != before || got.Now != now {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	if _, err := n.AcceptOutlet(t.Context(), "in"); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("nobody was there: %v", err)
	}
	at.keep(ours)
	beside.keep(ours)
	accept("nobody was refused", ours.String(), "")
	if at.check(theirs, nil) != nil || beside.check(theirs, nil) == nil {
		t.Error("whoever answers next is not believed, or at another inlet too")
	}
	at.keep(ours)
	for _, id := range []identity.Identifier{aMember, theirs} {
		if err := at.check(id, nil); !errors.Is(err, errPinned) {
			t.Errorf("%v", err)
		}
	}
	accept("the last that was refused", ours.String(), theirs.String())
	if at.check(theirs, nil) != nil || pinAt(pinning(store), "in").check(theirs, nil) != nil {
		t.Error("the accepted one is refused")
	}
	n.pins.mu.Lock()
	if _, left := n.pins.refused["in /x"]; left {
		t.Error("it counts as refused")
	}
	n.pins.mu.Unlock()
	accept("accepted again", theirs.String(), "")
	at.keep(theirs)
	if err := at.check(theirs, []identity.Identifier{ours, aMember}); !errors.Is(err, errExpected) {
		t.Errorf("whom the ticket does not name: %v", err)
	}
	if _, err := n.AcceptOutlet(t.Context(), "in"); !errors.Is(err, admin.ErrInvalid) {
		t.Errorf("against the ticket: %v", err)
	}
	if at.check(aMember, []identity.Identifier{ours, aMember}) != nil {
		t.Error("whom the ticket names is refused")
	}
	n = pinning(store) // what was kept is read first
	n.opts.Store, at = store, pinAt(n, "in")
	accept("after a restart", theirs.String(), "")
	store.err = errors.New("disk")
	at.keep(ours)
	if _, err := n.AcceptOutlet(t.Context(), "in"); !errors.Is(err, store.err) {
		t.Errorf("it cannot be kept: %v", err)
	}
}

// TestCommandsKnowWhomTheyAsked: who answered a command through a project is expected by the next one, unless somebody was named; what did not answer is not.
func TestCommandsKnowWhomTheyAsked(t *testing.T) {
	p := newProject(t, 0)
	relay := p.join(nil, "")
	bank, client := p.join(authority.Attributes{"ockam-relay": "bank"}, "p"), p.join(authority.Attributes{"side": "client"}, "p")
	p.know(client, relay)
	server := serverFunc(func(_ context.Context, req *rpc.Request) *rpc.Response { return rpc.NewResponse(req, rpc.OK, nil) })
	if err := bank.router.StartNamed(within(t), "svc", func(*routing.Shard) routing.Worker { return bank.rpcWorker("svc", server) }, bank.api.Flow, bank.main.Flow); err != nil {
		t.Fatal(err)
	}
	bank.serveAs("bank", "127.0.0.1:1", relay)
	to := mustRoute(t, "/project/p/service/forward_to_bank/secure/api/service/svc")
	known := func() (id identity.Identifier, ok bool) {
		client.pins.mu.Lock()
		defer client.pins.mu.Unlock()
		id, ok = client.pins.known[to.String()]
		return id, ok
	}
	req := rpc.NewRequest(rpc.Get, "/", nil)
	over, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := client.AskAt(over, mustRoute(t, "/project/p/service/forward_to_bank/secure/api/service/none"), req); err == nil {
		t.Error("a service that is not there answers")
	}
	client.pins.mu.Lock() // its handshake may go on
	n := len(client.pins.known)
	client.pins.mu.Unlock()
	if n != 0 {
		t.Errorf("%d are expected, and nobody has answered", n)
	}
	if _, err := client.AskAt(within(t), mustRoute(t, bank.route()+"/service/svc"), req); err != nil {
		t.Errorf("without a channel: %v", err)
	}
	if _, err := client.AskAt(within(t), to, req); err != nil {
		t.Fatal(err)
	}
	if id, ok := known(); !ok || id != bank.self {
		t.Errorf("%v, %v is expected", id, ok)
	}
	pinned := client.pinOfCommands(to)
	pinned.note(relay.self, true)
	if _, err := client.AskAt(within(t), to, req); !errors.Is(err, errPinned) {
		t.Errorf("another one than before: %v", err)
	}
	if _, err := client.AskAt(within(t), to, req, relay.self); err == nil {
		t.Error("another one than was named")
	}
	if _, err := client.AskAt(within(t), to, req, bank.self); err != nil {
		t.Error(err)
	}
	if id, _ := known(); id != bank.self {
		t.Errorf("%v is expected, not the one that was named", id)
	}
	// Whom the ticket names is expected anyway.
	stored, err := client.dir.Project("p")
	if err != nil {
		t.Fatal(err)
	}
	named := changed(*stored.Project, func(r *project.Project) { r.Expects = []string{bank.self.String()} })
	if err := client.dir.PutProject(within(t), &named); err != nil {
		t.Fatal(err)
	}
	pinned.note(relay.self, true)
	if _, err := client.AskAt(within(t), to, req); err != nil {
		t.Error(err)
	}
	if id, _ := known(); id != relay.self {
		t.Errorf("%v was noted beside the ticket", id)
	}
}
