package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/fleet"
	"sallyport/node"
	"sallyport/routing/multiaddr"
	"sallyport/routing/rpc"
	"sallyport/state"
)

// keeperTimeout is how long a keeper may take to answer.
const keeperTimeout = 15 * time.Second

// keeperLink is how a node that acts as another's identity asks the one that has the primary key: with a node beside it that is itself there.
type keeperLink struct {
	client *fleet.Client
	node   *node.Node
}

// askKeeper makes a link to a keeper. The caller stops its node.
func (a *app) askKeeper(ctx context.Context, box *self, d state.Delegate) (*keeperLink, error) {
	route, err := multiaddr.Parse(d.Keeper)
	if err != nil {
		return nil, fmt.Errorf("the route to the keeper: %w", err)
	}
	kept, err := identity.ParseIdentifier(d.Identifier)
	if err != nil {
		return nil, err
	}
	options := node.Options{
		Name: "keeper-link", IdentityName: box.named.Name, Self: box.id, Identities: box.manager, Shards: 1, NoListener: true,
		Store: node.CommandHome(a.dirOnce), Log: slog.New(slog.DiscardHandler),
	}
	if err := applyNetwork(&options, &state.NodeOptions{}); err != nil {
		return nil, err
	}
	n, err := node.Start(ctx, options)
	if err != nil {
		return nil, err
	}
	ask := func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		ctx, cancel := context.WithTimeout(ctx, keeperTimeout)
		defer cancel()
		return n.AskService(ctx, box.id, route, []identity.Identifier{kept}, fleet.Service, req)
	}
	return &keeperLink{client: &fleet.Client{Call: ask}, node: n}, nil
}

// actAs returns who a node is that acts as another's identity, and its part in that fleet. The link to the keeper ends with ctx.
func (a *app) actAs(ctx context.Context, box *self, d *state.Delegate, log *slog.Logger) (*self, *node.FleetOptions, error) {
	link, err := a.askKeeper(ctx, box, *d)
	if err != nil {
		return nil, nil, err
	}
	context.AfterFunc(ctx, link.node.Stop)
	acting := &self{named: box.named, manager: box.manager.Delegate(link.client)}
	if acting.id, err = identity.ParseIdentifier(d.Identifier); err != nil {
		return nil, nil, err
	}
	learn := func(ctx context.Context, history []byte) error {
		_, err := acting.manager.ImportIgnoreOlder(ctx, history)
		acting.manager.Reread(acting.id)
		if err == nil {
			_ = acting.signingKey(ctx, d.Kind) // if the keeper does not attest one now it is asked again in a minute
		}
		return err
	}
	part := &node.FleetOptions{Delegate: fleet.NewDelegate(link.client, acting.id, learn)}
	if err = acting.manager.CheckKeys(ctx, acting.id); err == nil {
		err = acting.signingKey(ctx, d.Kind)
	}
	switch {
	case errors.Is(err, identity.ErrNotDelegate):
		return nil, nil, withHint(fmt.Errorf("this machine is no %s of the project any more: %w", d.Kind, err), "another ticket makes it one again: sallyport project %s-node ticket", d.Kind)
	case errors.Is(err, identity.ErrKeeperAway):
		log.Warn("who has the primary key cannot be reached: nobody can connect here until it can; it is tried again", "keeper", d.Keeper, "reason", err.Error())
	case err != nil:
		return nil, nil, err
	}
	return acting, part, nil
}

// signingKey makes sure that an authority has a key that signs credentials before its keeper is away: it may not have been asked for any until then.
func (s *self) signingKey(ctx context.Context, kind string) error {
	if kind != string(fleet.Authority) {
		return nil
	}
	_, err := s.manager.CredentialKey(ctx, s.id, vault.Ed25519)
	return err
}

// lookRest is how long a node rests between two looks at its keeper's list, however often it is asked to look.
const lookRest = time.Second

// watchKeeper asks the keeper from time to time, and when it is asked to, whether this node is still one that acts as the identity, and calls stop when it is not.
func watchKeeper(ctx context.Context, d *fleet.Delegate, stop func(), log *slog.Logger) {
	away := false
	for pause := time.Duration(0); ; pause = fleet.Interval + rand.N(fleet.Interval/3) {
		rest := time.NewTimer(min(pause, lookRest))
		select {
		case <-ctx.Done():
			rest.Stop()
			return
		case <-rest.C:
		}
		next := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-next.C:
		case <-d.Asked():
		}
		next.Stop()
		if ctx.Err() != nil {
			return
		}
		err := d.Look(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, identity.ErrNotDelegate):
			log.Error("this machine was deleted from the project's nodes: it stops", "reason", err.Error())
			stop()
			return
		case err != nil && !away:
			log.Warn("who has the primary key cannot be reached; it is tried again", "reason", err.Error())
		case err == nil && away:
			log.Info("who has the primary key can be reached again")
		}
		away = err != nil
	}
}

// keeperOptions have a node that has its identity's primary key keep the list of others that act as that identity.
func (a *app) keeperOptions(ctx context.Context, name string, s *self, kind fleet.Kind, log *slog.Logger) (*node.FleetOptions, error) {
	k, err := fleet.NewKeeper(fleet.Options{
		Self: s.id, Kind: kind, Identities: s.manager, Log: log,
		History: func(ctx context.Context) ([]byte, error) { return s.manager.History(ctx, s.id) },
		Load:    func() ([]byte, error) { return a.dirOnce.Fleet(name) },
		Save:    func(raw []byte) error { return a.dirOnce.PutFleet(name, raw) },
		Changed: func(routes []string) {
			if err := a.keepRoutes(ctx, s.id, kind, routes); err != nil {
				log.Warn("tickets that are made here do not say where all nodes are", "reason", err.Error())
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return &node.FleetOptions{Keeper: k}, nil
}

// keepRoutes has tickets that are made here from now on say where the nodes are that act as an identity.
func (a *app) keepRoutes(ctx context.Context, id identity.Identifier, kind fleet.Kind, routes []string) error {
	list, err := a.dirOnce.Projects()
	if err != nil {
		return err
	}
	for _, stored := range list {
		p := *stored.Project
		of, to := p.Identity, &p.AccessRoutes
		if kind == fleet.Authority {
			of, to = p.AuthorityIdentifier(), &p.AuthorityAccessRoutes
		}
		if of != id.String() || slices.Equal(*to, routes) {
			continue
		}
		*to = routes
		if err := a.dirOnce.PutProject(ctx, &p); err != nil {
			return err
		}
	}
	return nil
}
