package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/project"
	"sallyport/routing/rpc"
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

func projectNoun(a *app) *cobra.Command {
	return noun(groupStory, "project", "Projects: an authority, a relay, and their members", nil,
		projectCreate(a), projectEnroll(a), projectTicket(a), projectImport(a), projectList(a), projectShow(a), projectInformation(a), projectVersion(a), projectDelete(a), addonCommand(a))
}

// askAuthority runs f with a client of a project's authority, as one of our identities.
func (a *app) askAuthority(ctx context.Context, t trustFlags, f func(context.Context, *authority.Client, *self) error) error {
	n, s, err := a.embedded(ctx, t.identity, t)
	if err != nil {
		return err
	}
	defer n.Stop()
	client := &authority.Client{Call: func(ctx context.Context, service string, req *rpc.Request) (*rpc.Response, error) {
		return n.AskAuthority(ctx, s.id, service, req)
	}}
	return f(ctx, client, s)
}

func projectEnroll(a *app) *cobra.Command {
	var t trustFlags
	var timeout time.Duration
	cmd := &cobra.Command{Use: "enroll [TICKET] [flags]", Short: "Become a member of a project with a ticket", Example: `  sallyport project enroll "$TICKET"
  sallyport project enroll ticket.txt
  sallyport project enroll http://127.0.0.1:8000/ticket.txt`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			arg := ""
			if len(args) == 1 {
				arg = args[0]
			}
			raw, s, err := a.enroll(ctx, arg, t)
			if err != nil {
				return err
			}
			p, err := a.dirOnce.Project(t.project)
			if err != nil {
				return err
			}
			a.done("Enrolled %s in the project %s", s.named.Name, p.Project.Name)
			a.hint("next: sallyport node create NAME")
			return a.printEnrolled(ctx, s, raw, p.Project.Name)
		}}
	t.add(cmd)
	durationVar(cmd.Flags(), &timeout, "timeout", 240*time.Second, "how long it may take")
	cmd.Flags().Bool("okta", false, "")
	cmd.Flags().Int("retry-count", 0, "")
	cmd.Flags().String("retry-delay", "", "")
	cmd.Flags().Bool("no-retry", false, "")
	hide(cmd, "okta", "retry-count", "retry-delay", "no-retry")
	return cmd
}

// enroll redeems a ticket and fetches the member's credential, which it stores (docs/protocol/02 §5.7). Without a ticket it
// only fetches the credential.
func (a *app) enroll(ctx context.Context, arg string, t trustFlags) ([]byte, *self, error) {
	d, err := a.dir()
	if err != nil {
		return nil, nil, err
	}
	var ticket *project.Ticket
	if arg != "" {
		text, err := a.readTicket(ctx, arg)
		if err != nil {
			return nil, nil, err
		}
		if ticket, err = project.ParseTicket(text); err != nil {
			return nil, nil, withHint(fmt.Errorf("this is not a ticket: %w", err), "a ticket is what `sallyport project ticket` printed, or a file with it")
		}
		p := project.ProjectFromTicket(ticket)
		if known, err := knownProject(d, p); err != nil {
			return nil, nil, err
		} else if known != nil {
			p = known
		} else if err := d.ImportProject(ctx, p); err != nil {
			return nil, nil, err
		}
		t.project = p.ID
	}
	var raw []byte
	var who *self
	err = a.askAuthority(ctx, t, func(ctx context.Context, c *authority.Client, s *self) error {
		who = s
		p, err := d.Project(t.project)
		if err != nil {
			return err
		}
		if ticket != nil {
			if stored, err := d.Credentials(); err == nil && slices.ContainsFunc(stored, func(c state.Credential) bool {
				return c.Subject == s.id.String() && c.Scope == p.Project.CredentialScope()
			}) {
				a.note("%s is a member of the project %s already", s.named.Name, p.Project.Name)
			}
			a.warn("Enrolling with the authority...")
			if _, err := c.Redeem(ctx, authority.Code(ticket.Code)); err != nil {
				return enrollError(err)
			}
		}
		if raw, err = c.Credential(ctx); err != nil {
			return enrollError(err)
		}
		return a.storeCredential(ctx, s.manager, raw, s.id, p.Project.CredentialScope(), "")
	})
	return raw, who, err
}

