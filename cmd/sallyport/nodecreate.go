package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
	"sallyport/state"
)

// nodeFlags adds the options of a node that outlive the command (docs/protocol/03 §7.2).
func nodeFlags(cmd *cobra.Command, o *state.NodeOptions) {
	f := cmd.Flags()
	f.StringVarP(&o.TCPListenerAddress, "tcp-listener-address", "t", "127.0.0.1:0", "where nodes connect, `HOST:PORT`")
	f.StringVar(&o.Identity, "identity", "", "the `NAME` of its identity (default: the default identity)")
	f.StringVar(&o.Project, "project", "", "`PROJECT` whose authority it trusts (default: the default)")
	f.StringVar(&o.AuthorityIdentity, "authority-identity", "", "the authority to trust, a change history in `HEX`")
	f.StringVar(&o.AuthorityRoute, "authority-route", "", "`ROUTE` to that authority, for credentials and news")
	f.StringVar(&o.AuthorityGrace, "authority-grace", "", "`DURATION` out of its reach until no channel is opened")
	f.StringVar(&o.CredentialScope, "credential-scope", "", "the `SCOPE` of the stored credential to present")
	f.StringVar(&o.StatusEndpoint, "status-endpoint", "", "`HOST:PORT` of status and metrics (default: 23345 or free)")
	registryFlag(f, &o.Registry)
	f.StringVar(&o.RegistryAddress, "registry-address", "", "a `ROUTE` by which other relays find it")
	f.Var(fileValue{&o.StatusToken}, "status-token", "a `FILE` with what who asks there must show")
	f.BoolVar(&o.NoStatusEndpoint, "no-status-endpoint", false, "serve no status and metrics")
	f.BoolVarP(&o.ExitOnEOF, "exit-on-eof", "e", false, "with --foreground: end when standard input ends")
	f.StringVar(&o.Services, "services", "", "start these services too, `JSON` or a file with it")
	f.BoolVar(&o.UDP, "udp", false, "be reached over UDP too, and make punctures")
	f.StringVarP(&o.UDPListenerAddress, "udp-listener-address", "u", "127.0.0.1:0", "where over UDP, `HOST:PORT`")
	networkFlags(cmd, o)
	f.BoolVar(&o.Small, "small", false, "for little memory: one event loop, small limits")
	limitFlags(cmd, o)
	recordFlags(cmd, o)
	logFlags(cmd, o)
	noEffect(cmd, "http-server", "opentelemetry-context=")
	hide(cmd, "credential-scope", "exit-on-eof", "services") // seldom used: help fits a screen
	flagAliases(cmd, "launch-config", "services", "launch-configuration", "services", "enable-udp", "udp", "enable-http-server", "http-server",
		"node-config", "configuration")
}

