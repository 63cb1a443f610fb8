package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/internal/freeport"
	"sallyport/internal/servers"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/registry"
	"sallyport/routing/registrytest"
)

// relayOf starts a relay of a fleet, with the identity of like, or one of its own.
func (p *testProject) relayOf(shared *registrytest.Shared, id string, like *member) *member {
	p.t.Helper()
	return p.relayWith(func(self routing.RelayNode) routing.Registry { return shared.Join(self) }, id, like)
}

// relayWith starts one with what join makes of the registry.
func (p *testProject) relayWith(join func(routing.RelayNode) routing.Registry, id string, like *member) *member {
	p.t.Helper()
	m := &member{t: p.t}
	if like != nil {
		m.ids, m.self = like.ids, like.self
	} else {
		m.ids, m.self = newIdentities(p.t)
		history, err := p.ids.History(context.Background(), p.self)
		if err == nil {
			_, err = m.ids.Import(context.Background(), history, nil)
		}
		if err != nil {
			p.t.Fatal(err)
		}
	}
	at := "127.0.0.1:" + freeport.For(p.t)
	self := routing.RelayNode{ID: id, Address: "/ip4/127.0.0.1/tcp/" + portOf(at)}
	part := join(self)
	n, err := Start(context.Background(), Options{
		Name: id, Self: m.self, Identities: m.ids, Store: NewHome(nil, id, false), Trust: Trust{Authority: &p.self, Route: p.route()}, Listen: at, Shards: 2, Log: testLog,
		RelayRegistry: &RelayRegistry{Registry: part, Self: self, Store: &StoreState{Name: "store of " + id, State: func() (time.Time, error) {
			if why := p.registryAway.Load(); why != nil {
				return time.Unix(1_800_000_000, 0), *why
			}
			return time.Unix(1_700_000_000, 0), nil
		}}},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	m.Node = n
	p.t.Cleanup(func() { m.Stop() })
	return m
}

// TestFleetOfRelays: an outlet that is registered at one relay serves clients that come through another, in real channels; when the outlet's node ends its
// connections are reset, and new ones go to the other member of its group, which is at the other relay.
func TestFleetOfRelays(t *testing.T) {
	p := newProject(t, 0)
	var shared registrytest.Shared
	a := p.relayOf(&shared, "a", nil)
	b := p.relayOf(&shared, "b", a)
	bank := authority.Attributes{"ockam-relay": "db", "side": "bank"}
	one, two := p.join(bank, "p"), p.join(bank, "p")
	client := p.join(authority.Attributes{"side": "client"}, "p")
	first, _ := naming(t, "one")
	second, _ := naming(t, "two")
	terms := admin.RelayRequest{Name: "db", Rule: "failover", Share: dbGroup}
	if err := one.share(a, first, terms, admin.OutletRequest{}); err != nil {
		t.Fatal(err)
	}
	settles(t, "known at the other relay", func() bool { return len(b.relaySvc.Members("db")) == 1 })
	terms.Priority = 10
	if err := two.share(b, second, terms, admin.OutletRequest{}); err != nil {
		t.Fatal(err)
	}
	settles(t, "both at each", func() bool { return len(a.relaySvc.Members("db")) == 2 && len(b.relaySvc.Members("db")) == 2 })
	both := one.self.String() + "," + two.self.String()
	in, err := client.CreateInlet(within(t), admin.InletRequest{From: "127.0.0.1:0", Authorized: both, To: b.route() + "/secure/api/service/forward_to_db/secure/api/service/outlet"})
	if err != nil {
		t.Fatal(err)
	}
	settles(t, "served through both relays", func() bool { return asks(in.Bind) == "one" })
	name, c := who(in.Bind)
	if name != "one" {
		t.Fatal(name)
	}
	defer c.Close()
	shownFleet(p, a, b, one, two)
	one.Stop()
	settles(t, "the other member serves", func() bool { return asks(in.Bind) == "two" })
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection of an outlet that has stopped goes on")
	}
}

// TestNameIsThereWhenItIsSaid: a name whose registration at one relay was answered is found at another one, at once, and not only when that one has heard of it.
func TestNameIsThereWhenItIsSaid(t *testing.T) {
	db := servers.StartPostgres(t)
	p := newProject(t, 0)
	join := func(self routing.RelayNode) routing.Registry {
		r, err := registry.Open(db.PatientURL("", "", "postgres"), self, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		return r
	}
	a := p.relayWith(join, "a", nil)
	b := p.relayWith(join, "b", a)
	bank, client := p.join(authority.Attributes{"ockam-relay": "*"}, "p"), p.join(authority.Attributes{"side": "client"}, "p")
	target, _ := naming(t, "bank")
	if _, err := bank.CreateOutlet(within(t), admin.OutletRequest{To: target}); err != nil {
		t.Fatal(err)
	}
	linked := func() bool { return a.registry().Linked == 1 && b.registry().Linked == 1 }
	settles(t, "the relays have ways to each other", linked)
	for i, rule := range slices.Repeat([]string{"", "failover"}, 10) {
		name := fmt.Sprint("db", i)
		if _, err := bank.CreateRelay(within(t), admin.RelayRequest{Name: name, Rule: rule, At: a.route() + "/secure/api"}); err != nil {
			t.Fatal(err)
		}
		if s := bank.relayState(name); s.State != resource.Up {
			t.Fatalf("%s: %+v", name, s)
		}
		in, err := client.CreateInlet(within(t), admin.InletRequest{Alias: name, From: "127.0.0.1:0", To: b.route() + "/secure/api/service/forward_to_" + name + "/secure/api/service/outlet"})
		if err != nil || in.Status != "Up" {
			t.Errorf("%s: %s, %+v, %v", name, in.Status, in.State, err)
		}
	}
}

// shownFleet checks what two relays tell of a name that has a member at each.
func shownFleet(p *testProject, a, b, one, two *member) {
	p.t.Helper()
	for _, r := range []*member{a, b} {
		settles(p.t, "a way to the other", func() bool { return r.registry().Linked == 1 })
		list := r.relayNames()
		if len(list) != 1 || list[0].Name != "db" || list[0].Rule != "failover" || list[0].Owner != one.self.String() || list[0].Share != dbGroup || len(list[0].Members) != 2 {
			p.t.Fatalf("%s tells of %+v", r.opts.Name, list)
		}
		for _, m := range list[0].Members {
			want := admin.RelayMember{Identifier: one.self.String(), State: "up", Chosen: true, Connections: m.Connections, Relay: a.opts.RelayRegistry.Self.Address}
			if m.Identifier == two.self.String() {
				want = admin.RelayMember{Identifier: two.self.String(), Priority: 10, State: "up", Connections: m.Connections, Relay: b.opts.RelayRegistry.Self.Address}
			}
			if m != want {
				p.t.Errorf("%s tells of %+v, want %+v", r.opts.Name, m, want)
			}
		}
	}
	here, out, in := metricsOf(p.t, a.Node), metricsOf(p.t, b.Node)["relay_fleet_messages_total out"], metricsOf(p.t, a.Node)["relay_fleet_messages_total in"]
	for name, want := range map[string]float64{
		"relay_registry_up store of a": 1, "relay_fleet_relays linked": 1, "relay_fleet_relays unlinked": 0, "relay_fleet_names elsewhere": 0, "relay_fleet_messages_total out": 0,
	} {
		if v, ok := here[name]; !ok || v != want {
			p.t.Errorf("%s is %v (there: %v), want %v", name, v, ok, want)
		}
	}
	if here["relay_fleet_names here"] < 1 || in < 1 || out < in {
		p.t.Errorf("%v names here, %v messages passed on, %v taken", here["relay_fleet_names here"], out, in)
	}
	why := errors.New("it does not answer")
	p.registryAway.Store(&why)
	if v := metricsOf(p.t, a.Node)["relay_registry_up store of a"]; v != 0 {
		p.t.Errorf("the registry is away, and up is %v", v)
	}
	if s := a.Describe().Registry.Store; s.State != "away" || s.Reason != "it does not answer" || s.Since.Unix() != 1_800_000_000 || s.Name != "store of a" {
		p.t.Errorf("the registry is away, and the node says %+v", s)
	}
}

// TestWhoseQuestionsARelayPassesOn: a relay of a fleet asks another one, and no node of another identity, in the name of who asks.
func TestWhoseQuestionsARelayPassesOn(t *testing.T) {
	p := newProject(t, 0)
	var shared registrytest.Shared
	a := p.relayOf(&shared, "a", nil)
	b := p.relayOf(&shared, "b", a)
	alone := p.join(nil, "")
	client, bank := p.join(authority.Attributes{"a": "b"}, "p"), p.join(authority.Attributes{"a": "b"}, "p")
	for _, r := range []struct {
		relay, to *member
		want      control.Status
	}{{a, b, control.StatusOK}, {a, bank, control.StatusAbsent}, {alone, bank, control.StatusAbsent}} {
		link := questionsTo(t, r.relay.Node, r.to.route()+"/secure/api", connectOptions{self: r.relay.self}).c.channels[0]
		in := questionsTo(t, client.Node, r.relay.route()+"/secure/api", connectOptions{})
		settles(t, "a member is answered", func() bool { return control.Status(in.ask(control.OpProbe, control.Fields{}).Code) == control.StatusOK })
		known := r.to.channels.List()[0].Encryptor.Text()
		in.says(r.relay.opts.Name+" to "+r.to.opts.Name, control.OpGone, control.Fields{Name: link.Encryptor.Text() + hopMark + known, Wait: 10 * time.Millisecond}, r.want)
		in.says("an address that is not there", control.OpGone, control.Fields{Name: "none" + hopMark + known, Wait: 10 * time.Millisecond}, control.StatusAbsent)
		in.says("nobody", control.OpGone, control.Fields{Name: "none", Wait: 10 * time.Millisecond}, control.StatusAbsent)
	}
}

// TestRelayIsAnother: a relay of a fleet takes another one for it that has its own identity, and no other.
func TestRelayIsAnother(t *testing.T) {
	p := newProject(t, 0)
	var shared registrytest.Shared
	a := p.relayOf(&shared, "a", nil)
	b, stranger := p.relayOf(&shared, "b", a), newMember(t)
	link, err := a.dialRelay(within(t), routing.RelayNode{ID: "b", Address: b.route()})
	if err != nil {
		t.Fatal(err)
	}
	link.Close()
	<-link.Done
	for what, at := range map[string]string{"another identity": stranger.route(), "nonsense": "nowhere"} {
		if _, err := a.dialRelay(within(t), routing.RelayNode{ID: "c", Address: at}); err == nil || what == "another identity" && !strings.Contains(err.Error(), "authorized") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := a.keeper(); !errors.Is(err, errNoKeeper) {
		t.Error(err)
	}
}
