package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/config"
	"sallyport/state"
)

func init() { nouns = append(nouns, runCommand) }

// maxConfiguration bounds a configuration file.
const maxConfiguration = 1 << 20

// isConfiguration reports whether an argument of `node create` is a configuration rather than a name: what can be read, or text
// with structure (docs/protocol/03 §7.6).
func isConfiguration(arg string) bool {
	if arg == "" {
		return false
	}
	if strings.ContainsAny(arg, ":\n{") {
		return true
	}
	return isInput(arg)
}

// flagsGiven returns the flags of the node itself that were given on the command line, as arguments: they override the file.
func flagsGiven(cmd *cobra.Command) []string {
	var args []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "configuration", "enrollment-ticket", "variable":
			return
		}
		if cmd.InheritedFlags().Lookup(f.Name) != nil {
			return
		}
		args = append(args, "--"+f.Name+"="+f.Value.String())
	})
	return args
}

// readConfiguration returns the text of a file or of a page on the web, or the argument itself when it is neither.
func readConfiguration(ctx context.Context, arg string) (string, error) {
	if url := webAddress(arg); url != "" {
		return fetch(ctx, url, maxConfiguration)
	}
	if !isInput(arg) && strings.ContainsAny(arg, ":\n{") {
		return arg, nil
	}
	return readInput(ctx, arg, maxConfiguration)
}

// configVariables reads NAME=VALUE pairs.
func configVariables(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range list {
		key, value, found := strings.Cut(pair, "=")
		if !found || key == "" {
			return nil, usageError("invalid value '%s' for '--variable': it must be NAME=VALUE", pair)
		}
		if _, twice := out[key]; twice {
			return nil, fmt.Errorf("--variable %s is given twice", key)
		}
		out[key] = value
	}
	return out, nil
}

// checkVariables refuses variables without a value, as the reference does, whether they are used or not.
func checkVariables(vars map[string]string) error {
	for _, name := range sortedNames(vars) {
		if vars[name] == "" {
			return fmt.Errorf("empty value for variable '%s'", name)
		}
	}
	return nil
}

// load reads a configuration and says what has no effect.
func (a *app) load(mode config.Mode, source, text string, variables []string, nodeName string) (*config.Plan, error) {
	vars, err := configVariables(variables)
	if err != nil {
		return nil, err
	}
	if err := checkVariables(vars); err != nil {
		return nil, err
	}
	plan, err := config.Load(mode, []byte(text), config.Options{Variables: vars, Lookup: os.LookupEnv, NodeName: nodeName, NameGiven: nodeName != ""})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	for _, w := range plan.Warnings {
		a.note("%s %s: %s", a.color("33", "!"), source, w)
	}
	return plan, nil
}

// description is what `node create` is given to make a node from, other than a mere name.
type description struct {
	arg       string // NAME_OR_CONFIGURATION
	inline    string // --configuration
	ticket    string
	variables []string
	flags     []string // those of the node itself: they override the configuration
}

// wishFor reads what `node create` is given.
func (a *app) wishFor(ctx context.Context, d description) (*wish, error) {
	name := ""
	var paths []string
	switch {
	case d.arg != "" && !isConfiguration(d.arg):
		name = plainName(d.arg)
	case d.arg != "" && d.inline != "":
		return nil, errors.New("a configuration is given twice: as NAME_OR_CONFIGURATION and with --configuration")
	case d.arg != "":
		paths = []string{d.arg}
	}
	if d.inline != "" {
		return a.readWish(ctx, []text{{source: "--configuration", text: d.inline}}, d.variables, d.flags, name)
	}
	return a.readFiles(ctx, paths, d.variables, d.flags, name)
}

// flagIn returns the value of a flag among arguments, the last one counts; "true" for a switch.
func flagIn(args []string, name string) string {
	value := ""
	for i, arg := range args {
		if given, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			value = given
		} else if arg == "--"+name {
			value = "true"
			if i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
				value = args[i+1]
			}
		}
	}
	return value
}

