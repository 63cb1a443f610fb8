package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/routing/rpc"
)

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func memberNoun(a *app) *cobra.Command {
	return noun(groupStory, "project-member", "Members of a project, for its administrators", nil,
		memberAdd(a), memberList(a), memberListIDs(a), memberShow(a), memberDelete(a), memberBlock(a, true), memberBlock(a, false))
}

// entryJSON has the reference's shape.
func entryJSON(e authority.Entry) map[string]any {
	var by, expires any
	if e.AddedBy != (identity.Identifier{}) {
		by = e.AddedBy.String()
	}
	if !e.ExpiresAt.IsZero() {
		expires = e.ExpiresAt.Unix()
	}
	attributes := e.Attributes
	if attributes == nil {
		attributes = authority.Attributes{}
	}
	return map[string]any{
		"identifier": e.ID.String(),
		"attributes": map[string]any{"added_at": e.AddedAt.Unix(), "attested_by": by, "attributes": attributes, "expires_at": expires},
	}
}

func attributesText(attributes authority.Attributes) string {
	text := ""
	for _, k := range sortedNames(attributes) {
		if text != "" {
			text += " "
		}
		text += k + "=" + attributes[k]
	}
	return text
}

// projectAlias is what the reference calls --project in the commands for members.
var projectAlias = []string{"project-name", "project"}

func memberIdentifier(text string) (identity.Identifier, error) {
	id, err := identity.ParseIdentifier(text)
	if err != nil {
		return id, usageError("invalid value '%s' for '<MEMBER>': an identifier is I and 64 hex digits", text)
	}
	return id, nil
}

func (a *app) projectName(t trustFlags) string {
	if p, err := a.dirOnce.Project(t.project); err == nil {
		return p.Project.Name
	}
	return t.project
}

func memberAdd(a *app) *cobra.Command {
	var t trustFlags
	var attributes []string
	var relay string
	var enroller bool
	var again retry
	cmd := &cobra.Command{Use: "add IDENTIFIER [flags]", Short: "Make an identity a member, without a ticket", Example: `  sallyport project-member add "$IDENTIFIER" --attribute company=acme
  sallyport project-member add "$IDENTIFIER" --identity admin --relay blue`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := memberIdentifier(args[0])
			if err != nil {
				return err
			}
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
			if err := a.retrying(cmd.Context(), again, func() error {
				return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
					return c.AddMember(ctx, id, wanted)
				})
			}); err != nil {
				return err
			}
			return a.print(result{human: fields("Member", id.String(), "Attributes", attributesText(wanted)),
				json: map[string]any{"attributes": wanted, "identifier": id.String(), "project": a.projectName(t)}})
		}}
	t.addForMembers(cmd)
	again.add(cmd, projectAlias...)
	f := cmd.Flags()
	f.StringArrayVarP(&attributes, "attribute", "a", nil, "an attribute of the member, `KEY=VALUE`")
	f.StringVar(&relay, "relay", "", "the relay `NAME` that the member may register, or *")
	f.BoolVar(&enroller, "enroller", false, "the member may make tickets")
	return cmd
}

func memberList(a *app) *cobra.Command {
	var t trustFlags
	var enrollers bool
	cmd := &cobra.Command{Use: "list [flags]", Short: "List the members", Example: `  sallyport project-member list
  sallyport project-member list --identity admin --jq '.[].identifier'`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
				list, err := c.Members(ctx)
				if err != nil {
					return err
				}
				out, rows := []any{}, [][]string{}
				for _, e := range list {
					if enrollers && e.Attributes[authority.RoleAttribute] != authority.RoleEnroller {
						continue
					}
					out = append(out, entryJSON(e))
					rows = append(rows, []string{e.ID.String(), attributesText(e.Attributes)})
				}
				return a.print(result{human: tableOr("no members", []string{"MEMBER", "ATTRIBUTES"}, rows), json: out})
			})
		}}
	t.addForMembers(cmd)
	cmd.Flags().BoolVar(&enrollers, "enrollers", false, "only those who may make tickets")
	flagAliases(cmd, append([]string{"enroller", "enrollers"}, projectAlias...)...)
	return cmd
}

func memberListIDs(a *app) *cobra.Command {
	var t trustFlags
	cmd := &cobra.Command{Use: "list-ids [flags]", Short: "List the members' identifiers", Example: `  sallyport project-member list-ids
  sallyport project-member list-ids --identity admin --output json`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
				list, err := c.MemberIDs(ctx)
				if err != nil {
					return err
				}
				out, text := []any{}, ""
				for _, id := range list {
					out = append(out, map[string]string{"identifier": id.String()})
					text += id.String() + "\n"
				}
				return a.print(result{human: text, json: out})
			})
		}}
	t.addForMembers(cmd)
	flagAliases(cmd, projectAlias...)
	return cmd
}

func memberShow(a *app) *cobra.Command {
	var t trustFlags
	cmd := &cobra.Command{Use: "show IDENTIFIER [flags]", Short: "Show a member", Example: `  sallyport project-member show "$IDENTIFIER"
  sallyport project-member show "$IDENTIFIER" --identity admin --jq .attributes`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errNoName("member")
			}
			id, err := memberIdentifier(args[0])
			if err != nil {
				return err
			}
			return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
				e, err := c.Member(ctx, id)
				var refused *rpc.StatusError
				if errors.As(err, &refused) && (refused.Status == rpc.Forbidden || refused.Status == rpc.NotFound) {
					return fmt.Errorf("the member %s was not found", id)
				}
				if err != nil {
					return err
				}
				text, entry := fields("Member", id.String(), "Attributes", attributesText(e.Attributes), "Added by", e.AddedBy.String()), entryJSON(e)
				// What only an authority of ours tells; the reference's does not answer.
				if m, err := a.memberInfo(ctx, c, id); err == nil {
					text += memberInfoText(m)
					memberInfoJSON(m, entry)
				}
				return a.print(result{human: text, json: entry})
			})
		}}
	t.addForMembers(cmd)
	flagAliases(cmd, projectAlias...)
	return cmd
}

func memberDelete(a *app) *cobra.Command {
	var t trustFlags
	var all, yes bool
	cmd := &cobra.Command{Use: "delete [IDENTIFIER] [flags]", Short: "Delete a member: all that it has open at nodes of the project ends at once", Example: `  sallyport project-member delete "$IDENTIFIER"
  sallyport project-member delete --all --identity admin --yes`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && !all {
				return errNoName("member")
			}
			if len(args) == 1 && all {
				return usageError("the argument '--all' cannot be used with '[IDENTIFIER]'")
			}
			var id identity.Identifier
			if len(args) == 1 {
				var err error
				if id, err = memberIdentifier(args[0]); err != nil {
					return err
				}
			} else if err := a.confirm(yes, "Delete all members but yourself"); err != nil {
				return err
			}
			return a.askAuthority(cmd.Context(), t, func(ctx context.Context, c *authority.Client, _ *self) error {
				deleted := []string{}
				var err error
				if len(args) == 1 {
					err = c.DeleteMember(ctx, id)
					deleted = append(deleted, id.String())
				} else {
					err = c.DeleteMembers(ctx)
				}
				if err != nil {
					return err
				}
				return a.print(result{human: "deleted", json: map[string]any{"identifiers": deleted, "project": a.projectName(t)}})
			})
		}}
	t.addForMembers(cmd)
	flagAliases(cmd, projectAlias...)
	cmd.Flags().BoolVar(&all, "all", false, "all members but yourself")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
