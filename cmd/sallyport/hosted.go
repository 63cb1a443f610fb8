package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func init() { nouns = append(nouns, hostedCommands...) }

// hostedCommands are the commands of the reference that need its hosted service, or that Sallyport does not have. They answer in one
// line and with the exit code of a usage error, so that a script stops where it should.
var hostedCommands = func() []func(*app) *cobra.Command {
	var list []func(*app) *cobra.Command
	for _, c := range []struct{ name, does string }{
		{"enroll", "`project create` makes a project here, `project enroll TICKET` joins one"},
		{"space", "`project create` makes a project here"},
		{"space-admin", "`project-member add --enroller` makes an administrator"},
		{"project-admin", "`project-member add --enroller` makes an administrator"},
		{"subscription", "nothing is billed here"},
		{"admin", "`project-member` manages members"},
		{"share", "`project ticket` invites"},
		{"lease", "short-lived database tokens are not managed here"},
		{"sidecar", "`tcp-inlet`, `tcp-outlet` and `relay` do the same"},
	} {
		list = append(list, func(*app) *cobra.Command {
			return unavailable(c.name, "needs the hosted service, which Sallyport does without", c.does)
		})
	}
	for _, c := range []struct{ name, does string }{
		{"kafka-inlet", "`tcp-inlet` and `tcp-outlet` carry Kafka to one broker"},
		{"kafka-outlet", "`tcp-inlet` and `tcp-outlet` carry Kafka to one broker"},
		{"kafka-producer", "`tcp-inlet` and `tcp-outlet` carry Kafka to one broker"},
		{"kafka-consumer", "`tcp-inlet` and `tcp-outlet` carry Kafka to one broker"},
		{"influxdb-inlet", "`tcp-inlet` carries InfluxDB's HTTP"},
		{"influxdb-outlet", "`tcp-outlet` carries InfluxDB's HTTP"},
		{"rendezvous", "portals run through a relay; there is no UDP transport yet"},
		{"migrate-database", "there is no database: nodes of the reference and of Sallyport join the same project, each with its own state"},
	} {
		list = append(list, func(*app) *cobra.Command { return unavailable(c.name, "is not part of Sallyport", c.does) })
	}
	return list
}()

func unavailable(name, why, does string) *cobra.Command {
	return &cobra.Command{Use: name, Short: fmt.Sprintf("(%s %s)", name, why), Hidden: true, DisableFlagParsing: true, Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, arg := range args {
				if arg == "--help" || arg == "-h" {
					fmt.Fprintf(cmd.OutOrStdout(), "%s %s: %s\n", name, why, does)
					return nil
				}
			}
			return withHint(usageError("'%s' %s", name, why), "tip: %s", does)
		}}
}

// errHosted answers a command of the hosted service below a noun that exists here.
func errHosted(command string) error {
	return withHint(usageError("'%s' needs the hosted service, which Sallyport does without", command), "tip: `project create` makes a project here")
}