// createFromConfiguration makes a node and what it is to have. When anything fails with a node that was not there before, the node is
// deleted again, as in the reference. With one that was there it is apply: nothing is deleted because something fails.
func (a *app) createFromConfiguration(ctx context.Context, d description) error {
	if _, err := a.dir(); err != nil {
		return err
	}
	w, err := a.wishFor(ctx, d)
	if err != nil {
		return err
	}
	// What runs below must not find the ticket again.
	_ = os.Unsetenv("ENROLLMENT_TICKET")
	var extra []string // flags of this run alone
	for _, f := range w.files {
		extra = append(extra, f.nodeArgs()...)
	}
	extra = append(extra, d.flags...)
	foreground := flagIn(extra, "foreground") == "true"
	if foreground && (flagIn(extra, "in-memory") == "true" || switchFrom("OCKAM_SQLITE_IN_MEMORY")) {
		forget, err := a.inMemory() // the ticket is redeemed for what is kept there
		if err != nil {
			return err
		}
		defer forget()
	}
	r, err := a.dirOnce.Node(w.name)
	isNew := errors.Is(err, state.ErrNotFound)
	if err != nil && !isNew {
		return err
	}
	if !isNew && (!foreground || r.Status() == state.Running && flagIn(extra, "skip-is-running-check") != "true") {
		if foreground {
			return withHint(fmt.Errorf("a node with name %s is already running", w.name), "stop it first: sallyport node stop %s", w.name)
		}
		return a.applyAgain(ctx, w, d.ticket)
	}
	if isNew {
		if err := a.collectEarly(ctx, w, d.ticket); err != nil {
			return err
		}
	}
	if err := a.enrollWish(ctx, w, d.ticket); err != nil {
		return err
	}
	args := append([]string{"node", "create", w.name}, extra...)
	if !isNew {
		if err := a.collectWish(ctx, w); err != nil {
			return err
		}
		if err := a.forgetStale(ctx, w); err != nil {
			return err
		}
		merged, _ := w.merge(r.Options, r.Configuration)
		args = append(append([]string{"node", "create", w.name}, nodeArgs(merged)...), runFlags(extra)...)
	}
	// What the node prints is printed when all is there.
	var printed bytes.Buffer
	out := a.stdout
	a.stdout = &printed
	defer func() { a.stdout = out }()
	start := a.inBackground
	if foreground {
		start = a.inForeground
	}
	end, err := start(ctx, args, w.sources())
	if err != nil {
		return err
	}
	done, err := a.applyFirst(ctx, w)
	if ctx.Err() != nil { // it was told to end, which is no reason to delete anything
		return end(true)
	}
	if err != nil || done.Failed() {
		if err == nil {
			err = errors.New(strings.Join(done.lines(), "\n"))
		}
		if isNew {
			_ = end(true)
			_ = a.again(context.WithoutCancel(ctx), []string{"node", "delete", w.name, "--yes"}, "node", w.sources())
			return fmt.Errorf("%w; the node %s was deleted again", err, w.name)
		}
		a.note("%s %v", a.color("33", "!"), err) // the node keeps trying
	}
	if _, err := out.Write(printed.Bytes()); err != nil {
		return err
	}
	return end(false)
}

// runFlags are those of a command line that say how a node is run, not what it is.
func runFlags(args []string) []string {
	var flags []string
	for _, name := range []string{"foreground", "exit-on-eof", "in-memory", "skip-is-running-check"} {
		if flagIn(args, name) == "true" {
			flags = append(flags, "--"+name)
		}
	}
	return flags
}

// applyFirst gives a node that was just started what it is to have. Entries that name another node are commands for that one.
func (a *app) applyFirst(ctx context.Context, w *wish) (*applied, error) {
	done, err := a.apply(ctx, w, applyOptions{})
	if err != nil {
		return nil, err
	}
	for _, p := range w.elsewhere {
		if err := a.again(ctx, p.inv.Args, p.inv.What, fmt.Sprintf("%s:%d", p.file.source, p.inv.Line)); err != nil {
			return done, err
		}
	}
	return done, nil
}

// applyAgain is `node create` with a node that is there: apply.
func (a *app) applyAgain(ctx context.Context, w *wish, ticket string) error {
	if err := a.enrollWish(ctx, w, ticket); err != nil {
		return err
	}
	done, err := a.apply(ctx, w, applyOptions{wait: applyWait})
	if err != nil {
		return err
	}
	for _, line := range done.lines() {
		a.note("%s", line)
	}
	if err := a.printNodeCreated(ctx, w.name); err != nil {
		return err
	}
	if done.failed() {
		return exitCode(exitSoftware)
	}
	return nil
}

// inBackground starts a node in a process of its own. There is nothing to wait for or to stop.
func (a *app) inBackground(ctx context.Context, args []string, source string) (end func(now bool) error, err error) {
	return func(bool) error { return nil }, a.again(ctx, append(args, "--started-from-configuration"), "node", source)
}

