package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/buildinfo"
	"sallyport/node/admin"
	"sallyport/node/resource"
	"sallyport/state"
)

func init() {
	nouns = append(nouns, statusCommand, environmentCommand, completionCommand, resetCommand, versionCommand)
}

// version is what this program calls itself; the revision is beside it in `version`.
func version() string { return buildinfo.Version }

func versionText() string {
	b := buildinfo.Get()
	return fmt.Sprintf("sallyport %s, revision %s\n%s %s, AES-256-GCM kernel %s\n", b.Version, b.Revision, b.Go, b.Platform, b.AEADKernel)
}

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", GroupID: groupOther, Args: cobra.NoArgs, Example: `  sallyport version
  sallyport version --jq .aead_kernel`,
		RunE: func(*cobra.Command, []string) error {
			return a.print(result{human: versionText(), machine: strings.TrimSpace(versionText()), json: buildinfo.Get()})
		}}
}

func statusCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show identities, nodes and projects at a glance", GroupID: groupOther, Args: cobra.NoArgs, Example: `  sallyport status
  sallyport status --jq '.nodes[].name'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.dir()
			if err != nil {
				return err
			}
			ids, err := d.Identities()
			if err != nil {
				return err
			}
			type id struct {
				Identifier string `json:"identifier"`
				IsDefault  bool   `json:"is_default"`
				Name       string `json:"name"`
				Status     string `json:"status"`
			}
			credentials, err := d.Credentials()
			if err != nil {
				return err
			}
			identities, rows := []id{}, [][]string{}
			for _, n := range ids {
				enrolled := "NotEnrolled"
				if slices.ContainsFunc(credentials, func(c state.Credential) bool { return c.Subject == n.Identifier }) {
					enrolled = "Enrolled"
				}
				identities = append(identities, id{n.Identifier, n.IsDefault, n.Name, enrolled})
				rows = append(rows, []string{n.Name, n.Identifier})
			}
			records, err := d.Nodes()
			a.unread(err)
			nodes, nodeRows, wrong := []admin.Node{}, [][]string{}, []string{}
			for _, r := range records {
				n := stoppedNode(r)
				if r.Status() == state.Running {
					if live, err := a.describeNode(cmd.Context(), admin.NewClient(r.AdminSocket)); err == nil {
						n = live
						n.Authority = nil // in the reference's shape; node show has it
						wrong = append(wrong, a.notUp(cmd.Context(), r)...)
					}
				}
				if n.Status != "running" {
					wrong = append(wrong, fmt.Sprintf("node %s does not run: sallyport node start %s", r.Name, r.Name))
				}
				nodes = append(nodes, n)
				nodeRows = append(nodeRows, []string{n.Name, n.Status, r.TCPListener, plural(len(n.Inlets)+len(n.UDPInlets), "inlet"), plural(len(n.Outlets)+len(n.UDPOutlets), "outlet"), a.pageOf(n)})
			}
			projects, err := d.Projects()
			if err != nil {
				return err
			}
			names, known, spaces := []string{}, []any{}, []any{}
			seen := map[string]bool{"": true}
			for _, p := range projects {
				full, err := projectJSON(p.Project)
				if err != nil {
					return err
				}
				names, known = append(names, p.Project.Name), append(known, full)
				if s := p.Project.SpaceID; !seen[s] {
					seen[s] = true
					spaces = append(spaces, map[string]any{"id": s, "name": p.Project.SpaceName, "subscription": nil, "users": []any{}})
				}
			}
			text := "Identities\n" + indent(tableOr("none", []string{"IDENTITY", "IDENTIFIER"}, rows)) +
				"\nNodes\n" + indent(tableOr("none", []string{"NODE", "STATUS", "LISTENS AT", "", "", "PAGE"}, nodeRows)) +
				"\nProjects\n" + indent(strings.Join(append(names, ""), "\n"))
			if len(wrong) > 0 {
				text += "\nWrong\n" + indent(strings.Join(wrong, "\n")) + "  sallyport doctor says more\n"
			}
			return a.print(result{human: text, json: map[string]any{
				"identities": identities, "nodes": nodes, "spaces": spaces, "projects": known,
				// The keys are the reference's, for scripts.
				"ockam_version": map[string]string{"hash": "", "version": version()}, "orchestrator_version": map[string]any{"project_version": nil, "version": nil},
			}})
		}}
	var timeout time.Duration
	durationVar(cmd.Flags(), &timeout, "timeout", 10*time.Second, "") // of asking the hosted service
	hide(cmd, "timeout")
	return cmd
}

// notUp says what a running node was asked for and does not have.
func (a *app) notUp(ctx context.Context, r state.Node) (list []string) {
	resources, err := admin.Get[[]admin.Resource](ctx, admin.NewClient(r.AdminSocket), admin.PathResources)
	if err != nil {
		return []string{fmt.Sprintf("node %s does not answer: %v", r.Name, err)}
	}
	for _, q := range resources {
		if q.State == resource.Down || q.State == resource.Degraded {
			list = append(list, fmt.Sprintf("%s %s of node %s is %s: %s", q.Kind, q.Name, r.Name, q.State, q.Reason))
		}
	}
	return list
}