func nodeCreate(a *app) *cobra.Command {
	var o state.NodeOptions
	var r runOptions
	var foreground, fromConfig bool
	var configuration, ticket string
	var variables []string
	var statusPort uint16
	cmd := &cobra.Command{
		Use: "create [NAME_OR_CONFIGURATION] [flags]", Short: "Create a node and start it",
		Example: `  sallyport node create n1
  sallyport node create n2 --tcp-listener-address 127.0.0.1:0`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			arg := ""
			if len(args) == 1 {
				arg = args[0]
			}
			if _, err := configVariables(variables); err != nil {
				return err
			}
			switch given := cmd.Flags().Changed; {
			case o.AuthorityIdentity != "" && o.Project != "":
				return usageError("the argument '--authority-identity' cannot be used with '--project'")
			case o.ExitOnEOF && !foreground && configuration == "" && !isConfiguration(arg):
				return usageError("the argument '--exit-on-eof' needs '--foreground'")
			case given("status-endpoint-port") && (o.StatusEndpoint != "" || o.NoStatusEndpoint):
				return usageError("the argument '--status-endpoint-port' cannot be used with '--status-endpoint' or '--no-status-endpoint'")
			case given("status-endpoint-port"):
				o.StatusEndpoint = fmt.Sprintf("127.0.0.1:%d", statusPort)
			}
			if ticket == "" {
				var set bool
				if ticket, set = os.LookupEnv("ENROLLMENT_TICKET"); set && ticket == "" && !r.child && !fromConfig && !r.upgraded() {
					return withHint(errors.New("the ticket in ENROLLMENT_TICKET is empty"), ticketHint) // the node would not be a member
				}
			}
			if !r.child && !fromConfig && !r.upgraded() && (configuration != "" || ticket != "" || isConfiguration(arg)) {
				return a.createFromConfiguration(ctx, description{arg: arg, inline: configuration, ticket: ticket, variables: variables, flags: flagsGiven(cmd)})
			}
			err := checkLog(cmd, &o)
			if err != nil {
				return err
			}
			if _, err := authorityGrace(o.AuthorityGrace); err != nil {
				return err
			}
			if err := a.checkNetwork(&o); err != nil {
				return err
			}
			if o.Services, err = servicesText(ctx, o.Services); err != nil {
				return err
			}
			services, err := readServices(o.Services)
			if err != nil {
				return err
			}
			if services.address() != "" && !r.child && !r.upgraded() {
				a.note("Starting the secure channel listener %s...", services.address())
			}
			name := plainName(arg)
			if name == "" && r.inMemory {
				name = state.RandomName()
			}
			if name == "" { // the name is chosen by what nodes there are: nobody else must choose meanwhile
				d, err := a.dir()
				if err != nil {
					return err
				}
				if r.named, err = d.LockFirst(ctx, "node"); err != nil {
					return err
				}
				defer r.named()
				name = a.freeNodeName()
			}
			if err := state.CheckName("node", name); err != nil {
				if strings.ContainsAny(name, "./") {
					err = fmt.Errorf("there is no file %s, and as a node's name it is invalid: only letters, digits, '_' and '-' are allowed", arg)
				}
				return err
			}
			if o.AuthorityIdentity == "" && (o.AuthorityRoute != "" || o.CredentialScope != "") {
				a.note("%s --authority-route and --credential-scope have no effect without --authority-identity", a.color("33", "!"))
			}
			if err := a.ensureIdentity(ctx, o.Identity); err != nil {
				return err
			}
			if foreground || r.child {
				return a.runNode(ctx, name, o, r)
			}
			if r.inMemory {
				return errors.New("only a node in the foreground can be kept in memory: add --foreground")
			}
			if err := a.createBackground(ctx, name, o); err != nil {
				return err
			}
			return a.printNodeCreated(ctx, name)
		},
	}
	nodeFlags(cmd, &o)
	f := cmd.Flags()
	f.BoolVarP(&foreground, "foreground", "f", false, "run here until interrupted")
	f.BoolVarP(&r.skipRunning, "skip-is-running-check", "s", false, "start even if a node of this name runs")
	f.StringVar(&configuration, "configuration", "", "a configuration as `TEXT`")
	f.StringVar(&ticket, "enrollment-ticket", "", "enroll with this `TICKET` first (or $ENROLLMENT_TICKET)")
	f.StringArrayVar(&variables, "variable", nil, "`NAME=VALUE` for the configuration")
	f.BoolVar(&r.inMemory, "in-memory", switchFrom("OCKAM_SQLITE_IN_MEMORY"), "with --foreground: keep nothing on disk")
	hide(cmd, "in-memory")
	f.BoolVar(&r.child, "child-process", false, "")
	f.IntVar(&r.carried, "carried", 0, "")
	f.BoolVar(&fromConfig, "started-from-configuration", false, "")
	f.Uint16Var(&r.callback, "tcp-callback-port", 0, "")
	f.Uint16Var(&statusPort, "status-endpoint-port", 0, "") // the older form
	hide(cmd, "skip-is-running-check", "child-process", "carried", "tcp-callback-port", "started-from-configuration", "status-endpoint-port")
	return cmd
}

// freeNodeName is the default node's name if that node is stopped, else a new one (docs/protocol/03 §7.2).
func (a *app) freeNodeName() string {
	if d, err := a.dir(); err == nil {
		if n, err := d.Node(""); err == nil && n.Status() == state.Stopped {
			return n.Name
		}
		for {
			name := state.RandomName()
			if _, err := d.Node(name); errors.Is(err, state.ErrNotFound) {
				return name
			}
		}
	}
	return state.RandomName()
}

// printNodeCreated prints what `node create` prints: nothing when quiet, as in the reference.
func (a *app) printNodeCreated(ctx context.Context, name string) error {
	if a.quiet {
		return nil
	}
	c, _, err := a.nodeClient(name)
	if err != nil {
		return err
	}
	n, err := a.describeNode(ctx, c)
	if err != nil {
		return err
	}
	a.done("Created node %s, listening at %s", name, n.Transports[0].Socket)
	if at := a.pageOf(n); at != "-" {
		a.hint("its page: %s", at)
	}
	a.hint("next: sallyport tcp-outlet create --at %s --to HOST:PORT", name)
	return a.print(result{human: name, machine: name, json: n})
}

// pageOf is where a browser finds a node's page; "-" if it has none, or nobody may read it.
func (a *app) pageOf(n admin.Node) string {
	at, err := netip.ParseAddrPort(orDash(n.StatusEndpoint))
	if err != nil {
		return "-"
	}
	if r, err := a.dirOnce.Node(n.Name); !at.Addr().Unmap().IsLoopback() && (err != nil || r.Options.StatusToken == "") {
		return "-"
	}
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return "http://" + at.String() + "/"
}

// readyPipe is the descriptor on which a child tells its parent that the node is up: a line "ok", or the error.
const readyPipe = 3

