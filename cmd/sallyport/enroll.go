package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/member"
	"sallyport/node"
	"sallyport/project"
	"sallyport/routing/rpc"
)

func projectEnroll(a *app) *cobra.Command {
	var t trustFlags
	var timeout time.Duration
	var okta, signIn, skipCredential bool
	var again retry
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
			if okta && arg != "" {
				return usageError("the argument '--okta' cannot be used with '[TICKET]'")
			}
			if okta {
				return withHint(errors.New("enrolling with Okta is not supported"), "enroll with a ticket: sallyport project enroll TICKET, or sign in: --oidc")
			}
			if signIn && arg != "" {
				return usageError("the argument '--oidc' cannot be used with '[TICKET]'")
			}
			ticket, _, err := a.readTicket(ctx, arg) // once: it may come from a pipe
			if err != nil {
				return err
			}
			var raw []byte
			var s *self
			if signIn {
				if raw, s, err = a.signIn(ctx, &t); err != nil {
					return err
				}
			} else if err := a.retrying(ctx, again, func() (err error) {
				raw, s, err = a.enroll(ctx, ticket, &t, skipCredential)
				return err
			}); err != nil {
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
	cmd.Flags().BoolVar(&signIn, "oidc", false, "sign in with the provider of OpenID Connect that the authority believes")
	cmd.Flags().BoolVar(&okta, "okta", false, "")
	cmd.Flags().BoolVar(&skipCredential, "skip-credential-issue", false, "")
	hide(cmd, "okta", "skip-credential-issue")
	again.add(cmd)
	return cmd
}

// onlyFor is the policy that lets one identity in.
func onlyFor(identifier string) string { return fmt.Sprintf(`(= subject.identifier "%s")`, identifier) }

// readTicket reads a ticket from a file, a pipe, a page on the web or the argument itself; nil for no argument. Also returned is its text: what
// came from a pipe cannot be read again.
func (a *app) readTicket(ctx context.Context, arg string) (ticket *project.Ticket, text string, err error) {
	if arg == "" {
		return nil, "", nil
	}
	if strings.HasPrefix(webAddress(arg), "http://") {
		a.warn("%s Whoever is on the way to the server can read this ticket, and use it before you: https would keep it secret", a.color("33", "!"))
	}
	if text, err = readArgument(ctx, arg); err != nil {
		return nil, "", err
	}
	if ticket, err = project.ParseTicket(text); err != nil {
		return nil, "", withHint(notTicket(arg, text, err), ticketHint)
	}
	return ticket, text, nil
}

// enroll redeems a ticket and fetches the member's credential, which it stores (docs/protocol/02 §5.7), unless that is not wanted.
// Without a ticket it only fetches the credential. With one, the project is the ticket's from then on.
func (a *app) enroll(ctx context.Context, ticket *project.Ticket, t *trustFlags, skipCredential bool) ([]byte, *self, error) {
	h, err := a.home()
	if err != nil {
		return nil, nil, err
	}
	if ticket != nil {
		p, err := h.Import(ctx, ticket)
		if err != nil {
			return nil, nil, err
		}
		t.project = p.ID
	}
	if _, err := a.identityOf(ctx, t.identity); err != nil { // made where there is none, also when there is no project, as in the reference
		return nil, nil, err
	}
	var raw []byte
	var who *self
	err = a.askAuthority(ctx, *t, func(ctx context.Context, c *authority.Client, s *self) error {
		who = s
		p, err := h.Dir.Project(t.project)
		if err != nil {
			return err
		}
		if ticket != nil {
			if h.IsMember(s.id, p.Project) {
				a.note("%s is a member of the project %s already", s.named.Name, p.Project.Name)
			}
			a.warn("Enrolling with the authority...")
			if _, err := c.Redeem(ctx, authority.Code(ticket.Code)); err != nil {
				return enrollError(err)
			}
		}
		if skipCredential {
			return nil
		}
		if raw, err = c.RenewingCredential(ctx); err != nil {
			return enrollError(err)
		}
		return node.NewlyMade(a.storeCredential(ctx, s.manager, raw, s.id, p.Project.CredentialScope(), ""))
	})
	return raw, who, err
}

// ticketHint says what a ticket is.
const ticketHint = "a ticket is what `sallyport project ticket` printed, or a file with it"

// notTicket explains what an argument is if it is no ticket.
func notTicket(arg, text string, err error) error {
	switch info, statErr := os.Stat(arg); {
	case isStdin(arg):
		return fmt.Errorf("what standard input brings is not a ticket: %w", err)
	case statErr == nil && info.IsDir():
		return fmt.Errorf("this is not a ticket: %s is a directory", arg)
	case statErr == nil:
		return fmt.Errorf("'%s' is not a ticket: %w", arg, err)
	case arg == text && !strings.Contains(arg, ",") && strings.ContainsAny(arg, "./"):
		return fmt.Errorf("this is not a ticket, and there is no file %s", arg)
	}
	return fmt.Errorf("this is not a ticket: %w", err)
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
	h, err := a.home()
	if err != nil {
		return err
	}
	return h.StoreCredential(ctx, m, raw, subject, scope, node)
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
	if raw == nil {
		return a.print(result{human: "enrolled", json: map[string]any{"credential": nil, "identity": identityJSON(s.named), "project_name": projectName}})
	}
	c, err := member.VerifyAny(ctx, s.manager, raw, nil)
	if err != nil {
		return err
	}
	// What others need in order to know this member by its identifier, whoever the authority lets in.
	who := fields("Others let this member alone in with", "--allow '"+onlyFor(c.Subject.String())+"'", "Its clients' tickets", "sallyport project ticket --expects "+c.Subject.String())
	return a.print(result{human: credentialText(c) + who, json: map[string]any{
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

// readArgument returns the text of a file or of a page on the web, if the argument names one, else the argument itself.
func readArgument(ctx context.Context, arg string) (string, error) {
	if url := webAddress(arg); url != "" {
		text, err := fetch(ctx, url, project.MaxSize)
		return strings.TrimSpace(text), err
	}
	if isInput(arg) {
		return readInput(ctx, arg, project.MaxSize)
	}
	return arg, nil
}
