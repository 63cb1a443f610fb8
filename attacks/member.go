package main

import (
	"context"
	"log/slog"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/dataplane"
	"sallyport/routing"
	"sallyport/routing/secure"
	"sallyport/routing/tcp"
)

// visitor is a client that speaks the whole protocol, with an identity of its own.
type visitor struct {
	group    *dataplane.Group
	router   *routing.Router
	tcp      *tcp.Transport
	channels *secure.Channels
	options  secure.Options
}

func newVisitor(ctx context.Context) (*visitor, error) {
	log := slog.New(slog.DiscardHandler)
	g, err := dataplane.NewGroup(1, log)
	if err != nil {
		return nil, err
	}
	v := &visitor{group: g}
	if v.router, err = routing.NewRouter(g, log); err != nil {
		g.Stop()
		return nil, err
	}
	v.tcp = tcp.New(v.router, tcp.Options{})
	v.channels = secure.New(v.router, 2, secure.Limits{}, log)
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	self, err := ids.Create(ctx, identity.CreateOptions{})
	if err != nil {
		v.close()
		return nil, err
	}
	v.options = secure.Options{Identities: ids, Self: self.Identifier()}
	return v, nil
}

func (v *visitor) close() {
	v.channels.Stop()
	v.group.Stop()
}

// nest opens a channel to the node at an address and depth-1 further ones, each within the last.
func (v *visitor) nest(ctx context.Context, at string, depth int) (*secure.Channel, error) {
	conn, err := v.tcp.Connect(ctx, at)
	if err != nil {
		return nil, err
	}
	first := conn.Sender
	var c *secure.Channel
	for range depth {
		if c, err = v.channels.Dial(ctx, routing.RouteOf(first).Concat(routing.LocalRoute("api")), v.options); err != nil {
			return nil, err
		}
		first = c.Encryptor
	}
	return c, nil
}