func indent(text string) string {
	var b strings.Builder
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		b.WriteString("  " + line + "\n")
	}
	return b.String()
}

func environmentCommand(a *app) *cobra.Command {
	return &cobra.Command{Use: "environment", Short: "List the environment variables that matter", GroupID: groupOther, Args: cobra.NoArgs, Example: `  sallyport environment`,
		RunE: func(*cobra.Command, []string) error {
			_, err := io.WriteString(a.stdout, fields( // whatever the form: there is no JSON of it in the reference
				"SALLYPORT_HOME", "the state directory (default: OCKAM_HOME, else ~/.sallyport)",
				"OCKAM_HOME", "the state directory, for scripts of the reference",
				"QUIET", "print the result alone",
				"NO_COLOR", "no colour",
				"NO_INPUT", "never ask",
				"ENROLLMENT_TICKET", "the ticket for node create",
				"OCKAM_SQLITE_IN_MEMORY", "node create --foreground keeps nothing on disk",
				"OCKAM_DEFAULT_TIMEOUT", "how long opening a secure channel may take (default: 10s)",
				"OCKAM_COMMAND_RETRY_COUNT", "how often commands that ask other nodes are tried",
				"OCKAM_COMMAND_RETRY_DELAY", "how long they wait in between",
				"OCKAM_TCP_PORTAL_SKIP_HANDSHAKE", "as --skip-handshake of tcp-inlet and tcp-outlet create",
				"OCKAM_TCP_PORTAL_ENABLE_NAGLE", "as --enable-nagle of tcp-inlet create",
				"HTTPS_PROXY, ALL_PROXY", "the proxy to connect to other nodes through: http://USER:PASSWORD@HOST:PORT, https://… or socks5://…",
				"NO_PROXY", "where to connect without it: names, domains, networks, with commas between them",
				"SALLYPORT_PROXY", "what --proxy says, with blanks between several",
				"SALLYPORT_TLS_CA", "what --tls-ca says (SSL_CERT_FILE replaces the system's certificates, too)",
				"SALLYPORT_TLS_PIN", "what --tls-pin says, with blanks between several",
				"SALLYPORT_LOG_LEVEL", "debug, info, warn or error (also OCKAM_LOG_LEVEL)",
				"OCKAM_LOG_FORMAT", "json for logs as JSON",
				"OCKAM_LOG_MAX_SIZE_MB", "size of a node's log after which a new one is begun (default: 100)",
				"OCKAM_LOG_MAX_FILES", "how many logs of a node are kept (default: 60)",
				"SALLYPORT_AEAD", "force an AES-256-GCM kernel, for tests",
				"SALLYPORT_UDP_OFFLOAD", "off: give the kernel datagrams one by one, without UDP_SEGMENT and UDP_GRO",
				"OCKAM_TCP_PORTAL_SKIP_HANDSHAKE", "as --skip-handshake of tcp-inlet and tcp-outlet",
				"OCKAM_TCP_PORTAL_ENABLE_NAGLE", "as --enable-nagle of tcp-inlet",
				"OCKAM_TCP_PORTAL_PAYLOAD_LENGTH", "for nodes: the most bytes read from a socket at once, up to 131072",
				"INFLUXDB_ORG_ID, INFLUXDB_TOKEN", "as --org-id and --all-access-token of influxdb-outlet",
				"CREDENTIAL_TTL_SECS", "lifetime of an authority's credentials: 30s, 10m, 1h, 30d",
				"PAGER", "usage errors go to standard output if it can be started, as in the reference",
			))
			return err
		}}
}

func completionCommand(a *app) *cobra.Command {
	var shell string
	cmd := &cobra.Command{Use: "completion --shell SHELL", Short: "Print completions for a shell", GroupID: groupOther, Args: cobra.MaximumNArgs(1), Example: `  sallyport completion --shell bash
  sallyport completion --shell zsh > _sallyport`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				shell = args[0]
			}
			root := cmd.Root()
			switch shell {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return usageError("invalid value '%s' for '--shell': it must be bash, zsh, fish or powershell", shell)
		}}
	cmd.Flags().StringVarP(&shell, "shell", "s", "", "bash, zsh, fish or powershell")
	return cmd
}

func resetCommand(a *app) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{Use: "reset", Short: "Stop all nodes and delete everything", GroupID: groupOther, Args: cobra.NoArgs, Example: `  sallyport reset --yes`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := a.dir()
			if err != nil {
				return err
			}
			if err := a.confirm(yes, "Stop all nodes and delete all identities, keys and projects in "+d.Path()); err != nil {
				return err
			}
			// The records need not be readable: whatever runs nodes here is found and stopped, and the rest is deleted.
			var failed error
			for _, n := range d.FindRunning() {
				if err := endProcess(cmd.Context(), n.Process, false); err != nil {
					failed = errors.Join(failed, fmt.Errorf("stop node %s: %w", n.Name, err))
				}
			}
			left, err := d.Reset(cmd.Context())
			for _, path := range left {
				a.note("left: %s", path)
			}
			if err := errors.Join(failed, err); err != nil {
				return err
			}
			return a.print(result{human: "  ✔ Local state was deleted"})
		}}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	noEffect(cmd, "all")
	return cmd
}
