package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func init() {
	for _, c := range hosted {
		nouns = append(nouns, func(a *app) *cobra.Command { return c.command(a, needsService) })
	}
	for _, c := range missing {
		nouns = append(nouns, func(a *app) *cobra.Command { return c.command(a, notPart) })
	}
}

const (
	needsService = "needs the hosted service, which one enrolls with first (`enroll`) and which Sallyport does without"
	notPart      = "is not part of Sallyport"
)

// absent is a command of the reference that needs its hosted service, or that Sallyport does not have. Its command lines are parsed, so
// that a mistake in one is told as what it is.
type absent struct {
	name  string
	does  string // what does the same here
	verbs []verb // one without a name for a command that has none
}

// verb is a command line of the reference: what stands after the noun, its arguments, and its flags.
type verb struct {
	name  string
	args  string // X, [X] or [X]...
	flags string // --name, --name= with a value, -n,--name with a short form, --name|--alias; ! at the end if it must be given
}

const (
	identityFlag = "--identity="
	trustOptions = " --project= --authority-identity= --authority-route= --credential-scope="
	addonProject = identityFlag + " --project="
	kafkaAddon   = addonProject + " --bootstrap-server=!"
	enrollWith   = " --enroll-ticket= --okta --dry-run"
)

var hosted = []absent{
	{"enroll", "`project create` makes a project here, `project enroll TICKET` joins one", []verb{
		{"", "", identityFlag + " --authorization-code-flow --force --skip-resource-creation"}}},
	{"space", "`project create` makes a project here", []verb{
		{"create", "[SPACE_NAME] [ADMIN]...", identityFlag}, {"delete", "[SPACE_NAME]", identityFlag + " -y,--yes"},
		{"list", "", identityFlag}, {"show", "[SPACE_NAME]", identityFlag}}},
	{"space-admin", "`project-member add --enroller` makes an administrator", administrators},
	{"project-admin", "`project-member add --enroller` makes an administrator", administrators},
	{"subscription", "nothing is billed here", []verb{{"show", "[SUBSCRIPTION_ID]", identityFlag + " --space="}}},
	{"admin", "`project-member` manages members", []verb{
		{"subscription attach", "JSON", identityFlag + " --space=!"}, {"subscription list", "", identityFlag},
		{"subscription unsubscribe", "[SUBSCRIPTION_ID]", identityFlag + " --space="},
		{"subscription update contact-info", "JSON", identityFlag + " --subscription= --space="},
		{"subscription update space", "NEW_SPACE_ID", identityFlag + " --subscription= --current_space="}}},
	{"share", "`project ticket` invites", []verb{
		{"accept", "ID", identityFlag}, {"create", "SCOPE TARGET_ID RECIPIENT_EMAIL", identityFlag + " -R,--grant-role= -x,--expires-at="},
		{"list", "", identityFlag}, {"revoke", "", ""}, {"show", "INVITATION_ID", identityFlag},
		{"service", "PROJECT_ID RECIPIENT_EMAIL PROJECT_IDENTITY PROJECT_ROUTE PROJECT_AUTHORITY_IDENTITY PROJECT_AUTHORITY_ROUTE " +
			"SHARED_NODE_IDENTITY SHARED_NODE_ROUTE ENROLLMENT_TICKET", identityFlag + " -x,--expires-at="}}},
	{"sidecar", "`tcp-inlet`, `tcp-outlet` and `relay` do the same", []verb{
		{"secure-relay-inlet", "SERVICE_NAME", "--from=" + enrollWith}, {"secure-relay-outlet", "SERVICE_NAME", "--to=!" + enrollWith}}},
}

var administrators = []verb{
	{"add", "EMAIL [NAME]", identityFlag}, {"delete", "[EMAIL] [NAME]", identityFlag + " -y,--yes --all"}, {"list", "[NAME]", identityFlag},
}

