package routing_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/dataplane"
	"sallyport/routing"
	"sallyport/routing/bare"
	"sallyport/routing/registrytest"
	"sallyport/routing/routertest"
)

// station is a relay of a fleet within a test.
type station struct {
	t      *testing.T
	id     string
	router *routing.Router
	flow   *routing.Flow // of its listener
	relays *routing.Relays
	part   *registrytest.Registry
	blind  *blindRegistry
}

// blindRegistry is a registry that may not have heard yet of what others have told it.
type blindRegistry struct {
	*registrytest.Registry
	blind   atomic.Bool
	changed atomic.Pointer[func(string)]
	asked   atomic.Int64                  // how often Look was called
	answers atomic.Pointer[chan struct{}] // Look waits until it is closed; may be nil
	told    atomic.Pointer[chan func()]   // takes what Told is to call; may be nil
}

func (r *blindRegistry) Watch(ctx context.Context, changed func(string)) {
	r.changed.Store(&changed)
	r.Registry.Watch(ctx, changed)
}

// Look has it hear.
func (r *blindRegistry) Look(ctx context.Context, names []string) {
	r.asked.Add(1)
	if answers := r.answers.Load(); answers != nil {
		<-*answers
	}
	r.blind.Store(false)
	for _, name := range names {
		(*r.changed.Load())(name)
	}
}

func (r *blindRegistry) Told(name string, then func()) {
	if held := r.told.Load(); held != nil {
		*held <- then
		return
	}
	r.Registry.Told(name, then)
}

func (r *blindRegistry) Members(name string) []routing.RemoteMember {
	if r.blind.Load() {
		return nil
	}
	return r.Registry.Members(name)
}

func (r *blindRegistry) Names() []string {
	if r.blind.Load() {
		return nil
	}
	return r.Registry.Names()
}

func (r *blindRegistry) Owner(name string) (routing.Ownership, bool) {
	if r.blind.Load() {
		return routing.Ownership{}, false
	}
	return r.Registry.Owner(name)
}

// fleetIdentity is that of all relays of a test's fleet.
var fleetIdentity = [32]byte{0xf1}

// network is the relays of a test and the ways between them.
type network struct {
	t        *testing.T
	shared   registrytest.Shared
	mu       sync.Mutex
	stations map[string]*station
	cut      map[string]chan struct{} // ends the ways from a relay to another one; by both IDs
	identity [32]byte                 // that relays show each other
	sent     int                      // messages between relays
}

