package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/project"
)

// tickets asks a project's authority for the tickets that can still be used.
func (a *app) tickets(ctx context.Context, c *authority.Client) ([]authority.TicketInfo, error) {
	asked, cancel := context.WithTimeout(ctx, answersIn)
	defer cancel()
	list, err := c.Tickets(asked)
	return list, ofOurs(ctx, asked, err)
}

func ticketJSON(t authority.TicketInfo) map[string]any {
	var by identity.Identifier
	copy(by[:], t.IssuedBy)
	out := map[string]any{
		"reference": t.Reference, "attributes": t.Attributes, "issued_by": by.String(), "issued_at": nil, "expires_at": t.ExpiresAt,
		"uses_left": t.Left, "used": t.Used,
	}
	if t.IssuedAt != 0 {
		out["issued_at"] = t.IssuedAt
	}
	return out
}

// findTicket finds a ticket by its reference, or by the ticket itself.
func findTicket(list []authority.TicketInfo, text string) (authority.TicketInfo, error) {
	if i := slices.IndexFunc(list, func(t authority.TicketInfo) bool { return t.Reference == text }); i >= 0 {
		return list[i], nil
	}
	if ticket, err := project.ParseTicket(text); err == nil {
		hash := authority.Code(ticket.Code).Hash()
		if i := slices.IndexFunc(list, func(t authority.TicketInfo) bool { return string(t.Hash) == string(hash[:]) }); i >= 0 {
			return list[i], nil
		}
		return authority.TicketInfo{}, withHint(fmt.Errorf("the ticket can not be used any more, or is another project's"), "see: sallyport project ticket list")
	}
	return authority.TicketInfo{}, withHint(fmt.Errorf("there is no ticket %q that can still be used", text), "see: sallyport project ticket list")
}

func ticketList(a *app) *cobra.Command {
	var t trustFlags
	cmd := &cobra.Command{Use: "list [flags]", Short: "List the tickets that can still be used", Example: `  sallyport project ticket list
  sallyport project ticket list --identity admin --jq '.[].reference'`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
				list, err := a.tickets(ctx, c)
				if err != nil {
					return err
				}
				out, rows := []any{}, [][]string{}
				for _, i := range list {
					out = append(out, ticketJSON(i))
					rows = append(rows, []string{i.Reference, fmt.Sprint(i.Left), moment(i.ExpiresAt, ""), attributesText(i.Attributes)})
				}
				return a.print(result{human: tableOr("no tickets", []string{"TICKET", "USES LEFT", "UNTIL", "ATTRIBUTES"}, rows), json: out})
			})
		}}
	t.add(cmd)
	return cmd
}

func ticketShow(a *app) *cobra.Command {
	var t trustFlags
	cmd := &cobra.Command{Use: "show REFERENCE|TICKET [flags]", Short: "Show a ticket that can still be used", Example: `  sallyport project ticket show "$REFERENCE"
  sallyport project ticket show "$(cat bank.ticket)" --identity admin`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
				i, err := a.ticket(ctx, c, args[0])
				if err != nil {
					return err
				}
				var by identity.Identifier
				copy(by[:], i.IssuedBy)
				return a.print(result{human: fields("Ticket", i.Reference, "Attributes", attributesText(i.Attributes), "Uses left", fmt.Sprint(i.Left),
					"Used", fmt.Sprint(i.Used), "Made by", by.String(), "Made at", moment(i.IssuedAt, "unknown"), "Good until", moment(i.ExpiresAt, ""),
					"Hash of its code", hex.EncodeToString(i.Hash)), json: ticketJSON(i)})
			})
		}}
	t.add(cmd)
	return cmd
}

func ticketRevoke(a *app) *cobra.Command {
	var t trustFlags
	cmd := &cobra.Command{Use: "revoke REFERENCE|TICKET [flags]", Short: "Make a ticket useless; members that came with it stay", Example: `  sallyport project ticket revoke "$REFERENCE"
  sallyport project ticket revoke "$(cat bank.ticket)" --identity admin`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
				i, err := a.ticket(ctx, c, args[0])
				if err != nil {
					return err
				}
				if err := c.RevokeTicket(ctx, i.Reference); err != nil {
					return err
				}
				return a.print(result{human: "revoked", json: ticketJSON(i)})
			})
		}}
	t.add(cmd)
	return cmd
}

// ticket returns the ticket that a command names by its reference or by itself.
func (a *app) ticket(ctx context.Context, c *authority.Client, named string) (none authority.TicketInfo, err error) {
	list, err := a.tickets(ctx, c)
	if err != nil {
		return none, err
	}
	return findTicket(list, strings.TrimSpace(named))
}
