package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/config"
)

func init() { nouns = append(nouns, runCommand) }

// removeGlob removes the files of a directory that match a pattern.
func removeGlob(dir, pattern string) error {
	paths, err := filepath.Glob(filepath.Join(dir, pattern))
	for _, p := range paths {
		err = errors.Join(err, os.Remove(p))
	}
	return err
}

// maxConfiguration bounds a configuration file.
const maxConfiguration = 1 << 20

// isConfiguration reports whether an argument of `node create` is a configuration rather than a name: an existing file, or text
// with structure (docs/protocol/03 §7.6).
func isConfiguration(arg string) bool {
	if arg == "" {
		return false
	}
	if strings.ContainsAny(arg, ":\n{") {
		return true
	}
	info, err := os.Stat(arg)
	return err == nil && info.Mode().IsRegular()
}

// flagsGiven returns the flags of the node itself that were given on the command line, as arguments: they override the file.
func flagsGiven(cmd *cobra.Command) []string {
	var args []string
	cmd.LocalNonPersistentFlags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "configuration", "node-config", "enrollment-ticket", "variable":
			return
		}
		args = append(args, "--"+f.Name+"="+f.Value.String())
	})
	return args
}

// readConfiguration returns the text of a file, or the argument itself when it is no file.
func readConfiguration(arg string) (string, error) {
	if strings.HasPrefix(arg, "http://") || strings.HasPrefix(arg, "https://") {
		return "", withHint(errors.New("configurations are not fetched from the web"), "download it and give the file")
	}
	f, err := os.Open(arg)
	if err != nil {
		if strings.ContainsAny(arg, ":\n{") {
			return arg, nil
		}
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfiguration+1))
	if len(b) > maxConfiguration {
		return "", fmt.Errorf("%s: more than %d bytes", arg, maxConfiguration)
	}
	return string(b), err
}

// configVariables reads NAME=VALUE pairs.
func configVariables(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range list {
		key, value, found := strings.Cut(pair, "=")
		if !found || key == "" {
			return nil, usageError("invalid value '%s' for '--variable': it must be NAME=VALUE", pair)
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
	plan, err := config.Load(mode, []byte(text), config.Options{Variables: vars, Lookup: os.LookupEnv, NodeName: nodeName})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	for _, w := range plan.Warnings {
		a.note("%s %s: %s", a.color("33", "!"), source, w)
	}
	return plan, nil
}

// createFromConfiguration makes a node and what it is to have. When anything fails the node is deleted again.
func (a *app) createFromConfiguration(ctx context.Context, arg, inline, ticket string, variables, flags []string) error {
	text, source, name := inline, "--configuration", ""
	if inline == "" && arg != "" && isConfiguration(arg) {
		var err error
		if text, err = readConfiguration(arg); err != nil {
			return err
		}
		source = arg
		if strings.ContainsAny(arg, "\n{") {
			source = "configuration"
		}
	} else if arg != "" {
		name = plainName(arg)
	}
	plan := &config.Plan{}
	if text != "" {
		var err error
		if plan, err = a.load(config.NodeCreate, source, text, variables, name); err != nil {
			return err
		}
	}
	if name == "" {
		name = plan.NodeName
	}
	if name == "" {
		name = a.freeNodeName()
		if text != "" { // entries name the node they belong to
			var err error
			if plan, err = a.load(config.NodeCreate, source, text, variables, name); err != nil {
				return err
			}
		}
	}
	if plan.Ticket != "" {
		ticket = plan.Ticket
	}
	// What runs below must not find the ticket again.
	_ = os.Unsetenv("ENROLLMENT_TICKET")
	// What the parts print is printed when all is there.
	var printed bytes.Buffer
	out := a.stdout
	a.stdout = &printed
	defer func() { a.stdout = out }()
	if ticket != "" {
		if err := a.again(ctx, []string{"project", "enroll", ticket}, "ticket", source); err != nil {
			return err
		}
	}
	rest := plan.Node
	if plan.NodeName != "" {
		rest = rest[1:] // the name is the first
	}
	args := append([]string{"node", "create", name}, rest...)
	if err := a.again(ctx, append(args, flags...), "node", source); err != nil {
		return err
	}
	for _, inv := range plan.Invocations {
		if err := a.again(ctx, inv.Args, inv.What, fmt.Sprintf("%s:%d", source, inv.Line)); err != nil {
			_ = a.again(ctx, []string{"node", "delete", name, "--yes"}, "node", source)
			return fmt.Errorf("%w; the node %s was deleted again", err, name)
		}
	}
	_, err := out.Write(printed.Bytes())
	return err
}

// again runs another command line in this process. Its result is printed, as in the reference.
func (a *app) again(ctx context.Context, args []string, what, where string) error {
	inner := newApp(strings.NewReader(""), a.stdout, a.stderr)
	inner.quiet, inner.noColor, inner.noInput, inner.verbose = a.quiet, a.noColor, true, a.verbose
	inner.dirOnce = a.dirOnce
	root := newRoot(inner)
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
				if text, err = readConfiguration(path); err != nil {
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
				<-ctx.Done()
			}
			return nil
		}}
	f := cmd.Flags()
	f.StringVar(&inline, "inline", "", "the description as `TEXT`")
	f.StringVar(&inline, "recipe", "", "")
	f.StringArrayVar(&variables, "variable", nil, "`NAME=VALUE` for the description")
	f.BoolVarP(&blocking, "blocking", "b", false, "stay until interrupted")
	hide(cmd, "recipe", "blocking")
	return cmd
}
