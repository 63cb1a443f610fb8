package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/node/admin"
	"sallyport/state"
)

func identityRotate(a *app) *cobra.Command {
	var vaultName, algorithm string
	cmd := &cobra.Command{Use: "rotate [NAME] [flags]", Short: "Give an identity a new primary key, signed by the old one", Example: `  sallyport identity rotate
  sallyport identity rotate first --algorithm p256`, Args: cobra.MaximumNArgs(1),
		Long: `Give an identity a new primary key, signed by the old one, which is then deleted. Its identifier
stays, its nodes go on, and peers learn of the new key with the next channel.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			name := strings.Join(args, "")
			d, err := a.dir()
			if err != nil {
				return err
			}
			if _, err := d.NamedIdentity(name); err != nil {
				return err
			}
			s, err := a.identityOf(ctx, name)
			if err != nil {
				return err
			}
			var o identity.RotateOptions
			switch strings.ToLower(algorithm) {
			case "":
			case "ed25519":
				o.Algorithm = new(vault.KeyAlgorithm)
			case "p256", "ecdsa":
				o.Algorithm = new(vault.KeyAlgorithm)
				*o.Algorithm = vault.P256
			default:
				return usageError("invalid value '%s' for '--algorithm': it must be ed25519 or p256", algorithm)
			}
			if vaultName != "" && vaultName != s.named.Vault {
				return a.rotateInto(ctx, s, vaultName, o)
			}
			i, err := s.manager.Rotate(ctx, s.id, o)
			if i != nil && err == nil {
				if v, vaultErr := d.Vault(s.named.Vault); vaultErr == nil {
					err = a.wipeReplaced(ctx, s.id, v) // also what earlier rotations left
				}
			}
			return a.rotated(ctx, s, i, err)
		}}
	cmd.Flags().StringVar(&vaultName, "vault", "", "the `VAULT` for the new key (default: that of the old one)")
	cmd.Flags().StringVar(&algorithm, "algorithm", "", "the new key's algorithm: ed25519 or p256 (default: as before)")
	return cmd
}

// rotateInto moves an identity to another vault, by a new key there.
func (a *app) rotateInto(ctx context.Context, s *self, vaultName string, o identity.RotateOptions) error {
	v, err := a.dirOnce.Vault(vaultName)
	if err != nil {
		return ifNotFound(err, fmt.Errorf("the vault %s was not found", vaultName))
	}
	if nodes, err := a.dirOnce.NodesOf(s.named.Identifier); err != nil || len(nodes) > 0 { // they work with the vault that they know
		if err != nil {
			return err
		}
		return withHint(&state.InUseError{Kind: "identity", Name: s.named.Name, By: nodes}, "stop them first: sallyport node stop %s", nodes[0])
	}
	o.Vault = a.openVault(v)
	if err := a.dirOnce.MoveIdentity(ctx, s.named.Name, v.Name); err != nil {
		return err
	}
	i, err := s.manager.Rotate(ctx, s.id, o)
	if i == nil {
		if named, readErr := a.dirOnce.NamedIdentity(s.named.Name); readErr == nil && named.Left == "" { // the key is where it was
			err = errors.Join(err, a.dirOnce.SetIdentityVault(ctx, named.Name, named.Vault))
		}
		return err
	}
	if err == nil { // else it is tried again with the next use
		err = a.dirOnce.SetIdentityVault(ctx, s.named.Name, v.Name)
	}
	return a.rotated(ctx, s, i, err)
}

// finishMove does what is left to do of a rotation into another vault that was interrupted, or whose old vault was away: the replaced key is deleted.
func (a *app) finishMove(ctx context.Context, s *self) {
	v, err := a.dirOnce.Vault(s.named.Left)
	if err == nil {
		err = a.wipeReplaced(ctx, s.id, v)
	}
	if err == nil || notFound(err) {
		err = a.dirOnce.SetIdentityVault(ctx, s.named.Name, s.named.Vault)
	}
	if err != nil {
		a.warn("the identity %s has its key in vault %s; one that was replaced is still in vault %s: %v", s.named.Name, s.named.Vault, s.named.Left, err)
	}
}

// wipeReplaced deletes the keys of an identity that were replaced from a vault, should a rotation have been interrupted before it did.
func (a *app) wipeReplaced(ctx context.Context, id identity.Identifier, v state.Vault) error {
	i, err := a.dirOnce.Store().Identity(ctx, id)
	if err != nil {
		return err
	}
	changes := i.Changes()
	for _, c := range changes[:len(changes)-1] {
		if h := vault.HandleOf(c.Key.Bytes); v.Holds(h) {
			if err := a.openVault(v).DeleteSigningKey(ctx, h); err != nil {
				return err
			}
		}
	}
	return nil
}

// rotated tells what became of a rotation. That the old key could not be deleted does not undo it.
func (a *app) rotated(ctx context.Context, s *self, i *identity.Identity, err error) error {
	if i == nil {
		return err
	}
	if err != nil {
		a.warn("the identity has its new key, but the old one is still in its vault: %v", err)
	}
	a.tellRotated(ctx, s.named.Identifier)
	n := len(i.Changes())
	a.done("Rotated the identity %s: change %d, key %s", s.named.Name, n, i.Latest().Key.Algorithm)
	return a.print(result{human: s.named.Identifier, machine: s.named.Identifier, json: map[string]any{"identifier": s.named.Identifier, "changes": n}})
}

// tellRotated has the nodes of an identity use its new key from now on; who cannot be told finds it within a second.
func (a *app) tellRotated(ctx context.Context, identifier string) {
	nodes, _ := a.dirOnce.NodesOf(identifier)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, name := range nodes {
		if c, _, err := a.nodeClient(name); err == nil {
			_ = c.Do(ctx, http.MethodPost, admin.PathKeys, nil, nil)
		}
	}
}

func identityPurposeKeys(a *app) *cobra.Command {
	return &cobra.Command{Use: "purpose-keys [NAME]", Short: "Show the keys in memory that nodes use in an identity's name", Example: `  sallyport identity purpose-keys
  sallyport identity purpose-keys first --jq '.[].valid_until'`, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.dir()
			if err != nil {
				return err
			}
			named, err := d.NamedIdentity(strings.Join(args, ""))
			if err != nil {
				return err
			}
			nodes, err := d.NodesOf(named.Identifier)
			a.unread(err)
			type item struct {
				Node    string `json:"node"`
				Purpose string `json:"purpose"`
				admin.Keys
			}
			list, rows := []item{}, [][]string{}
			for _, name := range nodes {
				c, _, err := a.nodeClient(name)
				if err != nil {
					continue // it has stopped
				}
				n, err := admin.Get[admin.Node](cmd.Context(), c, admin.PathNode)
				if err != nil {
					return fmt.Errorf("node %s: %w", name, err)
				}
				if n.Keys == nil {
					continue
				}
				at := func(t int64) string { return time.Unix(t, 0).Format(time.DateTime) }
				list = append(list, item{name, identity.SecureChannel.String(), *n.Keys})
				rows = append(rows, []string{name, identity.SecureChannel.String(), at(n.Keys.MadeAt), at(n.Keys.RenewAt), at(n.Keys.ValidUntil), n.Keys.Reason})
			}
			return a.print(result{human: tableOr("no node runs with this identity", []string{"NODE", "PURPOSE", "MADE", "RENEWED FROM", "VALID UNTIL", ""}, rows), json: list})
		}}
}
