package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
	"sallyport/state"
)

func init() { nouns = append(nouns, nodeNoun) }

func nodeNoun(a *app) *cobra.Command {
	return noun(groupStory, "node", "Nodes: they run portals, relays and services", nil,
		nodeCreate(a), nodeList(a), nodeShow(a), nodeLogs(a), nodeStart(a), nodeStop(a), nodeDelete(a), nodeDefault(a))
}

// nodeFlags adds the options of a node that outlive the command (docs/protocol/03 §7.2).
func nodeFlags(cmd *cobra.Command, o *state.NodeOptions) {
	f := cmd.Flags()
	f.StringVarP(&o.TCPListenerAddress, "tcp-listener-address", "t", "127.0.0.1:0", "where nodes connect, `HOST:PORT`")
	f.BoolVar(&o.UDP, "udp", false, "be reached over UDP too, and make punctures")
	f.StringVarP(&o.UDPListenerAddress, "udp-listener-address", "u", "127.0.0.1:0", "where over UDP, `HOST:PORT` (IPv4)")
	f.StringVar(&o.Identity, "identity", "", "the `NAME` of its identity (default: the default identity)")
	f.StringVar(&o.Project, "project", "", "`PROJECT` whose authority it trusts (default: the default)")
	f.StringVar(&o.AuthorityIdentity, "authority-identity", "", "the authority to trust, a change history in `HEX`")
	f.StringVar(&o.AuthorityRoute, "authority-route", "", "`ROUTE` to that authority, to fetch a credential from")
	f.StringVar(&o.CredentialScope, "credential-scope", "", "the `SCOPE` of the stored credential to present")
	f.StringVar(&o.StatusEndpoint, "status-endpoint", "", "`HOST:PORT` of status and metrics (default: 23345 or free)")
	f.BoolVar(&o.NoStatusEndpoint, "no-status-endpoint", false, "serve no status and metrics")
	f.BoolVarP(&o.ExitOnEOF, "exit-on-eof", "e", false, "end when standard input ends")
	f.StringVar(&o.Services, "services", "", "start these services too, `JSON` or a file with it")
	f.StringVar(&o.Services, "launch-config", "", "")
	f.StringVar(&o.Services, "launch-configuration", "", "")
	f.String("status-endpoint-port", "", "")
	f.String("opentelemetry-context", "", "")
	hide(cmd, "launch-config", "launch-configuration", "status-endpoint-port", "opentelemetry-context")
}

