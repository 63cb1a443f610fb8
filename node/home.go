package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sallyport/crypto/identity"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/project"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// home is a state directory as a node's Store.
type home struct {
	dir  *state.Dir
	node string
	keep bool // write down what is created
	// trusts writes down whom inlets expect and who was revoked.
	trusts bool
	// command marks the node of one command, which keeps nothing but who it met.
	command bool

	mu sync.Mutex
	// projects is what projectsFile, the file of all projects, says, by what they are asked for with.
	projects     map[string]storedProject
	projectsFile []byte
}

// storedProject is a project as it is stored, and what a node needs of it. Nobody changes either.
type storedProject struct {
	stored *project.Project
	parsed *Project
}

// CommandHome makes a Store of a state directory for a node inside a command.
func CommandHome(dir *state.Dir) Store { return &home{dir: dir, node: "command", command: true} }

// NewHome makes a Store of a state directory, for the node with a name. keep tells whether the node's resources outlive it.
func NewHome(dir *state.Dir, node string, keep bool) Store {
	return &home{dir: dir, node: node, keep: keep, trusts: keep}
}

// NewClientHome makes a Store of a state directory for a node within another program, which creates what it needs at each start: kept are
// credentials, whom the node expects at the end of its routes, and who was revoked. name tells such programs apart that share the directory.
func NewClientHome(dir *state.Dir, name string) Store {
	return &home{dir: dir, node: name, trusts: true}
}

// ProjectOf takes from a stored project what a node needs.
func ProjectOf(p *project.Project) (*Project, error) {
	route, err := multiaddr.Parse(p.AccessRoute)
	if err != nil {
		return nil, fmt.Errorf("project %s: access route: %w", p.Name, err)
	}
	out := &Project{Route: route}
	for _, text := range p.AccessRoutes {
		more, err := multiaddr.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("project %s: access routes: %w", p.Name, err)
		}
		out.Routes = append(out.Routes, more)
	}
	if out.Identifier, err = identity.ParseIdentifier(p.Identity); err != nil {
		return nil, fmt.Errorf("project %s: %w", p.Name, err)
	}
	for _, text := range p.Expects {
		id, err := identity.ParseIdentifier(text)
		if err != nil {
			return nil, fmt.Errorf("project %s: expects: %w", p.Name, err)
		}
		out.Expects = append(out.Expects, id)
	}
	if p.AuthorityChangeHistory != "" {
		authority, err := identity.ImportHex(p.AuthorityChangeHistory, nil)
		if err != nil {
			return nil, fmt.Errorf("project %s: authority: %w", p.Name, err)
		}
		id := authority.Identifier()
		out.Authority = &id
	}
	return out, nil
}

func (h *home) Project(_ context.Context, name string) (*Project, error) {
	p, err := h.project(name)
	if errors.Is(err, state.ErrNotFound) {
		return nil, fmt.Errorf("%w: no project %q; `project list` shows those there are", admin.ErrNotFound, name)
	}
	return p.parsed, err
}

