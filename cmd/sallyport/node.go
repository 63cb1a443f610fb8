package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport/node"
	"sallyport/node/admin"
	"sallyport/state"
)

func init() { nouns = append(nouns, nodeNoun) }

func nodeNoun(a *app) *cobra.Command {
	return noun(groupStory, "node", "Nodes: they run portals, relays and services", nil,
		nodeCreate(a), nodeList(a), nodeShow(a), nodeLogs(a), nodeStart(a), nodeStop(a), nodeReady(a), nodeUpgrade(a), nodeUpgradeCheck(a), nodeDelete(a), nodeDefault(a))
}

// describeNode asks a node what it has; whether it is the default is known here.
func (a *app) describeNode(ctx context.Context, c *admin.Client) (admin.Node, error) {
	n, err := admin.Get[admin.Node](ctx, c, admin.PathNode)
	if err != nil {
		return n, err
	}
	if n.Keys != nil && n.Keys.Home == "" { // files are never away, and the reference's output has nothing of it
		n.Keys = nil
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
			a.unread(err)
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
			return a.print(result{human: a.nodeText(n), json: n})
		}}
}

// seconds writes a number of seconds as a duration.
func seconds(s float64) string { return (time.Duration(s) * time.Second).String() }

func (a *app) nodeText(n admin.Node) string {
	var b strings.Builder
	status := n.Status
	if n.PID != 0 {
		status += fmt.Sprintf(", process %d", n.PID)
	}
	pairs := []string{"Node", n.Name, "Status", status, "Identity", n.IdentityName, "Route", n.Route.Short, "", orDash(n.Route.Verbose), "Status endpoint", orDash(n.StatusEndpoint), "Page", a.pageOf(n)}
	if k := n.Keys; k != nil {
		text := "good until " + time.Unix(k.ValidUntil, 0).Format(time.DateTime) + " without the primary key, which is in " + k.Home
		if k.Reason != "" {
			text += " and is away since " + time.Unix(k.Since, 0).Format(time.DateTime) + ": " + k.Reason
		}
		pairs = append(pairs, "Keys", text)
	}
	if s := n.Authority; s != nil {
		line := s.State
		switch {
		case s.State == node.AuthoritySilent:
			line += ", it does not tell of revocations: credentials are believed until they expire"
		case s.Late:
			line += fmt.Sprintf(", for %s, longer than %s", seconds(s.Silence), seconds(s.Grace))
		case s.State == node.AuthorityUnreachable:
			line += fmt.Sprintf(", for %s of %s", seconds(s.Silence), seconds(s.Grace))
		}
		pairs = append(pairs, "Authority", line)
	}
	storeLine := func(s *admin.Store) string {
		if s.Reason == "" {
			return s.Name
		}
		return s.Name + ", away since " + s.Since.Local().Format(time.DateTime) + ": " + s.Reason
	}
	if n.Store != nil {
		pairs = append(pairs, "Store", storeLine(n.Store))
	}
	if r := n.Registry; r != nil {
		pairs = append(pairs, "Registry", storeLine(&r.Store), "Other relays", fmt.Sprintf("%d, with a way to %d", r.Relays, r.Linked),
			"Relay names", fmt.Sprintf("%d here, %d at others alone", r.Here, r.Elsewhere))
	}
	b.WriteString(fields(pairs...))
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
		rows = append(rows, []string{in.Alias, in.Bind, string(in.State.State), in.OutletAddr, in.Reason})
	}
	section("Inlets", []string{"INLET", "LISTENS AT", "STATE", "OUTLET", ""}, rows)
	rows = nil
	for _, o := range n.Outlets {
		rows = append(rows, []string{"/service/" + string(o.Worker), o.To, string(o.State.State), o.Reason})
	}
	section("Outlets", []string{"OUTLET", "TARGET", "STATE", ""}, rows)
	section("UDP inlets", udpInletHeader, udpInletRows(n.UDPInlets))
	section("UDP outlets", udpOutletHeader, udpOutletRows(n.UDPOutlets))
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
			path, err := a.latestLog(r.Name)
			if err != nil {
				return err
			}
			return a.print(result{human: path, machine: path, json: map[string]string{"path": path}})
		}}
}

