package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/state"
)

func init() { nouns = append(nouns, identityNoun, vaultNoun) }

func identityNoun(a *app) *cobra.Command {
	return noun(groupStory, "identity", "Identities: who a node or a person is", nil,
		identityCreate(a), identityShow(a), identityList(a), identityDefault(a), identityRotate(a), identityPurposeKeys(a), identityDelete(a))
}

func identityCreate(a *app) *cobra.Command {
	var vaultName, key, imported, algorithm string
	cmd := &cobra.Command{Use: "create [NAME] [flags]", Short: "Create an identity, or import somebody's public one", Example: `  sallyport identity create admin
  sallyport identity create old --algorithm p256`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			if imported != "" && key != "" {
				return usageError("the argument '--identity' cannot be used with '--key-id'")
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			if name != "" {
				if named, err := d.NamedIdentity(name); err == nil {
					return a.print(identityResult(named.Identifier)) // as in the reference: not an error
				}
			}
			if imported != "" {
				return a.importIdentity(ctx, name, imported)
			}
			o := identity.CreateOptions{Key: vault.Handle(key)}
			switch strings.ToLower(algorithm) {
			case "":
			case "ed25519":
				o.OnlyAlgorithm = true
			case "p256", "ecdsa":
				o.Algorithm = vault.P256
			default:
				return usageError("invalid value '%s' for '--algorithm': it must be ed25519 or p256", algorithm)
			}
			named, made, err := a.identityNamed(ctx, name, vaultName, o)
			if err != nil {
				return err
			}
			if made {
				a.note("%s Generated a new Identity named %s.", a.color(green, "✔"), named.Name)
			}
			return a.print(identityResult(named.Identifier))
		}}
	f := cmd.Flags()
	f.StringVar(&vaultName, "vault", "", "the `VAULT` for its keys (default: the default vault)")
	f.StringVarP(&key, "key-id", "k", "", "a key that the vault has: its `HANDLE`, or its name in an HSM")
	f.StringVar(&imported, "identity", "", "import a public identity, a change history in `HEX`")
	f.StringVar(&algorithm, "algorithm", "", "the key's algorithm: ed25519 (if the vault has it) or p256")
	return cmd
}

func identityResult(identifier string) result {
	return result{human: identifier, machine: identifier, json: map[string]string{"identifier": identifier}}
}

// importIdentity stores a public identity under a name. There is no secret key behind it.
func (a *app) importIdentity(ctx context.Context, name, text string) error {
	raw, err := pastedHex(text)
	if err != nil {
		return fmt.Errorf("invalid value for '--identity': a change history is hex: %w", err)
	}
	m, v, err := a.manager(ctx, "")
	if err != nil {
		return err
	}
	i, err := m.Import(ctx, raw, nil)
	if err != nil {
		return err
	}
	known, err := a.dirOnce.Identities()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(known, func(n state.NamedIdentity) bool { return n.Identifier == i.Identifier().String() })
	if at >= 0 && name != "" { // as in the reference: it has the new name from now on
		if err := a.dirOnce.RenameIdentity(ctx, known[at].Name, name); err != nil {
			return err
		}
		return a.print(result{human: "  ✔ Identity imported successfully with name " + name})
	}
	named, err := a.dirOnce.CreateNamed(ctx, name, i.Identifier().String(), v.Name)
	if err != nil {
		return err
	}
	return a.print(result{human: "  ✔ Identity imported successfully with name " + named.Name})
}

func identityShow(a *app) *cobra.Command {
	var full bool
	var encoding string
	cmd := &cobra.Command{Use: "show [NAME] [flags]", Short: "Show an identity", Example: `  sallyport identity show
  sallyport identity show --full --encoding hex`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			d, err := a.dir()
			if err != nil {
				return err
			}
			if encoding != "plain" && encoding != "hex" {
				return usageError("invalid value '%s' for '--encoding': it must be plain or hex", encoding)
			}
			if encoding == "hex" && !full {
				return usageError("the argument '--encoding' needs '--full'")
			}
			var named state.NamedIdentity
			if name == "" {
				if named, err = d.NamedIdentity(""); errors.Is(err, state.ErrNotFound) { // as in the reference: looking makes none
					return withHint(errors.New("no default identifier found"), "create an identity: sallyport identity create")
				} else if err != nil {
					return err
				}
			} else if named, err = d.NamedIdentity(name); err != nil {
				return ifNotFound(err, withHint(fmt.Errorf("no identifier found with name %s", name), "sallyport identity list shows those there are"))
			}
			if !full {
				return a.print(identityResult(named.Identifier))
			}
			id, err := identity.ParseIdentifier(named.Identifier)
			if err != nil {
				return err
			}
			i, err := d.Store().Identity(cmd.Context(), id)
			if err != nil {
				return err
			}
			if encoding == "hex" {
				return a.print(result{human: i.Hex(), machine: i.Hex(), json: map[string]string{"encoded": i.Hex()}})
			}
			return a.print(fullIdentity(i))
		}}
	cmd.Flags().BoolVarP(&full, "full", "f", false, "show its changes")
	cmd.Flags().StringVar(&encoding, "encoding", "plain", "with --full: plain or hex")
	return cmd
}

