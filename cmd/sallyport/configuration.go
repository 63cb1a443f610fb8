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

// load reads a configuration and says what has no effect.
func (a *app) load(mode config.Mode, source, text string, variables []string, nodeName string) (*config.Plan, error) {
	vars, err := configVariables(variables)
	if err != nil {
		return nil, err
	}
	for _, name := range sortedNames(vars) {
		if vars[name] == "" { // as in the reference, whether it is used or not
			return nil, fmt.Errorf("empty value for variable '%s'", name)
		}
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

// read reads the configuration. It returns where it was found, for messages, and the name of the node.
func (a *app) read(ctx context.Context, d description) (plan *config.Plan, source, name string, err error) {
	text, source := d.inline, "--configuration"
	switch {
	case d.arg != "" && !isConfiguration(d.arg):
		name = plainName(d.arg)
	case d.arg != "" && d.inline != "":
		return nil, "", "", errors.New("a configuration is given twice: as NAME_OR_CONFIGURATION and with --configuration")
	case d.arg != "":
		if text, err = readConfiguration(ctx, d.arg); err != nil {
			return nil, "", "", err
		}
		source = d.arg
		if strings.ContainsAny(d.arg, "\n{") {
			source = "configuration"
		}
	}
	plan = &config.Plan{}
	if text != "" {
		if plan, err = a.load(config.NodeCreate, source, text, d.variables, name); err != nil {
			return nil, "", "", err
		}
	}
	if name == "" {
		name = plan.NodeName
	}
	if name == "" {
		name = a.freeNodeName()
		if text != "" { // entries name the node they belong to
			plan, err = a.load(config.NodeCreate, source, text, d.variables, name)
		}
	}
	return plan, source, name, err
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

// createFromConfiguration makes a node and what it is to have. When anything fails the node is deleted again.
func (a *app) createFromConfiguration(ctx context.Context, d description) error {
	plan, source, name, err := a.read(ctx, d)
	if err != nil {
		return err
	}
	ticket := d.ticket // that of the command line wins
	if ticket == "" {
		ticket = plan.Ticket
	}
	// What runs below must not find the ticket again.
	_ = os.Unsetenv("ENROLLMENT_TICKET")
	rest := plan.Node
	if plan.NodeName != "" {
		rest = rest[1:] // the name is the first
	}
	args := append(append([]string{"node", "create", name}, rest...), d.flags...)
	foreground := flagIn(args, "foreground") == "true"
	if foreground && (flagIn(args, "in-memory") == "true" || switchFrom("OCKAM_SQLITE_IN_MEMORY")) {
		forget, err := a.inMemory() // the ticket is redeemed for what is kept there
		if err != nil {
			return err
		}
		defer forget()
	}
	// What the parts print is printed when all is there.
	var printed bytes.Buffer
	out := a.stdout
	a.stdout = &printed
	defer func() { a.stdout = out }()
	if ticket != "" {
		enroll := []string{"project", "enroll", ticket}
		if identity := flagIn(args, "identity"); identity != "" {
			if err := a.ensureIdentity(ctx, identity); err != nil {
				return err
			}
			enroll = append(enroll, "--identity", identity)
		}
		if err := a.again(ctx, enroll, "ticket", source); err != nil {
			return err
		}
	}
	start := a.inBackground
	if foreground {
		start = a.inForeground
	}
	end, err := start(ctx, args, source)
	if err != nil {
		return err
	}
	for _, inv := range plan.Invocations {
		if err := a.again(ctx, inv.Args, inv.What, fmt.Sprintf("%s:%d", source, inv.Line)); err != nil {
			after := context.WithoutCancel(ctx)
			_ = end(true)
			_ = a.again(after, []string{"node", "delete", name, "--yes"}, "node", source)
			return fmt.Errorf("%w; the node %s was deleted again", err, name)
		}
	}
	if _, err := out.Write(printed.Bytes()); err != nil {
		return err
	}
	return end(false)
}

// inBackground starts a node in a process of its own. There is nothing to wait for or to stop.
func (a *app) inBackground(ctx context.Context, args []string, source string) (end func(now bool) error, err error) {
	return func(bool) error { return nil }, a.again(ctx, args, "node", source)
}

// inForeground starts a node in this process and returns when it is up. end waits until it has ended; with now it makes it end.
func (a *app) inForeground(ctx context.Context, args []string, source string) (end func(now bool) error, err error) {
	ctx, stop := context.WithCancel(ctx)
	up, ended := make(chan struct{}), make(chan error, 1)
	node := *a
	node.onUp = func() { close(up) }
	go func() { ended <- node.again(ctx, args, "node", source) }()
	select {
	case err := <-ended:
		stop()
		return nil, err
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
	inner.dirOnce, inner.isInMemory, inner.memoryVaults, inner.onUp, inner.logTo = a.dirOnce, a.isInMemory, a.memoryVaults, a.onUp, a.logTo
	inner.output, inner.outputGiven, inner.jq, inner.compact = a.output, a.outputGiven, a.jq, a.compact
	root := newRoot(inner)
	inner.verbose = a.verbose // which the flag's definition has reset
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		hint := hintOf(err)
		err = fmt.Errorf("%s: %s: %w", where, what, atRunTime(err)) // a mistake in the file, not in the command line
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
