package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/member"
	"sallyport/node/admin"
	"sallyport/policy"
	"sallyport/routing/multiaddr"
	"sallyport/state"
)

// checkPolicy refuses a policy that cannot be read before anything is asked of a node. flag is where it was given.
func checkPolicy(flag, text string) error {
	if text == "" {
		return nil
	}
	if _, err := policy.Parse(text); err != nil {
		return usageError("invalid value '%s' for '%s <POLICY_EXPRESSION>': %v", text, flag, err)
	}
	return nil
}

// checkAllow is checkPolicy for a portal's --allow. One that was given empty, perhaps from a variable that is not set, must not
// mean that no policy was wanted.
func checkAllow(cmd *cobra.Command, text string) error {
	if text == "" && cmd.Flags().Changed("allow") {
		return usageError("invalid value '' for '--allow <POLICY_EXPRESSION>': the expression is empty")
	}
	return checkPolicy("--allow", text)
}

func tableOr(empty string, header []string, rows [][]string) string {
	if len(rows) == 0 {
		return empty
	}
	return table(header, rows)
}

// nodeRecord returns a node's record; the empty name means the default node.
func (a *app) nodeRecord(name string) (state.Node, error) {
	d, err := a.dir()
	if err != nil {
		return state.Node{}, err
	}
	n, err := d.Node(plainName(name))
	if errors.Is(err, state.ErrNotFound) {
		if name == "" {
			return n, withHint(fmt.Errorf("there is no default node"), "create one: sallyport node create")
		}
		return n, withHint(fmt.Errorf("there is no node with name %s", plainName(name)), "sallyport node list shows those there are")
	}
	return n, err
}

// firstClient is nodeClient for commands that create something: without a name, and without any node, it creates the default node
// (docs/protocol/03 §7.2). Looking does not make anything.
func (a *app) firstClient(ctx context.Context, name string) (*admin.Client, string, error) {
	d, err := a.dir()
	if err != nil {
		return nil, "", err
	}
	if name == "" {
		if nodes, err := d.Nodes(); err == nil && len(nodes) == 0 {
			if err := a.firstNode(ctx); err != nil {
				return nil, "", err
			}
		}
	}
	return a.nodeClient(name)
}

// nodeClient returns a client of a running node, and its name. Without a name it is the default node.
func (a *app) nodeClient(name string) (*admin.Client, string, error) {
	n, err := a.nodeRecord(name)
	if err != nil {
		return nil, "", err
	}
	if n.Status() != state.Running {
		return nil, "", withHint(fmt.Errorf("the node %s is not running", n.Name), "start it: sallyport node start %s", n.Name)
	}
	return admin.NewClient(n.AdminSocket), n.Name, nil
}

// firstNode makes and starts a node, unless another command has done so by now.
func (a *app) firstNode(ctx context.Context) error {
	return a.dirOnce.First(ctx, "node", func() error {
		if nodes, err := a.dirOnce.Nodes(); err != nil || len(nodes) > 0 {
			return err
		}
		return a.createBackground(ctx, a.freeNodeName(), state.NodeOptions{})
	})
}

// nodeCommand makes a command that asks one node, named with a flag.
func nodeCommand(a *app, use, short, example, flag string, f func(context.Context, *admin.Client, string) (result, error)) *cobra.Command {
	var at string
	cmd := &cobra.Command{Use: use + " [flags]", Short: short, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, node, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			r, err := f(cmd.Context(), c, node)
			if err != nil {
				return err
			}
			return a.print(r)
		}}
	cmd.Flags().StringVar(&at, flag, "", "`NODE` to ask (default: the default node)")
	if flag != "at" {
		cmd.Flags().StringVar(&at, "at", "", "")
		hide(cmd, "at")
	}
	return cmd
}

func listCommand(a *app, short, example string, f func(context.Context, *admin.Client, string) (result, error)) *cobra.Command {
	return nodeCommand(a, "list", short, example, "at", f)
}

// choosable are the things of which the reference lets a person at a terminal choose one when none is named, with the path that lists
// them. Without a terminal that is an error at run time there; for other things a missing name is a usage error.
var choosable = map[string]string{"tcp inlet": admin.PathInlets, "tcp outlet": admin.PathOutlets, "relay": admin.PathRelays, "policy": admin.PathPolicies,
	"Kafka inlet": admin.PathKafkaIn, "Kafka outlet": admin.PathKafkaOut}

