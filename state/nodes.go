package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/limits"
)

// Node is the record of a node.
type Node struct {
	Name string `json:"name"`
	// IdentityName and Identifier (as text) say who the node is.
	IdentityName string `json:"identity_name"`
	Identifier   string `json:"identifier"`
	// IsDefault marks the node used when none is named. It is stored once for all nodes; see SetDefaultNode.
	IsDefault   bool `json:"-"`
	IsAuthority bool `json:"is_authority"`
	// TCPListener is the address that the TCP listener got, host:port.
	TCPListener string `json:"tcp_listener_address,omitempty"`
	// UDPListener is the address of the UDP socket, host:port, if there is one.
	UDPListener string `json:"udp_listener,omitempty"`
	// AdminSocket is the path of the Unix socket for commands; see SocketPath.
	AdminSocket string `json:"admin_socket,omitempty"`
	// StatusEndpoint is the address of the HTTP status endpoint, host:port, if there is one.
	StatusEndpoint string `json:"status_endpoint,omitempty"`
	// CreatedAt is when the node was created first.
	CreatedAt time.Time `json:"created_at"`
	// Process is what runs or ran the node.
	Process Process `json:"process"`
	// Options are what the node was created with, to start it again.
	Options NodeOptions `json:"options"`
	// Configuration is what was applied to the node last; nil if nothing was.
	Configuration *Configuration `json:"configuration,omitempty"`
}

// Configuration says where a node's configuration is, to apply it again.
type Configuration struct {
	// Paths are absolute, of files; empty if the text came from elsewhere.
	Paths []string `json:"paths,omitempty"`
	// Variables and Flags are those of the command line that go with it.
	Variables []string `json:"variables,omitempty"`
	Flags     []string `json:"flags,omitempty"`
	// Settings are the options of the node itself that it sets, by their flags.
	Settings []string `json:"settings,omitempty"`
}

// NodeOptions are the options of `node create` and `authority create` (docs/protocol/03 §7.2) that outlive the command. Empty means
// that the option was not given.
type NodeOptions struct {
	TCPListenerAddress string `json:"tcp_listener_address,omitempty"`
	UDP                bool   `json:"udp,omitempty"`
	UDPListenerAddress string `json:"udp_listener_address,omitempty"`
	// Listeners are URLs where nodes connect besides, with TLSCertificate and TLSKey for those with TLS.
	Listeners      []string `json:"listeners,omitempty"`
	TLSCertificate string   `json:"tls_certificate,omitempty"`
	TLSKey         string   `json:"tls_key,omitempty"`
	// ACME gets certificates for Listeners with TLS where there are no files.
	ACME ACMEOptions `json:"acme,omitzero"`
	// AcceptProxyProtocol and TrustedProxies are networks from which proxies say whose connections they bring to Listeners, or else to TCPListenerAddress.
	AcceptProxyProtocol []string `json:"accept_proxy_protocol,omitempty"`
	TrustedProxies      []string `json:"trusted_proxies,omitempty"`
	// TLSCA is a file of certificates, TLSPins are keys (sha256/BASE64): which servers are believed over TLS.
	TLSCA   string   `json:"tls_ca,omitempty"`
	TLSPins []string `json:"tls_pins,omitempty"`
	// Proxies are rules, which may have credentials (package proxy).
	Proxies []string `json:"proxies,omitempty"`

	StatusEndpoint    string   `json:"status_endpoint,omitempty"`
	StatusToken       string   `json:"status_token,omitempty"` // file
	NoStatusEndpoint  bool     `json:"no_status_endpoint,omitempty"`
	Identity          string   `json:"identity,omitempty"`
	Project           string   `json:"project,omitempty"`
	AuthorityIdentity string   `json:"authority_identity,omitempty"` // change history, hex
	AuthorityRoute    string   `json:"authority_route,omitempty"`
	AuthorityGrace    string   `json:"authority_grace,omitempty"` // a duration
	CredentialScope   string   `json:"credential_scope,omitempty"`
	Verbosity         int      `json:"verbosity,omitempty"`
	ExitOnEOF         bool     `json:"exit_on_eof,omitempty"`
	Foreground        bool     `json:"foreground,omitempty"`
	Services          string   `json:"services,omitempty"` // JSON
	LogArgs           []string `json:"log_args,omitempty"` // logging flags of the command line, in order
	// NoSandbox lets the node's process write wherever its user may.
	NoSandbox bool `json:"no_sandbox,omitempty"`
	// Records is where records of portal connections go: a file, log, journald or off; empty is a file in the node's directory. Receipts signs them.
	Records  string `json:"records,omitempty"`
	Receipts bool   `json:"receipts,omitempty"`
	// LogLevel is debug, info, warn or error; LogFormat is text or json.
	LogLevel  string `json:"log_level,omitempty"`
	LogFormat string `json:"log_format,omitempty"`
	// Small makes a node for a machine with little memory (limits.Limits.Small).
	Small bool `json:"small,omitempty"`
	// Limits are those that differ from the defaults.
	Limits limits.Limits `json:"limits,omitzero"`
	// Registry is where the relays of a fleet know together who has which name, as AuthorityOptions.Store has it, and RegistryAddress, a multiaddr, where the other relays
	// find this one.
	Registry        string `json:"registry,omitempty"`
	RegistryAddress string `json:"registry_address,omitempty"`
	// Authority is set for an authority.
	Authority *AuthorityOptions `json:"authority,omitempty"`
	// Extra carries options that this package does not know, by flag name without dashes.
	Extra map[string][]string `json:"extra,omitempty"`
}

