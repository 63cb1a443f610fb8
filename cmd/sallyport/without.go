//go:build small

package main

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/spf13/cobra"

	"sallyport/crypto/identity"
	"sallyport/fleet"
	"sallyport/node"
	"sallyport/state"
)

// What a small program is built without, and the commands that are gone with it: what a machine with few MiB is seldom for. All of it is in the full program, which
// shares state directories with this one.
const (
	noAuthority = "authorities"
	noBackup    = "backups"
	noInfluxDB  = "InfluxDB"
	noKafka     = "Kafka"
	noFleets    = "fleets of relays and authorities"
	noBench     = "bench"
	noReceipts  = "receipts"
	noPages     = "manual pages and schemas"
)

func init() {
	for _, c := range []struct{ name, what string }{
		{"authority", noAuthority}, {"authority-node", noFleets}, {"backup", noBackup}, {"bench", noBench}, {"influxdb-inlet", noInfluxDB}, {"influxdb-outlet", noInfluxDB},
		{"kafka-consumer", noKafka}, {"kafka-inlet", noKafka}, {"kafka-outlet", noKafka}, {"kafka-producer", noKafka}, {"lease", noInfluxDB}, {"manpages", noPages},
		{"markdown", noPages}, {"receipts", noReceipts}, {"relay-node", noFleets}, {"restore", noBackup}, {"schema", noPages},
	} {
		nouns = append(nouns, func(*app) *cobra.Command { return without(c.name, c.what) })
	}
}

// without is a command that this program was built without, whatever stands behind it.
func without(name, what string) *cobra.Command {
	return &cobra.Command{Use: name, Short: "(this program was built without " + what + ")", Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error { return errSmall(what) }}
}

// errSmall says that something was left out of this program.
func errSmall(what string) error {
	return &absence{"this program was built without " + what + ": the full one has it"}
}

func (a *app) filter(any) (string, error) { return "", errSmall("--jq") }

func projectCreate(*app) *cobra.Command { return without("create", noAuthority) }

func fleetCommands(_ *app, kind fleet.Kind) *cobra.Command {
	return without(string(kind)+"-node", noFleets)
}

// parseTrusted fails, and with it the start and the upgrade of what is an authority in the state directory.
func parseTrusted(json.RawMessage) (map[identity.Identifier]map[string]string, error) {
	return nil, errSmall(noAuthority)
}

func (a *app) checkAuthority(context.Context, *self, *state.AuthorityOptions) error {
	return errSmall(noAuthority)
}

func (a *app) authorityServices(context.Context, *self, *state.AuthorityOptions, *slog.Logger) (*node.AuthorityOptions, error) {
	return nil, errSmall(noAuthority)
}
