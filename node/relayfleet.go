package node

import (
	"context"
	"strings"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing"
	"sallyport/routing/control"
	"sallyport/routing/multiaddr"
)

// RelayRegistry makes a node's relay service one of several of the same identity, which know each other's names (docs/protocol/08 §5).
type RelayRegistry struct {
	Registry routing.Registry
	// Self is this relay as the others know it; its Address leads to a listener of the node, without /secure or /service.
	Self routing.RelayNode
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
