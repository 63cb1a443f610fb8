package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

// answersIn is how long an authority may take to answer what the reference's does not have, and drops.
const answersIn = 5 * time.Second

// ofOurs explains that an authority did not answer what only ours have.
func ofOurs(ctx, asked context.Context, err error) error {
	if err == nil || ctx.Err() != nil || asked.Err() == nil {
		return err
	}
	return withHint(errors.New("the project's authority does not have this"), "authorities of the reference, and older ones of ours, do not")
}

func (a *app) memberInfo(ctx context.Context, c *authority.Client, id identity.Identifier) (authority.MemberInfo, error) {
	asked, cancel := context.WithTimeout(ctx, answersIn)
	defer cancel()
	m, err := c.MemberInfo(asked, id)
	return m, ofOurs(ctx, asked, err)
}

// moment prints a time in seconds, or what it means that there is none.
func moment(seconds int64, none string) string {
	if seconds == 0 {
		return none
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}

func memberInfoText(m authority.MemberInfo) string {
	state := "active"
	switch {
	case m.Blocked:
		state = "blocked"
	case m.PreTrusted:
		state = "active, named in the authority's configuration"
	}
	ticket := m.Ticket
	if ticket == "" {
		ticket = "none: added by hand"
	}
	return fields("State", state, "Added at", moment(m.AddedAt, "unknown"), "Ticket", ticket, "Last seen", moment(m.LastSeen, "never"),
		"Credential until", moment(m.CredentialExpires, "none"))
}

// memberInfoJSON adds what only our authorities tell to what the reference prints.
func memberInfoJSON(m authority.MemberInfo, entry map[string]any) {
	optional := func(seconds int64) any {
		if seconds == 0 {
			return nil
		}
		return seconds
	}
	var ticket any
	if m.Ticket != "" {
		ticket = m.Ticket
	}
	entry["blocked"], entry["pre_trusted"], entry["ticket"] = m.Blocked, m.PreTrusted, ticket
	entry["last_seen"], entry["credential_expires_at"] = optional(m.LastSeen), optional(m.CredentialExpires)
}

// memberBlock makes the command that blocks a member, or the one that takes it back.
func memberBlock(a *app, block bool) *cobra.Command {
	var t trustFlags
	verb, short, done := "block", "Block a member: all that it has open ends at once, its record stays", "blocked"
	if !block {
		verb, short, done = "unblock", "Let a blocked member in again", "unblocked"
	}
	cmd := &cobra.Command{Use: verb + " IDENTIFIER [flags]", Short: short, Example: fmt.Sprintf(`  sallyport project-member %s "$IDENTIFIER"
  sallyport project-member %s "$IDENTIFIER" --identity admin`, verb, verb), Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errNoName("member")
			}
			id, err := memberIdentifier(args[0])
			if err != nil {
				return err
			}
			return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
				asked, cancel := context.WithTimeout(ctx, answersIn)
				defer cancel()
				do := c.Unblock
				if block {
					do = c.Block
				}
				err := ofOurs(ctx, asked, do(asked, id))
				var status *rpc.StatusError
				if errors.As(err, &status) && status.Status == rpc.NotFound {
					return fmt.Errorf("the member %s was not found", id)
				}
				if err != nil {
					return err
				}
				return a.print(result{human: done, json: map[string]any{"identifier": id.String(), "blocked": block, "project": a.projectName(t)}})
			})
		}}
	t.addForMembers(cmd)
	flagAliases(cmd, projectAlias...)
	return cmd
}
