package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"sallyport/authority"
	"sallyport/node/admin"
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
	// Store says where the authority's store is and whether it is there; nil says nothing.
	Store *StoreState
	// Snapshot copies the authority's store for its owner; the copy is closed by who asked. nil: it cannot be copied.
	Snapshot func(ctx context.Context) (*authority.Snapshot, error)
	// Close releases the authority's store when the node has stopped.
	Close func() error
}

// StoreState tells of an authority's store.
type StoreState struct {
	// Name is a file, or a URL without user and password.
	Name string
	// State returns since when the store is there, or away and why, as the last that was asked of it showed.
	State func() (since time.Time, away error)
}

// describe says how the store is.
func (s *StoreState) describe() admin.Store {
	since, away := s.State()
	d := admin.Store{Name: s.Name, State: "up", Since: since.UTC()}
	if away != nil {
		d.State, d.Reason = "away", away.Error()
	}
	return d
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
	if err := n.startFleet(ctx); err != nil {
		return err
	}
	if source := n.opts.Authority.Revocations; source != nil {
		if err := n.startNews(ctx, source); err != nil {
			return err
		}
	}
	return n.router.StartNamed(ctx, routing.EchoService, func(*routing.Shard) routing.Worker { return routing.Echo(nil, nil) }, n.api.Flow)
}

// serveStore answers with a copy of the authority's store as it is now.
func (n *Node) serveStore(w http.ResponseWriter, r *http.Request) {
	if n.opts.Authority == nil || n.opts.Authority.Snapshot == nil {
		admin.WriteError(w, fmt.Errorf("%w: node %s is no authority", admin.ErrNotFound, n.opts.Name))
		return
	}
	s, err := n.opts.Authority.Snapshot(r.Context())
	if err != nil {
		admin.WriteError(w, err)
		return
	}
	defer s.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(s.Size, 10))
	if _, err := io.CopyN(w, s, s.Size); err != nil && !errors.Is(err, context.Canceled) {
		n.log.Warn("the copy of the store was not taken whole", "reason", err.Error())
	}
}