func fullIdentity(i *identity.Identity) result {
	type change struct {
		Identifier string `json:"identifier"`
		Key        string `json:"primary_public_key"`
		Revoke     bool   `json:"revoke_all_purpose_keys"`
	}
	var text strings.Builder
	fmt.Fprintf(&text, "Identifier: %s", i.Identifier())
	changes := []change{}
	for k, c := range i.Changes() {
		out := change{Identifier: hex.EncodeToString(c.Hash[:]), Key: c.Key.Algorithm.String() + ": " + hex.EncodeToString(c.Key.Bytes), Revoke: c.RevokeAll}
		changes = append(changes, out)
		fmt.Fprintf(&text, "\n  Change[%d]:\n    identifier:              %s\n    primary_public_key:      %s\n    revoke_all_purpose_keys: %v", k, out.Identifier, out.Key, out.Revoke)
	}
	return result{human: text.String(), machine: text.String(), json: map[string]any{"changes": changes, "identifier": i.Identifier().String()}}
}

func identityList(a *app) *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List this user's identities", Example: `  sallyport identity list
  sallyport identity list --jq '.[].name'`, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			d, err := a.dir()
			if err != nil {
				return err
			}
			list, err := d.Identities()
			if err != nil {
				return err
			}
			out, rows := []any{}, [][]string{}
			for _, n := range list {
				out = append(out, identityJSON(n))
				mark := ""
				if n.IsDefault {
					mark = "default"
				}
				rows = append(rows, []string{n.Name, n.Identifier, n.Vault, mark})
			}
			return a.print(result{human: tableOr("no identities; sallyport identity create makes one", []string{"IDENTITY", "IDENTIFIER", "VAULT", ""}, rows), json: out})
		}}
}

// identityJSON has the reference's shape.
func identityJSON(n state.NamedIdentity) map[string]any {
	return map[string]any{"identifier": n.Identifier, "is_default": n.IsDefault, "name": n.Name, "vault_name": n.Vault}
}

func identityDefault(a *app) *cobra.Command {
	return &cobra.Command{Use: "default [NAME]", Short: "Show the default identity, or choose it", Example: `  sallyport identity default
  sallyport identity default admin`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.dir()
			if err != nil {
				return err
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
				if n, err := d.NamedIdentity(""); err == nil && n.Name == name { // as in the reference
					return fmt.Errorf("the identity named '%s' is already the default", name)
				}
				if err := d.SetDefaultIdentity(cmd.Context(), name); err != nil {
					return err
				}
			}
			n, err := d.NamedIdentity(name)
			if err != nil {
				return err
			}
			if name == "" {
				return a.print(result{human: "  ✔ The name of the default identity is '" + n.Name + "'"})
			}
			return a.print(result{human: n.Name, machine: n.Name})
		}}
}

func identityDelete(a *app) *cobra.Command {
	var all, yes bool
	cmd := &cobra.Command{Use: "delete [NAME] [flags]", Short: "Delete an identity and its keys", Example: `  sallyport identity delete old --yes
  sallyport identity delete --all --yes`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			d, err := a.dir()
			if err != nil {
				return err
			}
			list, err := d.Identities()
			if err != nil {
				return err
			}
			which := deletion{kind: "identity", all: all, yes: yes, remove: func(name string) error { return a.deleteIdentity(ctx, name) },
				known: func(name string) error {
					_, err := d.NamedIdentity(name)
					return err
				}}
			for _, n := range list {
				which.have = append(which.have, n.Name)
			}
			return a.delete(which, args)
		}}
	cmd.Flags().BoolVar(&all, "all", false, "all identities")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// deleteIdentity forgets an identity and deletes its secret keys.
func (a *app) deleteIdentity(ctx context.Context, name string) error {
	s, err := a.identityOf(ctx, name)
	if err != nil {
		return err
	}
	if err := a.dirOnce.DeleteIdentity(ctx, name); err != nil {
		return err
	}
	i, err := s.manager.Identity(ctx, s.id)
	if err != nil {
		if errors.Is(err, identity.ErrNotFound) {
			return nil
		}
		return err
	}
	v, err := a.dirOnce.Vault(s.named.Vault)
	if err != nil {
		return err
	}
	return a.openVault(v).DeleteSigningKey(ctx, vault.HandleOf(i.Latest().Key.Bytes))
}
