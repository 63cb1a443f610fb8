package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/state"
)

func init() { nouns = append(nouns, applyCommand) }

// exitDiffers is the exit code of apply --check when something would change.
const exitDiffers = 1

// applyOptions say how a configuration is applied.
type applyOptions struct {
	check, prune bool
	wait         time.Duration // how long new resources may take to come up
}

// applyWait is how long apply waits for what it changed to come up.
const applyWait = 5 * time.Second

func applyCommand(a *app) *cobra.Command {
	var o applyOptions
	var node string
	var variables []string
	cmd := &cobra.Command{
		Use: "apply [FILE_OR_DIRECTORY] [flags]", Short: "Make a node have what a configuration describes", GroupID: groupOther, Args: cobra.MaximumNArgs(1),
		Example: `  sallyport apply box.yaml --check
  sallyport apply box.yaml
  sallyport apply --node n1`,
		Long: `Make a node have what a configuration describes, and nothing that an earlier one described.

What did not change is not touched: its open connections stay. What commands made is left
alone. Without a file the last one is read again, as a node does on SIGHUP. A node that is not
there is created, one that is stopped is started. --check changes nothing; its exit code is 1
when something would change.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			w, err := a.wishOf(ctx, args, variables, plainName(node))
			if err != nil {
				return err
			}
			done, err := a.apply(ctx, w, o)
			if err != nil {
				return err
			}
			if err := a.print(done.result(o.check)); err != nil {
				return err
			}
			switch {
			case o.check && done.differs():
				return exitCode(exitDiffers)
			case done.failed():
				return exitCode(exitSoftware)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.check, "check", false, "only say what would change")
	f.StringVar(&node, "node", "", "the `NODE` (default: the configuration's name, else the default node)")
	f.BoolVar(&o.prune, "prune", false, "remove what commands made too")
	f.StringArrayVar(&variables, "variable", nil, "`NAME=VALUE` for the configuration")
	durationVar(f, &o.wait, "wait", applyWait, "how long to wait for what is new to come up")
	return cmd
}

// wishOf reads the configuration that apply is given, or the last one of a node.
func (a *app) wishOf(ctx context.Context, args, variables []string, node string) (*wish, error) {
	if _, err := a.dir(); err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return a.lastWish(ctx, node)
	}
	paths, err := configurationFiles(args[0])
	if err != nil {
		return nil, err
	}
	if node == "" { // the name of a configuration counts, else the default node's
		if w, err := a.readFiles(ctx, paths, variables, nil, ""); err != nil || w.named() {
			return w, err
		}
		if r, err := a.dirOnce.Node(""); err == nil {
			node = r.Name
		}
	}
	return a.readFiles(ctx, paths, variables, nil, node)
}

// named tells whether one of the files has the node's name.
func (w *wish) named() bool { return w.fileOf("name") != nil }

// readFiles is readWish of files, which may also be pages on the web and texts.
func (a *app) readFiles(ctx context.Context, paths, variables, flags []string, node string) (*wish, error) {
	var texts []text
	var kept []string
	for _, path := range paths {
		content, err := readConfiguration(ctx, path)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(content) == "" { // a file that was cut off, a command that printed nothing: not a wish for nothing
			return nil, fmt.Errorf("%s: the configuration is empty", inputName(path))
		}
		t := text{source: path, text: content}
		if isInput(path) {
			whole, err := filepath.Abs(path)
			if err != nil {
				return nil, err
			}
			t.base = filepath.Dir(whole)
			if info, err := os.Stat(whole); err == nil && info.Mode().IsRegular() {
				kept = append(kept, whole)
			}
		} else if strings.ContainsAny(path, "\n{") {
			t.source = "configuration"
		}
		texts = append(texts, t)
	}
	w, err := a.readWish(ctx, texts, variables, flags, node)
	if err != nil {
		return nil, err
	}
	if len(kept) == len(paths) {
		w.remember.Paths = kept
	}
	return w, nil
}

// lastWish reads again what was applied to a node last.
func (a *app) lastWish(ctx context.Context, node string) (*wish, error) {
	r, err := a.nodeRecord(node)
	if err != nil {
		return nil, err
	}
	if r.Configuration == nil || len(r.Configuration.Paths) == 0 {
		return nil, withHint(fmt.Errorf("no configuration file was applied to the node %s yet", r.Name), "name it: sallyport apply FILE --node %s", r.Name)
	}
	paths := r.Configuration.Paths
	if dir := filepath.Dir(paths[0]); len(paths) > 1 { // a directory may have others by now
		if paths, err = configurationFiles(dir); err != nil {
			return nil, err
		}
	}
	return a.readFiles(ctx, paths, r.Configuration.Variables, r.Configuration.Flags, r.Name)
}

// apply makes a node have what a wish says. An error means that nothing was done.
func (a *app) apply(ctx context.Context, w *wish, o applyOptions) (*applied, error) {
	r, err := a.dirOnce.Node(w.name)
	isNew := errors.Is(err, state.ErrNotFound)
	if err != nil && !isNew {
		return nil, err
	}
	if o.check && isNew {
		return a.checkNew(ctx, w)
	}
	if isNew {
		if err := a.collectEarly(ctx, w, ""); err != nil {
			return nil, err
		}
	}
	if !o.check {
		if err := a.enrollWish(ctx, w, ""); err != nil {
			return nil, err
		}
	}
	if !isNew {
		if err := a.collectWish(ctx, w); err != nil {
			return nil, err
		}
	}
	merged, settings := w.merge(r.Options, r.Configuration)
	done := &applied{Node: w.name, isNew: isNew}
	running := !isNew && r.Status() == state.Running
	switch {
	case o.check && !running:
		list, err := a.dirOnce.Resources(w.name)
		if err != nil {
			return nil, err
		}
		done.Differences, done.ByHand = offline(list, w.resources, o.prune)
	case !running:
		if err := a.startFor(ctx, w, merged, isNew); err != nil {
			return nil, err
		}
		if err := a.collectWish(ctx, w); err != nil {
			return nil, err
		}
	}
	for _, s := range settings {
		if isNew {
			break
		}
		done.Settings = append(done.Settings, settingDifference{Name: s.flag, Now: running && s.live, From: s.text(&r.Options), To: s.text(&merged)})
	}
	if o.check && !running {
		return done, nil
	}
	if r, err = a.dirOnce.Node(w.name); err != nil {
		return nil, err
	}
	merged, _ = w.merge(r.Options, r.Configuration)
	c := admin.NewClient(r.AdminSocket)
	done.Applied, err = admin.Post[admin.Applied](ctx, c, admin.PathApply, admin.ApplyRequest{
		Resources: w.resources, Check: o.check, Prune: o.prune, LogLevel: merged.LogLevel,
	})
	if err != nil {
		return nil, err
	}
	if len(done.Faults) > 0 {
		var wrong faults
		for _, f := range done.Faults {
			wrong = append(wrong, w.fault(f))
		}
		return nil, wrong
	}
	if o.check {
		return done, nil
	}
	w.remember.Settings = w.settingNames()
	if err := a.dirOnce.UpdateNode(ctx, w.name, func(n *state.Node) error {
		n.Options, n.Configuration = merged, &w.remember
		return nil
	}); err != nil {
		return nil, err
	}
	return done, a.settle(ctx, c, done, o.wait)
}

// checkNew says what a node would get that is not there. What depends on the node or on its enrolment cannot be checked yet.
func (a *app) checkNew(ctx context.Context, w *wish) (*applied, error) {
	if err := a.collectEarly(ctx, w, ""); err != nil {
		return nil, err
	}
	done := &applied{Node: w.name, isNew: true}
	done.Differences, _ = offline(nil, w.resources, false)
	return done, nil
}

// collectEarly is collectWish for a node that is not there yet. With a ticket there may be no project yet either: then everything is
// checked later.
func (a *app) collectEarly(ctx context.Context, w *wish, ticket string) error {
	early := *a
	early.itself = w.name
	if err := early.collectWish(ctx, w); err != nil && ticket == "" && w.ticket() == "" {
		return err
	}
	return nil
}

// offline compares what is stored of a stopped node with what is wanted.
func offline(stored, wanted []resource.Stored, prune bool) (list []admin.Difference, byHand []string) {
	for _, want := range wanted {
		d := admin.Difference{Operation: admin.Add, Kind: want.Kind, Noun: want.Kind, Name: want.Name}
		i := slices.IndexFunc(stored, func(s resource.Stored) bool { return s.Kind == want.Kind && s.Name == want.Name })
		if i >= 0 {
			fields, err := resource.Compare(want.Kind, stored[i].Request, want.Request)
			if err == nil && len(fields) == 0 {
				continue
			}
			d.Operation, d.Fields, d.InPlace = admin.Change, fields, true
		}
		list = append(list, d)
	}
	for _, s := range stored {
		if slices.ContainsFunc(wanted, func(w resource.Stored) bool { return s.Kind == w.Kind && s.Name == w.Name }) {
			continue
		}
		if !s.FromFile && !prune {
			byHand = append(byHand, s.Kind+" "+s.Name)
			continue
		}
		list = append(list, admin.Difference{Operation: admin.Remove, Kind: s.Kind, Noun: s.Kind, Name: s.Name})
	}
	return list, byHand
}

// startFor starts a node that is stopped or not there, in the background. What an earlier configuration asked for and this one does
// not is forgotten first: it must not be there even for a moment.
func (a *app) startFor(ctx context.Context, w *wish, o state.NodeOptions, isNew bool) error {
	if !isNew {
		if err := a.forgetStale(ctx, w); err != nil {
			return err
		}
		return a.createBackground(ctx, w.name, o)
	}
	args := append([]string{"node", "create", w.name, "--started-from-configuration"}, nodeArgs(o)...)
	quiet := *a
	quiet.stdout = io.Discard
	return quiet.again(ctx, args, "node", w.sources())
}

// sources are the files, for messages.
func (w *wish) sources() string {
	names := make([]string, len(w.files))
	for i, f := range w.files {
		names[i] = f.source
	}
	return strings.Join(names, ", ")
}

// forgetStale removes from a stopped node's resources what an earlier configuration asked for and this one does not.
func (a *app) forgetStale(ctx context.Context, w *wish) error {
	return a.dirOnce.UpdateResources(ctx, w.name, func(list []resource.Stored) ([]resource.Stored, error) {
		return slices.DeleteFunc(list, func(s resource.Stored) bool {
			_, wanted := w.places[[2]string{s.Kind, s.Name}]
			return s.FromFile && !wanted
		}), nil
	})
}

// settle waits until what was changed is up or has failed, and notes how it is.
func (a *app) settle(ctx context.Context, c *admin.Client, done *applied, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, max(wait, time.Second))
	defer cancel()
	for end := time.Now().Add(wait); ; {
		list, err := admin.Get[[]admin.Resource](ctx, c, admin.PathResources)
		if err != nil {
			return err
		}
		opening := false
		done.States = nil
		for _, d := range done.Differences {
			i := slices.IndexFunc(list, func(r admin.Resource) bool { return r.Kind == d.Kind && r.Name == d.Name })
			if d.Operation == admin.Remove || i < 0 {
				continue
			}
			done.States = append(done.States, list[i])
			opening = opening || list[i].State == resource.Opening
		}
		if !opening || time.Now().After(end) {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
}

// ticket returns the ticket of a wish, "" for none.
func (w *wish) ticket() string {
	for _, f := range w.files {
		if f.plan.Ticket != "" {
			return f.plan.Ticket
		}
		if f.plan.TicketFile != "" {
			return ticketPath(f)
		}
	}
	return ""
}

// ticketPath is the file of a ticket: relative to the configuration, or the name of a credential of the service manager.
func ticketPath(f wishFile) string {
	path := f.plan.TicketFile
	if filepath.IsAbs(path) {
		return path
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		if credential := filepath.Join(dir, path); isInput(credential) {
			return credential
		}
	}
	return filepath.Join(f.base, path)
}

// enrollWish redeems the ticket of a wish, or another one, unless the identity is a member of its project already.
func (a *app) enrollWish(ctx context.Context, w *wish, ticket string) error {
	if ticket == "" {
		ticket = w.ticket()
	}
	if ticket == "" || w.enrolled {
		return nil
	}
	parsed, text, err := a.readTicket(ctx, ticket) // once: it may come from a pipe
	if err != nil {
		from, hint := w.sources(), hintOf(err)
		if from == "" || ticket != w.ticket() {
			return err
		}
		if err = fmt.Errorf("%s: ticket: %w", from, err); hint != "" {
			return withHint(err, "%s", hint)
		}
		return err
	}
	if a.isMember(ctx, parsed, w.options.Identity) {
		w.enrolled = true
		return nil
	}
	enroll := []string{"project", "enroll", text}
	if identity := w.options.Identity; identity != "" {
		if err := a.ensureIdentity(ctx, identity); err != nil {
			return err
		}
		enroll = append(enroll, "--identity", identity)
	}
	quiet := *a
	var printed bytes.Buffer
	quiet.stdout = &printed
	err = quiet.again(ctx, enroll, "ticket", w.sources())
	w.enrolled = err == nil
	return err
}
