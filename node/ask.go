package node

import (
	"context"
	"errors"
	"fmt"

	"sallyport/crypto/identity"
	"sallyport/routing/multiaddr"
	"sallyport/routing/rpc"
)

// AskAt connects to the service at a multiaddr as the node does for its inlets, sends it one request and returns its answer. Only those that are expected
// may be there; if nobody is, who answered first through a project is from then on, as for inlets.
func (n *Node) AskAt(ctx context.Context, to multiaddr.Addr, req *rpc.Request, expects ...identity.Identifier) (*rpc.Response, error) {
	o := connectOptions{self: n.opts.Self, authorized: expects}
	pin := n.pinOfCommands(to)
	if len(expects) == 0 {
		o.pin = pin
	}
	var peer *identity.Identifier
	resp, err := n.askOver(ctx, to, o, req, func(c *connection) {
		if k := len(c.channels); k > 0 && (len(c.expects) == 0 || len(expects) > 0) {
			id := identity.Identifier(c.channels[k-1].Peer.ID)
			peer = &id
		}
	})
	if err == nil && pin != nil && peer != nil {
		pin.note(*peer, len(expects) > 0)
	}
	return resp, err
}

// askOver is askAt that shows what it asked over.
func (n *Node) askOver(ctx context.Context, to multiaddr.Addr, o connectOptions, req *rpc.Request, over func(*connection)) (*rpc.Response, error) {
	c, err := n.connect(ctx, to, o)
	if err != nil {
		return nil, err
	}
	defer c.close()
	over(c)
	resp, err := n.call(ctx, c.route, req)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer from %s in time: is it there, and may this identity use it? (%w)", to, err)
	}
	return resp, err
}
