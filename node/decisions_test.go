package node

import (
	"context"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/policy"
	"sallyport/routing"
)

// TestWhoMayRegisterARelay: the relay's policy, and the attribute that names the relay, each with both answers.
func TestWhoMayRegisterARelay(t *testing.T) {
	p := newProject(t, 0)
	m := p.join(nil, "")
	allowed := m.relayAllowed()
	ask := func(id identity.Identifier, name string) bool {
		return allowed(&routing.Message{Peer: &routing.Peer{ID: id}}, name)
	}
	expect := func(what string, id identity.Identifier, name string, want bool) {
		t.Helper()
		if got := ask(id, name); got != want {
			t.Errorf("%s, relay %s: allowed %v, want %v", what, name, got, want)
		}
	}
	one, any, none, foreign := numbered(21), numbered(22), numbered(23), numbered(24)
	expect("a stranger", one, "blue", false)
	m.access.learn(credential(one, p.self, time.Hour, identity.Attributes{"ockam-relay": "blue"}))
	m.access.learn(credential(any, p.self, time.Hour, identity.Attributes{"ockam-relay": "*"}))
	m.access.learn(credential(none, p.self, time.Hour, identity.Attributes{"company": "acme"}))
	m.access.learn(credential(foreign, numbered(99), time.Hour, identity.Attributes{"ockam-relay": "*"}))
	expect("a member", one, "blue", true)
	expect("a member", one, "red", false)
	expect("a member", one, "blue2", false)
	expect("a member", one, "*", false)
	expect("a member, a lane of its relay", one, routing.LaneName("blue"), true)
	expect("a member, a lane of another relay", one, routing.LaneName("red"), false)
	expect("a member, what is no lane", one, "blue~1", false)
	expect("a member for all", any, "red", true)
	expect("a member without the attribute", none, "blue", false)
	expect("a member without the attribute", none, "", false)
	expect("another authority's", foreign, "blue", false)
	if allowed(&routing.Message{}, "blue") {
		t.Error("without a channel")
	}
	setPolicy(t, m.policies, policy.ByType(policy.Relay), `(= subject.company "acme")`)
	expect("against the policy", one, "blue", false)
	expect("against the policy", any, "red", false)
	if newMember(t).relayAllowed() != nil {
		t.Error("without an authority there is a check")
	}
}

// TestAuthorizedIdentifiers: a channel is for those that were named, and for all if nobody was.
func TestAuthorizedIdentifiers(t *testing.T) {
	m := newMember(t)
	one, two, three := numbered(31), numbered(32), numbered(33)
	trust := m.channelOptions(m.self, []identity.Identifier{one, two}).Trust
	if trust(one) != nil || trust(two) != nil {
		t.Error("a named one is refused")
	}
	if trust(three) == nil {
		t.Error("another one is accepted")
	}
	if m.channelOptions(m.self, nil).Trust(three) != nil {
		t.Error("refused though nobody was named")
	}
}

// TestCredentialIsItsSubjects: a credential is believed from the member that it is about, and from nobody else.
func TestCredentialIsItsSubjects(t *testing.T) {
	p := newProject(t, 0)
	m, other := p.join(authority.Attributes{"side": "m"}, "p"), p.join(authority.Attributes{"side": "other"}, "p")
	raw, err := m.creds.get(within(t))
	if err != nil {
		t.Fatal(err)
	}
	accept := other.channelOptions(other.self, nil).Accept
	accept(within(t), numbered(41), [][]byte{raw})
	if other.access.record(numbered(41)) != nil || other.access.record(m.self) != nil || other.counters.credentialsRefused.Load() != 1 {
		t.Error("another one's credential is believed")
	}
	accept(within(t), m.self, [][]byte{{0xff}, raw})
	if r := other.access.record(m.self); r == nil || r.attributes["side"] != "m" || other.counters.credentialsRefused.Load() != 2 {
		t.Errorf("its own is not: %+v", r)
	}
}

// TestEchoIsForMembers: with an authority the echo service answers members, and nobody without a channel.
func TestEchoIsForMembers(t *testing.T) {
	p := newProject(t, 0)
	m, asks := p.join(nil, ""), p.join(authority.Attributes{"side": "asks"}, "p")
	c, err := asks.tcp.Connect(within(t), m.Listening())
	if err != nil {
		t.Fatal(err)
	}
	answered := func(route routing.Route) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := asks.router.Request(ctx, route, []byte{1})
		return err == nil
	}
	if answered(routing.RouteOf(c.Sender).Concat(routing.LocalRoute(routing.EchoService))) {
		t.Error("answered without a channel")
	}
	channel := func(o connectOptions) routing.Route {
		t.Helper()
		o.self = asks.self
		made, err := asks.connect(within(t), mustRoute(t, m.route()+"/secure/api"), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(made.close)
		return made.route.Concat(routing.LocalRoute(routing.EchoService))
	}
	if answered(channel(connectOptions{noCredential: true})) {
		t.Error("answered a stranger's channel")
	}
	member := channel(connectOptions{})
	settles(t, "a member is answered", func() bool { return answered(member) })
}
