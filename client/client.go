package client

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sallyport/authority"
	"sallyport/crypto/vault"
	"sallyport/limits"
	"sallyport/member"
	"sallyport/node"
	"sallyport/project"
	"sallyport/proxy"
	"sallyport/routing/rpc"
	"sallyport/routing/tcp"
	"sallyport/state"
)

// Options say who a Client is. The zero value is a member whose identity and project are the default ones of the command line's state directory, if there
// are any.
type Options struct {
	// Directory is the state directory, with identities, keys and credentials, that the command line uses too. Empty: $SALLYPORT_HOME, $OCKAM_HOME or
	// ~/.sallyport.
	Directory string
	// InMemory keeps all of it in memory: the identity ends with the Client. The next one needs a use of the ticket again.
	InMemory bool
	// Ticket makes the identity a member of its project, in any form of `project ticket`. It is not used when the identity is a member already, so a program
	// may give it at each start.
	Ticket string
	// Project is one of the directory, by name or id; empty: the ticket's, else the default one. NoProject uses none: then peers are whoever Options of Dial and
	// Listen name.
	Project   string
	NoProject bool
	// Identity is the name of an identity of the directory, made if there is none; empty: the default one.
	Identity string
	// Name tells programs apart that use one directory at the same time; default "client". Kept under it is who was met at the end of routes.
	Name string
	// ListenAddress, host:port, opens a TCP port at which other nodes reach this one without a relay; empty: none.
	ListenAddress string
	// Proxies say through which proxies other nodes are reached, as --proxy of `sallyport node create` does; those of HTTPS_PROXY, ALL_PROXY and NO_PROXY
	// are for what none of them names.
	Proxies []string
	// RootCAs are whose certificates are believed of servers with TLS; nil: the system's.
	RootCAs *x509.CertPool
	// Pins are the keys of servers with TLS, as of --tls-pin: sha256/ and the sum of the public key in base64. A server with one of them is believed, whatever its
	// certificate says, and no other; none: certificates decide.
	Pins []string
	// Hold is how long a connection waits for another path when its own is gone; default a minute. Below zero: not at all.
	Hold time.Duration
	// Shards is how many event loops run; default 1, which is enough for some Gbit/s.
	Shards int
	// Limits bound what the Client holds for others; what is zero has its default.
	Limits limits.Limits
	// Vault opens a vault of the directory that is not a plain one: locked, or in a token, a TPM or AWS KMS. nil: those cannot be used.
	Vault func(context.Context, state.Vault) (vault.Vault, error)
	// Log gets what the node has to say; nil discards it.
	Log *slog.Logger
}

// Client is a member of a project. Its methods may be called from any goroutine.
type Client struct {
	o       Options
	node    *node.Node
	project string // name; empty for none
	self    member.Identity
	proxies *proxy.Rules
	trust   tcp.Trust
	cleanup func()
	ended   context.Context // ends with Close
	end     context.CancelFunc

	mu      sync.Mutex
	closed  bool
	dialers map[string]*Dialer
	relays  map[string]*registered
}

// enrollTimeout bounds one enrolment where ctx has no end.
const enrollTimeout = 4 * time.Minute

// Open starts a Client: it enrols if it has to, and keeps its credential renewed until Close. It does not wait for the project to be reachable unless it
// enrols. ctx bounds Open alone.
func Open(ctx context.Context, o Options) (_ *Client, err error) {
	if o.Name == "" {
		o.Name = "client"
	}
	if o.Shards == 0 {
		o.Shards = 1
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{o: o, cleanup: func() {}, dialers: map[string]*Dialer{}, relays: map[string]*registered{}}
	c.ended, c.end = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			c.end()
			c.cleanup()
		}
	}()
	home, err := c.home(ctx)
	if err != nil {
		return nil, err
	}
	if c.self, err = home.EnsureIdentity(ctx, o.Identity); err != nil {
		return nil, fmt.Errorf("client: identity: %w", err)
	}
	managers := home.Managers()
	if c.self.Manager, err = managers(ctx, c.self.Named.Vault); err != nil {
		return nil, err
	}
	if c.proxies, err = proxy.Parse(o.Proxies, os.Getenv); err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if c.trust, err = o.servers(); err != nil {
		return nil, err
	}
	trust, err := c.enroll(ctx, home)
	if err != nil {
		return nil, err
	}
	c.node, err = node.Start(ctx, c.nodeOptions(home, trust))
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return c, nil
}

func (c *Client) nodeOptions(home *member.Home, trust node.Trust) node.Options {
	return node.Options{
		Name: c.o.Name, IdentityName: c.self.Named.Name, Self: c.self.ID, Identities: c.self.Manager, Store: node.NewClientHome(home.Dir, c.o.Name), Trust: trust,
		NoListener: c.o.ListenAddress == "", Listen: c.o.ListenAddress, Shards: c.o.Shards, Limits: c.o.Limits, Log: c.o.Log,
		Proxies: c.proxies, TLS: c.trust,
	}
}

// servers says which servers are believed over TLS.
func (o *Options) servers() (tcp.Trust, error) {
	trust := tcp.Trust{Roots: o.RootCAs}
	for _, text := range o.Pins {
		pin, err := tcp.ParsePin(text)
		if err != nil {
			return trust, fmt.Errorf("client: Options.Pins: %q: %w", text, err)
		}
		trust.Pins = append(trust.Pins, pin)
	}
	return trust, nil
}

