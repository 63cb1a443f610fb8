package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport/buildinfo"
	"sallyport/node"
	"sallyport/node/admin"
	"sallyport/state"
	"sallyport/upgrade"
)

func nodeUpgrade(a *app) *cobra.Command {
	var r admin.UpgradeRequest
	var last bool
	cmd := &cobra.Command{Use: "upgrade [NODE]", Short: "Put another program in the place of a node's, while connections go on", Example: `  sallyport node upgrade n1
  sallyport node upgrade n1 --drain 0s`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx, name := cmd.Context(), ""
			if len(args) == 1 {
				name = args[0]
			}
			c, name, err := a.nodeClient(name)
			if err != nil {
				return err
			}
			record, err := a.nodeRecord(name)
			if err != nil {
				return err
			}
			if last {
				u, err := admin.Get[admin.Upgrade](ctx, c, admin.PathUpgrade)
				if err != nil {
					return err
				}
				return a.print(result{human: upgradeText(name, u), machine: u.State, json: u})
			}
			if r.Program == "" {
				r.Program, err = ownPath()
			} else {
				r.Program, err = filepath.Abs(r.Program)
			}
			if err != nil {
				return err
			}
			var u admin.Upgrade
			if err := c.Do(ctx, "POST", admin.PathUpgrade, r, &u); err != nil {
				return goesOn(name, err)
			}
			a.note("Upgrading node %s from %s to %s: %s", name, u.From, u.To, oneOrMany(u.Connections, "connection goes on", "connections go on"))
			for _, line := range leftText(u.Left) {
				a.note("  %s", line)
			}
			if u, err = a.upgradeEnd(ctx, c, record, u.ID); err != nil {
				return err
			}
			if u.State == admin.UpgradeFailed {
				return goesOn(name, errors.New(u.Error))
			}
			return a.print(result{human: upgradeText(name, u), machine: name, json: u})
		}}
	f := cmd.Flags()
	f.StringVar(&r.Program, "program", "", "the new program, a `PATH` (default: the one that runs this command)")
	f.BoolVar(&last, "last", false, "only say how the last upgrade went")
	f.StringVar(&r.Drain, "drain", "", "`DURATION` for connections that cannot go on to end (default 10s)")
	return cmd
}

// goesOn says why a node was not upgraded.
func goesOn(name string, why error) error {
	err := fmt.Errorf("the node %s goes on as it was: %w", name, why)
	if strings.Contains(why.Error(), "permission denied") {
		return withHint(err, "may the user of the node execute the program?")
	}
	return err
}

// upgradeText says how an upgrade went.
func upgradeText(name string, u admin.Upgrade) string {
	switch u.State {
	case admin.UpgradeFailed:
		return "the node " + name + " goes on as it was: " + u.Error
	case admin.UpgradeChecked, admin.UpgradeDraining, admin.UpgradeServing:
		return "the upgrade of node " + name + " is under way"
	}
	text := fmt.Sprintf("upgraded node %s from %s to %s: stopped for %.0f ms, %s after %.0f ms", name, u.From, u.To, u.PauseMS,
		oneOrMany(u.Connections, "connection went on", "connections went on"), u.BackMS)
	if u.Away > 0 {
		text += fmt.Sprintf("; %d still look for a path", u.Away)
	}
	for _, why := range slices.Sorted(maps.Keys(u.Reset)) {
		text += "\n  " + oneOrMany(u.Reset[why], "was reset: ", "were reset: ") + why
	}
	for _, line := range leftText(u.Left) {
		text += "\n  reset: " + line
	}
	if u.Lost > 0 {
		text += "\n  reset: " + oneOrMany(u.Lost, "connection", "connections") + " of portals that were not opened again"
	}
	return text
}

