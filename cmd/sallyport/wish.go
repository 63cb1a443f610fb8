package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/config"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/state"
)

// wish is what configurations ask of one node.
type wish struct {
	name  string
	files []wishFile
	// options are those of the node; given are the flags that set them.
	options state.NodeOptions
	given   map[string]bool
	// resources are in the order of the files. places are where they come from, by kind and name.
	resources []resource.Stored
	places    map[[2]string]place
	// elsewhere are entries that name another node: commands for that one.
	elsewhere []place
	// remember is how to read all this again.
	remember state.Configuration
	// enrolled is set when the ticket has been redeemed, or was not needed. It may have come from a pipe and is not read again.
	enrolled bool
}

// wishFile is one configuration.
type wishFile struct {
	source string // for messages
	base   string // the directory of relative paths
	plan   *config.Plan
}

// place is an entry of a configuration.
type place struct {
	file *wishFile
	inv  config.Invocation
}

// faults are mistakes in configurations, each with its file.
type faults []string

func (f faults) Error() string { return strings.Join(f, "\n") }

// add notes an error of a configuration: each of its mistakes.
func (f *faults) add(source string, err error) {
	var many config.Errors
	if !errors.As(err, &many) {
		*f = append(*f, fmt.Sprintf("%s: %v", source, err))
		return
	}
	for _, one := range many {
		*f = append(*f, fmt.Sprintf("%s: %v", source, one))
	}
}

func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// flagsOf returns what names the flags of commands, for the keys of a configuration.
func flagsOf() func(command string) []string {
	root := newRoot(newApp(strings.NewReader(""), nil, nil))
	return func(command string) []string {
		cmd, _, err := root.Find(strings.Fields(command))
		if err != nil {
			return nil
		}
		var names []string
		add := func(f *pflag.Flag) {
			if root.PersistentFlags().Lookup(f.Name) == nil {
				names = append(names, f.Name)
				if f.Shorthand != "" {
					names = append(names, f.Shorthand)
				}
			}
		}
		cmd.Flags().VisitAll(add)
		cmd.InheritedFlags().VisitAll(add)
		return names
	}
}

// configurationFiles returns the files of a configuration: itself, or those of a directory by name.
func configurationFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, nil // it may be text or a page on the web: whoever reads it says what is wrong
	}
	var files []string
	for _, pattern := range []string{"*.yaml", "*.yml", "*.json"} {
		found, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no configuration in this directory: a file's name must end in .yaml, .yml or .json", path)
	}
	slices.Sort(files)
	return files, nil
}

// text is a configuration that was read.
type text struct{ source, base, text string }

// readWish reads configurations for the node with a name; without a name it is that of the files. flags are those of the command line,
// which come after those of the files.
func (a *app) readWish(ctx context.Context, texts []text, variables, flags []string, name string) (*wish, error) {
	vars, err := configVariables(variables)
	if err != nil {
		return nil, err
	}
	if len(texts) > 0 {
		if err := checkVariables(vars); err != nil {
			return nil, err
		}
	}
	known := flagsOf()
	var wrong faults
	load := func(name string) *wish {
		w := &wish{name: name, given: map[string]bool{}, places: map[[2]string]place{}}
		wrong = nil
		for _, t := range texts {
			plan, err := config.Load(config.NodeCreate, []byte(t.text), config.Options{
				Variables: vars, Lookup: os.LookupEnv, NodeName: name, NameGiven: name != "", Flags: known,
			})
			if err != nil {
				wrong.add(t.source, err)
				continue
			}
			if w.name == "" {
				w.name = plan.NodeName
			}
			w.files = append(w.files, wishFile{source: t.source, base: t.base, plan: plan})
		}
		return w
	}
	w := load(name)
	if wrong == nil && w.name == "" {
		w.name = a.freeNodeName()
	}
	if wrong == nil && w.name != name { // entries name the node that they belong to
		w = load(w.name)
	}
	if wrong != nil {
		return nil, wrong
	}
	for _, f := range w.files {
		for _, warning := range f.plan.Warnings {
			a.note("%s %s: %s", a.color("33", "!"), f.source, warning)
		}
	}
	w.remember.Variables, w.remember.Flags = variables, flags
	return w, w.readOptions(flags)
}