// knownProject returns the project of a ticket if it was imported before: a ticket in its short form has neither the id nor the space.
func knownProject(d *state.Dir, p *project.Project) (*project.Project, error) {
	list, err := d.Projects()
	if err != nil {
		return nil, err
	}
	for _, s := range list {
		k := s.Project
		if k.Identity == p.Identity && k.AuthorityChangeHistory == p.AuthorityChangeHistory && k.AccessRoute == p.AccessRoute && k.AuthorityAccessRoute == p.AuthorityAccessRoute {
			return k, nil
		}
	}
	return nil, nil
}

// enrollError explains an authority's refusal.
func enrollError(err error) error {
	var refused *rpc.StatusError
	if !errors.As(err, &refused) {
		return err
	}
	switch {
	case strings.Contains(refused.Error(), "Unknown enrollment token"):
		return withHint(errors.New("the authority refuses this ticket: it was used up, it has expired, or it is not of this authority"), "ask the project's administrator for a new one")
	case strings.Contains(refused.Error(), "unauthorized member"):
		return withHint(errors.New("this identity is not a member of the project"), "enroll with a ticket: sallyport project enroll TICKET")
	}
	return err
}

// storeCredential verifies a credential and keeps it, for one node if that is given.
func (a *app) storeCredential(ctx context.Context, m *identity.Manager, raw []byte, subject identity.Identifier, scope, node string) error {
	c, err := a.verifyAny(ctx, m, raw, &subject)
	if err != nil {
		return err
	}
	return a.dirOnce.PutCredential(ctx, state.Credential{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Scope: scope, Node: node, Raw: raw, ExpiresAt: time.Unix(int64(c.ExpiresAt), 0),
	})
}

// verifyAny verifies a credential of whichever issuer it names.
func (a *app) verifyAny(ctx context.Context, m *identity.Manager, raw []byte, subject *identity.Identifier) (*identity.Credential, error) {
	issuer, err := identity.CredentialIssuer(raw)
	if err != nil {
		return nil, err
	}
	return m.VerifyCredential(ctx, raw, subject, []identity.Identifier{issuer})
}

// credentialJSON has the reference's shape.
func credentialJSON(c *identity.Credential, raw []byte, scope string) map[string]any {
	return map[string]any{
		"credential": map[string]any{
			"attributes": c.Attributes, "created_at": c.CreatedAt, "credential": hex.EncodeToString(raw), "expires_at": c.ExpiresAt,
			"issuer": c.Issuer.String(), "subject": c.Subject.String(),
		},
		"scope": scope,
	}
}

// printEnrolled has the reference's shape.
func (a *app) printEnrolled(ctx context.Context, s *self, raw []byte, projectName string) error {
	c, err := a.verifyAny(ctx, s.manager, raw, nil)
	if err != nil {
		return err
	}
	return a.print(result{human: credentialText(c), json: map[string]any{
		"credential": credentialJSON(c, raw, "")["credential"], "identity": identityJSON(s.named), "project_name": projectName,
	}})
}

func credentialText(c *identity.Credential) string {
	pairs := []string{"Subject", c.Subject.String(), "Issuer", c.Issuer.String(), "Expires", time.Unix(int64(c.ExpiresAt), 0).UTC().Format(time.RFC3339)}
	for _, k := range sortedNames(c.Attributes) {
		pairs = append(pairs, k, c.Attributes[k])
	}
	return fields(pairs...)
}

