package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sallyport/crypto/identity"
	"sallyport/routing"
	"sallyport/routing/rpc"
)

// Times of a node's own credential (docs/protocol/02 §4.5): it counts as expired a minute before it is, and is fetched anew a
// minute before that.
const (
	credentialMargin  = 60 * time.Second
	credentialRefresh = 120 * time.Second
	credentialRetry   = 10 * time.Second
	credentialTimeout = 30 * time.Second
)

var errNoCredential = errors.New("no credential: ask the authority's administrator for a ticket and enroll")

// credentials holds a node's own credential and keeps it fresh.
type credentials struct {
	node *Node

	mu      sync.Mutex
	raw     []byte
	expires time.Time
	fetched time.Time     // last attempt
	failure error         // of the last attempt
	flight  chan struct{} // closed when the attempt under way has ended; nil when none is
}

func newCredentials(n *Node) *credentials { return &credentials{node: n} }

// get returns a credential that is valid for at least a minute, fetching one if need be.
func (c *credentials) get(ctx context.Context) ([]byte, error) {
	for {
		c.mu.Lock()
		if c.raw != nil && time.Until(c.expires) > c.margin() {
			raw := c.raw
			c.mu.Unlock()
			return raw, nil
		}
		if c.flight == nil {
			if c.failure != nil && time.Since(c.fetched) < time.Second {
				err := c.failure
				c.mu.Unlock()
				return nil, err // many channels at once ask the authority once
			}
			flight := make(chan struct{})
			c.flight = flight
			go c.fetch(flight)
		}
		flight := c.flight
		c.mu.Unlock()
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		c.mu.Lock()
		err := c.failure
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

func (c *credentials) margin() time.Duration {
	if len(c.node.opts.Trust.Route) == 0 {
		return 0 // there is no way to get another one
	}
	return credentialMargin
}

// fetch loads the stored credential, or asks the authority for one.
func (c *credentials) fetch(flight chan struct{}) {
	ctx, cancel := context.WithTimeout(c.node.ctx, credentialTimeout)
	defer cancel()
	raw, expires, err := c.obtain(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fetched, c.failure = time.Now(), err
	if err == nil {
		c.raw, c.expires = raw, expires
	} else {
		c.node.log.Warn("no credential from the authority", "reason", err.Error())
	}
	c.flight = nil
	close(flight)
}

func (c *credentials) obtain(ctx context.Context) ([]byte, time.Time, error) {
	n := c.node
	trust := n.opts.Trust
	verify := func(raw []byte) (time.Time, error) {
		v, err := n.opts.Identities.VerifyCredential(ctx, raw, &n.opts.Self, []identity.Identifier{*trust.Authority})
		if err != nil {
			return time.Time{}, err
		}
		return time.Unix(int64(v.ExpiresAt), 0), nil
	}
	stored, err := n.opts.Store.Credential(ctx, n.opts.Self, *trust.Authority, trust.Scope)
	if err != nil {
		return nil, time.Time{}, err
	}
	if stored != nil {
		if expires, err := verify(stored); err == nil && time.Until(expires) > c.margin() && !c.held(stored) {
			return stored, expires, nil
		}
	}
	if len(trust.Route) == 0 {
		return nil, time.Time{}, errNoCredential
	}
	raw, err := n.FetchCredential(ctx)
	if err != nil {
		return nil, time.Time{}, err
	}
	expires, err := verify(raw)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("credential from the authority: %w", err)
	}
	if err := n.opts.Store.PutCredential(ctx, n.opts.Self, *trust.Authority, trust.Scope, raw, expires); err != nil {
		n.log.Warn("credential not stored", "err", err.Error())
	}
	return raw, expires, nil
}

// held reports whether raw is the credential in use, which a fetch is to replace.
func (c *credentials) held(raw []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(raw) == string(c.raw)
}

// FetchCredential asks the node's authority for a member credential, through a channel of its own.
func (n *Node) FetchCredential(ctx context.Context) ([]byte, error) {
	resp, err := n.AskAuthority(ctx, n.opts.Self, "credential_issuer", rpc.NewRequest(rpc.Post, "/", nil))
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// AskAuthority sends one request to a service of the node's authority, as self, through a channel that only the
// authority can answer.
func (n *Node) AskAuthority(ctx context.Context, self identity.Identifier, service string, req *rpc.Request) (*rpc.Response, error) {
	trust := n.opts.Trust
	if trust.Authority == nil || len(trust.Route) == 0 {
		return nil, errors.New("no authority is known: import a project, or enroll with a ticket")
	}
	c, err := n.connectListener(ctx, trust.Route, connectOptions{self: self, authorized: []identity.Identifier{*trust.Authority}, noCredential: true})
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	defer c.close()
	return n.call(ctx, c.route.Concat(routing.LocalRoute(service)), req)
}

// call sends one request over a route and waits for its response.
func (n *Node) call(ctx context.Context, route routing.Route, req *rpc.Request) (*rpc.Response, error) {
	reply, err := n.router.Request(ctx, route, req.Encode())
	if err != nil {
		return nil, err
	}
	resp, err := rpc.DecodeResponse(reply.Payload)
	if err != nil {
		return nil, err
	}
	return resp, resp.Err()
}

// run fetches the credential anew before it expires, and presents it on all channels that live.
func (c *credentials) run(ctx context.Context) {
	for {
		c.mu.Lock()
		have := c.raw != nil
		next := time.Until(c.expires) - credentialRefresh
		c.mu.Unlock()
		if !have || next < credentialRetry {
			next = credentialRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		}
		if !have {
			continue
		}
		c.renew(ctx)
	}
}

func (c *credentials) renew(ctx context.Context) {
	c.mu.Lock()
	before := c.raw
	if time.Until(c.expires) > credentialRefresh || c.flight != nil {
		c.mu.Unlock()
		return
	}
	flight := make(chan struct{})
	c.flight = flight
	c.mu.Unlock()
	c.fetch(flight)
	c.mu.Lock()
	now := c.raw
	c.mu.Unlock()
	if string(now) == string(before) {
		return
	}
	for _, ch := range c.node.channels.List() {
		if ch.Self == c.node.opts.Self {
			if err := ch.Refresh(ctx, now); err != nil {
				c.node.log.Warn("credential not presented", "err", err.Error())
			}
		}
	}
}
