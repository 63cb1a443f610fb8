package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/fleet"
	"sallyport/member"
	"sallyport/project"
	"sallyport/state"
)

func init() { nouns = append(nouns, projectNoun, memberNoun) }

// trustFlags are the flags that say whose credentials to believe (docs/protocol/03 §7.2).
type trustFlags struct{ project, authority, route, scope, identity string }

func (t *trustFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.identity, "identity", "", "the `NAME` of the identity to use (default: the default identity)")
	f.StringVar(&t.project, "project", "", "the `PROJECT` (default: the default project)")
	f.StringVar(&t.authority, "authority-identity", "", "")
	f.StringVar(&t.route, "authority-route", "", "")
	f.StringVar(&t.scope, "credential-scope", "", "")
	hide(cmd, "authority-identity", "authority-route", "credential-scope")
}

// addForMembers adds those of the commands for members.
func (t *trustFlags) addForMembers(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.identity, "identity", "", "the `NAME` of the identity to use (default: the default identity)")
	f.StringVarP(&t.project, "project", "p", "", "the `PROJECT` (default: the default project)")
}

func projectNoun(a *app) *cobra.Command {
	return noun(groupStory, "project", "Projects: an authority, a relay, and their members", nil,
		projectCreate(a), projectEnroll(a), projectTicket(a), projectImport(a), projectList(a), projectShow(a), projectInformation(a), projectVersion(a), projectDelete(a), fleetCommands(a, fleet.Relay), fleetCommands(a, fleet.Authority), addons.command(a, needsService))
}

// askAuthority runs f with a client of a project's authority, as one of our identities. Where there is nobody to ask no identity is made for it.
func (a *app) askAuthority(ctx context.Context, t trustFlags, f func(context.Context, *authority.Client, *self) error) error {
	if t.authority == "" {
		d, err := a.dir()
		if err != nil {
			return err
		}
		switch _, err := d.Project(t.project); {
		case errors.Is(err, state.ErrNotFound) && t.project == "":
			return withHint(errors.New("there is no default project"), "become a member of one: sallyport project enroll TICKET")
		case err != nil:
			return err
		}
	}
	n, s, err := a.embedded(ctx, t.identity, t)
	if err != nil {
		return err
	}
	defer n.Stop()
	return f(ctx, member.Ask(n, s.id), s)
}

func projectTicket(a *app) *cobra.Command {
	var t trustFlags
	var attributes []string
	var expires time.Duration
	var uses uint64
	var relay string
	var expects []string
	var enroller, useTLS, asHex, legacy bool
	var again retry
	cmd := &cobra.Command{Use: "ticket [flags]", Short: "Make a ticket for a new member", Example: `  sallyport project ticket --relay blue --attribute company=acme
  sallyport project ticket --usage-count 3 --expires-in 1h
  sallyport project ticket --expects "$IDENTIFIER"`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			wanted, err := parseAttributes(attributes, true)
			if err != nil {
				return err
			}
			if relay != "" {
				wanted[authority.RelayAttribute] = relay
			}
			if enroller {
				wanted[authority.RoleAttribute] = authority.RoleEnroller
			}
			if useTLS {
				wanted[authority.TLSAttribute] = "true"
			}
			for _, text := range expects {
				if _, err := identity.ParseIdentifier(text); err != nil {
					return usageError("invalid value '%s' for '--expects': an identifier is I and 64 hex digits", text)
				}
			}
			if uses == 0 {
				return usageError("invalid value '0' for '--usage-count': it must be at least 1")
			}
			if expires >= 5*24*time.Hour && uses >= 10 {
				a.note("%s This ticket is good for %d members and %s: keep it safe", a.color("33", "!"), uses, expires)
			}
			p, err := a.findProject(argsOf(t.project))
			if err != nil {
				return err
			}
			described := *p
			described.Expects = expects
			if err := described.Verify(); err != nil {
				return err
			}
			var code authority.Code
			if err := a.retrying(cmd.Context(), again, func() error {
				return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) (err error) {
					code, err = c.CreateToken(ctx, wanted, expires, uses)
					return err
				})
			}); err != nil {
				return err
			}
			ticket, err := project.NewTicket(&described, project.Code(code))
			if err != nil {
				return err
			}
			return a.printTicket(ticket, asHex, legacy, expires, uses)
		}}
	t.add(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&attributes, "attribute", "a", nil, "an attribute of the member, `KEY=VALUE`")
	durationVar(f, &expires, "expires-in", 10*time.Minute, "how long it can be used")
	f.Uint64Var(&uses, "usage-count", 1, "by how many members")
	f.StringVar(&relay, "relay", "", "the relay `NAME` that the member may register, or *")
	f.StringArrayVar(&expects, "expects", nil, "the `IDENTIFIER` that the member's inlets send to, and to no other")
	f.BoolVar(&enroller, "enroller", false, "the member may make tickets")
	f.BoolVar(&useTLS, "tls", false, "the member's nodes may have certificates for TLS inlets")
	f.BoolVar(&asHex, "hex", false, "")
	f.BoolVar(&legacy, "legacy", false, "")
	hide(cmd, "hex", "legacy")
	noEffect(cmd, "skip-controller-call")
	again.add(cmd)
	cmd.AddCommand(ticketList(a), ticketShow(a), ticketRevoke(a))
	return cmd
}

func (a *app) printTicket(t *project.Ticket, asHex, legacy bool, expires time.Duration, uses uint64) error {
	text, err := t.Text()
	if err != nil {
		return err
	}
	switch {
	case legacy:
		text = t.LegacyHex()
	case asHex:
		if text, err = t.Hex(); err != nil {
			return err
		}
	}
	a.note(a.color(green, "✔")+" Created a ticket for %s, good for %s", plural(int(uses), "member"), expires)
	a.hint("the new member types: sallyport project enroll TICKET")
	return a.print(result{human: text, machine: text, json: json.RawMessage(t.JSON())})
}