// AuthorityOptions are the options of `authority create` (docs/protocol/02 §5.6).
type AuthorityOptions struct {
	ProjectIdentifier      string          `json:"project_identifier"`
	TrustedIdentities      json.RawMessage `json:"trusted_identities"` // object: identifier -> attributes; null leaves those that the store has
	NoDirectAuthentication bool            `json:"no_direct_authentication,omitempty"`
	NoTokenEnrollment      bool            `json:"no_token_enrollment,omitempty"`
	CredentialTTL          string          `json:"credential_ttl,omitempty"`    // empty: what the store has
	New                    bool            `json:"-"`                           // begin with no members where the store has gone
	AccountAuthority       string          `json:"account_authority,omitempty"` // change history, hex
	EnforceAdminChecks     bool            `json:"enforce_admin_checks,omitempty"`
	DisableTrustContextID  bool            `json:"disable_trust_context_id,omitempty"`
	ProjectAccessRoute     string          `json:"project_access_route,omitempty"`
	TenantBaseURL          string          `json:"tenant_base_url,omitempty"`
	Certificate            string          `json:"certificate,omitempty"`
	Attributes             []string        `json:"attributes,omitempty"`
	OIDC                   OIDCOptions     `json:"oidc,omitzero"`
	// Store is where the authority's store is: a URL without a password, env: and the name of an environment variable that has one, or @ and the path of
	// a file that has one; empty for the embedded store.
	Store string `json:"store,omitempty"`
}

// ACMEOptions say from which authority of web certificates a node gets its own, and for which names; without Domains from none.
type ACMEOptions struct {
	Domains []string `json:"domains,omitempty"`
	// Directory is a URL; empty: Let's Encrypt's.
	Directory string `json:"directory,omitempty"`
	Email     string `json:"email,omitempty"`
	// CA is a file of certificates that are believed of the authority itself; empty: the system's.
	CA string `json:"ca,omitempty"`
}

// OIDCOptions say which provider of OpenID Connect an authority believes; without an issuer none.
type OIDCOptions struct {
	Issuer     string   `json:"issuer,omitempty"`
	ClientID   string   `json:"client_id,omitempty"`
	SecretFile string   `json:"client_secret_file,omitempty"`
	Scopes     []string `json:"scopes,omitempty"`
	Claims     []string `json:"claims,omitempty"`   // CLAIM=ATTRIBUTE
	Require    []string `json:"require,omitempty"`  // CLAIM=VALUE
	Lifetime   string   `json:"lifetime,omitempty"` // a duration
}

// Status says whether the node's process runs. Where the kernel does not show it (a unit with ProtectProc=invisible hides even processes of the same user, and
// what systemctl reload runs is in such a place), or an emulator shows another start, it is the node's if it listens at the node's socket.
func (n Node) Status() Status {
	s := n.Process.Status()
	if s == Stopped && n.AdminSocket != "" && n.Process.exists() {
		if pid, ok := listener(n.AdminSocket); ok && pid == n.Process.PID {
			return Running
		}
	}
	return s
}

type nodeFile struct {
	Version int `json:"version"`
	Node
}

type nodesFile struct {
	Version int    `json:"version"`
	Default string `json:"default"`
}

