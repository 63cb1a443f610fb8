//go:build !small

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/crypto/identity"
	"sallyport/node"
	"sallyport/node/admin"
	"sallyport/portal/influxdb"
	"sallyport/routing/multiaddr"
	"sallyport/routing/rpc"
)

func init() { nouns = append(nouns, influxInletNoun, influxOutletNoun, leaseNoun) }

func influxOutletNoun(a *app) *cobra.Command {
	var o outletFlags
	var influx admin.InfluxOutlet
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "create [NAME] --to HOST:PORT [flags]", Short: "Create an outlet to an InfluxDB: clients need no token of their own",
		Long: `Create an outlet to an InfluxDB 2. With --fixed-token it puts that token into every request, for
inlets with --leased-token-strategy shared. With the other flags each inlet leases a token of its
own from the service NAME_lease_manager beside the outlet, which revokes it when it has expired.`,
		Example: `  sallyport influxdb-outlet create --to 8086 --fixed-token "$TOKEN"
  sallyport influxdb-outlet create metrics --to 8086 \
    --org-id 0a1b2c3d4e5f6789 --all-access-token "$TOKEN" --leased-token-expires-in 1h \
    --leased-token-permissions '[{"action":"read","resource":{"type":"buckets"}}]'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			leases := false
			for _, name := range []string{"org-id", "all-access-token", "leased-token-permissions", "leased-token-expires-in"} {
				leases = leases || cmd.Flags().Changed(name)
			}
			switch {
			case o.to == "":
				return usageError("the following required arguments were not provided: --to <HOST:PORT>")
			case influx.FixedToken != "" && leases:
				return usageError("--fixed-token cannot be used with the flags of leased tokens")
			case influx.FixedToken == "" && !leases:
				return usageError("give either --fixed-token, or the flags of leased tokens")
			case leases:
				if influx.Permissions == "" || expires == 0 {
					return usageError("the following required arguments were not provided: --leased-token-permissions <JSON> --leased-token-expires-in <DURATION>")
				}
				if !json.Valid([]byte(influx.Permissions)) {
					return usageError("invalid value '%s' for '--leased-token-permissions': it is not JSON", influx.Permissions)
				}
				for _, v := range []struct {
					value          *string
					flag, variable string
				}{{&influx.OrgID, "--org-id", "INFLUXDB_ORG_ID"}, {&influx.AllAccessToken, "--all-access-token", "INFLUXDB_TOKEN"}} {
					if *v.value == "" || *v.value == v.variable { // the reference's default is the variable's name
						*v.value = os.Getenv(v.variable)
					}
					if *v.value == "" {
						return usageError("give %s, or set %s", v.flag, v.variable)
					}
				}
				influx.ExpiresInSeconds = int64(expires / time.Second)
			}
			o.request.TLS = o.request.TLS || strings.HasPrefix(o.to, "tls://")
			o.request.InfluxDB = &influx
			o.address = true
			return o.create(cmd, a, args)
		},
	}
	o.add(cmd)
	f := cmd.Flags()
	f.StringVar(&influx.FixedToken, "fixed-token", "", "the `TOKEN` of all clients")
	f.StringVar(&influx.OrgID, "org-id", "", "InfluxDB's organization (default: $INFLUXDB_ORG_ID)")
	f.StringVar(&influx.AllAccessToken, "all-access-token", "", "a `TOKEN` that may make others (default: $INFLUXDB_TOKEN)")
	f.StringVar(&influx.Permissions, "leased-token-permissions", "", "what leased tokens may do, `JSON` as InfluxDB takes it")
	durationVar(f, &expires, "leased-token-expires-in", 0, "how long a lease lasts")
	return noun(groupObjects, "influxdb-outlet", "Portals' ends beside InfluxDB servers", nil, cmd)
}

func influxInletNoun(a *app) *cobra.Command {
	var o inletFlags
	var influx admin.InfluxInlet
	var strategy string
	cmd := &cobra.Command{
		Use: "create [NAME] [flags]", Short: "Create an inlet to an InfluxDB: it puts a token into clients' requests",
		Long: `Create an inlet to an InfluxDB 2. It leases a token from the lease manager beside the outlet, renews
it at half its time, and puts it into every request; or the outlet puts its one token there.`,
		Example: `  sallyport influxdb-inlet create --from 18086 --to metrics --via blue
  sallyport influxdb-inlet create --from 28086 --to metrics --via blue \
    --leased-token-strategy shared`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch strategy {
			case "shared":
				influx.Shared = true
			case "per-client", "per_client":
			default:
				return usageError("invalid value '%s' for '--leased-token-strategy': it must be per-client or shared", strategy)
			}
			if influx.LeaseManager != "" {
				if influx.Shared {
					return errors.New("--lease-manager-route requires --leased-token-strategy per-client")
				}
				addr, err := a.route("--lease-manager-route", influx.LeaseManager)
				if err != nil {
					return err
				}
				influx.LeaseManager = addr.String()
			}
			o.request.InfluxDB = &influx
			return o.create(cmd, a, args)
		},
	}
	o.add(cmd)
	cmd.Flags().StringVar(&strategy, "leased-token-strategy", "per-client", "whose token: per-client or shared")
	cmd.Flags().StringVar(&influx.LeaseManager, "lease-manager-route", "", "`ROUTE` to who leases tokens (default: beside the outlet)")
	return noun(groupObjects, "influxdb-inlet", "Portals' ends beside clients of InfluxDB", nil, cmd)
}

// defaultLeaseService is where the reference looks for a lease manager without --at: at the project's node.
const defaultLeaseService = "influxdb_token_lease"

func leaseNoun(a *app) *cobra.Command {
	return noun(groupObjects, "lease", "Leased tokens of an InfluxDB", nil,
		leaseCommand(a, "create", "Lease a token", `  sallyport lease create \
    --at /project/partners/service/forward_to_blue/secure/api/service/metrics_lease_manager
  sallyport lease create --at "$LEASES" --jq .token`,
			func(ctx context.Context, c *influxdb.Client, _ string) (result, error) {
				l, err := c.Create(ctx)
				return result{machine: l.Token, human: leaseText(l), json: l}, err
			}),
		leaseCommand(a, "list", "List your leases", `  sallyport lease list --at "$LEASES"
  sallyport lease list --at "$LEASES" --jq '.[].id'`,
			func(ctx context.Context, c *influxdb.Client, _ string) (result, error) {
				list, err := c.List(ctx)
				rows := [][]string{}
				for _, l := range list {
					rows = append(rows, []string{l.ID, l.Status.String(), leaseTime(l.CreatedAt), leaseTime(l.ExpiresAt)})
				}
				if list == nil {
					list = []influxdb.Lease{}
				}
				return result{human: tableOr("no leases", []string{"LEASE", "STATUS", "CREATED", "EXPIRES"}, rows), json: list}, err
			}),
		leaseCommand(a, "show TOKEN_ID", "Show one of your leases", `  sallyport lease show "$ID" --at "$LEASES"
  sallyport lease show "$ID" --at "$LEASES" --jq .expires_at`,
			func(ctx context.Context, c *influxdb.Client, id string) (result, error) {
				l, err := c.Show(ctx, id)
				return result{machine: l.Token, human: leaseText(l), json: l}, err
			}),
		leaseCommand(a, "revoke TOKEN_ID", "End one of your leases before its time", `  sallyport lease revoke "$ID" --at "$LEASES"`,
			func(ctx context.Context, c *influxdb.Client, id string) (result, error) {
				err := c.Revoke(ctx, id)
				return result{machine: id, human: "revoked the lease " + id, json: map[string]string{"id": id}}, err
			}))
}

func leaseTime(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

func leaseText(l influxdb.Lease) string {
	return fields("Lease", l.ID, "Token", l.Token, "Issued for", l.IssuedFor.String(), "Created", leaseTime(l.CreatedAt), "Expires", leaseTime(l.ExpiresAt), "Status", l.Status.String())
}

// leaseCommand asks a lease manager as an identity of this user.
func leaseCommand(a *app, use, short, example string, f func(context.Context, *influxdb.Client, string) (result, error)) *cobra.Command {
	var t trustFlags
	var at string
	var expects []string
	var timeout time.Duration
	argument := cobra.NoArgs
	if strings.Contains(use, "TOKEN_ID") {
		argument = cobra.ExactArgs(1)
	}
	cmd := &cobra.Command{Use: use + " [flags]", Short: short, Example: example, Args: argument,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			to, err := a.leaseManager(at)
			if err != nil {
				return err
			}
			var who []identity.Identifier
			for _, text := range expects {
				id, err := identity.ParseIdentifier(text)
				if err != nil {
					return usageError("invalid value '%s' for '--expects': an identifier is I and 64 hex digits", text)
				}
				who = append(who, id)
			}
			n, _, err := a.embedded(ctx, t.identity, t)
			if err != nil {
				return err
			}
			defer n.Stop()
			r, err := f(ctx, leaseClient(n, to, who), strings.Join(args, ""))
			if err != nil {
				return err
			}
			return a.print(r)
		}}
	t.add(cmd)
	cmd.Flags().StringVar(&at, "at", "", "the `ROUTE` to the lease manager (default: at the project's node)")
	cmd.Flags().StringArrayVar(&expects, "expects", nil, "`IDENTIFIER` of who leases (default: the ticket's, else the first)")
	durationVar(cmd.Flags(), &timeout, "timeout", 10*time.Second, "how long to wait for the answer")
	return cmd
}

func (a *app) leaseManager(at string) (multiaddr.Addr, error) {
	if at == "" {
		p, err := a.defaultProject()
		if err != nil {
			return nil, err
		}
		if p == "" {
			return nil, withHint(errors.New("there is no default project"), "name the lease manager: --at ROUTE")
		}
		at = "/project/" + p + "/service/" + defaultLeaseService
	}
	return a.route("--at", at)
}

func leaseClient(n *node.Node, at multiaddr.Addr, expects []identity.Identifier) *influxdb.Client {
	return &influxdb.Client{Call: func(ctx context.Context, req *rpc.Request) (*rpc.Response, error) {
		return n.AskAt(ctx, at, req, expects...)
	}}
}
