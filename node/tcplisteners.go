package node

import (
	"context"
	"errors"
	"fmt"
	"net"

	"sallyport/names"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/routing/tcp"
)

func addTCPListeners(n *Node) {
	n.tcpListeners = table.Add(n.set, table.Kind[resource.TCPListener, *tcp.Listener]{
		Name: resource.KindTCPListener, Noun: "TCP listener",
		Key: func(r *resource.TCPListener) *string { return &r.Address },
		Check: func(_ context.Context, r *resource.TCPListener, _ func(string) bool) error {
			if _, _, err := net.SplitHostPort(r.Address); err != nil {
				return fmt.Errorf("%w: the address %q must be host:port", admin.ErrInvalid, r.Address)
			}
			return nil
		},
		Open: func(ctx context.Context, o *table.Opening[resource.TCPListener]) (*tcp.Listener, error) {
			return n.listenTCP(ctx, o.Request.Address)
		},
		Close: func(ctx context.Context, l *tcp.Listener) error { return l.Close(ctx) },
	})
}

func (n *Node) listenTCP(ctx context.Context, address string) (*tcp.Listener, error) {
	at, err := names.Listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	return n.tcp.Listen(ctx, at)
}

// CreateTCPListener opens another TCP listener. Nothing is reachable through it before AddConsumer names something. Where the port is
// left to the node, the one that it chose is the listener's from then on.
func (n *Node) CreateTCPListener(ctx context.Context, r resource.TCPListener) (admin.Transport, error) {
	at, err := names.Listen(ctx, r.Address)
	if err != nil {
		return admin.Transport{}, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	if at.Port() == 0 {
		l, err := n.tcp.Listen(ctx, at)
		if err != nil {
			return admin.Transport{}, err
		}
		bound := resource.TCPListener{Address: l.Bound.String()}
		taken := func(context.Context, *table.Opening[resource.TCPListener]) (*tcp.Listener, error) { return l, nil }
		if _, err := n.tcpListeners.CreateAs(ctx, bound, taken); err != nil {
			return admin.Transport{}, errors.Join(err, l.Close(ctx))
		}
		return describeTCPListener(l), nil
	}
	i, err := n.tcpListeners.Create(ctx, r)
	if err != nil {
		return admin.Transport{}, err
	}
	return describeTCPListener(i.Value), nil
}

func describeTCPListener(l *tcp.Listener) admin.Transport {
	return admin.Transport{
		Type: "Tcp", Mode: "Listen", Socket: l.Bound.String(), Worker: "<none>", Processor: "0#" + l.Address, Flow: l.Flow.ID(),
	}
}

// TCPListeners lists the TCP listeners: the node's own, and those that were asked for, also where they could not be opened.
func (n *Node) TCPListeners() []admin.Transport {
	byAddress := map[string]admin.Transport{}
	for _, l := range n.tcp.Listeners() {
		byAddress[l.Bound.String()] = describeTCPListener(l)
	}
	for _, i := range n.tcpListeners.List() {
		d := admin.Transport{Type: "Tcp", Mode: "Listen", Socket: i.Request.Address, Worker: "<none>", Processor: "<none>"}
		if i.IsOpen {
			d = describeTCPListener(i.Value)
		}
		d.State = &i.Status
		byAddress[d.Socket] = d
	}
	list := make([]admin.Transport, 0, len(byAddress))
	for _, k := range sortedKeys(byAddress) {
		list = append(list, byAddress[k])
	}
	return list
}

// DeleteTCPListener closes a TCP listener, named by its socket or worker address. The node's own stays.
func (n *Node) DeleteTCPListener(ctx context.Context, address string) error {
	if n.main.Bound.String() == address || n.main.Address == address {
		return fmt.Errorf("%w: %s is the node's own listener; it ends with the node", admin.ErrInvalid, address)
	}
	for _, i := range n.tcpListeners.List() {
		if i.IsOpen && (i.Value.Bound.String() == address || i.Value.Address == address) {
			address = i.Request.Address
		}
	}
	return n.tcpListeners.Delete(ctx, address)
}
