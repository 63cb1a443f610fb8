package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/node/admin"
	"sallyport/node/resource"
)

func init() { nouns = append(nouns, channelNoun, listenerNoun) }

func channelNoun(a *app) *cobra.Command {
	return noun(groupObjects, "secure-channel", "Encrypted and mutually authenticated channels", nil, channelCreate(a),
		listCommand(a, "List the channels that a node opened", `  sallyport secure-channel list
  sallyport secure-channel list --at n2 --output json`, func(ctx context.Context, c *admin.Client, node string) (result, error) {
			list, err := admin.Get[[]admin.Channel](ctx, c, admin.PathChannels)
			rows := [][]string{}
			for _, ch := range list {
				rows = append(rows, []string{ch.Address, ch.Their, ch.Route})
			}
			return result{human: tableOr("no secure channels of "+node, []string{"CHANNEL", "PEER", "ROUTE"}, rows), json: list}, err
		}), channelShow(a), channelDelete(a))
}

func channelCreate(a *app) *cobra.Command {
	var from, to string
	var r admin.ChannelRequest
	cmd := &cobra.Command{Use: "create --to ROUTE [flags]", Short: "Open a channel to a listener", Example: `  sallyport secure-channel create --from n2 --to /node/n1/service/api
  sallyport secure-channel create --from n2 --to /node/n1/service/api |
    xargs -I{} sallyport message send hello --from n2 --to {}/service/uppercase`, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if to == "" {
				return usageError("the following required arguments were not provided: --to <ROUTE>")
			}
			addr, err := a.route("--to", to)
			if err != nil {
				return err
			}
			for _, id := range r.Authorized {
				if err := checkIdentifier("--authorized", id); err != nil {
					return err
				}
			}
			r.To = addr.String()
			c, _, err := a.firstClient(cmd.Context(), from)
			if err != nil {
				return err
			}
			a.note("Creating Secure Channel...")
			ch, err := admin.Post[admin.Channel](cmd.Context(), c, admin.PathChannels, r)
			if err != nil {
				return err
			}
			a.done("Opened a secure channel with %s", ch.Their)
			return a.print(result{human: ch.Address, machine: ch.Address, json: []map[string]string{{"address": ch.Address}}})
		}}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "`NODE` that opens it (default: the default node)")
	f.StringVar(&to, "to", "", "`ROUTE` to the listener, ending in /service/api")
	f.StringArrayVarP(&r.Authorized, "authorized", "a", nil, "accept only this `IDENTIFIER`")
	f.StringVarP(&r.Credential, "credential", "c", "", "present this credential, `HEX`")
	f.StringVar(&r.Identity, "identity", "", "the `NAME` of the identity to use")
	return cmd
}

func channelShow(a *app) *cobra.Command {
	var at string
	cmd := &cobra.Command{Use: "show ADDRESS --at NODE", Short: "Show a channel", Example: `  sallyport secure-channel show "$CHANNEL" --at n2
  sallyport secure-channel show --at "/node/n2$CHANNEL"`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, address := at, ""
			if rest, ok := strings.CutPrefix(at, "/node/"); ok { // the reference's form names both
				node, address, _ = strings.Cut(rest, "/service/")
			}
			if len(args) == 1 {
				address = plainName(args[0])
			}
			if address == "" {
				return usageError("the following required arguments were not provided: ADDRESS")
			}
			c, _, err := a.nodeClient(node)
			if err != nil {
				return err
			}
			ch, err := admin.Get[admin.Channel](cmd.Context(), c, admin.Item(admin.PathChannels, address))
			if err != nil {
				return err
			}
			return a.print(result{human: fields("Channel", ch.Address, "Peer", ch.Their, "Route", ch.Route, "Flow control", ch.Flow), json: ch})
		}}
	cmd.Flags().StringVar(&at, "at", "", "`NODE` (default: the default node)")
	noEffect(cmd, "identity=", "timeout=")
	return cmd
}

