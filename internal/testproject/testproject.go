// Package testproject runs a project within a test or an example: an authority and a relay at loopback addresses, and tickets for members. It is the real
// thing, as `sallyport project create` starts it, without processes.
package testproject

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/node"
	"sallyport/project"
	"sallyport/routing/rpc"
	"sallyport/state"
)

// Project runs until Close.
type Project struct {
	dir       string
	admin     identity.Identifier
	auth      *authority.Authority
	authority *node.Node
	relay     *node.Node
	described *project.Project
}

// who is an identity in memory.
type who struct {
	ids     *identity.Manager
	id      identity.Identifier
	history string
}

func newIdentity(ctx context.Context) (who, error) {
	ids := identity.New(identity.Options{Vault: vault.NewMemory(), Store: identity.NewMemoryStore()})
	made, err := ids.Create(ctx, identity.CreateOptions{})
	if err != nil {
		return who{}, err
	}
	history, err := ids.History(ctx, made.Identifier())
	return who{ids, made.Identifier(), hex.EncodeToString(history)}, err
}

// Start starts the authority and the relay. log may be nil.
func Start(ctx context.Context, log *slog.Logger) (_ *Project, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Project{}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.dir, err = os.MkdirTemp("", "testproject-"); err != nil {
		return nil, err
	}
	at, err := newIdentity(ctx)
	if err != nil {
		return nil, err
	}
	relay, err := newIdentity(ctx)
	if err != nil {
		return nil, err
	}
	administrator, err := newIdentity(ctx)
	if err != nil {
		return nil, err
	}
	p.admin = administrator.id
	store, err := authority.OpenStore(filepath.Join(p.dir, "authority.db"))
	if err != nil {
		return nil, err
	}
	const id = "b2fb7a86-7b1c-4a06-8ab5-3f2d1d3f6f10"
	p.auth, err = authority.New(ctx, authority.Options{
		Store: store, Identities: at.ids, Self: at.id, ProjectID: id, Log: log,
		TrustedIdentities: map[identity.Identifier]map[string]string{
			p.admin: {authority.RoleAttribute: authority.RoleEnroller}, relay.id: {authority.RelayAttribute: "*"},
		},
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	p.authority, err = node.Start(ctx, node.Options{
		Name: "authority", Self: at.id, Identities: at.ids, Store: node.NewHome(nil, "authority", false), Listen: "127.0.0.1:0", Shards: 1, Log: log,
		Authority: &node.AuthorityOptions{Services: p.auth.Services(), Revocations: p.auth, Events: &node.AuthorityEvents{}, Close: store.Close},
	})
	if err != nil {
		return nil, err
	}
	p.described = &project.Project{
		ID: id, Name: "test", SpaceName: "self-hosted", SpaceID: id, Identity: relay.id.String(), ChangeHistory: relay.history,
		AuthorityAccessRoute: access(p.authority), AuthorityChangeHistory: at.history,
	}
	dir, err := state.Open(filepath.Join(p.dir, "relay"))
	if err != nil {
		return nil, err
	}
	if _, err := node.AuthorityHistory(ctx, relay.ids, at.history); err != nil {
		return nil, err
	}
	p.described.AccessRoute = "/dnsaddr/localhost/tcp/1/service/api" // until it is known
	trust, err := node.TrustOf(p.described)
	if err != nil {
		return nil, err
	}
	p.relay, err = node.Start(ctx, node.Options{
		Name: "relay", Self: relay.id, Identities: relay.ids, Store: node.NewClientHome(dir, "relay"), Trust: trust, Listen: "127.0.0.1:0", Shards: 1, Log: log,
	})
	if err != nil {
		return nil, err
	}
	p.described.AccessRoute = access(p.relay)
	return p, p.described.Verify()
}

// access is the route to a node's secure channel listener.
func access(n *node.Node) string {
	host, port, _ := net.SplitHostPort(n.Listening())
	return "/ip4/" + host + "/tcp/" + port + "/service/api"
}

// Ticket makes a ticket that some members may use, each with these attributes. Of relays they may have the names that the attribute ockam-relay says,
// "*" for any.
func (p *Project) Ticket(ctx context.Context, attributes map[string]string, uses uint64) (string, error) {
	c := &authority.Client{Call: func(ctx context.Context, service string, req *rpc.Request) (*rpc.Response, error) {
		return p.auth.Services()[service].Serve(ctx, &p.admin, req), nil
	}}
	code, err := c.CreateToken(ctx, attributes, time.Hour, uses)
	if err != nil {
		return "", err
	}
	t, err := project.NewTicket(p.described, project.Code(code))
	if err != nil {
		return "", err
	}
	return string(t.JSON()), nil
}

// Remove takes a member's membership back.
func (p *Project) Remove(ctx context.Context, member string) error {
	id, err := identity.ParseIdentifier(member)
	if err != nil {
		return err
	}
	c := &authority.Client{Call: func(ctx context.Context, service string, req *rpc.Request) (*rpc.Response, error) {
		return p.auth.Services()[service].Serve(ctx, &p.admin, req), nil
	}}
	return c.DeleteMember(ctx, id)
}

// Relay is the project's node, where members meet.
func (p *Project) Relay() *node.Node { return p.relay }

// Close ends the project.
func (p *Project) Close() error {
	if p.relay != nil {
		p.relay.Stop()
	}
	if p.authority != nil {
		p.authority.Stop()
	}
	return os.RemoveAll(p.dir)
}
