package portal

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/names"
	"sallyport/routing"
	"sallyport/routing/bare"
	"sallyport/routing/secure"
	"sallyport/routing/tcp"
)

// chain is the whole path in one process: the inlets' nodes, a relay and an outlet's node, over sockets of the loopback interface. There
// is a channel between each node and the relay, and one from each inlet's node to the outlet's inside the two.
type chain struct {
	relay, outlet *member
	inlets        []*member
	in            []*Inlet
	out           *Outlet
	relays        *routing.Relays
	ready         func() // called when a path has been made and is about to be used; may be nil
}

// member is a node with an identity and secure channels.
type member struct {
	*node
	channels *secure.Channels
	api      *secure.Listener
	options  secure.Options
	path     *tcp.Connection // to the relay
	upward   *secure.Channel
	across   *secure.Channel // inlet: to the outlet's node
}

const chainRelay = "far"

func newMember(t testing.TB, shards int, limits Limits) *member {
	t.Helper()
	m := &member{node: newNode(t, shards, limits)}
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := ids.Create(limited(t), identity.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.options = secure.Options{Identities: ids, Self: self.Identifier()}
	m.channels = secure.New(m.router, 2, secure.Limits{}, slog.New(slog.DiscardHandler))
	t.Cleanup(m.channels.Stop)
	return m
}

func (m *member) listen(t testing.TB, flows ...*routing.Flow) {
	t.Helper()
	var err error
	if m.api, err = m.channels.Listen(limited(t), routing.ChannelService, m.options, true, flows...); err != nil {
		t.Fatal(err)
	}
}

// connect opens the channel to the relay.
func (m *member) connect(t testing.TB, relay *member) {
	t.Helper()
	var err error
	if m.path, err = m.tcp.Connect(limited(t), relay.ln.Bound.String()); err != nil {
		t.Fatal(err)
	}
	if m.upward, err = m.channels.Dial(limited(t), routing.NewRoute(m.path.Sender.Address(), routing.LocalAddress(routing.ChannelService)), m.options); err != nil {
		t.Fatal(err)
	}
}

// register asks the relay for its name.
func (m *member) register(t testing.TB) {
	t.Helper()
	route := routing.RouteOf(m.upward.Encryptor)
	box, err := m.router.OpenMailbox(limited(t), route)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	box.Send(route.Concat(routing.LocalRoute(routing.StaticRelayService)), bare.AppendString(nil, chainRelay))
	if reply, err := box.Receive(limited(t)); err != nil || !strings.HasSuffix(string(reply.Payload), chainRelay) {
		t.Fatalf("registration answered %q, %v", reply.Payload, err)
	}
}

// newChain makes the path from the given number of inlets, each on a node of its own, to target.
func newChain(t testing.TB, inlets, shards int, plain bool, limits Limits, o OutletOptions) *chain {
	t.Helper()
	ctx := context.Background()
	c := &chain{relay: newMember(t, shards, limits), outlet: newMember(t, shards, limits)}
	c.relay.listen(t, c.relay.ln.Flow)
	var err error
	if c.relays, err = routing.NewRelays(ctx, c.relay.router, routing.RelayOptions{Flows: []*routing.Flow{c.relay.api.Flow}, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.relays.Close)
	c.outlet.connect(t, c.relay)
	c.outlet.listen(t, c.outlet.upward.Flow)
	c.outlet.register(t)
	o.Name, o.Resolve, o.Flows, o.Hold = "outlet", names.Lookup, []*routing.Flow{c.outlet.api.Flow}, time.Minute
	if c.out, err = NewOutlet(ctx, c.outlet.env, c.outlet.router, o); err != nil {
		t.Fatal(err)
	}
	for range inlets {
		m := newMember(t, shards, limits)
		in, err := NewInlet(ctx, m.env, m.router, InletOptions{Name: "in", Listen: netip.MustParseAddrPort("127.0.0.1:0"), Plain: plain, Hold: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		c.inlets, c.in = append(c.inlets, m), append(c.in, in)
		c.reconnect(t, len(c.in)-1)
	}
	return c
}

// reconnect gives the k-th inlet a path through a new connection to the relay.
func (c *chain) reconnect(t testing.TB, k int) {
	t.Helper()
	m := c.inlets[k]
	m.connect(t, c.relay)
	far := routing.NewRoute(m.upward.Encryptor.Address(), routing.LocalAddress(routing.RelayPrefix+chainRelay), routing.LocalAddress(routing.ChannelService))
	var err error
	if m.across, err = m.channels.Dial(limited(t), far, m.options); err != nil {
		t.Fatal(err)
	}
	if c.ready != nil {
		c.ready()
	}
	c.in[k].SetPath(routing.NewRoute(m.across.Encryptor.Address(), routing.LocalAddress("outlet")))
}

// members returns all nodes.
func (c *chain) members() []*member { return append([]*member{c.relay, c.outlet}, c.inlets...) }

// idle expects that all nodes have forgotten every connection.
func (c *chain) idle(t testing.TB) {
	t.Helper()
	eventually(t, "connections forgotten", func() bool {
		n := c.outlet.env.Stats.Active.Load() + c.outlet.env.Stats.WindowGranted.Load()
		for i, m := range c.inlets {
			n += m.env.Stats.Active.Load() + m.env.Stats.WindowGranted.Load() + int64(c.in[i].Active())
		}
		return n == 0
	})
}