// readTicket returns what a URL leads to or the text of a file, if the argument is one, else the argument itself.
func (a *app) readTicket(ctx context.Context, arg string) (string, error) {
	if isURL(arg) {
		if strings.HasPrefix(arg, "http://") {
			a.warn("%s Whoever is on the way to the server can read this ticket, and use it before you: https would keep it secret", a.color("33", "!"))
		}
		text, err := fetch(ctx, arg, project.MaxSize)
		return strings.TrimSpace(text), err
	}
	if info, err := os.Stat(arg); err == nil && info.Mode().IsRegular() {
		f, err := os.Open(arg)
		if err != nil {
			return "", err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, project.MaxSize+1))
		return string(b), err
	}
	return arg, nil
}

func projectTicket(a *app) *cobra.Command {
	var t trustFlags
	var attributes []string
	var expires time.Duration
	var uses uint64
	var relay string
	var enroller, useTLS, asHex, legacy bool
	cmd := &cobra.Command{Use: "ticket [flags]", Short: "Make a ticket for a new member", Example: `  sallyport project ticket --relay blue --attribute company=acme
  sallyport project ticket --usage-count 3 --expires-in 1h`, Args: cobra.NoArgs,
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
			if uses == 0 {
				return usageError("invalid value '0' for '--usage-count': it must be at least 1")
			}
			if expires >= 5*24*time.Hour && uses >= 10 {
				a.note("%s This ticket is good for %d members and %s: keep it safe", a.color("33", "!"), uses, expires)
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			p, err := d.Project(t.project)
			if err != nil {
				return withHint(errors.New("there is no default project"), "import one: sallyport project import --project-file FILE")
			}
			return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
				code, err := c.CreateToken(ctx, wanted, expires, uses)
				if err != nil {
					return err
				}
				ticket, err := project.NewTicket(p.Project, project.Code(code))
				if err != nil {
					return err
				}
				return a.printTicket(ticket, asHex, legacy, expires, uses)
			})
		}}
	t.add(cmd)
	f := cmd.Flags()
	f.StringArrayVarP(&attributes, "attribute", "a", nil, "an attribute of the member, `KEY=VALUE`")
	durationVar(f, &expires, "expires-in", 10*time.Minute, "how long it can be used")
	f.Uint64Var(&uses, "usage-count", 1, "by how many members")
	f.StringVar(&relay, "relay", "", "the relay `NAME` that the member may register, or *")
	f.BoolVar(&enroller, "enroller", false, "the member may make tickets")
	f.BoolVar(&useTLS, "tls", false, "the member's nodes may have certificates for TLS inlets")
	f.BoolVar(&asHex, "hex", false, "")
	f.BoolVar(&legacy, "legacy", false, "")
	f.Bool("skip-controller-call", false, "")
	f.String("to", "", "")
	hide(cmd, "hex", "legacy", "skip-controller-call", "to")
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
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			p, err := project.ParseProject(b)
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
	return &cobra.Command{Use: "list", Short: "List the projects this user knows", Example: `  sallyport project list
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
			return nil, withHint(errors.New("there is no default project"), "sallyport project enroll TICKET joins one")
		}
		return nil, withHint(fmt.Errorf("there is no project with name %s", name), "sallyport project list shows those there are")
	}
	return p.Project, nil
}

func projectText(p *project.Project) string {
	return fields("Project", p.Name, "Id", p.ID, "Identifier", p.Identity, "Route", p.AccessRoute, "Authority", p.AuthorityIdentifier(), "Authority's route", p.AuthorityAccessRoute)
}

func projectShow(a *app) *cobra.Command {
	return &cobra.Command{Use: "show [NAME]", Short: "Show a project", Example: `  sallyport project show
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
}

func projectInformation(a *app) *cobra.Command {
	return &cobra.Command{Use: "information [NAME]", Short: "Print all that others need to use a project", Example: `  sallyport project information --output json > project.json
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
	return &cobra.Command{Use: "version", Short: "Print the version of a project's node", Hidden: true, Args: cobra.ArbitraryArgs,
		RunE: func(*cobra.Command, []string) error { return errHosted("project version") }}
}

func projectDelete(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "delete NAME", Short: "Forget a project", Example: `  sallyport project delete partners --yes`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.findProject(args)
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
	return cmd
}
