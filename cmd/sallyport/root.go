package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/state"
)

// Command groups of the help text.
const (
	groupStory   = "story"
	groupObjects = "objects"
	groupOther   = "other"
)

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "End-to-end encrypted, mutually authenticated portals between networks",
		Long: `Sallyport puts an end-to-end encrypted, mutually authenticated portal between a client
and a server in different networks. Nothing listens on the internet, and nothing in the
middle can read, change or forge a byte.`,
		Example: `  sallyport node create n1
  sallyport status`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if v, _ := cmd.Flags().GetBool("version"); v {
				_, err := fmt.Fprint(a.stdout, versionText())
				return err
			}
			return a.incomplete(cmd)
		},
	}
	root.AddGroup(
		&cobra.Group{ID: groupStory, Title: "Portals:"},
		&cobra.Group{ID: groupObjects, Title: "Building blocks:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	f := root.PersistentFlags()
	f.SortFlags = false
	f.BoolVarP(&a.quiet, "quiet", "q", a.quiet, "print the result alone (environment: QUIET)")
	f.CountVarP(&a.verbose, "verbose", "v", "log more: -v, -vv, -vvv")
	f.BoolVar(&a.noColor, "no-color", a.noColor, "no colour (environment: NO_COLOR)")
	f.BoolVar(&a.noInput, "no-input", a.noInput, "never ask (environment: NO_INPUT)")
	f.StringVar(&a.output, "output", cmp.Or(a.output, "plain"), "form of the result: plain or json")
	f.StringVar(&a.jq, "jq", a.jq, "filter the JSON result with a jq `query`")
	f.BoolVar(&a.compact, "compact-output", a.compact, "JSON on one line")
	f.StringArray("env", nil, "set an environment variable, `KEY=VALUE`")
	parseOnly := f.Bool("test-argument-parser", false, "")
	pretty := f.Bool("pretty", false, "")
	for _, name := range []string{"test-argument-parser", "pretty"} {
		_ = f.MarkHidden(name)
	}
	root.Flags().BoolP("version", "V", false, "print the version")
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	help := helpCommand(root)
	help.GroupID = groupOther
	root.SetHelpCommand(help)
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		a.usage = cmd.UseLine()
		if a.output != "plain" && a.output != "json" {
			return usageError("invalid value '%s' for '--output': it must be plain or json", a.output)
		}
		if *pretty {
			a.note("--pretty has no effect: JSON is pretty unless --compact-output is given")
		}
		a.outputGiven = a.outputGiven || cmd.Flags().Changed("output")
		if *parseOnly {
			return exitCode(exitOK)
		}
		return checkEmptyWords(cmd, args)
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		a.usage = cmd.UseLine()
		return flagError(cmd, err)
	})
	for _, add := range nouns {
		root.AddCommand(add(a))
	}
	root.SetUsageFunc(usage)
	walk(root, func(cmd *cobra.Command) {
		cmd.Flags().SortFlags = false
		cmd.DisableFlagsInUseLine = true
		if cmd.HasSubCommands() && cmd != root {
			help := helpCommand(cmd)
			help.Hidden = true
			cmd.AddCommand(help)
		}
		if cmd.HasSubCommands() && cmd.RunE == nil {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return a.incomplete(cmd) }
			cmd.Args = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return unknownCommand(cmd, args[0])
				}
				return nil
			}
		} else if cmd.Args != nil {
			check := cmd.Args
			cmd.Args = func(cmd *cobra.Command, args []string) error {
				err := check(cmd, args)
				if err == nil {
					return nil
				}
				a.usage = cmd.UseLine()
				if m := (*misuse)(nil); errors.As(err, &m) {
					return err
				}
				return argumentsError(cmd, check, args)
			}
		}
	})
	return root
}

// helpCommand makes the command that explains another one below parent.
func helpCommand(parent *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "help [COMMAND]", Short: "Explain a command", Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			found, left, err := parent.Find(args)
			if err != nil || found == nil || len(left) > 0 {
				return unknownCommand(parent, strings.Join(args, " "))
			}
			return found.Help()
		}}
}

// nouns are the commands, in the order of the help text.
var nouns = []func(*app) *cobra.Command{}

func walk(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, f)
	}
}

// incomplete answers a noun without a verb: with its help, and the exit code of a usage error, as the reference does.
func (a *app) incomplete(cmd *cobra.Command) error {
	w, code := usageStream(a)
	cmd.SetOut(w)
	if err := cmd.Help(); err != nil {
		return err
	}
	return exitCode(code)
}

