package node

import (
	"context"
	"strings"
	"time"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
)

// RelayRegistry makes a node's relay service one of several of the same identity, which know each other's names (docs/protocol/08 §5).
type RelayRegistry struct {
	Registry routing.Registry
	// Self is this relay as the others know it; its Address leads to a listener of the node, without /secure or /service.
	Self routing.RelayNode
	// Store says where the registry is kept, and whether it is there; nil: it is always.
	Store *StoreState
	// Close releases the registry when the node has stopped; nil does nothing.
	Close func() error
}

// relayFleet is what the relay service needs of it; nil without.
func (n *Node) relayFleet() *routing.Fleet {
	r := n.opts.RelayRegistry
	if r == nil {
		return nil
	}
	return &routing.Fleet{Registry: r.Registry, Self: r.Self, Identity: [32]byte(n.opts.Self), Dial: n.dialRelay}
}

// registry is how the relay's registry is; nil without one.
func (n *Node) registry() *admin.Registry {
	r := n.opts.RelayRegistry
	if r == nil || n.relaySvc == nil {
		return nil
	}
	u, ok := n.relaySvc.FleetUse()
	if !ok {
		return nil
	}
	d := &admin.Registry{
		Store: admin.Store{State: "up"}, Relay: r.Self.Address, Relays: u.Relays, Linked: u.Linked, Here: u.Here, Elsewhere: u.Elsewhere, PassedOn: u.PassedOn, Taken: u.Taken,
	}
	if r.Store != nil {
		d.Store = r.Store.describe()
	}
	return d
}

// relayNames are the names that the node's relay service knows, with who is registered under them where.
func (n *Node) relayNames() []admin.RelayName {
	list := []admin.RelayName{}
	if n.relaySvc == nil {
		return list
	}
	at := map[string]string{}
	if r := n.opts.RelayRegistry; r != nil {
		at[""] = r.Self.Address
		for _, other := range r.Registry.Relays() {
			at[other.ID] = other.Address
		}
	}
	for _, s := range n.relaySvc.Served() {
		d := admin.RelayName{Name: s.Name, Rule: s.Rule.String(), Share: s.Share, Members: []admin.RelayMember{}}
		if s.Rule == routing.RuleNone {
			d.Rule = ""
		}
		if s.Owner != nil {
			d.Owner = identity.Identifier(*s.Owner).String()
		}
		for _, m := range s.Members {
			one := admin.RelayMember{
				Identifier: identity.Identifier(m.Identity).String(), Priority: uint64(m.Priority), State: memberWord(memberState(m)), Chosen: m.Chosen, Connections: m.Connections,
				Relay: at[m.Relay],
			}
			if one.Relay == "" {
				one.Relay = m.Relay // it has just gone
			}
			d.Members = append(d.Members, one)
		}
		list = append(list, d)
	}
	return list
}

// relayDialTimeout is how long a channel to another relay may take.
const relayDialTimeout = 10 * time.Second

// dialRelay opens a channel to another relay of the fleet, which has to show this node's identity.
func (n *Node) dialRelay(ctx context.Context, to routing.RelayNode) (routing.Link, error) {
	ctx, cancel := context.WithTimeout(ctx, relayDialTimeout)
	defer cancel()
	at, err := multiaddr.Parse(to.Address + "/secure/" + routing.ChannelService)
	if err != nil {
		return routing.Link{}, err
	}
	c, err := n.connect(ctx, at, connectOptions{self: n.opts.Self, authorized: []identity.Identifier{n.opts.Self}})
	if err != nil {
		return routing.Link{}, err
	}
	return routing.Link{Route: c.route, Done: c.done(), Close: c.close}, nil
}

// hopMark stands between the addresses of workers of several relays of a fleet, the asked one's first.
const hopMark = "/"

// passGone asks the next relay of a fleet whether a process has ended, in the name of who asks this one: name is what it knows the way to it by.
func (n *Node) passGone(c *control.Call, link, name string) {
	ch := n.channels.Find(link)
	if ch == nil || ch.Peer.ID != [32]byte(n.opts.Self) || n.opts.RelayRegistry == nil {
		c.Answer(control.StatusAbsent, control.Fields{})
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, c.Request.Wait+time.Second)
	go func() {
		defer cancel()
		m, err := control.Ask(ctx, n.router, routing.LocalRoute(link), control.OpGone, control.Fields{Name: name, Wait: c.Request.Wait})
		if err != nil {
			m.Code = uint64(control.StatusAbsent)
		}
		c.Answer(control.Status(m.Code), control.Fields{})
	}()
	c.Await(control.Fields{}, cancel) // so it counts among those that wait
}

// hops are the addresses on a channel's way behind this node's own, as the relays on it are asked by: all but the last, which is the peer's.
func hops(way routing.Route) string {
	var list []string
	for _, a := range way.WithoutFirst().WithoutLast().Addresses() {
		list = append(list, a.Value)
	}
	return strings.Join(list, hopMark)
}