// readNode reads one record, without IsDefault.
func (d *Dir) readNode(name string) (Node, error) {
	if CheckName("node", name) != nil {
		return Node{}, &NotFoundError{Kind: "node", Name: name}
	}
	var f nodeFile
	err := d.readJSON(d.file("nodes", name, "node.json"), &f)
	if b := (*BrokenFileError)(nil); errors.As(err, &b) { // without its record the node would run on, and nobody know of it
		b.mend = fmt.Sprintf("repair the file, or delete node %q", name)
	}
	if err == nil && f.Version == 0 {
		err = &NotFoundError{Kind: "node", Name: name}
	}
	f.Node.Name = name
	return f.Node, err
}

func (d *Dir) writeNode(n Node) error {
	return d.writeJSON(d.file("nodes", n.Name, "node.json"), nodeFile{Version: fileVersion, Node: n})
}

func (d *Dir) defaultNode() (string, error) {
	var f nodesFile
	err := d.readJSON(d.file("nodes.json"), &f)
	return f.Default, err
}

func (d *Dir) writeDefaultNode(name string) error {
	return d.writeJSON(d.file("nodes.json"), nodesFile{Version: fileVersion, Default: name})
}

// nodeNames returns the names of the directories that hold a record, sorted.
func (d *Dir) nodeNames() ([]string, error) {
	names, err := entries(d.file("nodes"))
	return slices.DeleteFunc(names, func(name string) bool {
		_, err := os.Lstat(d.file("nodes", name, "node.json"))
		return err != nil || CheckName("node", name) != nil
	}), err
}

// NodeNames returns the names of all nodes, sorted: of those whose records cannot be read too, and of those that run and whose records are gone.
func (d *Dir) NodeNames() ([]string, error) {
	names, err := entries(d.file("nodes"))
	return slices.DeleteFunc(names, func(name string) bool {
		if CheckName("node", name) != nil {
			return true
		}
		_, err := os.Lstat(d.file("nodes", name, "node.json"))
		return err != nil && d.listening(name) == (Process{})
	}), err
}

// listening returns the process that listens at the socket of a node, whatever the record says; the zero one if there is none of this user.
func (d *Dir) listening(name string) Process {
	var p Process
	if s, err := d.SocketPath(name); err == nil {
		p, _ = behind(s)
	}
	return p
}

// unreadNode is a node of which nothing is known but its name.
type unreadNode struct {
	name string
	err  error
}

// allNodes returns the records that can be read, without IsDefault, and what is wrong with others. Who asks whether any node needs something
// has to take the others for such that do.
func (d *Dir) allNodes() (nodes []Node, unread []unreadNode, err error) {
	names, err := d.NodeNames()
	for _, name := range names {
		switch n, err := d.nodeOrProcess(name); {
		case err == nil:
			nodes = append(nodes, n)
		case !errors.Is(err, ErrNotFound): // deleted meanwhile
			unread = append(unread, unreadNode{name, err})
		}
	}
	return nodes, unread, err
}

// nodeOrProcess is readNode, but no NotFoundError for a node that runs and whose record is gone.
func (d *Dir) nodeOrProcess(name string) (Node, error) {
	n, err := d.readNode(name)
	if errors.Is(err, ErrNotFound) {
		if p := d.listening(name); p != (Process{}) {
			err = fmt.Errorf("the record of node %q is gone, and process %d runs it: delete the node", name, p.PID)
		}
	}
	return n, err
}

// CreateNode stores the record of a node that is about to run, and creates its directory. A stopped node of this name is replaced:
// its CreatedAt and resources stay. A node that runs in another process is an error (ErrInUse), also where the record does not tell of it.
func (d *Dir) CreateNode(ctx context.Context, n Node) (Node, error) {
	if err := CheckName("node", n.Name); err != nil {
		return Node{}, err
	}
	err := d.locked(ctx, func() error {
		if n.CreatedAt.IsZero() {
			n.CreatedAt = time.Now().UTC()
		}
		old, err := d.readNode(n.Name)
		isNew := errors.Is(err, ErrNotFound)
		if p := d.listening(n.Name); p != (Process{}) && p != n.Process {
			return fmt.Errorf("%w: node %q is already running, as process %d", ErrInUse, n.Name, p.PID)
		}
		switch {
		case isNew:
		case err != nil:
			return err
		case old.Status() == Running && old.Process != n.Process:
			return fmt.Errorf("%w: node %q is already running, as process %d", ErrInUse, n.Name, old.Process.PID)
		default:
			n.CreatedAt = old.CreatedAt
			if n.Configuration == nil {
				n.Configuration = old.Configuration
			}
		}
		def, defaultErr := d.defaultNode()
		if defaultErr != nil && !errors.Is(defaultErr, ErrBroken) {
			return defaultErr
		}
		write := func() error { return d.writeNode(n) }
		if isNew {
			if err := write(); err != nil {
				// What is there is the log in which it would have begun.
				return errors.Join(err, os.RemoveAll(d.file("nodes", n.Name)))
			}
			d.keepReserve()
		} else if err := d.withReserve(write); err != nil {
			return err
		}
		if n.IsDefault = def == n.Name; n.IsDefault || defaultErr != nil { // a broken file is left as it is
			return nil
		}
		// Only a node that is alone becomes the default by itself; the name of a default that was deleted may be left by a crash.
		if names, err := d.nodeNames(); err != nil || len(names) > 1 {
			return err
		}
		n.IsDefault = true
		return d.writeDefaultNode(n.Name)
	})
	return n, err
}

