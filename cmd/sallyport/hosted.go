package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func init() { nouns = append(nouns, hostedCommands...) }

// absent is a command of the reference that needs its hosted service, or that Sallyport does not have.
type absent struct {
	name  string
	verbs string // those of a noun: without one the reference shows its help
	does  string // what does the same here
}

var hosted = []absent{
	{"enroll", "", "`project create` makes a project here, `project enroll TICKET` joins one"},
	{"space", "create delete list show", "`project create` makes a project here"},
	{"space-admin", "add delete list", "`project-member add --enroller` makes an administrator"},
	{"project-admin", "add delete list", "`project-member add --enroller` makes an administrator"},
	{"subscription", "show space", "nothing is billed here"},
	{"admin", "subscription", "`project-member` manages members"},
	{"share", "accept create list revoke service show", "`project ticket` invites"},
	{"lease", "create list revoke show", "short-lived database tokens are not managed here"},
	{"sidecar", "secure-relay-inlet secure-relay-outlet", "`tcp-inlet`, `tcp-outlet` and `relay` do the same"},
}

var missing = []absent{
	{"influxdb-inlet", "create", "`tcp-inlet` carries InfluxDB's HTTP"},
	{"influxdb-outlet", "create", "`tcp-outlet` carries InfluxDB's HTTP"},
	{"rendezvous", "create get-my-address", "portals run through a relay; there is no UDP transport yet"},
	{"migrate-database", "", "there is no database: nodes of the reference and of Sallyport join the same project, each with its own state"},
}

// hostedCommands answer in one line and with the exit code that the reference has when its hosted service cannot be reached, so that a
// script stops where it would have.
var hostedCommands = func() []func(*app) *cobra.Command {
	var list []func(*app) *cobra.Command
	for _, c := range hosted {
		list = append(list, func(a *app) *cobra.Command {
			return unavailable(a, c, "needs the hosted service, which Sallyport does without")
		})
	}
	for _, c := range missing {
		list = append(list, func(a *app) *cobra.Command { return unavailable(a, c, "is not part of Sallyport") })
	}
	return list
}()

func unavailable(a *app, c absent, why string) *cobra.Command {
	explain := fmt.Sprintf("%s %s\n\n  tip: %s\n", c.name, why, c.does)
	verbs := strings.Fields(c.verbs)
	cmd := &cobra.Command{Use: c.name, Short: fmt.Sprintf("(%s %s)", c.name, why), Hidden: true, DisableFlagParsing: true, Args: cobra.ArbitraryArgs}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		switch {
		case slices.Contains(args, "--help") || slices.Contains(args, "-h"):
			_, err := io.WriteString(a.stdout, explain)
			return err
		case len(verbs) > 0 && len(args) == 0:
			w, code := usageStream(a)
			if _, err := io.WriteString(w, explain); err != nil {
				return err
			}
			return exitCode(code)
		case len(verbs) > 0 && !slices.Contains(verbs, args[0]):
			return unknownCommand(cmd, args[0])
		}
		return withHint(fmt.Errorf("'%s' %s", c.name, why), "tip: %s", c.does)
	}
	return cmd
}

// addonCommand is below a noun that exists here.
func addonCommand(a *app) *cobra.Command {
	return unavailable(a, absent{"addon", "configure disable list", "what an add-on does runs beside a node, behind a `tcp-outlet`"}, "needs the hosted service, which Sallyport does without")
}

// errHosted answers a command of the hosted service below a noun that exists here.
func errHosted(command string) error {
	return withHint(fmt.Errorf("'%s' needs the hosted service, which Sallyport does without", command), "tip: `project create` makes a project here")
}