// createBackground runs a node in a process of its own and waits until it is up.
func (a *app) createBackground(ctx context.Context, name string, o state.NodeOptions) error {
	d, err := a.dir()
	if err != nil {
		return err
	}
	if r, err := d.Node(name); err == nil && r.Status() == state.Running {
		return withHint(fmt.Errorf("a node with name %s is already running", name), "stop it first: sallyport node stop %s", name)
	}
	if o.Identity == "" { // made here, where it can be said
		if _, err := a.identityOf(ctx, ""); err != nil {
			return err
		}
	}
	self, err := ownPath() // also where that is a symbolic link: SIGUSR2 has the node look there again
	if err != nil {
		return err
	}
	logPath, err := a.logPath(name)
	if err != nil {
		return err
	}
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	ready, told, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	args := append([]string{self}, childArgs(name, o)...)
	if a.verbose > 0 {
		args = append(args, "-"+strings.Repeat("v", a.verbose))
	}
	files, env := []*os.File{null, logFile, logFile, told}, append(os.Environ(), proxyVariable+"="+strings.Join(proxiesOf(o), " "))
	secrets, err := a.secretsFor(ctx, o.Identity)
	if err != nil {
		return err
	}
	if secrets != nil {
		defer secrets.Close()
		env = append(env, fmt.Sprintf("%s=%d", secretsVariable, len(files)))
		files = append(files, secrets)
	}
	p, err := os.StartProcess(self, args, &os.ProcAttr{Files: files, Env: env, Sys: &syscall.SysProcAttr{Setsid: true}})
	_ = told.Close()
	if err != nil {
		return fmt.Errorf("start node %s: %w", name, err)
	}
	line, err := bufio.NewReader(ready).ReadString('\n')
	if strings.TrimSpace(line) == "ok" {
		if d := a.dirOnce; d != nil && d.Full() {
			a.note("%s The disk of %s is full: the node %s runs with what it has; what changes now is not remembered for its next start", a.color("33", "!"), d.Path(), name)
		}
		return p.Release()
	}
	_, _ = p.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case strings.TrimSpace(line) != "":
		return fmt.Errorf("node %s did not start: %s", name, strings.TrimSpace(line))
	case errors.Is(err, io.EOF):
		return withHint(fmt.Errorf("node %s did not start: it ended at once", name), "its log: %s", logPath)
	}
	return err
}

// childArgs is the command line of the process that runs a node.
func childArgs(name string, o state.NodeOptions) []string {
	if o.Authority != nil {
		return authorityArgs(name, o)
	}
	return append([]string{"node", "create", name, "--child-process"}, nodeArgs(o)...)
}

// authorityArgs is the command line of the process that runs an authority.
func authorityArgs(name string, o state.NodeOptions) []string {
	auth := o.Authority
	args := []string{"authority", "create", "--child-process", "--node-name", name, "--tcp-listener-address", o.TCPListenerAddress, "--identity", o.Identity,
		"--project-identifier", auth.ProjectIdentifier, "--trusted-identities", string(auth.TrustedIdentities)}
	if auth.CredentialTTL != "" {
		args = append(args, "--credential-ttl", auth.CredentialTTL)
	}
	for _, flag := range []struct{ name, value string }{{"--oidc-issuer", auth.OIDC.Issuer}, {"--oidc-client-id", auth.OIDC.ClientID},
		{"--oidc-client-secret-file", auth.OIDC.SecretFile}, {"--oidc-lifetime", auth.OIDC.Lifetime}, {"--store", auth.Store}} {
		if flag.value != "" {
			args = append(args, flag.name, flag.value)
		}
	}
	for name, values := range map[string][]string{"--oidc-scope": auth.OIDC.Scopes, "--oidc-claim": auth.OIDC.Claims, "--oidc-require": auth.OIDC.Require} {
		for _, value := range values {
			args = append(args, name, value)
		}
	}
	if auth.AccountAuthority != "" {
		args = append(args, "--account-authority", auth.AccountAuthority)
	}
	for flag, given := range map[string]bool{"--new": auth.New, "--enforce-admin-checks": auth.EnforceAdminChecks, "--no-direct-authentication": auth.NoDirectAuthentication, "--no-token-enrollment": auth.NoTokenEnrollment, "--disable-trust-context-id": auth.DisableTrustContextID} {
		if given {
			args = append(args, flag)
		}
	}
	if o.StatusEndpoint != "" {
		args = append(args, "--status-endpoint", o.StatusEndpoint)
	}
	return append(append(append(args, networkArgs(o)...), limitArgs(o)...), logArgs(o)...)
}

// nodeArgs is the command line that nodeFlags reads as o.
func nodeArgs(o state.NodeOptions) []string {
	var args []string
	add := func(flag, value string) {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	add("--tcp-listener-address", o.TCPListenerAddress)
	if o.UDP {
		args = append(args, "--udp")
		add("--udp-listener-address", o.UDPListenerAddress)
	}
	add("--identity", o.Identity)
	add("--project", o.Project)
	add("--authority-identity", o.AuthorityIdentity)
	add("--authority-route", o.AuthorityRoute)
	add("--authority-grace", o.AuthorityGrace)
	add("--credential-scope", o.CredentialScope)
	add("--status-endpoint", o.StatusEndpoint)
	add("--status-token", o.StatusToken)
	add("--registry", o.Registry)
	add("--registry-address", o.RegistryAddress)
	add("--services", o.Services)
	args = append(args, networkArgs(o)...)
	if o.NoStatusEndpoint {
		args = append(args, "--no-status-endpoint")
	}
	if o.Small {
		args = append(args, "--small")
	}
	return slices.Concat(args, limitArgs(o), recordArgs(o), logArgs(o))
}
