package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/names"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/rpc"
)

// Times of a node's own credential. One that lasts for long counts as expired a minute before it is, as in the reference
// (docs/protocol/02 §4.5), one that does not a tenth of its life before. It is renewed at two thirds of its life, a little sooner or
// later, so that members that began together do not ask together.
const (
	credentialMargin  = 60 * time.Second
	credentialTimeout = 30 * time.Second
	// credentialPause is how long a node waits before it asks the authority for another credential, after one that it got and after a
	// refusal; credentialRetry is how long after it could not ask.
	credentialPause = 10 * time.Second
	credentialRetry = time.Second
)

var errNoCredential = errors.New("no credential: ask the authority's administrator for a ticket and enroll")

// ownCredential is a credential about the node itself.
type ownCredential struct {
	raw              []byte
	created, expires time.Time
	stale            bool // the authority has another key by now: nobody who knows it accepts the credential
}

// margin is how long before its end a credential is not presented any more.
func (o *ownCredential) margin() time.Duration {
	return min(credentialMargin, o.expires.Sub(o.created)/10)
}

// renewal is when the credential is to be renewed: at two thirds of its life, by up to a twentieth of it sooner or later.
func (o *ownCredential) renewal(random float64) time.Time {
	life := o.expires.Sub(o.created)
	return o.created.Add(life*2/3 + time.Duration((2*random-1)*float64(life)/20))
}

// credentials holds a node's own credential and keeps it fresh.
type credentials struct {
	node *Node

	mu        sync.Mutex
	own       ownCredential
	renewAt   time.Time
	notBefore time.Time     // credentials made until then were taken back
	fetched   time.Time     // last attempt
	pause     time.Duration // after it
	failure   error         // of the last attempt
	flight    chan struct{} // closed when the attempt under way has ended; nil when none is
	wake      chan struct{} // has run look at renewAt again
}

func newCredentials(n *Node) *credentials { return &credentials{node: n, wake: make(chan struct{}, 1)} }

// usable reports whether the credential can be presented now. Where there is no way to get another one it can until its end.
func (c *credentials) usable(o *ownCredential, now time.Time) bool {
	margin := o.margin()
	if len(c.node.opts.Trust.Route) == 0 {
		margin = 0
	}
	return o.raw != nil && !o.stale && o.expires.Sub(now) > margin && o.created.After(c.notBefore)
}