// addons is below a noun that exists here.
var addons = absent{"addon", "what an add-on does runs beside a node, behind a `tcp-outlet`", []verb{
	{"list", "", identityFlag + " --project=!"}, {"disable", "", identityFlag + " --project=! --addon=!"},
	{"configure okta", "", addonProject + " --tenant=! --cert= --cert-path= --client-id=! -a,--attribute="},
	{"configure influxdb", "", addonProject + " -e,--endpoint-url=! -t,--token=! -o,--org-id=! --permissions= --permissions-path= --max-ttl= " +
		"--user-access-role= --admin-access-role="},
	{"configure confluent", "", kafkaAddon}, {"configure instaclustr-kafka", "", kafkaAddon}, {"configure aiven-kafka", "", kafkaAddon},
	{"configure redpanda", "", kafkaAddon}, {"configure warpstream", "", kafkaAddon}, {"configure kafka", "", kafkaAddon},
}}

var missing = []absent{
	{"migrate-database", "there is no database: nodes of the reference and of Sallyport join the same project, each with its own state", []verb{
		{"", "", "-d,--dry-run"}}},
}

// identityOfNoun are those that take --identity before the verb too.
var identityOfNoun = []string{"admin", "subscription", addons.name}

// command makes the command with all below it.
func (c absent) command(a *app, why string) *cobra.Command {
	explain := fmt.Sprintf("%s %s: %s.", c.name, why, c.does)
	top := &cobra.Command{Use: c.name, Short: fmt.Sprintf("(%s %s)", c.name, why), Long: explain, Hidden: true}
	if slices.Contains(identityOfNoun, c.name) {
		top.PersistentFlags().String("identity", "", "")
	}
	for _, v := range c.verbs {
		at, words := top, strings.Fields(v.name)
		for _, word := range words {
			next := slices.IndexFunc(at.Commands(), func(sub *cobra.Command) bool { return sub.Name() == word })
			if next < 0 {
				at.AddCommand(&cobra.Command{Use: word, Short: "(" + why + ")", Long: explain})
				next = slices.IndexFunc(at.Commands(), func(sub *cobra.Command) bool { return sub.Name() == word })
			}
			at = at.Commands()[next]
		}
		at.Use = strings.Join(append(strings.Fields(at.Name()+" "+v.args), "[flags]"), " ")
		required := v.addFlags(at)
		at.Args = v.positional()
		at.RunE = func(cmd *cobra.Command, _ []string) error {
			for _, name := range required {
				if !cmd.Flags().Changed(name) {
					return usageError("the following required arguments were not provided: --%s", name)
				}
			}
			a.usage = "" // there is nothing to correct
			_, command, _ := strings.Cut(cmd.CommandPath(), " ")
			return unavailable(command, why, c.does)
		}
	}
	return top
}

// unavailable is the answer to a command that cannot work here, whatever its arguments. It has the exit code of a usage error and not
// that of a service which is out of reach, as the reference's would: trying again is of no use.
func unavailable(command, why, does string) error {
	return &absence{fmt.Sprintf("'%s' %s: %s", command, why, does)}
}

// absence is the error of a command that is not here. It goes to standard error: a script that keeps the output of the command must not
// take it for the result.
type absence struct{ text string }

func (e *absence) Error() string { return e.text }

// positional checks how many arguments there are.
func (v verb) positional() cobra.PositionalArgs {
	least, most := 0, 0
	for _, word := range strings.Fields(v.args) {
		switch {
		case strings.HasSuffix(word, "..."):
			most = 1 << 16
		case word[0] == '[':
			most++
		default:
			least++
			most++
		}
	}
	return cobra.RangeArgs(least, most)
}

// addFlags adds the flags and returns those that must be given.
func (v verb) addFlags(cmd *cobra.Command) (required []string) {
	var aliases []string
	for _, word := range strings.Fields(v.flags) {
		word, must := strings.CutSuffix(word, "!")
		word, alias, _ := strings.Cut(word, "|")
		word, value := strings.CutSuffix(word, "=")
		short, name, found := strings.Cut(word, ",")
		if !found {
			short, name = "", word
		}
		name = strings.TrimPrefix(name, "--")
		if value {
			cmd.Flags().StringP(name, strings.TrimPrefix(short, "-"), "", "")
		} else {
			cmd.Flags().BoolP(name, strings.TrimPrefix(short, "-"), false, "")
		}
		if must {
			required = append(required, name)
		}
		if alias != "" {
			aliases = append(aliases, strings.TrimPrefix(alias, "--"), name)
		}
	}
	if aliases != nil {
		flagAliases(cmd, aliases...)
	}
	return required
}