// readOptions reads the options of the node itself.
func (w *wish) readOptions(flags []string) error {
	cmd := &cobra.Command{}
	cmd.FParseErrWhitelist.UnknownFlags = true // those of one run, such as --foreground
	nodeFlags(cmd, &w.options)
	from := map[string]string{}
	var wrong faults
	for _, f := range w.files {
		args := f.nodeArgs()
		before := map[string]bool{}
		cmd.Flags().Visit(func(f *pflag.Flag) { before[f.Name] = true })
		if err := cmd.ParseFlags(args); err != nil {
			wrong.add(f.source, f.plan.NodeError(flagNamed(err.Error()), err.Error()))
			continue
		}
		for _, arg := range args {
			name, isFlag := strings.CutPrefix(arg, "--")
			if other := from[name]; isFlag && other != "" && before[name] {
				wrong.add(f.source, f.plan.NodeError(name, fmt.Sprintf("%s is set in %s too", name, other)))
			}
			if isFlag {
				from[name] = f.source
			}
		}
	}
	if err := cmd.ParseFlags(flags); err != nil {
		return usageError("%v", err)
	}
	cmd.Flags().Visit(func(f *pflag.Flag) { w.given[f.Name] = true })
	if err := checkLog(cmd, &w.options); err != nil {
		wrong.add(w.files[0].source, w.files[0].plan.NodeError(flagNamed(err.Error()), err.Error()))
	}
	for name, value := range map[string]string{"tcp-listener-address": w.options.TCPListenerAddress, "status-endpoint": w.options.StatusEndpoint} {
		if f := w.fileOf(name); f != nil && w.given[name] {
			if _, _, err := net.SplitHostPort(value); err != nil {
				wrong.add(f.source, f.plan.NodeError(name, fmt.Sprintf("invalid value '%s' for '%s': it must be host:port", value, name)))
			}
		}
	}
	return wrong.err()
}

// nodeArgs are the node's arguments without its name.
func (f wishFile) nodeArgs() []string {
	if f.plan.NodeName != "" {
		return f.plan.Node[1:]
	}
	return f.plan.Node
}

// fileOf returns the file that sets a flag of the node, nil if none does.
func (w *wish) fileOf(flag string) *wishFile {
	for i := range w.files {
		if w.files[i].plan.FlagLine(flag) > 0 {
			return &w.files[i]
		}
	}
	return nil
}

// flagNamed returns the flag that a message names with dashes, "" for none.
func flagNamed(msg string) string {
	_, rest, found := strings.Cut(msg, "--")
	if !found {
		return ""
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })
	if end < 0 {
		end = len(rest)
	}
	return rest[:end]
}

// collectWish works out the resources: each entry is read by the command that would create it, which says what is wrong with it.
func (a *app) collectWish(ctx context.Context, w *wish) error {
	w.resources, w.elsewhere = nil, nil
	clear(w.places)
	var wrong faults
	for i := range w.files {
		f := &w.files[i]
		var here []*config.Error
		for _, inv := range f.plan.Invocations {
			p := place{f, inv}
			if target := targetOf(inv); target != "" && plainName(target) != w.name {
				w.elsewhere = append(w.elsewhere, p)
				continue
			}
			if err := a.collectEntry(ctx, w, p); err != nil {
				here = append(here, f.plan.Error(inv, strings.TrimSpace(err.Error())))
			}
		}
		if err := config.Joined(here); err != nil {
			wrong.add(f.source, err)
		}
	}
	return wrong.err()
}

// targetOf returns the node that an entry names.
func targetOf(inv config.Invocation) string {
	if inv.Args[0] == "relay" {
		return flagIn(inv.Args, "to")
	}
	return flagIn(inv.Args, "at")
}

func (a *app) collectEntry(ctx context.Context, w *wish, p place) error {
	inner := newApp(strings.NewReader(""), a.stdout, a.stderr)
	inner.quiet, inner.noInput, inner.dirOnce, inner.isInMemory, inner.vaults, inner.base = true, true, a.dirOnce, a.isInMemory, a.vaults, p.file.base
	inner.itself = a.itself
	taken := func(kind, name string) bool { _, there := w.places[[2]string{kind, name}]; return there }
	inner.collect = func(kind string, name *string, request any) error {
		if *name == "" {
			*name = unnamed(kind, request, taken)
		}
		key := [2]string{kind, *name}
		if first, twice := w.places[key]; twice {
			return fmt.Errorf("there is another of this name, in %s on line %d", first.file.source, first.inv.Line)
		}
		raw, err := json.Marshal(request)
		if err != nil {
			return err
		}
		w.places[key] = p
		w.resources = append(w.resources, resource.Stored{Kind: kind, Name: *name, FromFile: true, Request: raw})
		return nil
	}
	root := newRoot(inner)
	root.SetArgs(p.inv.Args)
	before := len(w.resources)
	err := root.ExecuteContext(ctx)
	if err == nil && len(w.resources) == before {
		err = errors.New("this cannot be part of a configuration")
	}
	return err
}

// unnamed makes a name for an entry without one. The same configuration gives the same names each time.
func unnamed(kind string, request any, taken func(kind, name string) bool) string {
	name := "outlet"
	if in, ok := request.(*resource.Inlet); ok {
		name = "inlet"
		if _, port, err := net.SplitHostPort(in.From); err == nil && port != "0" {
			name += "-" + port
		}
	}
	base := name
	for n := 2; taken(kind, name); n++ {
		name = base + "-" + strconv.Itoa(n)
	}
	return name
}

// fault turns what the node says of a resource into a mistake with its place.
func (w *wish) fault(f admin.Fault) string {
	p, ok := w.places[[2]string{f.Kind, f.Name}]
	if !ok {
		return fmt.Sprintf("%s %s: %s", f.Kind, f.Name, f.Message)
	}
	return fmt.Sprintf("%s: %v", p.file.source, p.file.plan.Error(p.inv, f.Message))
}