// parseAttributes reads KEY=VALUE pairs; without = the value is "true" where that is allowed.
func parseAttributes(list []string, bare bool) (authority.Attributes, error) {
	out := authority.Attributes{}
	for _, pair := range list {
		key, value, found := strings.Cut(pair, "=")
		if key == "" || (!found && !bare) {
			return nil, usageError("invalid value '%s' for '--attribute': it must be KEY=VALUE", pair)
		}
		if !found {
			value = "true"
		}
		out[key] = value
	}
	return out, nil
}

func projectImport(a *app) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: "import --project-file FILE", Short: "Import a project's description", Example: `  sallyport project import --project-file project.json`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usageError("the following required arguments were not provided: --project-file <FILE>")
			}
			text, err := readInput(cmd.Context(), file, project.MaxSize)
			if err != nil {
				return err
			}
			p, err := project.ParseProject([]byte(text))
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			if err := d.ImportProject(cmd.Context(), p); err != nil {
				return err
			}
			return a.print(result{human: "  ✔ Successfully imported project " + p.Name})
		}}
	cmd.Flags().StringVar(&file, "project-file", "", "the `FILE`, JSON")
	return cmd
}

// projectList shows every project this user knows; the reference knows only those of the hosted service.
func projectList(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the projects this user knows", Example: `  sallyport project list
  sallyport project list --jq '.[].name'`, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			d, err := a.dir()
			if err != nil {
				return err
			}
			list, err := d.Projects()
			out, rows := []*project.Project{}, [][]string{}
			for _, p := range list {
				out = append(out, p.Project)
				mark := ""
				if p.IsDefault {
					mark = "default"
				}
				rows = append(rows, []string{p.Project.Name, p.Project.ID, p.Project.AccessRoute, mark})
			}
			if err != nil {
				return err
			}
			return a.print(result{human: tableOr("no projects; sallyport project enroll TICKET joins one", []string{"PROJECT", "ID", "ROUTE", ""}, rows), json: out})
		}}
	noEffect(cmd, "identity=")
	return cmd
}

func argsOf(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

func (a *app) findProject(args []string) (*project.Project, error) {
	name := ""
	if len(args) == 1 {
		name = args[0]
	}
	d, err := a.dir()
	if err != nil {
		return nil, err
	}
	p, err := d.Project(name)
	if err != nil {
		if name == "" {
			return nil, ifNotFound(err, withHint(errors.New("there is no default project"), "sallyport project enroll TICKET joins one"))
		}
		return nil, ifNotFound(err, withHint(fmt.Errorf("there is no project with name %s", name), "sallyport project list shows those there are"))
	}
	return p.Project, nil
}

func projectText(p *project.Project) string {
	list := []string{"Project", p.Name, "Id", p.ID, "Identifier", p.Identity, "Route", p.AccessRoute, "Authority", p.AuthorityIdentifier(), "Authority's route", p.AuthorityAccessRoute}
	for _, id := range p.Expects {
		list = append(list, "Outlets are at", id)
	}
	return fields(list...)
}

func projectShow(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "show [NAME]", Short: "Show a project", Example: `  sallyport project show
  sallyport project show partners`, Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if d, err := a.dir(); err != nil {
				return err
			} else if list, err := d.Projects(); err == nil && len(list) == 0 {
				return a.print(result{human: "no projects; sallyport project enroll TICKET joins one", json: []any{}})
			}
			p, err := a.findProject(args)
			if err != nil {
				return err
			}
			return a.print(result{human: projectText(p), json: p})
		}}
	noEffect(cmd, "identity=")
	new(retry).add(cmd) // nothing here can fail for a moment
	return cmd
}

func projectInformation(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "information [NAME]", Short: "Print all that others need to use a project", Example: `  sallyport project information --output json > project.json
  sallyport project information partners --jq .egress_allow_list`, Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := a.findProject(args)
			if err != nil {
				return err
			}
			out, err := projectJSON(p)
			if err != nil {
				return err
			}
			return a.print(result{human: projectText(p), json: out})
		}}
	noEffect(cmd, "identity=")
	return cmd
}

// projectJSON is a project with the addresses that a firewall must let through, in the reference's shape.
func projectJSON(p *project.Project) (map[string]any, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, err
	}
	address := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	out["access_address"], out["authority_access_address"] = address(p.AccessAddress()), address(p.AuthorityAccessAddress())
	egress := []string{}
	for _, s := range []string{p.AccessAddress(), p.AuthorityAccessAddress()} {
		if s != "" {
			egress = append(egress, s)
		}
	}
	out["egress_allow_list"] = egress
	return out, nil
}

func projectVersion(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Print the version of a project's node", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return unavailable("project version", needsService, "`project create` makes a project here")
		}}
	noEffect(cmd, "identity=")
	return cmd
}

func projectDelete(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "delete NAME", Short: "Forget a project", Example: `  sallyport project delete partners --yes`, Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.findProject(args[len(args)-1:]) // the reference has the name of a space first
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "Forget the project "+p.Name); err != nil {
				return err
			}
			if err := a.dirOnce.DeleteProject(cmd.Context(), p.ID); err != nil {
				return err
			}
			return a.print(result{human: "forgot the project " + p.Name, machine: p.Name, json: map[string]string{"name": p.Name}})
		}}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	noEffect(cmd, "identity=")
	return cmd
}