// home opens the state directory.
func (c *Client) home(ctx context.Context) (*member.Home, error) {
	path, err := c.o.Directory, error(nil)
	switch {
	case c.o.InMemory:
		if path, err = inMemory(); err != nil {
			return nil, err
		}
		c.cleanup = func() { _ = os.RemoveAll(path) }
	case path == "":
		if path, err = state.DefaultPath(); err != nil {
			return nil, err
		}
	}
	dir, err := state.Open(path)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	open := map[string]vault.Vault{}
	return &member.Home{Dir: dir, Vault: func(v state.Vault) (vault.Vault, error) {
		mu.Lock()
		defer mu.Unlock()
		if open[v.Path] != nil {
			return open[v.Path], nil
		}
		keys, err := c.openVault(ctx, v)
		if err != nil {
			return nil, fmt.Errorf("client: vault %s: %w", v.Name, err)
		}
		open[v.Path] = keys
		return keys, nil
	}}, nil
}

// inMemory makes a state directory in memory; where there is no such file system, the directory for temporary files has to do. Keys are in neither.
func inMemory() (string, error) {
	path, err := os.MkdirTemp("/dev/shm", "sallyport-")
	if err != nil {
		path, err = os.MkdirTemp("", "sallyport-")
	}
	return filepath.Clean(path), err
}

var errVault = errors.New("it is locked or elsewhere than in files: Options.Vault has to open it")

func (c *Client) openVault(ctx context.Context, v state.Vault) (vault.Vault, error) {
	if c.o.InMemory {
		return vault.NewMemory(), nil
	}
	locked, err := false, error(nil)
	if v.Kind == "" {
		locked, err = vault.IsLocked(v.Path)
	}
	switch {
	case err != nil:
		return nil, err
	case v.Kind == "" && !locked:
		return vault.OpenFile(v.Path)
	case c.o.Vault == nil:
		return nil, errVault
	}
	return c.o.Vault(ctx, v)
}

// enroll makes the identity a member if it is none, and returns whose credentials the node believes.
func (c *Client) enroll(ctx context.Context, home *member.Home) (node.Trust, error) {
	if c.o.NoProject {
		return node.Trust{}, nil
	}
	var ticket *project.Ticket
	name := c.o.Project
	if c.o.Ticket != "" {
		var err error
		if ticket, err = project.ParseTicket(c.o.Ticket); err != nil {
			return node.Trust{}, fmt.Errorf("%w: %w", ErrTicket, err)
		}
		p, err := home.Import(ctx, ticket)
		if err != nil {
			return node.Trust{}, fmt.Errorf("%w: %w", ErrTicket, err)
		}
		if name == "" {
			name = p.ID
		}
	}
	stored, err := home.Dir.Project(name)
	if errors.Is(err, state.ErrNotFound) {
		return node.Trust{}, fmt.Errorf("%w: %w", ErrNotMember, err)
	}
	if err != nil {
		return node.Trust{}, err
	}
	c.project = stored.Project.Name
	trust, err := home.Trust(ctx, c.self.Manager, name)
	if err != nil || trust.Authority == nil || home.IsMember(c.self.ID, stored.Project) {
		return trust, err
	}
	if ticket == nil {
		return trust, fmt.Errorf("%w: %s has no credential of the project %s", ErrNotMember, c.self.ID, c.project)
	}
	return trust, c.redeem(ctx, home, trust, ticket)
}

// redeem asks the authority, through a node that lives for it alone: one that presents a credential must have one.
func (c *Client) redeem(ctx context.Context, home *member.Home, trust node.Trust, ticket *project.Ticket) error {
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	o := c.nodeOptions(home, node.Trust{Authority: trust.Authority, Route: trust.Route})
	o.NoListener = true
	n, err := node.Start(ctx, o)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer n.Stop()
	ask := member.Ask(n, c.self.ID)
	if _, err := ask.Redeem(ctx, authority.Code(ticket.Code)); err != nil {
		return enrollError(err)
	}
	raw, err := ask.RenewingCredential(ctx)
	if err != nil {
		return enrollError(err)
	}
	return node.NewlyMade(home.StoreCredential(ctx, c.self.Manager, raw, c.self.ID, trust.Scope, ""))
}

// enrollError tells a ticket that is refused from an authority that is not there.
func enrollError(err error) error {
	var refused *rpc.StatusError
	if errors.As(err, &refused) {
		return fmt.Errorf("%w: %w", ErrTicket, err)
	}
	return err
}

// Identifier is who the Client is: I and 64 hex digits.
func (c *Client) Identifier() string { return c.self.ID.String() }

// ListenAddress is where other nodes reach the Client without a relay, host:port; empty without Options.ListenAddress.
func (c *Client) ListenAddress() string { return c.node.Listening() }

// Close ends all connections, listeners, routes and workers; it does not wait for handlers of workers, whose contexts end. Connections that were closed before, by
// Conn.Close, are given up to 5 s to send what was written and to hear the other end's end; those that are open are broken off. It may be called more than once.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.end()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	c.node.AwaitClosed(ctx)
	c.node.Stop()
	c.cleanup()
	return nil
}

// isClosed returns net.ErrClosed after Close.
func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
