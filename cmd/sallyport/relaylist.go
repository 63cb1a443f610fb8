package main

import (
	"cmp"
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
)

func relayList(a *app) *cobra.Command {
	served := false
	cmd := nodeCommand(a, "list", "List a node's relays, or the names that a relay has", `  sallyport relay list
  sallyport relay list --to n1 --jq '.[] | {name, connection_status}'
  sallyport relay list --to n2 --served`, "to", func(ctx context.Context, c *admin.Client, node string) (result, error) {
		if served {
			list, err := admin.Get[[]admin.RelayName](ctx, c, admin.PathRelayNames)
			return result{human: relayNamesTable(node, list), json: list}, err
		}
		list, err := admin.Get[[]admin.Relay](ctx, c, admin.PathRelays)
		rows := [][]string{}
		for _, r := range list {
			rows = append(rows, []string{r.Name, string(r.State.State), r.Destination, orDash(r.RemoteAddress), r.Reason})
		}
		return result{human: tableOr("no relays of "+node, []string{"RELAY", "STATE", "AT", "ADDRESS THERE", ""}, rows), json: list}, err
	})
	cmd.Flags().BoolVar(&served, "served", false, "the names that others have at it, or at another relay of its fleet")
	return cmd
}

// relayNamesTable shows who is registered at a relay and at the others of its fleet, one line for each member of a name.
func relayNamesTable(node string, list []admin.RelayName) string {
	rows := [][]string{}
	for _, n := range list {
		for _, m := range n.Members {
			state := m.State
			if m.Chosen {
				state += ", chosen"
			}
			rows = append(rows, []string{n.Name, cmp.Or(n.Rule, "-"), m.Identifier, strconv.FormatUint(m.Priority, 10), state, strconv.FormatUint(m.Connections, 10), cmp.Or(m.Relay, "here")})
		}
	}
	return tableOr("nobody is registered at "+node, []string{"NAME", "RULE", "MEMBER", "PRIORITY", "STATE", "CONNECTIONS", "RELAY"}, rows)
}