func nameArgs(what string) cobra.PositionalArgs {
	if choosable[what] != "" {
		return cobra.MaximumNArgs(1)
	}
	return cobra.ExactArgs(1)
}

// noName answers a show or a delete that names nothing: as in the reference with an empty list if there is nothing to choose from, else
// with otherwise.
func (a *app) noName(ctx context.Context, at, what string, otherwise error) error {
	if choosable[what] == "" {
		return otherwise
	}
	if _, err := a.nodeRecord(at); err != nil {
		return err
	}
	c, node, err := a.nodeClient(at)
	if err != nil {
		return err
	}
	list, err := admin.Get[[]json.RawMessage](ctx, c, choosable[what])
	if err != nil {
		return err
	}
	if len(list) > 0 {
		return otherwise
	}
	return a.print(result{human: "no " + what + " at " + node, machine: "[]", json: []any{}})
}

// unknown says that nothing has a name: as in the reference an error only beside others, but for relays always.
func (a *app) unknown(ctx context.Context, at, what, name string) error {
	err := fmt.Errorf("the %s %s was not found", what, name)
	if what == "relay" {
		return err
	}
	return a.noName(ctx, at, what, err)
}

// errNoName says that a name is missing.
func errNoName(what string) error {
	return fmt.Errorf("name the %s: it cannot be chosen for you", what)
}

// showCommand makes a `show NAME`.
func showCommand(a *app, short, example, what string, f func(ctx context.Context, c *admin.Client, node, name string) (result, error)) *cobra.Command {
	var at string
	cmd := &cobra.Command{Use: "show NAME [flags]", Short: short, Example: example, Args: nameArgs(what),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.noName(cmd.Context(), at, what, withHint(errNoName(what), "the list subcommand shows those there are"))
			}
			c, node, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			name := plainName(args[0])
			r, err := f(cmd.Context(), c, node, name)
			if notFound(err) {
				return a.unknown(cmd.Context(), at, what, name)
			}
			if err != nil {
				return err
			}
			return a.print(r)
		}}
	cmd.Flags().StringVar(&at, "at", "", "`NODE` to ask (default: the default node)")
	return cmd
}

// deleteCommand makes a `delete NAME | --all`.
func deleteCommand(a *app, short, example, what, path string, all func(context.Context, *admin.Client) ([]string, error), done func(node, name string) result) *cobra.Command {
	var at string
	var yes, every bool
	cmd := &cobra.Command{Use: "delete [NAME] [flags]", Short: short, Example: example, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if len(args) == 0 && !every {
				if choosable[what] == "" {
					return usageError("the following required arguments were not provided: NAME (or --all)")
				}
				a.warn("nothing is deleted: give a name, or --all")
				return a.noName(ctx, at, what, nil) // as in the reference: not an error
			}
			c, node, err := a.nodeClient(at)
			if err != nil {
				return err
			}
			names := []string{}
			if every {
				if names, err = all(ctx, c); err != nil {
					return err
				}
				if len(names) == 0 {
					return a.nothingChosen(0)
				}
				if err := a.confirm(yes, fmt.Sprintf("Delete all %ss of node %s", what, node)); err != nil {
					return err
				}
			} else {
				name := plainName(args[0])
				if err := c.Do(ctx, "GET", admin.Item(path, name), nil, nil); notFound(err) {
					if what == "policy" { // as in the reference: not an error
						return a.print(result{human: "no policy of " + name, machine: "[]", json: []any{}})
					}
					return a.unknown(ctx, at, what, name)
				}
				// The reference deletes listeners without asking.
				if err := a.confirm(yes || what == "secure channel listener", fmt.Sprintf("Delete the %s %s", what, name)); err != nil {
					return err
				}
				names = append(names, name)
			}
			var failed []error
			for _, name := range names {
				if err := c.Delete(ctx, path, name); err != nil {
					failed = append(failed, err) // the others can be deleted
				} else if err := a.print(done(node, name)); err != nil {
					return err
				}
			}
			return errors.Join(failed...)
		}}
	cmd.Flags().StringVar(&at, "at", "", "`NODE` to ask (default: the default node)")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&every, "all", false, "delete all of them")
	return cmd
}

