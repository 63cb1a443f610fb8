package node

import (
	"context"
	"net"
	"strconv"
	"testing"
	"time"

	"sallyport/authority"
	"sallyport/node/admin"
	"sallyport/routing"
	"sallyport/routing/registrytest"
)

// relayOf starts a relay of a fleet, with the identity of like, or one of its own.
func (p *testProject) relayOf(shared *registrytest.Shared, id string, like *member) *member {
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
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(p.t)))
	self := routing.RelayNode{ID: id, Address: "/ip4/127.0.0.1/tcp/" + portOf(at)}
	part := shared.Join(self)
	n, err := Start(context.Background(), Options{
		Name: id, Self: m.self, Identities: m.ids, Store: NewHome(nil, id, false), Trust: Trust{Authority: &p.self, Route: p.route()}, Listen: at, Shards: 2, Log: testLog,
		RelayRegistry: &RelayRegistry{Registry: part, Self: self},
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
	in, err := client.CreateInlet(within(t), admin.InletRequest{From: "127.0.0.1:0", To: b.route() + "/secure/api/service/forward_to_db/secure/api/service/outlet"})
	if err != nil {
		t.Fatal(err)
	}
	settles(t, "served through both relays", func() bool { return asks(in.Bind) == "one" })
	name, c := who(in.Bind)
	if name != "one" {
		t.Fatal(name)
	}
	defer c.Close()
	one.Stop()
	settles(t, "the other member serves", func() bool { return asks(in.Bind) == "two" })
	_ = c.SetDeadline(time.Now().Add(90 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a connection of an outlet that has stopped goes on")
	}
}