func channelDelete(a *app) *cobra.Command {
	var at string
	var yes bool
	cmd := &cobra.Command{Use: "delete ADDRESS [flags]", Short: "Close a channel", Example: `  sallyport secure-channel delete "$CHANNEL" --at n2 --yes`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			address := plainName(args[0])
			if err := a.confirm(yes, "Close the secure channel "+address); err != nil {
				return err
			}
			if err := c.Delete(cmd.Context(), admin.PathChannels, address); err != nil {
				return err
			}
			return a.print(result{human: "/service/" + address, machine: "/service/" + address, json: []map[string]string{{"address": "/service/" + address}}})
		}}
	cmd.Flags().StringVar(&at, "at", "", "`NODE` (default: the default node)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func listenerNoun(a *app) *cobra.Command {
	var at string
	var r admin.ListenerRequest
	create := &cobra.Command{Use: "create ADDRESS [flags]", Short: "Accept channels at a further address", Example: `  sallyport secure-channel-listener create lst
  sallyport secure-channel-listener create partner --at n1 --authorized "$IDENTIFIER"`, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, id := range r.Authorized {
				if err := checkIdentifier("--authorized", id); err != nil {
					return err
				}
			}
			r.Address = plainName(args[0])
			if a.collect != nil {
				return a.collect(resource.KindListener, &r.Address, &r)
			}
			c, _, err := a.firstClient(cmd.Context(), at)
			if err != nil {
				return err
			}
			if _, err := admin.Post[admin.ChannelListener](cmd.Context(), c, admin.PathListeners, r); err != nil {
				return err
			}
			a.done("Created a secure channel listener at /service/%s", r.Address)
			return a.print(result{human: "/service/" + r.Address, machine: "/service/" + r.Address, json: []map[string]string{{"address": "/service/" + r.Address}}})
		}}
	f := create.Flags()
	f.StringVar(&at, "at", "", "`NODE` (default: the default node)")
	f.StringArrayVarP(&r.Authorized, "authorized", "a", nil, "accept only this `IDENTIFIER`")
	f.StringVar(&r.Identity, "identity", "", "the `NAME` of the identity to use")
	return noun(groupObjects, "secure-channel-listener", "Where channels are accepted", nil, create,
		listCommand(a, "List a node's secure channel listeners", `  sallyport secure-channel-listener list
  sallyport secure-channel-listener list --at n1 --output json`, func(ctx context.Context, c *admin.Client, node string) (result, error) {
			list, err := admin.Get[[]admin.ChannelListener](ctx, c, admin.PathListeners)
			var lines []string
			for _, l := range list {
				lines = append(lines, "  │ /service/"+string(l.Address))
			}
			return result{human: strings.Join(lines, "\n")}, err
		}),
		showCommand(a, "Show a secure channel listener", `  sallyport secure-channel-listener show api
  sallyport secure-channel-listener show lst --at n1`, "secure channel listener", func(ctx context.Context, c *admin.Client, _, name string) (result, error) {
			l, err := admin.Get[admin.ChannelListener](ctx, c, admin.Item(admin.PathListeners, name))
			address := "/service/" + string(l.Address)
			return result{human: fields("Listener", address, "Flow control", l.Flow), machine: address}, err
		}),
		deleteCommand(a, "Stop a secure channel listener; its channels stay", `  sallyport secure-channel-listener delete lst --yes
  sallyport secure-channel-listener delete partner --at n1 --yes`, "secure channel listener", admin.PathListeners,
			func(ctx context.Context, c *admin.Client) ([]string, error) {
				list, err := admin.Get[[]admin.ChannelListener](ctx, c, admin.PathListeners)
				var names []string
				for _, l := range list {
					names = append(names, string(l.Address))
				}
				return names, err
			},
			func(_, name string) result {
				return result{human: "/service/" + name, machine: "0#" + name} // the reference's form
			}))
}