// UpdateNode changes a record, under the lock. change must not change the name.
func (d *Dir) UpdateNode(ctx context.Context, name string, change func(*Node) error) error {
	return d.locked(ctx, func() error {
		n, err := d.readNode(name)
		if err != nil {
			return err
		}
		if err := change(&n); err != nil {
			return err
		}
		n.Name = name
		return d.withReserve(func() error { return d.writeNode(n) })
	})
}

// NodeStopped records that a node has ended, unless another process runs it by now.
func (d *Dir) NodeStopped(ctx context.Context, name string, p Process) error {
	return d.UpdateNode(ctx, name, func(n *Node) error {
		if n.Process == p {
			n.Process = Process{}
		}
		return nil
	})
}

// Node returns a node by name; the empty name means the default. The error is a NotFoundError if there is none.
func (d *Dir) Node(name string) (Node, error) {
	def, err := d.defaultNode()
	if name == "" {
		if err != nil {
			return Node{}, err
		}
		if name = def; def == "" {
			return Node{}, &NotFoundError{Kind: "node"}
		}
	}
	n, err := d.nodeOrProcess(name)
	n.IsDefault = name == def
	return n, err
}

// Nodes returns all nodes, sorted by name. With an error it returns those that could be read.
func (d *Dir) Nodes() ([]Node, error) {
	def, err := d.defaultNode()
	errs := []error{err}
	nodes, unread, err := d.allNodes()
	for i, n := range nodes {
		nodes[i].IsDefault = n.Name == def
	}
	for _, u := range unread {
		errs = append(errs, u.err)
	}
	return nodes, errors.Join(append(errs, err)...)
}

// SetDefaultNode makes a node the default.
func (d *Dir) SetDefaultNode(ctx context.Context, name string) error {
	return d.locked(ctx, func() error {
		if _, err := d.readNode(name); err != nil {
			return err
		}
		return d.writeDefaultNode(name)
	})
}

// DeleteNode deletes a node with its resources and logs. It refuses while the node runs (ErrInUse). A record that cannot be read or is gone does
// not keep it from being deleted.
func (d *Dir) DeleteNode(ctx context.Context, name string) error {
	return d.locked(ctx, func() error {
		n, err := d.readNode(name)
		if errors.Is(err, ErrNotFound) {
			if _, missing := os.Lstat(d.file("nodes", name)); missing != nil || CheckName("node", name) != nil {
				return err
			}
		}
		running := n.Process
		if err != nil || n.Status() != Running {
			running = d.listening(name)
		}
		if running != (Process{}) {
			return fmt.Errorf("%w: node %q is running, as process %d; stop it first", ErrInUse, name, running.PID)
		}
		if s, err := d.SocketPath(name); err == nil {
			if err := os.Remove(s); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		// The record goes first: without it the directory is no node any more, even after a crash.
		if err := removeFile(d.file("nodes", name, "node.json")); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		if err := os.RemoveAll(d.file("nodes", name)); err != nil {
			return err
		}
		def, err := d.defaultNode()
		if errors.Is(err, ErrBroken) { // it names nobody
			return nil
		}
		if err != nil || def != name {
			return err
		}
		names, err := d.nodeNames()
		if err != nil {
			return err
		}
		next := ""
		if len(names) > 0 {
			next = names[0]
		}
		return d.writeDefaultNode(next)
	})
}

// NodeDir returns the directory for a node's logs and other files, and creates it.
func (d *Dir) NodeDir(name string) (string, error) {
	if err := CheckName("node", name); err != nil {
		return "", err
	}
	path := d.file("nodes", name)
	return path, mkdir(path)
}
