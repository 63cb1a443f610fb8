package node

import (
	"context"
	"errors"
	"fmt"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/node/table"
	"sallyport/routing"
	"sallyport/routing/secure"
)

func addListeners(n *Node) {
	n.listeners = table.Add(n.set, table.Kind[resource.Listener, *secure.Listener]{
		Name: resource.KindListener, Noun: "secure channel listener",
		Key: func(r *resource.Listener) *string { return &r.Address },
		Check: func(_ context.Context, r *resource.Listener, _ func(string) bool) error {
			if r.Address == "" {
				return fmt.Errorf("%w: a secure channel listener needs an address", admin.ErrInvalid)
			}
			_, err := parseAuthorized(r.Authorized)
			return err
		},
		Open:  n.openListener,
		Close: func(ctx context.Context, l *secure.Listener) error { return l.Close(ctx) },
	})
}

// parseAuthorized reads the values of --authorized.
func parseAuthorized(list []string) ([]identity.Identifier, error) {
	var authorized []identity.Identifier
	for _, text := range list {
		id, err := identity.ParseIdentifier(text)
		if err != nil {
			return nil, fmt.Errorf("%w: --authorized: %w", admin.ErrInvalid, err)
		}
		authorized = append(authorized, id)
	}
	return authorized, nil
}

// openListener starts a secure channel listener at a named address.
func (n *Node) openListener(ctx context.Context, o *table.Opening[resource.Listener]) (*secure.Listener, error) {
	r := o.Request
	options, err := n.connectOptions(ctx, r.Identity, "")
	if err != nil {
		return nil, err
	}
	authorized, err := parseAuthorized(r.Authorized)
	if err != nil {
		return nil, err
	}
	l, err := n.channels.Listen(ctx, r.Address, n.channelOptions(options.self, authorized), true, n.channelFlows()...)
	if err != nil {
		return nil, existsError(err)
	}
	for _, name := range []string{routing.EchoService, routing.UppercaseService} {
		if err := n.router.AddConsumer(ctx, name, l.Flow); err != nil {
			return nil, errors.Join(err, l.Close(ctx))
		}
	}
	return l, nil
}

// CreateListener starts a secure channel listener at a named address.
func (n *Node) CreateListener(ctx context.Context, r resource.Listener) (admin.ChannelListener, error) {
	i, err := n.listeners.Create(ctx, r)
	if err != nil {
		return admin.ChannelListener{}, err
	}
	return admin.ChannelListener{Address: admin.Address(r.Address), Flow: i.Value.Flow.ID(), State: &i.Status}, nil
}

// Listeners lists the secure channel listeners by address: those that every node has, and those that were asked for.
func (n *Node) Listeners() []admin.ChannelListener {
	byName := map[string]admin.ChannelListener{}
	for _, l := range n.channels.Listeners() {
		byName[l.Name] = admin.ChannelListener{
			Address: admin.Address(l.Name), Flow: l.Flow.ID(), KeyExchangeOnly: l.Options().Exchanged != nil,
		}
	}
	for _, i := range n.listeners.List() {
		d := byName[i.Request.Address]
		d.Address, d.State = admin.Address(i.Request.Address), &i.Status
		byName[i.Request.Address] = d
	}
	list := make([]admin.ChannelListener, 0, len(byName))
	for _, name := range sortedKeys(byName) {
		list = append(list, byName[name])
	}
	return list
}

// DeleteListener stops a secure channel listener; its channels stay.
func (n *Node) DeleteListener(ctx context.Context, address string) error {
	err := n.listeners.Delete(ctx, address)
	if !errors.Is(err, admin.ErrNotFound) {
		return err
	}
	if l := n.channels.FindListener(address); l != nil { // one that every node has
		return l.Close(ctx)
	}
	return err
}

// Listener returns one of Listeners.
func (n *Node) Listener(_ context.Context, address string) (admin.ChannelListener, error) {
	for _, l := range n.Listeners() {
		if string(l.Address) == address {
			return l, nil
		}
	}
	return admin.ChannelListener{}, fmt.Errorf("%w: no secure channel listener %q", admin.ErrNotFound, address)
}
