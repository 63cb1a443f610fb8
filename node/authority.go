package node

import (
	"context"
	"sync"

	"sallyport/routing"
	"sallyport/routing/rpc"
)

// AuthorityOptions make a node an authority.
type AuthorityOptions struct {
	// Services are the authority's services by address.
	Services map[string]rpc.Server
	// Revocations is where nodes are told from what was revoked; nil tells nothing.
	Revocations Revoker
	// AccountAdmins is told who presents a credential of the account authority; nil where there is none.
	AccountAdmins *AccountAdmins
	// Events counts what they did, for metrics.
	Events *AuthorityEvents
	// Close releases the authority's store when the node has stopped.
	Close func() error
}

// AuthorityEvents counts what an authority does. It implements authority.Events.
type AuthorityEvents struct {
	mu     sync.Mutex
	counts map[[2]string]uint64
}

func (e *AuthorityEvents) add(event, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.counts == nil {
		e.counts = map[[2]string]uint64{}
	}
	e.counts[[2]string{event, reason}]++
}

// TicketIssued implements authority.Events.
func (e *AuthorityEvents) TicketIssued() { e.add("ticket_issued", "") }

// TicketRedeemed implements authority.Events.
func (e *AuthorityEvents) TicketRedeemed() { e.add("ticket_redeemed", "") }

// TicketRefused implements authority.Events.
func (e *AuthorityEvents) TicketRefused(reason string) { e.add("ticket_refused", reason) }

// CredentialIssued implements authority.Events.
func (e *AuthorityEvents) CredentialIssued() { e.add("credential_issued", "") }

// CredentialRefused implements authority.Events.
func (e *AuthorityEvents) CredentialRefused(reason string) { e.add("credential_refused", reason) }

// SignIn implements authority.Events.
func (e *AuthorityEvents) SignIn(reason string) {
	if reason == "" {
		e.add("signed_in", "")
		return
	}
	e.add("sign_in_refused", reason)
}

// each calls f for every count.
func (e *AuthorityEvents) each(f func(event, reason string, count uint64)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for k, n := range e.counts {
		f(k[0], k[1], n)
	}
}

// startAuthority starts what an authority has: a secure channel listener that accepts everybody and presents nothing, and the
// services behind it. Nothing of it is reachable without a channel (docs/protocol/02 §5.1).
func (n *Node) startAuthority(ctx context.Context) (err error) {
	o := n.channelOptions(n.opts.Self, nil)
	o.Credential, o.Accept = nil, nil
	if admins := n.opts.Authority.AccountAdmins; admins != nil {
		o.Accept = n.acceptAdmins(admins)
	}
	if n.api, err = n.channels.Listen(ctx, routing.ChannelService, o, false, n.main.Flow); err != nil {
		return err
	}
	for _, name := range sortedKeys(n.opts.Authority.Services) {
		server := n.opts.Authority.Services[name]
		if err := n.router.StartNamed(ctx, name, func(*routing.Shard) routing.Worker { return n.rpcWorker(name, server) }, n.api.Flow); err != nil {
			return err
		}
	}
	if source := n.opts.Authority.Revocations; source != nil {
		if err := n.startNews(ctx, source); err != nil {
			return err
		}
	}
	return n.router.StartNamed(ctx, routing.EchoService, func(*routing.Shard) routing.Worker { return routing.Echo(nil, nil) }, n.api.Flow)
}
