package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"sallyport/crypto/identity"
	"sallyport/project"
	"sallyport/routing/rpc"
)

// Client asks a keeper. It implements identity.Keeper.
type Client struct {
	// Call sends a request to Service through a secure channel, in which the caller is who it is on the list and the keeper the identity that it keeps, and
	// returns the answer; a refusal is a *rpc.StatusError.
	Call func(ctx context.Context, req *rpc.Request) (*rpc.Response, error)
}

// call returns the body of an answer. A refusal of who is not on the list matches identity.ErrNotDelegate, all else identity.ErrKeeperAway.
func (c *Client) call(ctx context.Context, method rpc.Method, path string, body, into any) error {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = cbor.Marshal(body); err != nil {
			return err
		}
	}
	resp, err := c.Call(ctx, rpc.NewRequest(method, path, raw))
	if err == nil {
		err = resp.Err()
	}
	var status *rpc.StatusError
	switch {
	case errors.As(err, &status) && status.Status == rpc.Forbidden && status.Body.Message == textNotListed:
		return fmt.Errorf("%w: %w", identity.ErrNotDelegate, err)
	case err != nil:
		return fmt.Errorf("%w: %w", identity.ErrKeeperAway, err)
	}
	if err := cbor.Unmarshal(resp.Body, into); err != nil {
		return fmt.Errorf("%w: its answer cannot be read: %w", identity.ErrKeeperAway, err)
	}
	return nil
}

// Redeem puts the caller on the keeper's list under a name, where members reach it along a route, and returns for how long its keys are attested at most.
func (c *Client) Redeem(ctx context.Context, code project.Code, name, route string) (time.Duration, error) {
	for _, err := range []error{checkName(name), checkRoute(route)} {
		if err != nil {
			return 0, err
		}
	}
	var r redeemed
	err := c.call(ctx, rpc.Post, pathRedeem, redeemRequest{Code: code[:], Name: name, Route: route}, &r)
	return time.Duration(r.Lifetime) * time.Second, err
}

// Attest implements identity.Keeper.
func (c *Client) Attest(ctx context.Context, r identity.AttestationRequest) (attestation, history []byte, err error) {
	ask := attestRequest{Purpose: uint8(r.Purpose), Key: r.X25519[:], Lifetime: int64(r.Lifetime / time.Second)}
	if r.Purpose == identity.CredentialSigning {
		ask.Algorithm, ask.Key = uint8(r.Key.Algorithm), r.Key.Bytes
	}
	var a attested
	err = c.call(ctx, rpc.Post, pathAttest, ask, &a)
	return a.Attestation, a.History, err
}

// Nodes is what a node of a fleet says of the fleet.
type Nodes struct {
	// Routes are where the delegates are.
	Routes []string
	// Version names the list; nil where the node tells it only to those who ask again from time to time.
	Version []byte
	// Keeper tells that the keeper itself has answered; then Listed tells whether who asked is a delegate, and if so History is the identity's, encoded and
	// not verified.
	Keeper, Listed bool
	History        []byte
}

// Nodes asks a node of a fleet where the others are.
func (c *Client) Nodes(ctx context.Context) (Nodes, error) { return c.nodes(ctx, nil) }

// Others is Nodes for who has a list already, whose Version is have: the answer comes when there is another one, or after MaxWait. same tells that there is none; then
// it says nothing else.
func (c *Client) Others(ctx context.Context, have []byte) (n Nodes, same bool, err error) {
	n, err = c.nodes(ctx, nodesRequest{Have: have, Wait: MaxWait.Milliseconds()})
	return n, err == nil && len(have) > 0 && bytes.Equal(n.Version, have), err
}

func (c *Client) nodes(ctx context.Context, body any) (n Nodes, err error) {
	var r nodesReply
	if err := c.call(ctx, rpc.Get, pathNodes, body, &r); err != nil {
		return n, err
	}
	return Nodes{Routes: CheckRoutes(r.Routes), Version: r.Version, Keeper: r.Keeper, Listed: r.Listed, History: r.History}, nil
}

// CheckRoutes returns those of a list that members can be sent along, as many as a fleet may have.
func CheckRoutes(routes []string) []string {
	routes = slices.DeleteFunc(slices.Clone(routes[:min(len(routes), maxNodes)]), func(r string) bool { return checkRoute(r) != nil })
	return routes
}

// Tell has a delegate ask its keeper now: the list has changed. Only who acts as the delegate's identity may.
func (c *Client) Tell(ctx context.Context) error {
	var none struct{}
	return c.call(ctx, rpc.Post, pathLook, nil, &none)
}

// Interval is how often a delegate asks its keeper whether it is one still.
const Interval = time.Minute

// Delegate is this node's part when it acts as an identity whose keeper is elsewhere. It answers members that ask where the nodes are.
type Delegate struct {
	client *Client
	self   identity.Identifier
	learn  func(ctx context.Context, history []byte) error
	asked  chan struct{}
	board  *board
}

// NewDelegate makes a Delegate that acts as self, and tells nobody where the nodes are before it has looked. learn is told the identity's history.
func NewDelegate(c *Client, self identity.Identifier, learn func(ctx context.Context, history []byte) error) *Delegate {
	return &Delegate{client: c, self: self, learn: learn, asked: make(chan struct{}, 1), board: newBoard(maxWaiting)}
}

// Asked can be received from when the keeper has asked this node to look at the list.
func (d *Delegate) Asked() <-chan struct{} { return d.asked }

// Look asks the keeper once. The error matches identity.ErrNotDelegate when the keeper says that this node is none.
func (d *Delegate) Look(ctx context.Context) error {
	n, err := d.client.Nodes(ctx)
	switch {
	case err != nil:
		return err
	case !n.Keeper:
		return fmt.Errorf("%w: another node has answered in its place", identity.ErrKeeperAway)
	case !n.Listed:
		return identity.ErrNotDelegate
	}
	if err := d.learn(ctx, n.History); err != nil {
		return fmt.Errorf("the keeper's history: %w", err)
	}
	d.board.set(n.Routes)
	return nil
}

// Serve answers who asks where the nodes are. See rpc.Server.
func (d *Delegate) Serve(ctx context.Context, caller *identity.Identifier, req *rpc.Request) *rpc.Response {
	switch {
	case caller == nil:
		return rpc.ErrorResponse(nil, rpc.BadRequest, textNoChannel)
	case req.Method == rpc.Post && req.Path == pathLook && *caller == d.self:
		select {
		case d.asked <- struct{}{}:
		default: // it is asked to already
		}
		return reply(req, struct{}{})
	case req.Method != rpc.Get || req.Path != pathNodes:
		return rpc.ErrorResponse(req, rpc.NotFound, "this node has not the primary key")
	}
	asked, ok := ask(req)
	routes, version := d.board.list()
	switch {
	case !ok:
		return rpc.ErrorResponse(req, rpc.BadRequest, textBody)
	case version == nil:
		return rpc.ErrorResponse(req, rpc.InternalServerError, textNotYet)
	}
	if later := d.board.awaits(ctx, *caller, req, asked); later != nil {
		return later
	}
	return reply(req, nodesReply{Routes: routes, Version: version})
}
