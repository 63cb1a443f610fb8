package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"sallyport/crypto/identity"
	"sallyport/fleet"
	"sallyport/node/admin"
	"sallyport/routing"
	"sallyport/routing/multiaddr"
	"sallyport/routing/rpc"
)

// FleetOptions say what a node does for others that act as the same identity.
type FleetOptions struct {
	// Keeper has the list of those others, if this node has the primary key; else Delegate is this node's part as one of them.
	Keeper   *fleet.Keeper
	Delegate *fleet.Delegate
}

// server is what answers for the node, nil if nothing does.
func (o *FleetOptions) server() rpc.Server {
	switch {
	case o == nil:
		return nil
	case o.Keeper != nil:
		return o.Keeper
	case o.Delegate != nil:
		return o.Delegate
	}
	return nil
}

// startFleet starts the service that attests keys and says where the nodes are. Nothing of it is reachable without a channel.
func (n *Node) startFleet(ctx context.Context) error {
	server := n.opts.Fleet.server()
	if server == nil {
		return nil
	}
	if k := n.opts.Fleet.Keeper; k != nil {
		server = keeperServer{n, k}
	}
	return n.router.StartNamed(ctx, fleet.Service, func(*routing.Shard) routing.Worker { return n.rpcWorker(fleet.Service, server) }, n.api.Flow)
}

// keeperServer is a keeper whose delegates hear at once when one has come or has moved: members ask any of them where the nodes are.
type keeperServer struct {
	node *Node
	*fleet.Keeper
}

// Serve implements rpc.Server.
func (s keeperServer) Serve(ctx context.Context, caller *identity.Identifier, req *rpc.Request) *rpc.Response {
	before := s.Routes()
	resp := s.Keeper.Serve(ctx, caller, req)
	if now := s.Routes(); !slices.Equal(before, now) {
		s.node.tellDelegates(now)
	}
	return resp
}

// AskService sends one request to a service of the node at the end of a route, through a channel of its own that only one of the identities in authorized
// can answer. No credential is presented. A refusal is a *rpc.StatusError.
func (n *Node) AskService(ctx context.Context, self identity.Identifier, route multiaddr.Addr, authorized []identity.Identifier, service string, req *rpc.Request) (*rpc.Response, error) {
	c, err := n.connectListener(ctx, route, connectOptions{self: self, authorized: authorized, noCredential: true})
	if err != nil {
		return nil, err
	}
	defer c.close()
	return n.call(ctx, c.route.Concat(routing.LocalRoute(service)), req)
}

var errNoKeeper = errors.New("this node has not the primary key of its identity, so it keeps no list of others")

func (n *Node) keeper() (*fleet.Keeper, error) {
	if n.opts.Fleet == nil || n.opts.Fleet.Keeper == nil {
		return nil, fmt.Errorf("%w: %w", admin.ErrInvalid, errNoKeeper)
	}
	return n.opts.Fleet.Keeper, nil
}

// mountFleet serves the keeper's list to its owner.
func (n *Node) mountFleet(mux *http.ServeMux) {
	mux.HandleFunc("POST "+admin.PathFleetTickets, admin.Handle(func(_ context.Context, r admin.FleetTicketRequest) (admin.FleetTicket, error) {
		k, err := n.keeper()
		if err != nil {
			return admin.FleetTicket{}, err
		}
		code, reference, err := k.NewTicket(time.Duration(r.LifetimeMS)*time.Millisecond, time.Duration(r.ExpiresMS)*time.Millisecond, r.Uses)
		if err != nil {
			return admin.FleetTicket{}, fleetError(err)
		}
		return admin.FleetTicket{Code: code.Reveal(), Reference: reference}, nil
	}))
	mux.HandleFunc("GET "+admin.PathFleet, func(w http.ResponseWriter, _ *http.Request) {
		k, err := n.keeper()
		if err != nil {
			admin.WriteError(w, err)
			return
		}
		list := []admin.FleetNode{}
		for _, d := range k.Nodes() {
			list = append(list, fleetNode(d))
		}
		admin.Write(w, list)
	})
	mux.HandleFunc("DELETE "+admin.PathFleet+"/{name}", func(w http.ResponseWriter, r *http.Request) {
		k, err := n.keeper()
		if err != nil {
			admin.WriteError(w, err)
			return
		}
		d, err := k.Delete(r.PathValue("name"))
		if err == nil {
			n.tellDelegates(append(k.Routes(), d.Route))
		}
		admin.Answer(w, fleetNode(d), fleetError(err))
	})
}

// tellTimeout is how long it takes at most to tell a delegate that the list has changed.
const tellTimeout = 15 * time.Second

// tellDelegates tells those along routes that the list has changed. Who cannot be told asks by itself before long.
func (n *Node) tellDelegates(routes []string) {
	for _, text := range routes {
		go func() {
			ctx, cancel := context.WithTimeout(n.ctx, tellTimeout)
			defer cancel()
			route, err := multiaddr.Parse(text)
			if err == nil {
				c := &fleet.Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
					return n.AskService(ctx, n.opts.Self, route, []identity.Identifier{n.opts.Self}, fleet.Service, req)
				}}
				err = c.Tell(ctx)
			}
			if err != nil {
				n.log.Debug("a node is not told that the list of nodes has changed: it asks by itself", "route", text, "reason", err.Error())
			}
		}()
	}
}

// fleetError is an error of a keeper as the administration interface tells it.
func fleetError(err error) error {
	switch {
	case errors.Is(err, fleet.ErrNoNode):
		return fmt.Errorf("%w: %w", admin.ErrNotFound, err)
	case errors.Is(err, fleet.ErrInvalid), errors.Is(err, fleet.ErrFull):
		return fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	return err
}

func fleetNode(d fleet.Node) admin.FleetNode {
	moment := func(t time.Time) int64 {
		if t.IsZero() {
			return 0
		}
		return t.Unix()
	}
	return admin.FleetNode{
		Name: d.Name, Kind: string(d.Kind), Identifier: d.Box.String(), Route: d.Route, LifetimeSeconds: d.Lifetime, Ticket: d.Ticket,
		AddedAt: moment(d.AddedAt), Seen: moment(d.Seen), ValidUntil: moment(d.ValidUntil), Deleted: moment(d.Deleted),
	}
}