func nodeCreate(a *app) *cobra.Command {
	var o state.NodeOptions
	var foreground, child, skip, inMemory, fromConfig bool
	var configuration, ticket string
	var variables []string
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
			if ticket == "" {
				ticket = os.Getenv("ENROLLMENT_TICKET")
			}
			if configuration != "" || ticket != "" && !child || isConfiguration(arg) {
				return a.createFromConfiguration(ctx, arg, configuration, ticket, variables, flagsGiven(cmd))
			}
			if o.AuthorityIdentity != "" && o.Project != "" {
				return usageError("the argument '--authority-identity' cannot be used with '--project'")
			}
			var err error
			if o.Services, err = servicesText(o.Services); err != nil {
				return err
			}
			services, err := readServices(o.Services)
			if err != nil {
				return err
			}
			if services.address() != "" && !child {
				a.note("Starting the secure channel listener %s...", services.address())
			}
			name := plainName(arg)
			if name == "" {
				name = a.freeNodeName()
			}
			if err := state.CheckName("node", name); err != nil {
				return err
			}
			if err := a.ensureIdentity(ctx, o.Identity); err != nil {
				return err
			}
			if foreground || child {
				return a.runNode(ctx, name, o, runOptions{child: child, skipRunning: skip, inMemory: inMemory})
			}
			if inMemory {
				return usageError("--in-memory needs --foreground")
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
	f.BoolVarP(&skip, "skip-is-running-check", "s", false, "start even if a node of this name runs")
	f.StringVar(&configuration, "configuration", "", "a configuration as `TEXT`")
	f.StringVar(&configuration, "node-config", "", "")
	f.StringVar(&ticket, "enrollment-ticket", "", "enroll with this `TICKET` first (or $ENROLLMENT_TICKET)")
	f.StringArrayVar(&variables, "variable", nil, "`NAME=VALUE` for the configuration")
	f.BoolVar(&inMemory, "in-memory", os.Getenv("OCKAM_SQLITE_IN_MEMORY") == "true", "keep nothing on disk")
	f.BoolVar(&child, "child-process", false, "")
	f.BoolVar(&fromConfig, "started-from-configuration", false, "")
	f.String("tcp-callback-port", "", "")
	hide(cmd, "node-config", "child-process", "tcp-callback-port", "started-from-configuration")
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
	c, _, err := a.nodeClient(ctx, name)
	if err != nil {
		return err
	}
	n, err := a.describeNode(ctx, c)
	if err != nil {
		return err
	}
	a.done("Created node %s, listening at %s", name, n.Transports[0].Socket)
	a.hint("next: sallyport tcp-outlet create --at %s --to HOST:PORT", name)
	return a.print(result{human: name, machine: name, json: n})
}

// describeNode asks a node what it has; whether it is the default is known here.
func (a *app) describeNode(ctx context.Context, c *admin.Client) (admin.Node, error) {
	n, err := admin.Get[admin.Node](ctx, c, admin.PathNode)
	if err != nil {
		return n, err
	}
	if record, err := a.nodeRecord(""); err == nil {
		n.IsDefault = record.Name == n.Name
	}
	return n, nil
}

// stoppedNode is what is known of a node that does not run.
func stoppedNode(r state.Node) admin.Node {
	n := admin.Node{Name: r.Name, IdentityName: r.IdentityName, IsDefault: r.IsDefault, Status: string(r.Status()), Route: admin.NodeRoute{Short: "/node/" + r.Name},
		Transports: []admin.Transport{}, Listeners: []admin.ChannelListener{}, Inlets: []admin.Inlet{}, Outlets: []admin.Outlet{}, Services: []admin.Service{}}
	if r.TCPListener != "" {
		text := "/dnsaddr/localhost/tcp/" + r.TCPListener[strings.LastIndexByte(r.TCPListener, ':')+1:]
		n.Route.Verbose = &text
	}
	return n
}

func nodeList(a *app) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the nodes of this user", Example: `  sallyport node list
  sallyport node list --jq '.[].node_name'`, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			d, err := a.dir()
			if err != nil {
				return err
			}
			nodes, err := d.Nodes()
			if err != nil {
				return err
			}
			type status struct {
				Status string `json:"status"`
				PID    *int   `json:"pid,omitempty"`
			}
			type item struct {
				IsDefault bool   `json:"is_default"`
				Name      string `json:"node_name"`
				PID       *int   `json:"pid"`
				Status    status `json:"status"`
			}
			list, rows := []item{}, [][]string{}
			for _, n := range nodes {
				it := item{IsDefault: n.IsDefault, Name: n.Name, Status: status{Status: string(n.Status())}}
				if n.Status() != state.Stopped {
					it.PID, it.Status.PID = &n.Process.PID, &n.Process.PID
				}
				list = append(list, it)
				mark := ""
				if n.IsDefault {
					mark = "default"
				}
				rows = append(rows, []string{n.Name, string(n.Status()), n.TCPListener, n.IdentityName, mark})
			}
			return a.print(result{human: tableOr("no nodes; sallyport node create makes one", []string{"NODE", "STATUS", "LISTENS AT", "IDENTITY", ""}, rows), json: list})
		}}
}

func nodeShow(a *app) *cobra.Command {
	return &cobra.Command{Use: "show [NODE]", Short: "Show a node and what it has", Example: `  sallyport node show
  sallyport node show n1 --jq .status`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			if none, err := a.noNodes(); none || err != nil {
				if err != nil {
					return err
				}
				return a.print(result{human: "no nodes; sallyport node create makes one", machine: "[]", json: []any{}})
			}
			r, err := a.nodeRecord(name)
			if err != nil {
				return err
			}
			n := stoppedNode(r)
			if r.Status() == state.Running {
				if n, err = a.describeNode(cmd.Context(), admin.NewClient(r.AdminSocket)); err != nil {
					return err
				}
			}
			return a.print(result{human: nodeText(n), json: n})
		}}
}

func nodeText(n admin.Node) string {
	var b strings.Builder
	status := n.Status
	if n.PID != 0 {
		status += fmt.Sprintf(", process %d", n.PID)
	}
	b.WriteString(fields("Node", n.Name, "Status", status, "Identity", n.IdentityName, "Route", n.Route.Short, "", orDash(n.Route.Verbose), "Status endpoint", orDash(n.StatusEndpoint)))
	section := func(title string, header []string, rows [][]string) {
		if len(rows) > 0 {
			b.WriteString("\n" + title + "\n")
			for _, line := range strings.Split(strings.TrimRight(table(header, rows), "\n"), "\n") {
				b.WriteString("  " + line + "\n")
			}
		}
	}
	var rows [][]string
	for _, in := range n.Inlets {
		rows = append(rows, []string{in.Alias, in.Bind, in.Status, in.OutletAddr})
	}
	section("Inlets", []string{"INLET", "LISTENS AT", "STATUS", "OUTLET"}, rows)
	rows = nil
	for _, o := range n.Outlets {
		rows = append(rows, []string{"/service/" + string(o.Worker), o.To})
	}
	section("Outlets", []string{"OUTLET", "TARGET"}, rows)
	rows = nil
	for _, t := range n.Transports {
		rows = append(rows, []string{strings.ToUpper(t.Type), t.Mode, t.Socket})
	}
	section("Transports", []string{"TYPE", "MODE", "ADDRESS"}, rows)
	return b.String()
}

func nodeLogs(a *app) *cobra.Command {
	return &cobra.Command{Use: "logs [NODE]", Short: "Print the path of a node's log", Example: `  sallyport node logs
  tail -f "$(sallyport node logs n1)"`, Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			r, err := a.nodeRecord(name)
			if err != nil {
				return err
			}
			path, err := a.logPath(r.Name)
			if err != nil {
				return err
			}
			return a.print(result{human: path, machine: path, json: map[string]string{"path": path}})
		}}
}

func (a *app) logPath(node string) (string, error) {
	dir, err := a.dirOnce.NodeDir(node)
	return filepath.Join(dir, "node.log"), err
}

func nodeStart(a *app) *cobra.Command {
	return &cobra.Command{Use: "start [NODE]", Short: "Start a stopped node as it was", Example: `  sallyport node start
  sallyport node start n1`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			r, err := a.nodeRecord(name)
			if err != nil {
				return err
			}
			if r.Status() == state.Running {
				return a.print(result{human: fmt.Sprintf("  ✗ The node '%s' is already running. To restart it: sallyport node stop %s, then sallyport node start %s", r.Name, r.Name, r.Name)})
			} else {
				o := r.Options
				if r.TCPListener != "" {
					o.TCPListenerAddress = r.TCPListener // others know it by this address
				}
				if o.UDP && r.UDPListener != "" {
					o.UDPListenerAddress = r.UDPListener
				}
				if err := a.createBackground(ctx, r.Name, o); err != nil {
					return err
				}
			}
			c, _, err := a.nodeClient(ctx, r.Name)
			if err != nil {
				return err
			}
			n, err := a.describeNode(ctx, c)
			if err != nil {
				return err
			}
			return a.print(result{human: a.color(green, "✔") + " The node " + r.Name + " is running", json: n})
		}}
}

func nodeStop(a *app) *cobra.Command {
	var force, all bool
	cmd := &cobra.Command{Use: "stop [NODE]", Short: "Stop a node; start brings it back as it was", Example: `  sallyport node stop
  sallyport node stop n1`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			running, err := a.runningNodes()
			if err != nil {
				return err
			}
			if len(running) == 0 {
				return a.print(result{human: "  > There are no nodes running"})
			}
			names, err := a.nodeNames(args, all)
			if err != nil {
				return err
			}
			for _, name := range names {
				if !slices.Contains(running, name) {
					if all {
						continue
					}
					return fmt.Errorf("the node %s is not running", name)
				}
				if err := a.stopNode(cmd.Context(), name, force); err != nil {
					return err
				}
				if err := a.print(result{human: "  ✔ The node with name " + name + " was stopped"}); err != nil {
					return err
				}
			}
			return nil
		}}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill it")
	cmd.Flags().BoolVar(&all, "all", false, "all nodes")
	return cmd
}

// noNodes reports whether there is no node at all.
func (a *app) noNodes() (bool, error) {
	d, err := a.dir()
	if err != nil {
		return false, err
	}
	nodes, err := d.Nodes()
	return len(nodes) == 0, err
}

// runningNodes returns the names of the nodes that run.
func (a *app) runningNodes() ([]string, error) {
	d, err := a.dir()
	if err != nil {
		return nil, err
	}
	nodes, err := d.Nodes()
	var names []string
	for _, n := range nodes {
		if n.Status() != state.Stopped {
			names = append(names, n.Name)
		}
	}
	return names, err
}

func (a *app) nodeNames(args []string, all bool) ([]string, error) {
	if !all {
		name := ""
		if len(args) == 1 {
			name = args[0]
		}
		r, err := a.nodeRecord(name)
		return []string{r.Name}, err
	}
	d, err := a.dir()
	if err != nil {
		return nil, err
	}
	nodes, err := d.Nodes()
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}
	return names, err
}

// stopNode ends a node's process and waits for it.
func (a *app) stopNode(ctx context.Context, name string, force bool) error {
	d, err := a.dir()
	if err != nil {
		return err
	}
	r, err := d.Node(name)
	if err != nil {
		return err
	}
	p := r.Process
	for i, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if force && i == 0 {
			continue
		}
		if p.Status() != state.Running {
			break
		}
		if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop node %s: %w", name, err)
		}
		deadline := time.Now().Add(5 * time.Second)
		for p.Status() == state.Running && time.Now().Before(deadline) && ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
		}
	}
	if p.Status() == state.Running {
		return fmt.Errorf("the node %s (process %d) does not end", name, p.PID)
	}
	return d.NodeStopped(ctx, name, p)
}

func nodeDelete(a *app) *cobra.Command {
	var all, yes, force bool
	cmd := &cobra.Command{Use: "delete [NODE]", Short: "Stop a node and delete it with all it has", Example: `  sallyport node delete n1 --yes
  sallyport node delete --all --yes`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			none, err := a.noNodes()
			if err != nil {
				return err
			}
			if none || len(args) == 0 && !all && !a.stderrTTY {
				return a.nothingChosen(map[bool]int{true: 0, false: 1}[none])
			}
			if len(args) == 1 {
				if _, err := a.nodeRecord(args[0]); err != nil {
					return fmt.Errorf("the node %s was not found", plainName(args[0]))
				}
			}
			names, err := a.nodeNames(args, all)
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "Delete "+strings.Join(names, ", ")); err != nil {
				return err
			}
			for _, name := range names {
				if err := a.stopNode(ctx, name, force); err != nil {
					return err
				}
				if err := a.dirOnce.DeleteNode(ctx, name); err != nil {
					return err
				}
				if err := a.print(result{human: "deleted the node " + name, machine: name, json: map[string]string{"name": name}}); err != nil {
					return err
				}
			}
			return nil
		}}
	f := cmd.Flags()
	f.BoolVar(&all, "all", false, "all nodes")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.BoolVarP(&force, "force", "f", false, "kill it")
	return cmd
}

func nodeDefault(a *app) *cobra.Command {
	return &cobra.Command{Use: "default [NODE]", Short: "Show the default node, or choose it", Example: `  sallyport node default
  sallyport node default n1`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			r, err := a.nodeRecord(name)
			if err != nil {
				return err
			}
			if name != "" {
				if err := a.dirOnce.SetDefaultNode(cmd.Context(), r.Name); err != nil {
					return err
				}
			}
			if name == "" {
				return a.print(result{human: "  ✔ The default node is '" + r.Name + "'"})
			}
			return a.print(result{human: r.Name, machine: r.Name})
		}}
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
	self, err := os.Executable()
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
	stdin := null
	if o.ExitOnEOF {
		stdin = os.Stdin
	}
	p, err := os.StartProcess(self, args, &os.ProcAttr{
		Files: []*os.File{stdin, logFile, logFile, told}, Env: os.Environ(), Sys: &syscall.SysProcAttr{Setsid: true},
	})
	_ = told.Close()
	if err != nil {
		return fmt.Errorf("start node %s: %w", name, err)
	}
	line, err := bufio.NewReader(ready).ReadString('\n')
	if strings.TrimSpace(line) == "ok" {
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
		return authorityArgs(o)
	}
	args := []string{"node", "create", name, "--child-process"}
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
	add("--credential-scope", o.CredentialScope)
	add("--status-endpoint", o.StatusEndpoint)
	add("--services", o.Services)
	if o.NoStatusEndpoint {
		args = append(args, "--no-status-endpoint")
	}
	if o.ExitOnEOF {
		args = append(args, "--exit-on-eof")
	}
	return args
}