func unknownCommand(cmd *cobra.Command, name string) error {
	err := usageError("unrecognized subcommand '%s'", name)
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(name); len(s) > 0 {
		return withHint(err, "tip: a similar subcommand exists: '%s'", strings.Join(s, "', '"))
	}
	return withHint(err, "tip: '%s --help' lists the subcommands", cmd.CommandPath())
}

// flagError turns pflag's errors into ours, with a suggestion for a misspelt flag.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	name, unknown := strings.CutPrefix(text, "unknown flag: --")
	if !unknown {
		return usageError("%s", text)
	}
	best, distance := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		// A flag cut short is as likely as one misspelt.
		d := editDistance(name, f.Name)
		if short := editDistance(name, f.Name[:min(len(name), len(f.Name))]); short <= len(name)/4 {
			d = min(d, short)
		}
		if !f.Hidden && d < distance {
			best, distance = f.Name, d
		}
	})
	out := usageError("unexpected argument '--%s' found", name)
	if best != "" {
		return withHint(out, "tip: a similar argument exists: '--%s'", best)
	}
	return out
}

// argumentsError says which argument is too many, or which are missing.
func argumentsError(cmd *cobra.Command, check cobra.PositionalArgs, args []string) error {
	for n := len(args) - 1; n >= 0; n-- {
		if check(cmd, args[:n]) == nil {
			return usageError("unexpected argument '%s' found", args[n])
		}
	}
	var missing []string
	given := len(args)
	for _, word := range strings.Fields(cmd.Use)[1:] {
		if word[0] == '-' || word[0] == '[' {
			break // flags, or what need not be given
		}
		if given--; given < 0 {
			missing = append(missing, "<"+word+">")
		}
	}
	return usageError("the following required arguments were not provided: %s", strings.Join(missing, " "))
}

// editDistance is Levenshtein's.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// noun makes the command of a noun.
func noun(group, use, short string, aliases []string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, GroupID: group, Aliases: aliases}
	cmd.AddCommand(subs...)
	return cmd
}

// plainName returns the name in the first piece of a route: /node/n1 and /service/db may stand wherever a plain name does
// (docs/protocol/03 §7.2).
func plainName(name string) string {
	for _, prefix := range []string{"/node/", "/service/", "/worker/", "/project/"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			rest, _, _ = strings.Cut(rest, "/")
			return rest
		}
	}
	return name
}

// nothingChosen ends a delete that names nothing, where the reference would let a person choose: nothing is deleted.
func (a *app) nothingChosen(existing int) error {
	if existing == 0 {
		return a.print(result{human: "nothing to delete", machine: "[]", json: []any{}})
	}
	a.warn("nothing was deleted: give a name, or --all")
	return nil
}

// deletion is a command that deletes one of what there is of a kind, or all of it.
type deletion struct {
	kind, with string // with is what else goes, for the question
	have       []string
	all, yes   bool
	known      func(name string) error // whether there is one, also as a name that a command takes
	remove     func(name string) error
}

// delete asks and deletes; args are those of the command line.
func (a *app) delete(d deletion, args []string) error {
	if len(d.have) == 0 || !d.all && len(args) == 0 {
		return a.nothingChosen(len(d.have))
	}
	names := d.have
	if !d.all {
		names = args
		if err := d.known(args[0]); err != nil {
			return ifNotFound(err, fmt.Errorf("the %s %s was not found", d.kind, args[0]))
		}
	}
	if err := a.confirm(d.yes, "Delete the "+d.kind+" "+strings.Join(names, ", ")+d.with); err != nil {
		return err
	}
	return a.deleteEach(d.kind, names, d.all, d.remove)
}

// deleteEach deletes things of a kind by name. Of all there are, those that cannot be deleted are told of and left, as in the reference: they are no
// error where something else still needs them.
func (a *app) deleteEach(kind string, names []string, all bool, remove func(name string) error) error {
	var failed []error
	for _, name := range names {
		err := remove(name)
		if err != nil && !all {
			return err
		}
		if err != nil {
			a.problem("Failed to delete %s %s: %v", kind, name, err)
			if !errors.Is(err, state.ErrInUse) {
				failed = append(failed, err)
			}
			continue
		}
		if err := a.print(result{human: "deleted the " + kind + " " + name, machine: name, json: map[string]string{"name": name}}); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

// confirm asks a person before something is destroyed; scripts say --yes.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if a.noInput || !isTerminal(a.stdin) || !a.stderrTTY {
		return withHint(fmt.Errorf("%s: not confirmed", question), "add --yes to confirm without being asked")
	}
	fmt.Fprintf(a.stderr, "%s? [y/N] ", question)
	var reply string
	if _, err := fmt.Fscanln(a.stdin, &reply); err != nil || !strings.HasPrefix(strings.ToLower(reply), "y") {
		return exitCode(exitOK)
	}
	return nil
}