// project reads a project. The histories of one whose file has not changed are not verified again: that would be a quarter of what it costs a member to come back.
func (h *home) project(name string) (p storedProject, err error) {
	file, err := h.dir.ProjectsFile()
	if err != nil {
		return p, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.projects == nil || !bytes.Equal(file, h.projectsFile) {
		h.projects, h.projectsFile = map[string]storedProject{}, file
	}
	p, known := h.projects[name]
	if known {
		return p, nil
	}
	s, err := h.dir.Project(name) // if it has changed meanwhile, the next one to ask finds out
	if err != nil {
		return p, err
	}
	if p.parsed, err = ProjectOf(s.Project); err != nil {
		return storedProject{}, err
	}
	p.stored = s.Project
	h.projects[name] = p
	return p, nil
}

func (h *home) Identity(_ context.Context, name string) (identity.Identifier, error) {
	named, err := h.dir.NamedIdentity(name)
	if err != nil {
		return identity.Identifier{}, fmt.Errorf("%w: %w", admin.ErrInvalid, err)
	}
	return identity.ParseIdentifier(named.Identifier)
}

func (h *home) Credential(_ context.Context, subject, issuer identity.Identifier, scope string) ([]byte, error) {
	c, err := h.dir.Credential(subject.String(), issuer.String(), scope)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	return c.Raw, err
}

func (h *home) PutCredential(ctx context.Context, subject, issuer identity.Identifier, scope string, raw []byte, expires time.Time) error {
	return h.dir.PutCredential(ctx, state.Credential{Subject: subject.String(), Issuer: issuer.String(), Scope: scope, Raw: raw, ExpiresAt: expires})
}

func (h *home) Load() ([]resource.Stored, error) {
	if !h.keep {
		return nil, nil
	}
	return h.dir.Resources(h.node)
}

func (h *home) Save(list []resource.Stored) error {
	if !h.keep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return h.dir.SaveResources(ctx, h.node, list)
}

// TrustOf makes a Trust of a project: its authority, and how to get a member's credential from it.
func TrustOf(p *project.Project) (Trust, error) {
	parsed, err := ProjectOf(p)
	if err != nil {
		return Trust{}, err
	}
	t := Trust{Authority: parsed.Authority}
	if t.Authority == nil {
		return t, nil
	}
	t.Scope = p.CredentialScope()
	if t.Route, err = multiaddr.Parse(p.AuthorityAccessRoute); err != nil {
		return t, fmt.Errorf("project %s: authority access route: %w", p.Name, err)
	}
	t.Project = p.Name
	for _, text := range p.AuthorityAccessRoutes {
		more, err := multiaddr.Parse(text)
		if err != nil {
			return t, fmt.Errorf("project %s: authority access routes: %w", p.Name, err)
		}
		t.Routes = append(t.Routes, more)
	}
	return t, nil
}

// PutRoutes implements routeStore.
func (h *home) PutRoutes(ctx context.Context, name string, of routesOf, routes []string) error {
	if !h.trusts {
		return nil
	}
	known, err := h.project(name)
	if err != nil {
		return err
	}
	p := *known.stored
	before := &p.AccessRoutes
	if of == authorityRoutes {
		before = &p.AuthorityAccessRoutes
	}
	if slices.Equal(*before, routes) {
		return nil
	}
	old := *before
	*before = routes
	if err := p.Verify(); err != nil {
		return err
	}
	if slices.Equal(old, *before) {
		return nil
	}
	return h.dir.PutProject(ctx, &p)
}

// AuthorityHistory decodes an authority's history given as hex and makes sure that it is known.
func AuthorityHistory(ctx context.Context, m *identity.Manager, text string) (identity.Identifier, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return identity.Identifier{}, fmt.Errorf("%w: the authority's identity must be a change history in hex: %w", admin.ErrInvalid, err)
	}
	i, err := m.ImportIgnoreOlder(ctx, raw)
	if err != nil {
		return identity.Identifier{}, err
	}
	return i.Identifier(), nil
}

func (h *home) PutExchangedKey(ctx context.Context, k ExchangedKey) error {
	if !h.keep {
		return nil
	}
	stored := state.KafkaKey{
		Address: k.Address, Self: k.Self.String(), Peer: k.Peer.String(), Key: k.Key[:], Attributes: k.Attributes, ExpiresAt: k.Expires.UTC(), CreatedAt: time.Now().UTC(),
	}
	if k.AttestedBy != nil {
		stored.AttestedBy = k.AttestedBy.String()
	}
	return h.dir.PutKafkaKey(ctx, h.node, stored)
}

func (h *home) ExchangedKey(_ context.Context, address string) (*ExchangedKey, error) {
	if !h.keep {
		return nil, nil
	}
	stored, err := h.dir.KafkaKey(h.node, address)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k := &ExchangedKey{Address: stored.Address, Attributes: stored.Attributes, Expires: stored.ExpiresAt}
	if copy(k.Key[:], stored.Key) != len(k.Key) || len(stored.Key) != len(k.Key) {
		return nil, fmt.Errorf("key %s: %d bytes, not %d", address, len(stored.Key), len(k.Key))
	}
	if k.Self, err = identity.ParseIdentifier(stored.Self); err != nil {
		return nil, fmt.Errorf("key %s: %w", address, err)
	}
	if k.Peer, err = identity.ParseIdentifier(stored.Peer); err != nil {
		return nil, fmt.Errorf("key %s: %w", address, err)
	}
	if stored.AttestedBy != "" {
		by, err := identity.ParseIdentifier(stored.AttestedBy)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", address, err)
		}
		k.AttestedBy = &by
	}
	return k, nil
}
