package node

import (
	"testing"
	"time"

	"sallyport/authority"
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