// inForeground starts a node in this process and returns when it is up. end waits until it has ended; with now it makes it end.
func (a *app) inForeground(ctx context.Context, args []string, source string) (end func(now bool) error, err error) {
	ctx, stop := context.WithCancel(ctx)
	up, ended := make(chan struct{}), make(chan error, 1)
	node := *a
	node.onUp = func() { close(up) }
	go func() { ended <- node.again(ctx, append(args, "--started-from-configuration"), "node", source) }()
	select {
	case err := <-ended:
		stop()
		return func(bool) error { return nil }, err // without an error: it was told to end before it was up
	case <-up:
	}
	return func(now bool) error {
		if now {
			stop()
		}
		defer stop()
		return <-ended
	}, nil
}

// again runs another command line in this process. Its result is printed, as in the reference.
func (a *app) again(ctx context.Context, args []string, what, where string) error {
	inner := newApp(strings.NewReader(""), a.stdout, a.stderr)
	defer inner.close()
	inner.quiet, inner.noColor, inner.noInput, inner.verbose = a.quiet, a.noColor, true, a.verbose
	inner.dirOnce, inner.isInMemory, inner.vaults = a.dirOnce, a.isInMemory, a.vaults
	inner.onUp, inner.hangup, inner.logTo = a.onUp, a.hangup, a.logTo
	inner.output, inner.outputGiven, inner.jq, inner.compact = a.output, a.outputGiven, a.jq, a.compact
	root := newRoot(inner)
	inner.verbose = a.verbose // which the flag's definition has reset
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		hint := hintOf(err)
		err = fmt.Errorf("%s: %w", what, atRunTime(err)) // a mistake in the file, not in the command line
		if where != "" {
			err = fmt.Errorf("%s: %w", where, err)
		}
		if hint != "" {
			return withHint(err, "%s", hint)
		}
		return err
	}
	return nil
}

// stayWith waits until the nodes of a description have ended. It stops them when ctx ends.
func (a *app) stayWith(ctx context.Context, plan *config.Plan) error {
	var running []string
	for _, inv := range plan.Invocations {
		if len(inv.Args) > 2 && inv.Args[0] == "node" && inv.Args[1] == "create" {
			running = append(running, inv.Args[2])
		}
	}
	stopped := func(name string) bool {
		r, err := a.nodeRecord(name)
		return err != nil || r.Status() == state.Stopped
	}
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		if running = slices.DeleteFunc(running, stopped); len(running) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			var err error
			for _, name := range running {
				err = errors.Join(err, a.stopNode(context.WithoutCancel(ctx), name, false))
			}
			return err
		}
	}
}

func runCommand(a *app) *cobra.Command {
	var inline string
	var variables []string
	var blocking bool
	cmd := &cobra.Command{Use: "run [FILE] [flags]", Short: "Create all that a file describes: identities, nodes, portals", GroupID: groupOther, Args: cobra.MaximumNArgs(1),
		Example: `  sallyport run --inline 'nodes: [n7, n8]'
  sallyport run portal.yaml --variable PORT=5432`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			text, source := inline, "--inline"
			if inline != "" && len(args) == 1 {
				return usageError("the argument '--inline' cannot be used with '[FILE]'")
			}
			if inline == "" {
				path := ""
				if len(args) == 1 {
					path = args[0]
				} else {
					found, err := config.Find(".")
					if err != nil {
						return withHint(err, "give the file: sallyport run FILE")
					}
					path = found
				}
				var err error
				if text, err = readConfiguration(ctx, path); err != nil {
					return err
				}
				source = path
			}
			plan, err := a.load(config.Run, source, text, variables, "")
			if err != nil {
				return err
			}
			for _, inv := range plan.Invocations {
				if err := a.again(ctx, inv.Args, inv.What, fmt.Sprintf("%s:%d", source, inv.Line)); err != nil {
					return err
				}
			}
			a.done("Created all that %s describes", source)
			if blocking {
				return a.stayWith(ctx, plan)
			}
			return nil
		}}
	f := cmd.Flags()
	f.StringVar(&inline, "inline", "", "the description as `TEXT`")
	f.StringArrayVar(&variables, "variable", nil, "`NAME=VALUE` for the description")
	f.BoolVar(&blocking, "blocking", false, "stay as long as the nodes run; stop them when interrupted")
	return cmd
}
