// Package member is how an identity of a state directory becomes a member of a project, and what it needs to be one: what the command line
// and the library client do before they start a node.
package member

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/node"
	"sallyport/project"
	"sallyport/routing/rpc"
	"sallyport/state"
)

// Home is a state directory, and what opens the vaults that its identities have their keys in.
type Home struct {
	Dir   *state.Dir
	Vault func(state.Vault) (vault.Vault, error)
}

// Identity is a named identity with its keys at hand.
type Identity struct {
	Named   state.NamedIdentity
	ID      identity.Identifier
	Manager *identity.Manager
}

// maxStrangers is how many peers' histories a node remembers, about 200 bytes each.
const maxStrangers = 100_000

// Manager opens the identities of a vault; the empty name means the default vault, made if there is none.
func (h *Home) Manager(ctx context.Context, vaultName string) (*identity.Manager, state.Vault, error) {
	v, err := h.Dir.EnsureVault(ctx, vaultName)
	if err != nil {
		return nil, v, err
	}
	keys, err := h.Vault(v)
	if err != nil {
		return nil, v, err
	}
	return identity.New(identity.Options{Vault: keys, Store: h.Dir.Store()}), v, nil
}

// Managers returns managers of identities by vault, for a process that meets strangers: what they present is kept in memory, and
// shared by all.
func (h *Home) Managers() func(ctx context.Context, vaultName string) (*identity.Manager, error) {
	store := identity.NewOverlay(h.Dir.Store(), maxStrangers)
	var mu sync.Mutex
	managers := map[string]*identity.Manager{}
	return func(ctx context.Context, vaultName string) (*identity.Manager, error) {
		v, err := h.Dir.EnsureVault(ctx, vaultName)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		if managers[v.Path] == nil {
			keys, err := h.Vault(v)
			if err != nil {
				return nil, err
			}
			managers[v.Path] = identity.New(identity.Options{Vault: keys, Store: store})
		}
		return managers[v.Path], nil
	}
}

// Identity returns a named identity; an error matching state.ErrNotFound if there is none. The empty name means the default one.
func (h *Home) Identity(ctx context.Context, name string) (Identity, error) {
	named, err := h.Dir.NamedIdentity(name)
	if err != nil {
		return Identity{}, err
	}
	m, _, err := h.Manager(ctx, named.Vault)
	if err != nil {
		return Identity{}, err
	}
	id, err := identity.ParseIdentifier(named.Identifier)
	return Identity{Named: named, ID: id, Manager: m}, err
}

// EnsureIdentity is Identity that makes what there is not. Processes that do so at the same time get the same one.
func (h *Home) EnsureIdentity(ctx context.Context, name string) (Identity, error) {
	if i, err := h.Identity(ctx, name); !errors.Is(err, state.ErrNotFound) {
		return i, err
	}
	err := h.Dir.First(ctx, "identity", func() error {
		if _, err := h.Dir.NamedIdentity(name); !errors.Is(err, state.ErrNotFound) {
			return err
		}
		m, v, err := h.Manager(ctx, "")
		if err != nil {
			return err
		}
		made, err := m.Create(ctx, identity.CreateOptions{})
		if err != nil {
			return err
		}
		_, err = h.Dir.CreateNamed(ctx, name, made.Identifier().String(), v.Name)
		return err
	})
	if err != nil {
		return Identity{}, err
	}
	return h.Identity(ctx, name)
}

// Trust says what a node of a project believes: the credentials of its authority. Without a project of that name it is an error matching state.ErrNotFound; the
// empty name means the default project.
func (h *Home) Trust(ctx context.Context, m *identity.Manager, projectName string) (node.Trust, error) {
	p, err := h.Dir.Project(projectName)
	if err != nil {
		return node.Trust{}, err
	}
	// A project is imported with its histories; a node that uses it must know them.
	for _, hexText := range []string{p.Project.ChangeHistory, p.Project.AuthorityChangeHistory} {
		if hexText != "" {
			if _, err := node.AuthorityHistory(ctx, m, hexText); err != nil {
				return node.Trust{}, fmt.Errorf("project %s: %w", p.Project.Name, err)
			}
		}
	}
	return node.TrustOf(p.Project)
}

// Import stores the project of a ticket and returns what is stored. A ticket that says who is expected, or which further routes there are, replaces what one
// before said; one that does not takes nothing away.
func (h *Home) Import(ctx context.Context, t *project.Ticket) (*project.Project, error) {
	p := project.ProjectFromTicket(t)
	known, err := h.Known(p)
	switch {
	case err != nil:
		return nil, err
	case known == nil:
		return p, h.Dir.ImportProject(ctx, p)
	}
	changed := false
	for _, l := range []struct {
		from []string
		to   *[]string
	}{{p.Expects, &known.Expects}, {p.AccessRoutes, &known.AccessRoutes}, {p.AuthorityAccessRoutes, &known.AuthorityAccessRoutes}} {
		if len(l.from) > 0 && !slices.Equal(l.from, *l.to) {
			*l.to, changed = l.from, true
		}
	}
	if changed {
		return known, h.Dir.PutProject(ctx, known)
	}
	return known, nil
}

// Known returns the project of a ticket if it was imported before: a ticket in its short form has neither the id nor the space.
func (h *Home) Known(p *project.Project) (*project.Project, error) {
	list, err := h.Dir.Projects()
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		k := s.Project
		if k.Identity == p.Identity && k.AuthorityChangeHistory == p.AuthorityChangeHistory && k.AccessRoute == p.AccessRoute && k.AuthorityAccessRoute == p.AuthorityAccessRoute {
			return k, nil
		}
	}
	return nil, nil
}

// IsMember reports whether there is a credential of an identity in a project, in effect or not.
func (h *Home) IsMember(id identity.Identifier, p *project.Project) bool {
	list, err := h.Dir.Credentials()
	return err == nil && slices.ContainsFunc(list, func(c state.Credential) bool {
		return c.Subject == id.String() && c.Scope == p.CredentialScope()
	})
}

// Ask returns a client of the authority of a node, as one of its identities.
func Ask(n *node.Node, self identity.Identifier) *authority.Client {
	return &authority.Client{Call: func(ctx context.Context, service string, req *rpc.Request) (*rpc.Response, error) {
		return n.AskAuthority(ctx, self, service, req)
	}}
}

// StoreCredential verifies a credential of whichever issuer it names, and keeps it; for one node if that is given.
func (h *Home) StoreCredential(ctx context.Context, m *identity.Manager, raw []byte, subject identity.Identifier, scope, node string) error {
	c, err := VerifyAny(ctx, m, raw, &subject)
	if err != nil {
		return err
	}
	return h.Dir.PutCredential(ctx, state.Credential{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Scope: scope, Node: node, Raw: raw, ExpiresAt: time.Unix(int64(c.ExpiresAt), 0),
	})
}

// VerifyAny verifies a credential of whichever issuer it names.
func VerifyAny(ctx context.Context, m *identity.Manager, raw []byte, subject *identity.Identifier) (*identity.Credential, error) {
	issuer, err := identity.CredentialIssuer(raw)
	if err != nil {
		return nil, err
	}
	return m.VerifyCredential(ctx, raw, subject, []identity.Identifier{issuer})
}