func oneOrMany(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// leftText says what does not go on, a reason in each line.
func leftText(left map[string]int) (lines []string) {
	for _, why := range slices.Sorted(maps.Keys(left)) {
		lines = append(lines, oneOrMany(left[why], "connection", "connections")+": "+why)
	}
	return lines
}

// upgradeEnd waits until an upgrade has ended, of whose program nobody may answer for a moment.
func (a *app) upgradeEnd(ctx context.Context, c *admin.Client, record state.Node, id string) (u admin.Upgrade, err error) {
	var silent time.Time
	for {
		u, err = admin.Get[admin.Upgrade](ctx, c, admin.PathUpgrade)
		switch {
		case err == nil && u.ID != id:
			return u, errors.New("the node was started anew, or upgraded again, meanwhile")
		case err == nil && (u.State == admin.UpgradeDone || u.State == admin.UpgradeFailed):
			return u, nil
		case err == nil:
			silent = time.Time{}
		case errors.Is(err, admin.ErrNotFound):
			return u, errors.New("the node was started anew: its connections are lost; its log says why")
		case record.Status() != state.Running:
			return u, fmt.Errorf("the node %s has ended while it was upgraded: its log says why", record.Name)
		case silent.IsZero():
			silent = time.Now()
		case time.Since(silent) > 30*time.Second:
			return u, fmt.Errorf("the node does not answer after the upgrade: %w", err)
		}
		select {
		case <-ctx.Done():
			return u, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// nodeUpgradeCheck is what a node runs of a program before it leaves itself to it.
func nodeUpgradeCheck(a *app) *cobra.Command {
	return &cobra.Command{Use: "upgrade-check NODE ARGS...", Short: "Whether this program could go on for a node", Hidden: true, Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer := upgrade.Answer{Format: node.StateFormat, Version: buildinfo.Full()}
			if err := a.couldGoOn(cmd.Context(), args[0], args[1:]); err != nil {
				answer.Error = buildinfo.Full() + ": " + err.Error()
			}
			return json.NewEncoder(a.stdout).Encode(answer)
		}}
}

// couldGoOn checks what would keep this program from going on for a node with a command line, and changes nothing.
func (a *app) couldGoOn(ctx context.Context, name string, args []string) error {
	var carried node.Carried
	if err := upgrade.Read(upgrade.CheckFD, &carried); err != nil {
		return err
	}
	if err := carried.Check(); err != nil {
		return err
	}
	inner := newRoot(newApp(strings.NewReader(""), a.stderr, a.stderr))
	command, rest, err := inner.Find(args)
	if err != nil {
		return err
	}
	if err := command.ParseFlags(rest); err != nil {
		return err
	}
	dir, err := a.dir()
	if err != nil {
		return err
	}
	record, err := dir.Node(name)
	if err != nil {
		return err
	}
	a.takeCarried(&carried)
	o := record.Options
	options, self, err := a.readOptions(ctx, name, &o)
	if err != nil {
		return err
	}
	if secret, opened := carried.Secrets[self.named.Vault]; !opened || len(secret) > 0 { // else the node shows it to nobody that it has not executed
		if err := self.checkKeys(ctx); err != nil {
			return err
		}
	}
	if o.Authority != nil {
		err = a.checkAuthority(ctx, self, o.Authority)
	} else if _, err = registryURL(&o); err == nil {
		_, err = readServices(o.Services)
	}
	if err != nil {
		return err
	}
	if err := a.checkRecords(name, o); err != nil {
		return err
	}
	if err := node.Check(ctx, options); err != nil {
		return err
	}
	_, err = node.NewHome(dir, name, true).Load()
	return err
}

// takeCarried takes what opens vaults from what the program before has left. Empty is what it has not shown.
func (a *app) takeCarried(c *node.Carried) {
	for name, secret := range c.Secrets {
		if len(secret) > 0 {
			a.giveSecret(name, secret)
		}
	}
}

// ownPath is the path by which this program was started, which another version may have by now.
func ownPath() (string, error) {
	path := os.Args[0]
	if strings.ContainsRune(path, filepath.Separator) {
		return filepath.Abs(path)
	}
	if found, err := exec.LookPath(path); err == nil {
		return filepath.Abs(found)
	}
	return os.Executable()
}

// upgradeOptions says how another program takes over the node that runs in this process.
func (a *app) upgradeOptions(ctx context.Context, name string, o state.NodeOptions, r runOptions) (u node.UpgradeOptions, err error) {
	u.Version, u.Carried = buildinfo.Full(), r.state
	u.Secrets = func() map[string][]byte {
		a.vaults.mu.Lock()
		defer a.vaults.mu.Unlock()
		return maps.Clone(a.vaults.given)
	}
	if !ownsProcess(ctx) {
		u.Impossible = "it runs inside another program"
	} else if a.isInMemory {
		u.Impossible = "it keeps nothing on disk (--in-memory), so its keys would be lost"
	}
	if u.Program, err = ownPath(); err != nil {
		return u, err
	}
	goOn := func(fd int) []string {
		args := childArgs(name, o)
		if !r.child {
			args[slices.Index(args, "--child-process")] = "--foreground"
			if o.ExitOnEOF {
				args = append(args, "--exit-on-eof")
			}
		}
		if a.verbose > 0 {
			args = append(args, "-"+strings.Repeat("v", a.verbose))
		}
		return append(args, "--carried", strconv.Itoa(fd))
	}
	u.Command = func(program string, fd int) []string { return append([]string{program}, goOn(fd)...) }
	u.Check = append([]string{"node", "upgrade-check", name, "--"}, goOn(upgrade.CheckFD)...)
	u.Hangup = a.hangup.listens
	u.Leaving = func() (stay func()) {
		signal.Ignore(syscall.SIGUSR2) // one that comes now must not end the new program before it listens
		hungUp := a.hangup.leave()
		notifyReloading()
		return func() {
			a.upgradeSignals()
			hungUp()
			notifySystemd("READY=1")
		}
	}
	return u, nil
}

// upgradeSignals begins to take SIGUSR2.
func (a *app) upgradeSignals() { signal.Notify(a.usr2, syscall.SIGUSR2) }

// upgradeOnSignal has SIGUSR2 put the program that is now at the path of this one in its place.
func (a *app) upgradeOnSignal(ctx context.Context, n *node.Node, log *slog.Logger) {
	if !ownsProcess(ctx) {
		return
	}
	a.usr2 = make(chan os.Signal, 1)
	a.upgradeSignals()
	go func() {
		for {
			select {
			case <-a.usr2:
				notifyReloading()
				_, begin, err := n.Upgrade(ctx, admin.UpgradeRequest{})
				if err != nil {
					log.Debug("SIGUSR2 has changed nothing", "err", err.Error()) // the node has said why
					notifySystemd("READY=1")
					continue
				}
				begin()
			case <-ctx.Done():
				return
			}
		}
	}()
}

// readState reads what the program before has left, if it has.
func (a *app) readState(r *runOptions) error {
	if r.carried == 0 {
		return nil
	}
	upgrade.Reap()
	r.state = &node.Carried{}
	size, err := upgrade.Size(r.carried)
	if err != nil {
		return err
	}
	r.collect = upgrade.HoldCollector(size)
	if err := upgrade.Read(r.carried, r.state); err != nil {
		return err
	}
	a.takeCarried(r.state)
	return r.state.Check()
}