// get returns a credential that is valid for a while, fetching one if need be.
func (c *credentials) get(ctx context.Context) ([]byte, error) {
	for {
		c.mu.Lock()
		now := time.Now()
		if c.usable(&c.own, now) {
			raw := c.own.raw
			c.mu.Unlock()
			return raw, nil
		}
		if c.flight == nil {
			if left := c.pause - now.Sub(c.fetched); left > 0 {
				err := c.failure
				c.mu.Unlock()
				if err == nil {
					err = fmt.Errorf("the credential has ended, and the authority is asked again in %v at the soonest", left.Round(time.Second))
				}
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

// fetch loads the stored credential, or asks the authority for one.
func (c *credentials) fetch(flight chan struct{}) {
	ctx, cancel := context.WithTimeout(c.node.ctx, credentialTimeout)
	defer cancel()
	own, asked, err := c.obtain(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	var refused *rpc.StatusError
	c.fetched, c.failure, c.pause = time.Now(), err, 0
	switch {
	case err == nil:
		c.own, c.renewAt = own, own.renewal(rand.Float64())
		if asked {
			c.pause = credentialPause
		}
		select {
		case c.wake <- struct{}{}:
		default:
		}
	case errors.As(err, &refused):
		c.pause = credentialPause
	default:
		c.pause = credentialRetry
	}
	if err != nil {
		c.node.log.Warn("no credential from the authority", "reason", err.Error())
	}
	c.flight = nil
	close(flight)
}

// obtain returns a credential other than the one in use. asked tells whether it is from the authority, not from the store.
func (c *credentials) obtain(ctx context.Context) (own ownCredential, asked bool, err error) {
	n := c.node
	trust := n.opts.Trust
	verify := func(raw []byte) (o ownCredential, err error) {
		v, err := n.opts.Identities.VerifyCredential(ctx, raw, &n.opts.Self, []identity.Identifier{*trust.Authority})
		if err != nil {
			return o, err
		}
		return ownCredential{raw: raw, created: time.Unix(int64(v.CreatedAt), 0), expires: time.Unix(int64(v.ExpiresAt), 0)}, nil
	}
	stored, err := n.opts.Store.Credential(ctx, n.opts.Self, *trust.Authority, trust.Scope)
	if err != nil && len(trust.Route) == 0 {
		return own, false, fmt.Errorf("the stored credential: %w", err)
	}
	if err != nil { // it can be had anew
		n.log.Warn("the stored credential cannot be read; another one is fetched", "err", err.Error())
		stored = nil
	}
	if stored != nil && !c.held(stored) {
		if own, err = verify(stored); err == nil && c.good(&own) {
			return own, false, nil
		}
	}
	if len(trust.Route) == 0 {
		return own, false, errNoCredential
	}
	raw, err := n.FetchCredential(ctx)
	if err != nil {
		return own, true, err
	}
	if own, err = verify(raw); err != nil {
		return own, true, fmt.Errorf("credential from the authority: %w", NewlyMade(err))
	}
	if err := n.opts.Store.PutCredential(ctx, n.opts.Self, *trust.Authority, trust.Scope, raw, own.expires); err != nil {
		n.log.Warn("credential not stored", "err", err.Error())
	}
	return own, true, nil
}

// NewlyMade explains why a credential that the authority made a moment ago is not valid: if it has expired already, a clock is wrong.
func NewlyMade(err error) error {
	if errors.Is(err, identity.ErrExpired) {
		return fmt.Errorf("%w: it was made just now: set the clock here, which says %s, or the authority's: %w", identity.ErrClock, time.Now().UTC().Format(time.RFC3339), err)
	}
	return err
}

// good is usable for a credential that is not in use.
func (c *credentials) good(o *ownCredential) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usable(o, time.Now())
}

// held reports whether raw is the credential in use, which a fetch is to replace.
func (c *credentials) held(raw []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(raw) == string(c.own.raw)
}

// life is how long the credential in use lasts from its beginning, otherwise if there is none.
func (c *credentials) life(otherwise time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.own.raw == nil {
		return otherwise
	}
	return c.own.expires.Sub(c.own.created)
}

// takenBack has a credential replaced that was made at a time or before: the authority has taken it back.
func (c *credentials) takenBack(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notBefore = at
	if c.own.raw != nil && !c.own.created.After(at) {
		c.renewAt, c.pause = time.Now(), 0
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// outdated has the credential in use replaced if the authority's key that vouches for it is not its key any more.
func (c *credentials) outdated(ctx context.Context) {
	c.mu.Lock()
	raw := c.own.raw
	c.mu.Unlock()
	if raw == nil || len(c.node.opts.Trust.Route) == 0 {
		return
	}
	_, err := c.node.opts.Identities.VerifyCredential(ctx, raw, &c.node.opts.Self, []identity.Identifier{*c.node.opts.Trust.Authority})
	if !errors.Is(err, identity.ErrAttestation) {
		return
	}
	c.mu.Lock()
	if string(c.own.raw) == string(raw) {
		c.own.stale, c.renewAt, c.pause = true, time.Now(), 0
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// FetchCredential asks the node's authority for a member credential, through a channel of its own.
func (n *Node) FetchCredential(ctx context.Context) ([]byte, error) {
	resp, err := n.AskAuthority(ctx, n.opts.Self, "credential_issuer", rpc.NewRequest(rpc.Post, authority.PathRenewing, nil))
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// How long an authority may be silent until it is asked again through another channel, and how often it is asked; and, for what may be asked twice, after how long another authority is asked
// beside one that has not answered yet: longer than most answers take, so that who is slow for having much to do is not asked by others at once.
const (
	askAuthorityTimeout = 10 * time.Second
	askAuthorityTries   = 3
	askAuthorityDelay   = time.Second
)

// AskAuthority sends one request to a service of the node's authority, as self, through a channel that only the authority can answer. One that
// stays silent is asked again, another one first if there are several, and before long where that changes nothing: a busy authority of the reference now and then loses what comes right
// behind the handshake. To be asked twice changes nothing, except that a ticket may be made that nobody gets.
func (n *Node) AskAuthority(ctx context.Context, self identity.Identifier, service string, req *rpc.Request) (resp *rpc.Response, err error) {
	for try := range askAuthorityTries {
		attempt, cancel := context.WithTimeout(ctx, askAuthorityTimeout)
		resp, err = n.askAuthority(attempt, self, service, req, try)
		silent := attempt.Err() != nil || errors.Is(err, errPathClosed)
		cancel()
		if err == nil || !silent || ctx.Err() != nil {
			return resp, err
		}
	}
	return nil, fmt.Errorf("%w; is it running, and is the clock here right, which says %s? %w", errSilentAuthority, time.Now().UTC().Format(time.RFC3339), err)
}

// repeatable reports whether several authorities may be asked the same at once: a member gets the same credential, and an identity that presents a code is told by the second that it is a
// member already.
func repeatable(service string, req *rpc.Request) bool {
	return service == authority.CredentialIssuer || service == authority.EnrollmentTokenAcceptor || req.Method == rpc.Get
}

func (n *Node) askAuthority(ctx context.Context, self identity.Identifier, service string, req *rpc.Request, skip int) (*rpc.Response, error) {
	trust := n.opts.Trust
	if trust.Authority == nil || len(trust.Route) == 0 {
		return nil, errors.New("no authority is known: import a project, or enroll with a ticket")
	}
	o := connectOptions{self: self, authorized: []identity.Identifier{*trust.Authority}, noCredential: trust.Present == nil}
	if trust.Present != nil {
		o.credential = func(context.Context) ([]byte, error) { return trust.Present, nil }
	}
	ask := func(ctx context.Context, c *connection, err error) (*rpc.Response, error) {
		if err != nil {
			return nil, fmt.Errorf("authority: %w", err)
		}
		defer c.close()
		return n.callAlong(ctx, c, service, req)
	}
	if !repeatable(service, req) {
		c, err := n.connectAuthority(ctx, o, skip)
		return ask(ctx, c, err)
	}
	o.spread = self.String()
	return firstAnswer(ctx, n.authorityRoutes(self, skip), func(ctx context.Context, a multiaddr.Addr) (*rpc.Response, error) {
		c, err := n.connectListener(ctx, a, o)
		return ask(ctx, c, err)
	})
}

// firstAnswer asks along one route after the other, with askAuthorityDelay between, until one answers. A refusal is an answer.
func firstAnswer(ctx context.Context, routes []multiaddr.Addr, ask func(context.Context, multiaddr.Addr) (*rpc.Response, error)) (*rpc.Response, error) {
	type answer struct {
		resp    *rpc.Response
		refused error
	}
	a, err := names.RaceEach(ctx, askAuthorityDelay, nil, routes, func(ctx context.Context, to multiaddr.Addr) (answer, error) {
		resp, err := ask(ctx, to)
		var refusal *rpc.StatusError
		if errors.As(err, &refusal) {
			return answer{resp, err}, nil
		}
		return answer{resp: resp}, err
	}, func(answer) {})
	return a.resp, cmp.Or(err, a.refused)
}

// whilePath returns a context that ends with a path too, of errPathClosed then.
func whilePath(ctx context.Context, done <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-done:
			cancel(errPathClosed)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// callAlong sends one request to a service of the node at the end of a connection, and waits for its response until that ends: the error matches errPathClosed then.
func (n *Node) callAlong(ctx context.Context, c *connection, service string, req *rpc.Request) (*rpc.Response, error) {
	ctx, cancel := whilePath(ctx, c.done())
	defer cancel()
	resp, err := n.call(ctx, c.route.Concat(routing.LocalRoute(service)), req)
	if err != nil && errors.Is(context.Cause(ctx), errPathClosed) {
		return nil, fmt.Errorf("%w: %w", errPathClosed, err)
	}
	return resp, err
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

// run renews the credential in time, and presents the new one on all channels that live.
func (c *credentials) run(ctx context.Context) {
	for {
		c.mu.Lock()
		wait := time.Hour
		if c.own.raw != nil {
			wait = max(time.Until(c.renewAt), c.pause-time.Since(c.fetched))
			if c.failure != nil { // the one in use is good for a while yet
				wait = max(wait, credentialPause-time.Since(c.fetched))
			}
		}
		c.mu.Unlock()
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-c.wake:
			timer.Stop()
			continue
		case <-timer.C:
		}
		c.renew(ctx)
	}
}

// renew replaces the credential if it is time.
func (c *credentials) renew(ctx context.Context) {
	c.mu.Lock()
	before := c.own.raw
	if before == nil || time.Now().Before(c.renewAt) || time.Since(c.fetched) < c.pause {
		c.mu.Unlock()
		return
	}
	flight := c.flight
	if flight == nil {
		flight = make(chan struct{})
		c.flight = flight
		go c.fetch(flight)
	}
	c.mu.Unlock()
	select {
	case <-flight:
	case <-ctx.Done():
		return
	}
	c.mu.Lock()
	now := c.own.raw
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