// stillRuns reports whether a node runs. A process that was killed a moment ago may be there still, but answers no more: it is waited for.
func stillRuns(ctx context.Context, r state.Node) bool {
	c := admin.NewClient(r.AdminSocket)
	for until := time.Now().Add(5 * time.Second); r.Status() == state.Running; time.Sleep(5 * time.Millisecond) {
		asked, cancel := context.WithTimeout(ctx, time.Second)
		_, err := admin.Get[admin.Node](asked, c, admin.PathNode)
		cancel()
		if err == nil || ctx.Err() != nil || time.Now().After(until) {
			return true
		}
	}
	return false
}

func nodeStart(a *app) *cobra.Command {
	var foreground bool
	cmd := &cobra.Command{Use: "start [NODE]", Short: "Start a stopped node as it was", Example: `  sallyport node start
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
			if stillRuns(ctx, r) {
				return a.print(result{human: fmt.Sprintf("  ✗ The node '%s' is already running. To restart it: sallyport node stop %s, then sallyport node start %s", r.Name, r.Name, r.Name)})
			} else if foreground {
				return a.runNode(ctx, r.Name, r.Options, runOptions{})
			} else if err := a.createBackground(ctx, r.Name, r.Options); err != nil {
				return err
			}
			c, _, err := a.nodeClient(r.Name)
			if err != nil {
				return err
			}
			n, err := a.describeNode(ctx, c)
			if err != nil {
				return err
			}
			return a.print(result{human: a.color(green, "✔") + " The node " + r.Name + " is running", json: n})
		}}
	cmd.Flags().BoolVarP(&foreground, "foreground", "f", false, "run here until interrupted, as systemd wants it")
	return cmd
}

func nodeStop(a *app) *cobra.Command {
	var force, all bool
	var drain time.Duration
	cmd := &cobra.Command{Use: "stop [NODE]", Short: "Stop a node; start brings it back as it was", Example: `  sallyport node stop
  sallyport node stop n1
  sallyport node stop n1 --drain 30s`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if drain < 0 {
				return usageError("invalid value '%v' for '--drain <DURATION>': it must not be negative", drain)
			}
			running, unread := a.runningNodes()
			if len(running) == 0 && unread == nil {
				return a.print(result{human: "  > There are no nodes running"})
			}
			if force && drain > 0 {
				return usageError("the argument '--force' cannot be used with '--drain <DURATION>'")
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
				err := a.drainAndStop(cmd.Context(), name, force, drain)
				if err != nil && all { // the others can be stopped
					unread = errors.Join(unread, err)
					continue
				}
				if err != nil {
					return err
				}
				if err := a.print(result{human: "  ✔ The node with name " + name + " was stopped"}); err != nil {
					return err
				}
			}
			if all {
				return unread
			}
			return nil
		}}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "kill it")
	cmd.Flags().BoolVar(&all, "all", false, "all nodes")
	cmd.Flags().DurationVar(&drain, "drain", 0, "take nobody new, and let connections end for this `DURATION`")
	return cmd
}

// drainAndStop stops a node; with a duration it is drained before.
func (a *app) drainAndStop(ctx context.Context, name string, force bool, drain time.Duration) error {
	if drain > 0 {
		if err := a.drainNode(ctx, name, drain); err != nil {
			return err
		}
	}
	return a.stopNode(ctx, name, force)
}

// drainNode asks a node to end when its connections have, and waits for that.
func (a *app) drainNode(ctx context.Context, name string, longest time.Duration) error {
	c, _, err := a.nodeClient(name)
	if err != nil {
		return err
	}
	r, err := a.nodeRecord(name)
	if err != nil {
		return err
	}
	if err := c.Do(ctx, "POST", admin.PathStop, admin.StopRequest{Drain: longest.String()}, nil); err != nil {
		return err
	}
	for until := time.Now().Add(longest + 5*time.Second); r.Process.Status() == state.Running && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// unread tells of what could not be read beside what could.
func (a *app) unread(err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		a.problem("%s", strings.TrimSuffix(line, "\n"))
	}
}

// noNodes reports whether there is no node at all.
func (a *app) noNodes() (bool, error) {
	d, err := a.dir()
	if err != nil {
		return false, err
	}
	names, err := d.NodeNames()
	return len(names) == 0, err
}

// runningNodes returns the names of the nodes that run, and what is wrong with those that may.
func (a *app) runningNodes() (running []string, unread error) {
	d, err := a.dir()
	if err != nil {
		return nil, err
	}
	names, err := d.NodeNames()
	errs := []error{err}
	for _, name := range names {
		n, err := d.Node(name)
		if errs = append(errs, err); err == nil && n.Status() != state.Stopped {
			running = append(running, name)
		}
	}
	return running, errors.Join(errs...)
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
	return d.NodeNames()
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
	if err := endProcess(ctx, r.Process, force); err != nil {
		return fmt.Errorf("stop node %s: %w", name, err)
	}
	return d.NodeStopped(ctx, name, r.Process)
}

// deleteNode stops a node and deletes it. Where its record cannot be read or is gone, its process is found as reset finds it.
func (a *app) deleteNode(ctx context.Context, name string, force bool) error {
	if _, err := a.dirOnce.Node(name); err == nil {
		if err := a.stopNode(ctx, name, force); err != nil {
			return err
		}
		return a.dirOnce.DeleteNode(ctx, name)
	}
	for _, n := range a.dirOnce.FindRunning() {
		if n.Name != name {
			continue
		}
		if err := endProcess(ctx, n.Process, force); err != nil {
			return fmt.Errorf("stop node %s: %w", name, err)
		}
	}
	return a.dirOnce.DeleteNode(ctx, name)
}

// endProcess asks a process to end and waits for that; in the end, or at once with force, it is killed.
func endProcess(ctx context.Context, p state.Process, force bool) error {
	for i, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if force && i == 0 {
			continue
		}
		if p.Status() != state.Running {
			break
		}
		if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
		deadline := time.Now().Add(5 * time.Second)
		for p.Status() == state.Running && time.Now().Before(deadline) && ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
		}
	}
	if p.Status() == state.Running {
		return fmt.Errorf("process %d does not end", p.PID)
	}
	return nil
}

func nodeDelete(a *app) *cobra.Command {
	var all, yes, force bool
	cmd := &cobra.Command{Use: "delete [NODE]", Short: "Stop a node and delete it with all it has", Example: `  sallyport node delete n1 --yes
  sallyport node delete --all --yes`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if all && len(args) == 1 {
				return usageError("the argument '[NODE]' cannot be used with '--all'")
			}
			none, err := a.noNodes()
			if err != nil {
				return err
			}
			if none || len(args) == 0 && !all && !a.stderrTTY {
				return a.nothingChosen(map[bool]int{true: 0, false: 1}[none])
			}
			var names []string
			if len(args) == 1 {
				name := plainName(args[0])
				known, err := a.dirOnce.NodeNames()
				if err != nil {
					return err
				}
				if !slices.Contains(known, name) && !slices.ContainsFunc(a.dirOnce.FindRunning(), func(n state.FoundNode) bool { return n.Name == name }) {
					return fmt.Errorf("the node %s was not found", name)
				}
				names = []string{name}
			} else if names, err = a.nodeNames(args, all); err != nil {
				return err
			}
			if err := a.confirm(yes, "Delete "+strings.Join(names, ", ")); err != nil {
				return err
			}
			return a.deleteEach("node", names, all, func(name string) error { return a.deleteNode(ctx, name, force) })
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
			if name != "" && r.IsDefault { // as in the reference
				return fmt.Errorf("the node '%s' is already the default", r.Name)
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