// nodeAddr resolves /node/NAME to the node's TCP listener.
func (a *app) nodeAddr(name string) (multiaddr.Addr, error) {
	n, err := a.nodeRecord(name)
	if err != nil && name == a.itself { // its address is known when it runs
		return multiaddr.FromHostPort("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, err
	}
	if n.TCPListener == "" {
		return nil, fmt.Errorf("node %s has no TCP listener", n.Name)
	}
	return multiaddr.FromHostPort("tcp", n.TCPListener)
}

// route reads a route and replaces /node/NAME.
func (a *app) route(flag, text string) (multiaddr.Addr, error) {
	addr, err := multiaddr.Parse(text)
	if err != nil {
		return nil, usageError("invalid value '%s' for '%s': %v", text, flag, err)
	}
	return addr.ReplaceNode(a.nodeAddr)
}

// defaultProject returns the name of the default project, "" if there is none.
func (a *app) defaultProject() (string, error) {
	d, err := a.dir()
	if err != nil {
		return "", err
	}
	p, err := d.Project("")
	if err != nil {
		return "", ifNotFound(err, nil)
	}
	return p.Project.Name, nil
}

// inletTo completes an inlet's --to and --via (docs/protocol/03 §4.1).
func (a *app) inletTo(_ context.Context, to, via string) (multiaddr.Addr, error) {
	p, err := a.defaultProject()
	if err != nil {
		return nil, err
	}
	addr, err := multiaddr.ExpandInletTo(to, via, p)
	if errors.Is(err, multiaddr.ErrNoProject) {
		return nil, withHint(errors.New("there is no default project"), "enroll first: sallyport project enroll TICKET, or give --to a whole route")
	}
	if err != nil { // the reference too finds it only now
		return nil, fmt.Errorf("invalid value '%s' for '--to': %w", to, err)
	}
	return addr.ReplaceNode(a.nodeAddr)
}

// relayAt completes a relay's --at (docs/protocol/03 §3.5).
func (a *app) relayAt(_ context.Context, at string) (multiaddr.Addr, error) {
	if at == "" {
		p, err := a.defaultProject()
		if err != nil {
			return nil, err
		}
		if p == "" {
			return nil, withHint(errors.New("there is no default project"), "enroll first: sallyport project enroll TICKET, or give --at a route")
		}
		at = "/project/" + p
	} else if !strings.Contains(at, "/") {
		at = "/node/" + at
	}
	return a.route("--at", at)
}

// home is the state directory, with what opens its vaults.
func (a *app) home() (*member.Home, error) {
	d, err := a.dir()
	if err != nil {
		return nil, err
	}
	return &member.Home{Dir: d, Vault: func(v state.Vault) (vault.Vault, error) { return a.openVault(v), nil }}, nil
}

// manager opens the identities of a vault; the empty name means the default vault, made if there is none.
func (a *app) manager(ctx context.Context, vaultName string) (*identity.Manager, state.Vault, error) {
	h, err := a.home()
	if err != nil {
		return nil, state.Vault{}, err
	}
	return h.Manager(ctx, vaultName)
}

// managerOf opens the identities of a vault that exists.
func (a *app) managerOf(ctx context.Context, vaultName string) (*identity.Manager, error) {
	d, err := a.dir()
	if err != nil {
		return nil, err
	}
	if _, err := d.Vault(vaultName); err != nil {
		return nil, ifNotFound(err, fmt.Errorf("the vault %s was not found", vaultName))
	}
	m, _, err := a.manager(ctx, vaultName)
	return m, err
}

// self is a named identity with its keys at hand.
type self struct {
	named   state.NamedIdentity
	id      identity.Identifier
	manager *identity.Manager
}

// identityOf returns a named identity; the empty name means the default one, made if there is none.
func (a *app) identityOf(ctx context.Context, name string) (*self, error) {
	d, err := a.dir()
	if err != nil {
		return nil, err
	}
	named, err := d.NamedIdentity(name)
	if errors.Is(err, state.ErrNotFound) && name == "" {
		named, err = a.firstIdentity(ctx)
	}
	if err != nil {
		return nil, err
	}
	m, _, err := a.manager(ctx, named.Vault)
	if err != nil {
		return nil, err
	}
	id, err := identity.ParseIdentifier(named.Identifier)
	if err != nil {
		return nil, err
	}
	s := &self{named: named, id: id, manager: m}
	if named.Left != "" {
		a.finishMove(ctx, s)
	}
	return s, nil
}

// ensureIdentity makes a named identity if there is none of that name, as the reference does for nodes.
func (a *app) ensureIdentity(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	d, err := a.dir()
	if err != nil {
		return err
	}
	if _, err := d.NamedIdentity(name); !errors.Is(err, state.ErrNotFound) {
		return err
	}
	_, made, err := a.identityNamed(ctx, name, "", identity.CreateOptions{})
	if made {
		a.note("%s Generated a new Identity named %s.", a.color(green, "✔"), name)
	}
	return err
}

// firstIdentity makes the default identity, unless another command has done so by now.
func (a *app) firstIdentity(ctx context.Context) (named state.NamedIdentity, err error) {
	err = a.dirOnce.First(ctx, "identity", func() (err error) {
		if named, err = a.dirOnce.NamedIdentity(""); !errors.Is(err, state.ErrNotFound) {
			return err
		}
		if named, err = a.createIdentity(ctx, "", "", identity.CreateOptions{}); err == nil {
			a.note("%s Generated a new identity named %s", a.color(green, "✔"), named.Name)
		}
		return err
	})
	return named, err
}

// identityNamed returns the identity of a name and makes it, with its vault, if there is none; without a name it makes one always. Commands that do
// so at the same time get the same one.
func (a *app) identityNamed(ctx context.Context, name, vaultName string, o identity.CreateOptions) (named state.NamedIdentity, made bool, err error) {
	err = a.dirOnce.First(ctx, "identity", func() (err error) {
		if name != "" {
			if named, err = a.dirOnce.NamedIdentity(name); !errors.Is(err, state.ErrNotFound) {
				return err
			}
		}
		if vaultName != "" {
			if _, err := a.dirOnce.Vault(vaultName); errors.Is(err, state.ErrNotFound) { // as in the reference
				if _, err := a.dirOnce.CreateVault(ctx, vaultName, "", state.VaultHome{}, nil); err != nil {
					return err
				}
				a.note("%s Created a new Vault named %s.", a.color(green, "✔"), vaultName)
			}
		}
		named, err = a.createIdentity(ctx, name, vaultName, o)
		made = err == nil
		return err
	})
	return named, made, err
}

// createIdentity makes an identity and gives it a name.
func (a *app) createIdentity(ctx context.Context, name, vaultName string, o identity.CreateOptions) (state.NamedIdentity, error) {
	m, v, err := a.manager(ctx, vaultName)
	if err != nil {
		return state.NamedIdentity{}, err
	}
	if o.Key != "" {
		if o.Key, err = a.openVault(v).adopt(ctx, string(o.Key)); err != nil {
			return state.NamedIdentity{}, err
		}
	}
	i, err := m.Create(ctx, o)
	if err != nil {
		return state.NamedIdentity{}, err
	}
	return a.dirOnce.CreateNamed(ctx, name, i.Identifier().String(), v.Name)
}

// checkIdentifiers refuses a flag's value that is no list of identifiers with commas in between; empty is fine.
func checkIdentifiers(flag, text string) error {
	if text == "" {
		return nil
	}
	for one := range strings.SplitSeq(text, ",") {
		if _, err := identity.ParseIdentifier(strings.TrimSpace(one)); err != nil {
			return usageError("invalid value '%s' for '%s': an identifier is I and 64 hex digits", text, flag)
		}
	}
	return nil
}

// joined is a flag that may be repeated; its values are put together with commas.
type joined struct{ to *string }

func (v joined) String() string {
	if v.to == nil {
		return ""
	}
	return *v.to
}

func (v joined) Type() string { return "stringArray" }

func (v joined) Set(text string) error {
	if *v.to != "" {
		text = *v.to + "," + text
	}
	*v.to = text
	return nil
}

// checkIdentifier refuses a flag's value that is no identifier; empty is fine.
func checkIdentifier(flag, text string) error {
	if text == "" {
		return nil
	}
	if _, err := identity.ParseIdentifier(text); err != nil {
		return usageError("invalid value '%s' for '%s': an identifier is I and 64 hex digits", text, flag)
	}
	return nil
}
