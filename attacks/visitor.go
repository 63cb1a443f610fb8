package main

import (
	"context"
	"log/slog"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/dataplane"
	"sallyport/project"
	"sallyport/routing"
	"sallyport/routing/rpc"
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

// channel opens a channel to a listener of the node at an address.
func (v *visitor) channel(ctx context.Context, at string) (*secure.Channel, error) {
	return v.nest(ctx, at, 1)
}

// through is the route of workers behind a channel.
func through(c *secure.Channel, hops ...string) routing.Route {
	return routing.RouteOf(c.Encryptor).Concat(routing.LocalRoute(hops...))
}

// authorityClient opens a channel to an authority for asking it.
func (v *visitor) authorityClient(ctx context.Context, at string) (*authority.Client, *secure.Channel, error) {
	c, err := v.channel(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	return &authority.Client{Call: func(ctx context.Context, service string, req *rpc.Request) (*rpc.Response, error) {
		reply, err := v.router.Request(ctx, through(c, service), req.Encode())
		if err != nil {
			return nil, err
		}
		return rpc.DecodeResponse(reply.Payload)
	}}, c, nil
}

// enroll makes v a member: from then on it presents its credential, which is returned too.
func (v *visitor) enroll(ctx context.Context, s *stage, ticketArgs ...string) ([]byte, error) {
	text, err := s.cli(ctx, "relay", append([]string{"project", "ticket"}, ticketArgs...)...)
	if err != nil {
		return nil, err
	}
	ticket, err := project.ParseTicket(text)
	if err != nil {
		return nil, err
	}
	at, err := s.listensAt(ctx, "authority")
	if err != nil {
		return nil, err
	}
	client, c, err := v.authorityClient(ctx, at)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := client.Redeem(ctx, authority.Code(ticket.Code)); err != nil {
		return nil, err
	}
	raw, err := client.Credential(ctx)
	v.options.Credential = func(context.Context) ([]byte, error) { return raw, nil }
	return raw, err
}
