package node

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/policy"
	"sallyport/routing"
	"sallyport/routing/control"
)

// questions is a channel to a node, over which its control service is asked.
type questions struct {
	t *testing.T
	n *Node
	c *connection
}

func questionsTo(t *testing.T, n *Node, route string, o connectOptions) *questions {
	t.Helper()
	o.self = n.opts.Self
	c, err := n.connect(within(t), mustRoute(t, route), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return &questions{t, n, c}
}

func (a *questions) ask(op control.Op, f control.Fields) control.Message {
	a.t.Helper()
	m, err := a.n.askNode(within(a.t), a.c, op, f)
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

func (a *questions) says(what string, op control.Op, f control.Fields, want control.Status) control.Message {
	a.t.Helper()
	m := a.ask(op, f)
	if got := control.Status(m.Code); got != want {
		a.t.Errorf("%s: %v, want %v", what, got, want)
	}
	return m
}

// TestRegisteredOnTerms: who registers at a relay over a channel has the name, on its terms, and no other identity does unless the owner shares it; what is
// nonsense is refused. Everybody hears who the members are.
func TestRegisteredOnTerms(t *testing.T) {
	relay, one, two, three := plainNode(t, "relay", "127.0.0.1:0"), plainNode(t, "one", "127.0.0.1:0"), plainNode(t, "two", "127.0.0.1:0"), plainNode(t, "three", "127.0.0.1:0")
	to := tcpRoute(t, relay) + "/secure/api"
	owner, member, stranger := questionsTo(t, one, to, connectOptions{}), questionsTo(t, two, to, connectOptions{}), questionsTo(t, three, to, connectOptions{})
	id := [16]byte{1, 2, 3}
	terms := control.Fields{
		Name: "db", Data: id[:], Priority: 5000, Rule: uint64(routing.RuleFailover), Share: `(= subject.identifier "` + two.opts.Self.String() + `")`, Connections: 7, State: control.StateDown,
	}
	stranger.says("nobody", control.OpGroup, control.Fields{Name: "db"}, control.StatusAbsent)
	nonsense := terms
	nonsense.Share = "(no policy"
	owner.says("shared by nonsense", control.OpRegister, nonsense, control.StatusMalformed)
	nonsense = terms
	nonsense.Rule = 300
	owner.says("a rule that there is not", control.OpRegister, nonsense, control.StatusMalformed)
	nonsense = terms
	nonsense.Name = ""
	owner.says("no name", control.OpRegister, nonsense, control.StatusMalformed)
	stranger.says("still nobody", control.OpGroup, control.Fields{Name: "db"}, control.StatusAbsent)

	if m := owner.says("the first", control.OpRegister, terms, control.StatusOK); m.Registration == 0 || m.Count != 1 || m.Rule != uint64(routing.RuleFailover) {
		t.Errorf("%+v", m)
	}
	joins := control.Fields{Name: "db", Data: make([]byte, 16), Priority: 10, State: control.StateUp}
	stranger.says("who shares nothing", control.OpRegister, joins, control.StatusHeld)
	stranger.says("who has not the name", control.OpHeld, control.Fields{Name: "db"}, control.StatusAbsent)
	if m := member.says("who shares it", control.OpRegister, joins, control.StatusOK); m.Count != 2 {
		t.Errorf("%+v", m)
	}
	member.says("who has the name", control.OpHeld, control.Fields{Name: "db"}, control.StatusOK)
	member.says("another name", control.OpHeld, control.Fields{Name: "other"}, control.StatusAbsent)
	m := stranger.says("both", control.OpGroup, control.Fields{Name: "db"}, control.StatusOK)
	if m.Count != 2 || len(m.Members) != 2 || m.Rule != uint64(routing.RuleFailover) || m.Way == "" {
		t.Fatalf("%+v", m)
	}
	for _, g := range m.Members {
		first := g.Identity == [32]byte(one.opts.Self)
		want := control.GroupMember{Way: g.Way, Identity: two.opts.Self, Priority: 10, State: control.StateUp}
		if first {
			want = control.GroupMember{Way: g.Way, Identity: one.opts.Self, ID: id, Priority: maxRelayPriority, State: control.StateDown, Connections: 7}
		}
		if g != want || g.Way == "" || (g.Way == m.Way) == first {
			t.Errorf("%+v, want %+v", g, want)
		}
	}
	if list := relay.relayNames(); len(list) != 1 || list[0].Owner != one.opts.Self.String() || list[0].Rule != "failover" || len(list[0].Members) != 2 {
		t.Errorf("%+v", list)
	}
	if relay.registry() != nil {
		t.Error("it has no registry")
	}
	for _, s := range []struct {
		m    routing.MemberState
		want string
	}{{routing.MemberState{}, "away"}, {routing.MemberState{Down: true}, "away"}, {routing.MemberState{Up: true, Down: true}, "target down"}, {routing.MemberState{Up: true}, "up"}} {
		if got := memberWord(memberState(s.m)); got != s.want {
			t.Errorf("%+v: %s", s.m, got)
		}
	}
}

// TestWhomANameIsSharedWith: a node says with whom it shares a relay name, to who asks through it: what it was told, else by the attribute where it is registered
// on terms, and with nobody where it is not.
func TestWhomANameIsSharedWith(t *testing.T) {
	n, asks := plainNode(t, "n", "127.0.0.1:0"), plainNode(t, "asks", "127.0.0.1:0")
	for _, r := range []resource.Relay{{Name: "told", Share: dbGroup}, {Name: "terms", Rule: "spread"}, {Name: "alone"}, {Name: "by", RelayAddress: "another"}} {
		r.At, r.NoConnectionWait = tcpRoute(t, asks)+"/secure/api", true
		if _, err := n.CreateRelay(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	a := questionsTo(t, asks, tcpRoute(t, n)+"/secure/api", connectOptions{})
	for name, want := range map[string]string{"told": dbGroup, "terms": shareOf("terms"), "alone": "", "another": ""} {
		if m := a.says(name, control.OpShare, control.Fields{Name: name}, control.StatusOK); m.Share != want || m.Count != 1 {
			t.Errorf("%s: %q", name, m.Share)
		}
	}
	for _, name := range []string{"terms", "alone"} { // on terms, and without
		settles(t, name+" is registered", func() bool {
			i, _ := n.relays.Get(name)
			r := relayOf(i)
			return r.ConnectionStatus == "Up" && r.RemoteAddress != nil && *r.RemoteAddress == routing.RelayPrefix+name
		})
	}
	i, _ := n.relays.Get("terms")
	other := changed(i.Request, func(r *resource.Relay) { r.Share, r.Priority = dbGroup, 5 })
	if _, err := n.set.Apply(t.Context(), admin.ApplyRequest{Resources: []resource.Stored{stored(t, resource.KindRelay, "terms", other)}}); err != nil {
		t.Fatal(err)
	}
	if r := i.Value.request.Load(); r.Share != dbGroup || r.Priority != 5 {
		t.Errorf("registered on what it was before: %+v", r)
	}
	for _, name := range []string{"none", "by"} {
		if m := a.says(name, control.OpShare, control.Fields{Name: name}, control.StatusAbsent); m.Count != 0 {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// TestWhoMayAskANode: where there is an authority its members may, and nobody else.
func TestWhoMayAskANode(t *testing.T) {
	p := newProject(t, 0)
	m, member, stranger := p.join(nil, ""), p.join(authority.Attributes{"a": "b"}, "p"), newMember(t)
	to := m.route() + "/secure/api"
	questionsTo(t, stranger.Node, to, connectOptions{}).says("a stranger", control.OpProbe, control.Fields{}, control.StatusDenied)
	questionsTo(t, member.Node, to, connectOptions{noCredential: true}).says("a member that has shown nothing", control.OpProbe, control.Fields{}, control.StatusDenied)
	same := plainNodeOf(t, "same", "127.0.0.1:0", m.ids, m.self)
	questionsTo(t, same, to, connectOptions{}).says("one of its identity, where there is no fleet", control.OpProbe, control.Fields{}, control.StatusDenied)
	in := questionsTo(t, member.Node, to, connectOptions{})
	settles(t, "a member is answered", func() bool { return control.Status(in.ask(control.OpProbe, control.Fields{}).Code) == control.StatusOK })
	in.says("a member", control.OpOutlet, control.Fields{Name: "none"}, control.StatusAbsent)
	in.says("a member", control.OpUDPOutlet, control.Fields{Name: "none"}, control.StatusAbsent)
	m.access.revoke(member.self, time.Now(), time.Now().Add(time.Hour), false)
	in.says("one that was taken back", control.OpProbe, control.Fields{}, control.StatusDenied)
}

// TestRevokedSharesNothing: an expression that names an identity does not admit it when it was revoked, and what is no expression admits nobody.
func TestRevokedSharesNothing(t *testing.T) {
	n := &Node{access: newAccess(policy.NewSet())}
	n.opts.Trust.Authority = &ours
	for _, text := range []string{`(= subject.identifier "` + aMember.String() + `")`, `(!= subject.identifier "nobody")`} {
		n.access.revoke(aMember, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), true)
		if !n.admits(text, [32]byte(aMember)) {
			t.Errorf("%s admits nobody", text)
		}
		n.access.revoke(aMember, time.Now(), time.Now().Add(time.Hour), false)
		if n.admits(text, [32]byte(aMember)) {
			t.Errorf("%s admits one that was revoked", text)
		}
	}
	for _, text := range []string{"", "(((", `(= subject.a`} {
		if n.admits(text, [32]byte(another)) {
			t.Errorf("%q admits", text)
		}
	}
}

// TestServiceAsksWhoSends: a service behind a guard hears who the guard allows, over a channel alone; without a guard it has no check.
func TestServiceAsksWhoSends(t *testing.T) {
	a := newAccess(policy.NewSet())
	g := a.guard(policy.ByName("echo"), policy.Echoer, &ours, false)
	a.learn(credential(aMember, ours, time.Hour, nil))
	admits := g.admits()
	for what, c := range map[string]struct {
		m    routing.Message
		want bool
	}{
		"a member": {routing.Message{Peer: &routing.Peer{ID: aMember}}, true}, "a stranger": {routing.Message{Peer: &routing.Peer{ID: another}}, false}, "nobody": {routing.Message{}, false},
	} {
		if got := admits(&c.m); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if (*guard)(nil).admits() != nil {
		t.Error("a check without a guard")
	}
}

// TestWhoseMessagesRelaysPassOn: those of members, whatever policies say, and everybody's where there is no authority.
func TestWhoseMessagesRelaysPassOn(t *testing.T) {
	n := &Node{policies: policy.NewSet()}
	n.access = newAccess(n.policies)
	if n.relayMembers() != nil {
		t.Error("a check without an authority")
	}
	n.opts.Trust.Authority = &ours
	n.access.learn(credential(aMember, ours, time.Hour, nil))
	setPolicy(t, n.policies, policy.ByType(policy.Relay), `(= subject.identifier "`+another.String()+`")`)
	admit := n.relayMembers()
	if a, b := admit([32]byte(aMember)).Allowed(), admit([32]byte(another)).Allowed(); !a || b {
		t.Errorf("a member's: %v, those of a stranger whom a policy allows: %v", a, b)
	}
	n.access.revoke(aMember, time.Now(), time.Now().Add(time.Hour), false)
	if admit([32]byte(aMember)).Allowed() {
		t.Error("those of one that was revoked")
	}
}

// TestMemberTellsItsState: a node that shares a name tells how its outlets are: how many connections they have, and down if the target of one does not answer.
func TestMemberTellsItsState(t *testing.T) {
	n := plainNode(t, "n", "127.0.0.1:0")
	if l := n.load(); l != (load{}) {
		t.Errorf("without outlets: %+v", l)
	}
	target, _ := naming(t, "x")
	for _, name := range []string{"a", "b", "c"} {
		if _, err := n.CreateOutlet(t.Context(), resource.Outlet{Name: name, To: target, Check: "tcp", CheckInterval: "1h"}); err != nil {
			t.Fatal(err)
		}
		i, _ := n.outlets.Get(name)
		settles(t, name+" was looked at", func() bool { return !i.Value.target.status().Since.IsZero() })
	}
	if l := n.load(); l.down || l.connections != 0 {
		t.Errorf("%+v", l)
	}
	i, _ := n.outlets.Get("b")
	i.Value.target.mu.Lock()
	i.Value.target.failed = true
	i.Value.target.mu.Unlock()
	if l := n.load(); !l.down {
		t.Errorf("one is down: %+v", l)
	}
}

// TestWhatRelaysAnswerMembers: what a node concludes from the answer to a registration on terms, and what it asks for; that it tells when its terms change.
func TestWhatRelaysAnswerMembers(t *testing.T) {
	relayNode, n := plainNode(t, "relay", "127.0.0.1:0"), plainNode(t, "n", "127.0.0.1:0")
	q := questionsTo(t, n, tcpRoute(t, relayNode)+"/secure/api", connectOptions{})
	c := q.c
	rel := &relay{member: routing.MemberID{1, 2}, session: &session{log: testLog}}
	rel.request.Store(&resource.Relay{Rule: "spread", Share: dbGroup, Priority: 7})
	var says atomic.Uint64
	got := make(chan control.Fields, 100)
	relayNode.control.Handle(control.OpRegister, func(c *control.Call) {
		got <- c.Request.Fields
		c.Answer(control.Status(says.Load()), control.Fields{})
	})
	for status, want := range map[control.Status]error{
		control.StatusOK: nil, control.StatusUnknown: errNoGroups, control.StatusDenied: ErrRelayDenied, control.StatusHeld: ErrRelayDenied, control.StatusFull: ErrRelayDenied, control.StatusBusy: ErrRelayDenied,
	} {
		says.Store(uint64(status))
		err := n.registerMember(within(t), rel, c, "db", load{connections: 3, down: status == control.StatusOK})
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v", status, err)
		}
		for s, text := range map[control.Status]string{control.StatusHeld: "does not share it", control.StatusFull: routing.NoticeFull.String(), control.StatusDenied: routing.NoticeDenied.String()} {
			if s == status && !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %v", status, err)
			}
		}
		state := map[bool]control.State{true: control.StateDown, false: control.StateUp}[status == control.StatusOK]
		if f := <-got; f.Name != "db" || string(f.Data) != string(rel.member[:]) || f.Rule != uint64(routing.RuleSpread) || f.Share != dbGroup || f.Priority != 7 || f.State != state || f.Connections != 3 {
			t.Errorf("%s: asked for %+v", status, f)
		}
	}
	if err := n.registerMember(within(t), rel, &connection{router: n.router}, "db", load{}); !errors.Is(err, errNoGroups) {
		t.Errorf("without a channel: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.registerMember(over, rel, c, "db", load{}); !errors.Is(err, errRelayRefused) {
		t.Errorf("the attempt is over: %v", err)
	}
	for len(got) > 0 {
		<-got
	}
	says.Store(uint64(control.StatusOK))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.tellLoad(rel, c, "db", load{down: true}) // it is not, by now
	}()
	if f := <-got; f.State != control.StateUp || f.Priority != 7 {
		t.Errorf("its target is up again: %+v", f)
	}
	rel.request.Store(&resource.Relay{Rule: "spread", Share: dbGroup, Priority: 8})
	if f := <-got; f.Priority != 8 {
		t.Errorf("other terms: %+v", f)
	}
	q.says("whether the answer is there", control.OpProbe, control.Fields{}, control.StatusOK)
	c.close()
	<-ended
}

// TestWhoStandsForIt: what the node at the end of a path says of whom it shares its name with is noted if it is an expression, or nobody; else what it said before
// counts.
func TestWhoStandsForIt(t *testing.T) {
	outlet, n := plainNode(t, "outlet", "127.0.0.1:0"), plainNode(t, "n", "127.0.0.1:0")
	q := questionsTo(t, n, tcpRoute(t, outlet)+"/secure/api", connectOptions{})
	at := pinAt(n, "in")
	at.keep(outlet.opts.Self)
	q.c.name = "db"
	type said struct {
		status control.Status
		share  string
	}
	var says atomic.Pointer[said]
	outlet.control.Handle(control.OpShare, func(c *control.Call) {
		if c.Request.Name != "db" {
			t.Errorf("asked for %q", c.Request.Name)
		}
		s := says.Load()
		c.Answer(s.status, control.Fields{Share: s.share})
	})
	for _, c := range []struct {
		status      control.Status
		share, want string
	}{
		{control.StatusOK, dbGroup, dbGroup}, {control.StatusAbsent, "", dbGroup}, {control.StatusDenied, `(= subject.a "b")`, dbGroup}, {control.StatusOK, "(no policy", dbGroup},
		{control.StatusOK, "", ""},
	} {
		says.Store(&said{c.status, c.share})
		n.askShare(q.c, at, outlet.opts.Self)
		if got := n.pins.shares[at.name]; got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
	rel := &relay{member: routing.MemberID{1}, session: &session{}}
	if list := n.sharers(t.Context(), rel, "db"); list != nil {
		t.Errorf("no path: %+v", list)
	}
	rel.session.isUp, rel.session.current = true, q.c
	if list := n.sharers(t.Context(), rel, "db"); list != nil {
		t.Errorf("nobody has the name: %+v", list)
	}
	outlet.control.Handle(control.OpGroup, func(c *control.Call) {
		c.Answer(says.Load().status, control.Fields{Way: "w", Members: []control.GroupMember{
			{Way: "w", ID: [16]byte{1}, Identity: ours, Priority: 3, State: control.StateUp, Connections: 5}, {Way: "v", ID: [16]byte{2}, Identity: theirs, Relay: "r"},
		}})
	})
	says.Store(&said{status: control.StatusDenied})
	if list := n.sharers(t.Context(), rel, "db"); list != nil {
		t.Errorf("denied: %+v", list)
	}
	says.Store(&said{})
	list := n.sharers(t.Context(), rel, "db")
	if len(list) != 2 || list[0] != (admin.RelayMember{Identifier: ours.String(), Self: true, Priority: 3, State: "up", Connections: 5, Chosen: true}) ||
		list[1] != (admin.RelayMember{Identifier: theirs.String(), State: "away", Relay: "r"}) {
		t.Errorf("%+v", list)
	}
}