func newNetwork(t *testing.T, ids ...string) *network {
	t.Helper()
	n := &network{t: t, stations: map[string]*station{}, cut: map[string]chan struct{}{}, identity: fleetIdentity}
	for _, id := range ids {
		n.add(id)
	}
	return n
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (n *network) add(id string) *station {
	n.t.Helper()
	log := slog.New(slog.DiscardHandler)
	s := &station{t: n.t, id: id, flow: routing.NewFlow()}
	s.router = routertest.New(n.t, 2, log)
	var err error
	n.mu.Lock()
	n.stations[id] = s
	n.mu.Unlock()
	self := routing.RelayNode{ID: id, Address: "/ip4/127.0.0.1/tcp/1"}
	s.part = n.shared.Join(self)
	s.blind = &blindRegistry{Registry: s.part}
	s.relays, err = routing.NewRelays(bounded(n.t), s.router, routing.RelayOptions{
		Flows: []*routing.Flow{s.flow}, Log: log,
		Shares: func(_ string, _ [32]byte, share string, joiner [32]byte) bool {
			return share == fmt.Sprint("with ", joiner[0])
		},
		Fleet: &routing.Fleet{Registry: s.blind, Self: self, Identity: fleetIdentity, Dial: func(ctx context.Context, to routing.RelayNode) (routing.Link, error) {
			return n.dial(ctx, id, to.ID)
		}},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(s.relays.Close)
	return s
}

// dial makes a way from one relay to another, as a channel is: what goes in here comes out there from whoever is at its other end.
func (n *network) dial(ctx context.Context, from, to string) (routing.Link, error) {
	n.mu.Lock()
	a, b := n.stations[from], n.stations[to]
	identity := n.identity
	n.mu.Unlock()
	if a == nil || b == nil {
		return routing.Link{}, fmt.Errorf("no relay %s", to)
	}
	end := make(chan struct{})
	n.mu.Lock()
	n.cut[from+to] = end
	n.mu.Unlock()
	near := &link{network: n, peer: &routing.Peer{ID: fleetIdentity}, producer: routing.Producer{Own: routing.NewFlow()}}
	far := &link{network: n, peer: &routing.Peer{ID: identity}, producer: routing.Producer{Own: routing.NewFlow(), Spawner: b.flow}}
	near.other, far.other = far, near
	near.shard, far.shard = a.router.Shards()[0], b.router.Shards()[1]
	for _, e := range []*link{near, far} {
		if err := e.shard.Do(ctx, func() { e.address = e.shard.Start(e) }); err != nil {
			return routing.Link{}, err
		}
	}
	return routing.Link{Route: routing.RouteOf(near.address), Done: end, Close: func() {
		_ = near.shard.Do(context.WithoutCancel(ctx), func() { near.shard.Stop(near.address); near.Tell() })
	}}, nil
}

// lose ends the way from one relay to another; another one is made.
func (n *network) lose(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.cut[from+to])
}

// link is one end of a way between relays.
type link struct {
	routing.Watchers
	network  *network
	other    *link
	shard    *routing.Shard
	address  routing.WireAddress
	peer     *routing.Peer
	producer routing.Producer
}

func (e *link) TerminalPeer() *routing.Peer         { return e.peer }
func (e *link) TerminalProducer() *routing.Producer { return &e.producer }

// HandleMessage takes a message to the other end.
func (e *link) HandleMessage(_ *routing.Shard, m *routing.Message) {
	m.PopOnward()
	onward, ret, payload := m.Onward.Clone(), m.Return.Clone(), slices.Clone(m.Payload())
	e.network.mu.Lock()
	e.network.sent++
	e.network.mu.Unlock()
	o := e.other
	o.shard.Loop().Post(dataplane.TaskFunc(func() {
		in := o.shard.NewMessage()
		in.SetRoutes(onward, ret)
		in.Peer = o.peer
		in.PushReturn(o.address)
		in.SetPayloadBytes(payload)
		in.SetProducer(&o.producer)
		o.shard.Deliver(in)
		o.shard.Free(in)
	}))
}

// guest is a node at a relay: a member, or who uses a name.
type guest struct {
	routing.Watchers
	at       *station
	shard    *routing.Shard
	address  routing.WireAddress
	peer     *routing.Peer
	producer routing.Producer
	got      chan routing.Reply
}

func (g *guest) TerminalPeer() *routing.Peer         { return g.peer }
func (g *guest) TerminalProducer() *routing.Producer { return &g.producer }
func (g *guest) HandleMessage(_ *routing.Shard, m *routing.Message) {
	m.PopOnward()
	g.got <- routing.Reply{Onward: m.Onward.Clone(), Return: m.Return.Clone(), Payload: slices.Clone(m.Payload())}
}

func (s *station) guest(id byte) *guest {
	s.t.Helper()
	g := &guest{at: s, shard: s.router.Shards()[int(id)%2], peer: &routing.Peer{ID: [32]byte{id}}, got: make(chan routing.Reply, 100),
		producer: routing.Producer{Own: routing.NewFlow(), Spawner: s.flow}}
	if err := g.shard.Do(bounded(s.t), func() { g.address = g.shard.Start(g) }); err != nil {
		s.t.Fatal(err)
	}
	return g
}

func (g *guest) send(onward, ret routing.Route, payload string) {
	if err := g.shard.Do(bounded(g.at.t), func() {
		m := g.shard.NewMessage()
		m.SetRoutes(onward, ret)
		m.Peer = g.peer
		m.PushReturn(g.address)
		m.SetPayloadBytes([]byte(payload))
		m.SetProducer(&g.producer)
		g.shard.Deliver(m)
		g.shard.Free(m)
	}); err != nil {
		g.at.t.Fatal(err)
	}
}

func (g *guest) receive() routing.Reply {
	g.at.t.Helper()
	select {
	case r := <-g.got:
		return r
	case <-time.After(90 * time.Second):
		g.at.t.Fatal("nothing came")
		return routing.Reply{}
	}
}

// reaches sends to a name until o has it: what finds nobody, since the relay has just begun to know the name, is answered, and sent again as another flow; so is what was lost with a way.
func (g *guest) reaches(o *guest, name, payload string) routing.Reply {
	g.at.t.Helper()
	mark := fmt.Sprint(" ", rand.Uint64()) // what was sent again may come twice, the second time for a later call
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); {
		g.send(routing.LocalRoute("forward_to_"+name, "api"), routing.LocalRoute(fmt.Sprint("flow ", rand.Uint64())), payload+mark)
		select {
		case m := <-o.got:
			if text, ok := bytes.CutSuffix(m.Payload, []byte(mark)); ok {
				m.Payload = text
				return m
			}
		case m := <-g.got:
			if n, ok := routing.ParseNotice(m.Payload); !ok || n.Kind != routing.NoticeAbsent {
				g.at.t.Fatalf("%q came back", m.Payload)
			}
		case <-time.After(time.Second): // it was on a way that has just ended
		}
	}
	g.at.t.Fatal("not in time: " + name)
	return routing.Reply{}
}

// registers registers on terms, or plainly without.
func (g *guest) registers(name string, terms *routing.Terms) (refused routing.NoticeKind) {
	g.at.t.Helper()
	if terms == nil {
		g.send(routing.LocalRoute(routing.StaticRelayService), routing.LocalRoute("rr"), string(bare.AppendString(nil, name)))
		if n, ok := routing.ParseNotice(g.receive().Payload); ok {
			return n.Kind
		}
		return 0
	}
	done := make(chan routing.NoticeKind, 1)
	if err := g.at.relays.Register(g.shard, g.address.Text(), g.peer.ID, name, *terms, func(_ routing.RelayState, k routing.NoticeKind) { done <- k }); err != nil {
		g.at.t.Fatal(err)
	}
	select {
	case k := <-done:
		return k
	case <-time.After(90 * time.Second):
		g.at.t.Fatal("not answered")
		return 0
	}
}

// leaves ends the guest's way.
func (g *guest) leaves() {
	if err := g.shard.Do(bounded(g.at.t), func() { g.shard.Stop(g.address); g.Tell() }); err != nil {
		g.at.t.Fatal(err)
	}
}

func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// members waits until a relay knows so many members of a name that can be reached.
func (s *station) members(name string, count int) {
	s.t.Helper()
	soon(s.t, fmt.Sprintf("%d members of %s at %s", count, name, s.id), func() bool {
		up := 0
		for _, m := range s.relays.Members(name) {
			if m.Up {
				up++
			}
		}
		return up == count
	})
}

// TestFleetPassesOn: a name that is registered at one relay is reached through another, both ways and by what comes after; what was passed on is not passed on again, and
// only relays of the fleet pass on.
func TestFleetPassesOn(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	a, b, c := n.stations["a"], n.stations["b"], n.stations["c"]
	outlet, inlet := a.guest(1), b.guest(2)
	if k := outlet.registers("n", nil); k != 0 {
		t.Fatal(k)
	}
	b.members("n", 1)
	c.members("n", 1)
	m := inlet.reaches(outlet, "n", "first")
	if string(m.Payload) != "first" || !m.Onward.Equal(routing.LocalRoute("api")) || m.Return.Len() != 3 {
		t.Fatalf("%q to %s from %s", m.Payload, m.Onward, m.Return)
	}
	outlet.send(m.Return, routing.LocalRoute("ch"), "second")
	back := inlet.receive()
	if string(back.Payload) != "second" || back.Onward.Len() != 1 || back.Return.Len() != 3 {
		t.Fatalf("%q to %s from %s", back.Payload, back.Onward, back.Return)
	}
	inlet.send(back.Return, routing.LocalRoute("hs"), "third")
	if m := outlet.receive(); string(m.Payload) != "third" || !m.Onward.Equal(routing.LocalRoute("ch")) {
		t.Fatalf("%q to %s", m.Payload, m.Onward)
	}

	// To the worker between relays, by somebody else.
	tag := ""
	soon(t, "the way there", func() bool {
		list := b.relays.Members("n")
		if len(list) == 1 && list[0].Relay == "a" {
			tag = list[0].Tag
		}
		return tag != ""
	})
	local := routing.LocalRoute("relay_local", "forward_to_n~"+tag, "api")
	a.guest(3).send(local, routing.LocalRoute("x"), "by a stranger")
	before := n.messages()
	from := b.guest(fleetIdentity[0]) // as another relay would be, at one where nobody is registered
	from.send(local, routing.LocalRoute("x"), "passed on already")
	if notice, ok := routing.ParseNotice(from.receive().Payload); !ok || notice.Kind != routing.NoticeAbsent {
		t.Errorf("%+v", notice)
	}
	if n.messages() != before {
		t.Error("what was passed on is passed on again")
	}
	relay := a.guest(fleetIdentity[0])
	for _, bad := range []routing.Route{routing.LocalRoute("relay_local"), routing.LocalRoute("relay_local", "forward_to_n", "api"), routing.LocalRoute("relay_local", "echo"),
		routing.NewRoute(routing.LocalAddress("relay_local"), routing.Address{Type: 1, Value: "forward_to_n~" + tag})} {
		relay.send(bad, routing.LocalRoute("x"), "malformed")
	}
	relay.send(local, routing.LocalRoute("x"), "by a relay")
	if m := outlet.receive(); string(m.Payload) != "by a relay" {
		t.Errorf("got %q", m.Payload)
	}

	// A way between relays ends, and another one is made.
	n.lose("b", "a")
	b.members("n", 1)
	if m := inlet.reaches(outlet, "n", "again"); string(m.Payload) != "again" {
		t.Errorf("got %q", m.Payload)
	}
	outlet.leaves()
	b.members("n", 0)
	soon(t, "the name is gone everywhere", func() bool { return len(b.relays.Names())+len(c.relays.Names()) == 0 })
}

func (n *network) messages() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

// TestFleetOwnership: whose a name is counts at every relay, and while the registry is away too; a name that nobody knows is refused then.
func TestFleetOwnership(t *testing.T) {
	n := newNetwork(t, "a", "b")
	a, b := n.stations["a"], n.stations["b"]
	owner := a.guest(1)
	if k := owner.registers("n", &routing.Terms{Member: routing.MemberID{1}, Share: "with 2"}); k != 0 {
		t.Fatal(k)
	}
	b.members("n", 1)
	cases := func(what string, fresh routing.NoticeKind) {
		t.Helper()
		for _, c := range []struct {
			id    byte
			name  string
			terms *routing.Terms
			want  routing.NoticeKind
		}{
			{2, "n", &routing.Terms{}, 0}, {2, "n", nil, 0}, {1, "n", nil, 0}, {3, "n", &routing.Terms{Share: "with 3"}, routing.NoticeHeld}, {3, "n", nil, routing.NoticeHeld},
			{3, "of nobody " + what, nil, fresh},
		} {
			g := b.guest(c.id)
			if got := g.registers(c.name, c.terms); got != c.want {
				t.Errorf("%s: %d registers %s: %v, want %v", what, c.id, c.name, got, c.want)
			}
			g.leaves()
		}
	}
	cases("with the registry", 0)
	b.members("n", 1)
	n.shared.SetAway(true)
	cases("without it", routing.NoticeFull)
	inlet := b.guest(9)
	if m := inlet.reaches(owner, "n", "goes on"); string(m.Payload) != "goes on" {
		t.Errorf("got %q", m.Payload)
	}
	n.shared.SetAway(false)
	cases("with it again", 0)
	if k := owner.registers("n", &routing.Terms{Member: routing.MemberID{1}, Share: "with 3"}); k != 0 {
		t.Fatal(k)
	}
	soon(t, "the owner's other terms count elsewhere", func() bool {
		g := b.guest(3)
		defer g.leaves()
		return g.registers("n", nil) == 0
	})
}

// TestFleetClaims: a relay that has not heard yet whose a name is asks the registry before it gives it away, and decides by the owner's terms.
func TestFleetClaims(t *testing.T) {
	n := newNetwork(t, "a", "b")
	a, b := n.stations["a"], n.stations["b"]
	b.blind.blind.Store(true)
	if k := a.guest(1).registers("n", &routing.Terms{Member: routing.MemberID{1}, Share: "with 2"}); k != 0 {
		t.Fatal(k)
	}
	soon(t, "told to the registry", func() bool { return len(b.part.Members("n")) == 1 })
	for _, c := range []struct {
		id   byte
		want routing.NoticeKind
	}{{3, routing.NoticeHeld}, {2, 0}, {1, 0}} {
		g := b.guest(c.id)
		if got := g.registers("n", nil); got != c.want {
			t.Errorf("%d registers: %v, want %v", c.id, got, c.want)
		}
		g.leaves()
		soon(t, "gone", func() bool { return len(b.relays.Names()) == 0 })
	}
}

// TestFleetGroup: members at several relays are one group: the lowest number that can be reached gets new flows, wherever they begin.
func TestFleetGroup(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	a, b, c := n.stations["a"], n.stations["b"], n.stations["c"]
	first, second := a.guest(1), b.guest(2)
	if k := first.registers("n", &routing.Terms{Member: routing.MemberID{1}, Share: "with 2", Rule: routing.RuleFailover}); k != 0 {
		t.Fatal(k)
	}
	b.members("n", 1)
	if k := second.registers("n", &routing.Terms{Member: routing.MemberID{2}, Priority: 10}); k != 0 {
		t.Fatal(k)
	}
	goes := func(want *guest, why string) {
		t.Helper()
		for _, s := range []*station{a, b, c} {
			if m := s.guest(8).reaches(want, "n", why); string(m.Payload) != why {
				t.Errorf("got %q", m.Payload)
			}
		}
	}
	for _, s := range []*station{a, b, c} {
		s.members("n", 2)
	}
	goes(first, "both are there")
	if k := first.registers("n", &routing.Terms{Member: routing.MemberID{1}, Share: "with 2", Rule: routing.RuleFailover, Down: true}); k != 0 {
		t.Fatal(k)
	}
	for _, s := range []*station{a, b, c} {
		soon(t, "known to be down at "+s.id, func() bool {
			return slices.ContainsFunc(s.relays.Members("n"), func(m routing.MemberState) bool { return m.Down })
		})
	}
	goes(second, "the target of the first is down")
	second.leaves()
	for _, s := range []*station{a, b, c} {
		s.members("n", 1)
	}
	goes(first, "nobody else is there")
	n.shared.Leave(a.part)
	for _, s := range []*station{b, c} {
		s.members("n", 0)
	}
}

// TestFleetProperty: wherever names are registered, whoever asks at whatever relay reaches the one that has it, over at most one other relay.
func TestFleetProperty(t *testing.T) {
	n := newNetwork(t, "a", "b", "c")
	all := []*station{n.stations["a"], n.stations["b"], n.stations["c"]}
	rng := rand.New(rand.NewPCG(7, 7))
	outlets := map[string]*guest{}
	at := map[string]*station{}
	for i := range 30 {
		name := fmt.Sprint("name", i)
		at[name] = all[rng.IntN(3)]
		outlets[name] = at[name].guest(byte(i + 1))
		if k := outlets[name].registers(name, nil); k != 0 {
			t.Fatal(k)
		}
	}
	for _, s := range all {
		soon(t, "all names", func() bool { return len(s.relays.Names()) == 30 })
	}
	for name, o := range outlets { // until each is known everywhere
		for _, s := range all {
			s.guest(250).reaches(o, name, "known")
		}
	}
	users := []*guest{all[0].guest(200), all[1].guest(201), all[2].guest(202)}
	for i := range 200 {
		name, k := fmt.Sprint("name", rng.IntN(30)), rng.IntN(3)
		all[k].members(name, 1)
		before := n.messages()
		users[k].send(routing.LocalRoute("forward_to_"+name, "api"), routing.LocalRoute(fmt.Sprint("f", i)), name)
		if m := outlets[name].receive(); string(m.Payload) != name {
			t.Fatalf("%s got %q", name, m.Payload)
		}
		want := 1
		if at[name] == all[k] {
			want = 0
		}
		if got := n.messages() - before; got != want {
			t.Errorf("%d messages between relays, want %d", got, want)
		}
	}
}

// TestNameJustRegistered: a message for a name that another relay has, of which this one has not heard yet, is delivered; one for a name that nobody has is answered when the registry was asked.
func TestNameJustRegistered(t *testing.T) {
	n := newNetwork(t, "a", "b")
	a, b := n.stations["a"], n.stations["b"]
	outlet, inlet := a.guest(1), b.guest(2)
	warm := a.guest(3) // until there is a way between the relays
	if k := warm.registers("warm", nil); k != 0 {
		t.Fatal(k)
	}
	b.members("warm", 1)
	for _, name := range []string{"x", "y", "z"} {
		b.blind.blind.Store(true)
		if k := outlet.registers(name, nil); k != 0 {
			t.Fatal(k)
		}
		asked := b.blind.asked.Load()
		inlet.send(routing.LocalRoute("forward_to_"+name, "api"), routing.LocalRoute("flow "+name), "hello")
		select {
		case m := <-outlet.got:
			if string(m.Payload) != "hello" || !m.Onward.Equal(routing.LocalRoute("api")) {
				t.Errorf("%s: %q to %s", name, m.Payload, m.Onward)
			}
		case m := <-inlet.got:
			t.Errorf("%s: %q came back", name, m.Payload)
		case <-time.After(90 * time.Second):
			t.Fatal("nothing came")
		}
		if got := b.blind.asked.Load(); got != asked+1 {
			t.Errorf("%s: the registry was asked %d times", name, got-asked)
		}
	}
	inlet.send(routing.LocalRoute("forward_to_none", "api"), routing.LocalRoute("flow none"), "hello")
	if m, ok := routing.ParseNotice(inlet.receive().Payload); !ok || m.Kind != routing.NoticeAbsent || m.Name != "none" {
		t.Errorf("%+v", m)
	}
	b.blind.blind.Store(true)
	if k := outlet.registers("found", nil); k != 0 {
		t.Fatal(k)
	}
	for name, want := range map[string]bool{"found": true, "none": false} {
		found := make(chan routing.RelayState, 1)
		b.relays.Find(name, [32]byte{9}, func(st routing.RelayState) { found <- st })
		if st := <-found; (st.ID != 0) != want {
			t.Errorf("%s: %+v", name, st)
		}
	}
}

// TestRegistryIsNotFlooded: however many messages come for names that nobody has, the registry is asked for all together, and who sends most of them leaves places to others.
func TestRegistryIsNotFlooded(t *testing.T) {
	n := newNetwork(t, "a", "b")
	b := n.stations["b"]
	flood, other := b.guest(1), b.guest(2)
	flood.got = make(chan routing.Reply, 10_000)
	answers := make(chan struct{})
	b.blind.answers.Store(&answers)
	const count = 2000
	for i := range count {
		flood.send(routing.LocalRoute(fmt.Sprint("forward_to_none", i), "api"), routing.LocalRoute("flow"), "hello")
	}
	soon(t, "most are answered at once", func() bool { return len(flood.got) >= count-256 })
	time.Sleep(10 * time.Millisecond)
	at := len(flood.got)
	if at > count-100 {
		t.Errorf("%d of %d were answered though the registry was not", at, count)
	}
	other.send(routing.LocalRoute("forward_to_nobody", "api"), routing.LocalRoute("flow"), "hello")
	other.send(routing.LocalRoute("forward_to_nobody", "api"), routing.LocalRoute("flow"), string(make([]byte, 5000)))
	other.receive() // the second one is too large to be kept
	time.Sleep(10 * time.Millisecond)
	if len(other.got) != 0 {
		t.Error("who sends one message is answered though the registry was not asked")
	}
	asked := b.blind.asked.Load()
	close(answers)
	other.receive()
	soon(t, "all are answered", func() bool { return len(flood.got) == count })
	if more := b.blind.asked.Load() - asked; asked > 1 || more > 3 {
		t.Errorf("the registry was asked %d times, and %d times later", asked, more)
	}
}

// TestAnsweredWhenTold: a registration is answered when the registry was told of it, and not much later where that is slow.
func TestAnsweredWhenTold(t *testing.T) {
	n := newNetwork(t, "a")
	a := n.stations["a"]
	held := make(chan func(), 10)
	a.blind.told.Store(&held)
	for i, terms := range []*routing.Terms{nil, {Member: routing.MemberID{1}}} {
		name, answered := fmt.Sprint("n", i), make(chan routing.NoticeKind, 1)
		g := a.guest(byte(i + 1))
		go func() { answered <- g.registers(name, terms) }()
		then := <-held
		select {
		case <-answered:
			t.Errorf("%s: answered before the registry was told", name)
		case <-time.After(50 * time.Millisecond):
		}
		if len(a.part.Members(name)) != 0 || len(a.relays.Members(name)) != 1 {
			t.Errorf("%s: not registered", name)
		}
		if i == 0 {
			then()
		} // else it stays untold
		if k := <-answered; k != 0 {
			t.Error(k)
		}
	}
}
