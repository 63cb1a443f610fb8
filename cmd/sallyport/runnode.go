package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"sallyport/crypto/aead"
	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/dataplane"
	"sallyport/fleet"
	"sallyport/node"
	"sallyport/node/admin"
	"sallyport/node/page"
	"sallyport/state"
)

// runOptions say how a node runs in this process.
type runOptions struct {
	child, skipRunning, inMemory bool
	callback                     uint16 // a port of this machine to connect to when the node is up, or 0
	named                        func() // called when the node's name is taken; may be nil

	carried int           // descriptor with what the program before has left; 0 at an ordinary start
	state   *node.Carried // that
	collect func()        // has the garbage collector run again; nil at an ordinary start
}

// upgraded tells that the node goes on from a program before this one.
func (r *runOptions) upgraded() bool { return r.carried != 0 }

// defaultStatusEndpoint is where a node serves its status, if the port is free (docs/protocol/03 §6.3).
const defaultStatusEndpoint = "127.0.0.1:23345"

// runNode runs a node until ctx ends. A child tells its parent on readyPipe when the node is up.
func (a *app) runNode(ctx context.Context, name string, o state.NodeOptions, r runOptions) (err error) {
	var tell *os.File
	if r.child && !r.upgraded() {
		tell = os.NewFile(readyPipe, "ready")
	}
	report := func(err error) {
		if tell == nil {
			return
		}
		if err != nil {
			fmt.Fprintln(tell, oneLine(err))
		} else {
			fmt.Fprintln(tell, "ok")
		}
		_ = tell.Close()
		tell = nil
	}
	defer func() {
		if err != nil && tell != nil {
			report(err)
			err = exitCode(exitSoftware)
		}
	}()
	if err := a.readState(&r); err != nil {
		return err
	}
	if ownsProcess(ctx) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // whoever read the log may go: a node does not end for that
	}
	var sockets []dataplane.Inherited
	if ownsProcess(ctx) && !r.child { // before any program is started that would have them too
		if sockets, err = dataplane.Activated(); err != nil {
			return err
		}
	}
	if r.inMemory {
		forget, err := a.inMemory()
		if err != nil {
			return err
		}
		defer forget()
	}
	dir, err := a.dir()
	if err != nil {
		return err
	}
	if old, err := dir.Node(name); err == nil && old.Status() == state.Running && !r.skipRunning && !r.upgraded() {
		return withHint(fmt.Errorf("a node with name %s is already running", name), "stop it first: sallyport node stop %s", name)
	}
	if r.child {
		path, err := a.logPath(name)
		if err != nil {
			return err
		}
		if a.stderr, err = newLogFile(path); err != nil {
			return err
		}
	}
	a.foreground = !r.child
	old, err := dir.Node(name)
	isNew := errors.Is(err, state.ErrNotFound)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	options, self, err := a.nodeOptions(ctx, name, &o)
	if err != nil {
		return err
	}
	if options.Upgrade, err = a.upgradeOptions(ctx, name, o, r); err != nil {
		return err
	}
	// Others know the node by the address that it had, where the port was left to it.
	if options.Records, err = a.recordOptions(ctx, name, o, r, self); err != nil {
		return err
	}
	options.Sockets = sockets
	options.ListenBefore, options.UDP.ListenBefore = old.TCPListener, old.UDPListener
	process, err := state.CurrentProcess()
	if err != nil {
		return err
	}
	socket, err := dir.SocketPath(name)
	if err != nil {
		return err
	}
	record := state.Node{
		Name: name, IdentityName: self.named.Name, Identifier: self.named.Identifier, IsAuthority: o.Authority != nil,
		TCPListener: o.TCPListenerAddress, AdminSocket: socket, Process: process, Options: o,
	}
	if !r.upgraded() || !sameNode(old, record) { // else nobody waits for the disk while clients do
		if _, err := dir.CreateNode(ctx, record); err != nil {
			return err
		}
	}
	if dir.Full() {
		options.Log.Warn("the disk is full: the node starts with what it has, and what changes now is not remembered for its next start", "directory", dir.Path())
	}
	if r.named != nil {
		r.named()
	}
	defer func() {
		if err != nil && isNew { // a node that never ran leaves nothing behind
			clean := context.WithoutCancel(ctx)
			err = errors.Join(err, dir.NodeStopped(clean, name, process), dir.DeleteNode(clean, name))
		}
	}()
	n, err := node.Start(ctx, options)
	if err != nil {
		return err
	}
	defer n.Stop()
	if options.Fleet != nil && options.Fleet.Delegate != nil {
		go watchKeeper(ctx, options.Fleet.Delegate, cancel, options.Log)
	}
	services, err := readServices(o.Services)
	if err != nil {
		return err
	}
	if err := startServices(ctx, n, services); err != nil {
		return err
	}
	if err := n.ServeAdmin(ctx, socket, cancel); err != nil {
		return err
	}
	defer os.Remove(socket)
	status := ""
	if !o.NoStatusEndpoint {
		at, fallback := o.StatusEndpoint, false
		if at == "" {
			at, fallback = defaultStatusEndpoint, true
		}
		if r.upgraded() && old.StatusEndpoint != "" {
			at = old.StatusEndpoint
		}
		if status, err = n.ServeStatus(ctx, at, fallback); err != nil {
			return err
		}
	}
	if err := dir.UpdateNode(ctx, name, func(rec *state.Node) error {
		rec.TCPListener, rec.UDPListener, rec.StatusEndpoint = n.Listening(), n.ListeningUDP(), status
		return nil
	}); err != nil {
		return err
	}
	if !r.upgraded() { // else it is in force already
		a.confine(ctx, o, socket, options.Log)
	}
	a.upgradeOnSignal(ctx, n, options.Log)
	n.Upgraded(ctx)
	if r.upgraded() {
		r.collect()
	}
	report(nil)
	isNew = false
	go watchdog(ctx, n, r.upgraded())
	notifySystemd(fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=node %s at %s", os.Getpid(), name, n.Listening()))
	if !r.upgraded() {
		if err := a.nodeIsUp(ctx, admin.NewClient(socket), n, r); err != nil && ctx.Err() == nil { // told to end, it ends as always
			return err
		}
	}
	if o.ExitOnEOF {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	a.reloadOnHangup(ctx, name, r, options.Log)
	if !r.upgraded() { // else the connections look for their paths first
		releaseStartup()
	}
	go returnMemory(ctx, o.Small, r.upgraded())
	<-ctx.Done()
	n.Ending()
	notifySystemd("STOPPING=1")
	n.HandOver()
	options.Log.Info("node stops", "node", name)
	stopped, done := context.WithTimeout(context.Background(), 2*time.Second)
	defer done()
	return dir.NodeStopped(stopped, name, process)
}

// sameNode reports whether a record says of a node what there is on disk already. What is found out while it starts is not looked at.
func sameNode(old, record state.Node) bool {
	record.TCPListener, record.UDPListener, record.StatusEndpoint = old.TCPListener, old.UDPListener, old.StatusEndpoint
	record.CreatedAt, record.Configuration = old.CreatedAt, old.Configuration
	a, err := json.Marshal(old)
	if err != nil {
		return false
	}
	b, err := json.Marshal(record)
	return err == nil && bytes.Equal(a, b)
}

// nodeIsUp tells whoever waits for it that a node is up.
func (a *app) nodeIsUp(ctx context.Context, c *admin.Client, n *node.Node, r runOptions) error {
	if !r.child {
		described, err := a.describeNode(ctx, c)
		if err != nil {
			return err
		}
		a.done("Node %s runs, listening at %s; Ctrl-C ends it", described.Name, n.Listening())
		if err := a.print(result{human: described.Name, machine: described.Name, json: described}); err != nil && !errors.Is(err, syscall.EPIPE) {
			return err
		}
	}
	if r.callback != 0 {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", r.callback), time.Second)
		if err != nil {
			return fmt.Errorf("--tcp-callback-port: %w", err)
		}
		_ = c.Close()
	}
	if a.onUp != nil {
		a.onUp()
	}
	return nil
}

// inMemory moves the state directory of this command into memory, unless it is there already. forget removes it.
func (a *app) inMemory() (forget func(), err error) {
	if a.isInMemory {
		return func() {}, nil
	}
	const memory = "/dev/shm" // where it is missing, the directory for temporary files has to do
	dir, err := os.MkdirTemp(memory, "sallyport-")
	if err != nil {
		dir, err = os.MkdirTemp("", "sallyport-")
	}
	if err != nil {
		return nil, err
	}
	a.dirOnce, err = state.Open(dir)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	a.isInMemory = true
	return func() { _ = os.RemoveAll(dir) }, nil
}

// readOptions turns the options of the command line into a node's, as far as that binds and begins nothing, writes nothing and asks nobody: what keeps a node from
// starting keeps a program from going on for it, which is asked before (couldGoOn).
func (a *app) readOptions(ctx context.Context, name string, o *state.NodeOptions) (options node.Options, s *self, err error) {
	if s, err = a.identityOf(ctx, o.Identity); err != nil {
		return options, nil, err
	}
	if err := aead.SelectionError(); err != nil {
		return options, nil, err
	}
	log, level := a.logger(o.LogLevel, o.LogFormat, o.Limits.LogRate)
	h, err := a.home()
	if err != nil {
		return options, nil, err
	}
	managers := h.Managers()
	if s.manager, err = managers(ctx, s.named.Vault); err != nil {
		return options, nil, err
	}
	options = node.Options{
		Name: name, IdentityName: s.named.Name, Self: s.id, Identities: s.manager, Listen: o.TCPListenerAddress, Log: log, LogLevel: level,
		Store: node.NewHome(a.dirOnce, name, o.Authority == nil && !a.isInMemory),
		IdentitiesOf: func(ctx context.Context, name string) (*identity.Manager, error) {
			named, err := a.dirOnce.NamedIdentity(name)
			if err != nil {
				return nil, err
			}
			return managers(ctx, named.Vault)
		},
	}
	if o.StatusToken != "" {
		if options.StatusToken, err = page.ReadToken(o.StatusToken); err != nil {
			return options, nil, fmt.Errorf("--status-token: %w", err)
		}
	}
	if err := applyNetwork(&options, o); err != nil {
		return options, nil, err
	}
	if options.Issuer, err = a.newIssuer(o.ACME, options.Proxies, log); err != nil {
		return options, nil, err
	}
	if options.Listen == "" {
		options.Listen = "127.0.0.1:0"
	}
	// As in the reference, what is no number is no bound (docs/protocol/03 §1.2).
	if size, err := strconv.Atoi(os.Getenv("OCKAM_TCP_PORTAL_PAYLOAD_LENGTH")); err == nil && size > 0 {
		options.Portals.PayloadSize = size
	}
	if options.ChannelTimeout, err = durationFrom("OCKAM_DEFAULT_TIMEOUT"); err != nil || o.Authority != nil {
		return options, s, err
	}
	if options.UDP, err = udpOptions(); err != nil {
		return options, nil, err
	}
	if o.UDP {
		if options.UDP.Listen = o.UDPListenerAddress; options.UDP.Listen == "" {
			options.UDP.Listen = "127.0.0.1:0"
		}
	}
	if options.Trust, err = a.trust(ctx, s.manager, o.Project, o.AuthorityIdentity, o.AuthorityRoute, o.CredentialScope); err != nil {
		return options, nil, err
	}
	options.Trust.Grace, err = authorityGrace(o.AuthorityGrace)
	return options, s, err
}

// checkKeys refuses an identity whose keys cannot be used.
func (s *self) checkKeys(ctx context.Context) error {
	err := s.manager.CheckKeys(ctx, s.id)
	switch {
	case errors.Is(err, vault.ErrKey) || errors.Is(err, vault.ErrNotFound):
		return fmt.Errorf("identity %q cannot be used: %w: put a backup of its vault %q in place, or create another identity", s.named.Name, err, s.named.Vault)
	case err != nil:
		return fmt.Errorf("identity %q cannot be used: %w", s.named.Name, err)
	}
	return nil
}

// nodeOptions turns the options of the command line into a node's, and opens and begins what they name.
func (a *app) nodeOptions(ctx context.Context, name string, o *state.NodeOptions) (node.Options, *self, error) {
	var none node.Options
	options, self, err := a.readOptions(ctx, name, o)
	if err == nil {
		err = self.checkKeys(ctx)
	}
	if err != nil {
		return none, nil, err
	}
	log := options.Log
	a.retirePurposeKeys(ctx, self, log)
	acting, part, err := a.fleetOptions(ctx, name, self, o.Authority != nil, log)
	if err != nil {
		return none, nil, err
	}
	options.Self, options.Identities, options.Fleet = acting.id, acting.manager, part
	if v, err := a.dirOnce.Vault(self.named.Vault); err == nil {
		options.KeysHome = homeOf(v)
		if err := a.wipeReplaced(ctx, self.id, v); err != nil {
			log.Warn("a key that was replaced is still in the vault", "vault", v.Name, "reason", err.Error())
		}
	}
	applyLimits(&options, o.Limits, o.Small)
	if o.Authority != nil {
		options.Authority, err = a.authorityServices(ctx, acting, o.Authority, log)
	} else {
		options.RelayRegistry, err = a.relayRegistry(o, log)
	}
	return options, self, err
}

// fleetOptions returns who a node acts as, and its part among the nodes that act as the same identity.
func (a *app) fleetOptions(ctx context.Context, name string, s *self, isAuthority bool, log *slog.Logger) (*self, *node.FleetOptions, error) {
	d, err := a.dirOnce.Delegate(name)
	if err != nil {
		return nil, nil, err
	}
	if d != nil {
		return a.actAs(ctx, s, d, log)
	}
	kind := fleet.Relay
	if isAuthority {
		kind = fleet.Authority
	}
	part, err := a.keeperOptions(ctx, name, s, kind, log)
	return s, part, err
}

// leastGrace is the shortest --authority-grace: an authority that is there is heard every 10 s, and a query may be lost.
const leastGrace = 30 * time.Second

// authorityGrace reads --authority-grace; 0 if it is not given.
func authorityGrace(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := parseDuration(text)
	if err != nil {
		return 0, usageError("invalid value '%s' for '--authority-grace': %v", text, err)
	}
	if d < leastGrace {
		return 0, usageError("invalid value '%s' for '--authority-grace': it must be at least %v", text, leastGrace)
	}
	return d, nil
}

// trust works out whose credentials to believe (docs/protocol/02 §5.7): the authority named, else the project's, else that of
// the default project, else nobody's.
func (a *app) trust(ctx context.Context, m *identity.Manager, projectName, authorityHex, route, scope string) (node.Trust, error) {
	var t node.Trust
	if authorityHex = unfolded(authorityHex); authorityHex != "" {
		id, err := node.AuthorityHistory(ctx, m, authorityHex)
		if err != nil {
			return t, err
		}
		t.Authority, t.Scope = &id, scope
		if route != "" {
			t.Route, err = a.route("--authority-route", route)
		}
		return t, err
	}
	h, err := a.home()
	if err != nil {
		return t, err
	}
	t, err = h.Trust(ctx, m, projectName)
	if errors.Is(err, state.ErrNotFound) && projectName == "" {
		return t, nil
	}
	return t, err
}

// adminCredential returns what an account authority said of an identity as a project's administrator, and is stored here, under the scope that is
// given or the project's; nil if there is nothing.
func (a *app) adminCredential(t trustFlags, subject identity.Identifier) ([]byte, error) {
	scope := t.scope
	if scope == "" {
		p, err := a.dirOnce.Project(t.project)
		if notFound(err) || err == nil && t.authority != "" {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		scope = "project-admin-" + p.Project.ID
	}
	stored, err := a.dirOnce.Credentials()
	if err != nil {
		return nil, err
	}
	for _, c := range stored {
		if c.Subject == subject.String() && c.Scope == scope && time.Now().Before(c.ExpiresAt) {
			return c.Raw, nil
		}
	}
	return nil, nil
}

// embedded runs a node inside this command, for commands that need one for a moment.
func (a *app) embedded(ctx context.Context, identityName string, t trustFlags) (*node.Node, *self, error) {
	self, err := a.identityOf(ctx, identityName)
	if err != nil {
		return nil, nil, err
	}
	trust, err := a.trust(ctx, self.manager, t.project, t.authority, t.route, t.scope)
	if err != nil {
		return nil, nil, err
	}
	if trust.Present, err = a.adminCredential(t, self.id); err != nil {
		return nil, nil, err
	}
	log := slog.New(slog.DiscardHandler)
	if a.verbose > 0 {
		log, _ = a.logger("", "", 0)
	}
	over, err := udpOptions()
	if err != nil {
		return nil, nil, err
	}
	options := node.Options{
		Name: "command", IdentityName: self.named.Name, Self: self.id, Identities: self.manager, Shards: 1,
		Store: node.CommandHome(a.dirOnce), Trust: trust, Listen: "127.0.0.1:0", UDP: over, Log: log,
	}
	if err := applyNetwork(&options, &state.NodeOptions{}); err != nil {
		return nil, nil, err
	}
	n, err := node.Start(ctx, options)
	return n, self, err
}
