package state

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
)

// DefaultName is the name of the first identity and of the first vault when the user gives none.
const DefaultName = "default"

// NamedIdentity is an identity that the user owns: its secret key is in a vault.
type NamedIdentity struct {
	Name string `json:"name"`
	// Identifier in its text form, "I" and 64 hex digits.
	Identifier string `json:"identifier"`
	// Vault is the name of the vault with the keys.
	Vault string `json:"vault"`
	// IsDefault marks the identity used when none is named.
	IsDefault bool `json:"is_default"`
	// MovingTo is the vault that a rotation puts the identity's next key in, while that goes on or where it was interrupted: Vault is the one that has the
	// key which the history names, whichever of both that is.
	MovingTo string `json:"moving_to,omitempty"`
	// Left is the vault in which a key that was replaced may still be, after such a rotation.
	Left string `json:"-"`
}

type identitiesFile struct {
	Version    int             `json:"version"`
	Identities []NamedIdentity `json:"identities"`
}

func (f *identitiesFile) find(name string) int {
	return slices.IndexFunc(f.Identities, func(n NamedIdentity) bool { return n.Name == name })
}

func (d *Dir) readIdentities() (f identitiesFile, err error) {
	err = d.readJSON(d.file("identities.json"), &f)
	return f, err
}

// changeIdentities runs change on the list and stores the result.
func (d *Dir) changeIdentities(ctx context.Context, change func(*identitiesFile) error) error {
	return d.locked(ctx, func() error {
		f, err := d.readIdentities()
		if err != nil {
			return err
		}
		if err := change(&f); err != nil {
			return err
		}
		return d.writeIdentities(&f)
	})
}

func (d *Dir) writeIdentities(f *identitiesFile) error {
	f.Version = fileVersion
	slices.SortFunc(f.Identities, func(a, b NamedIdentity) int { return strings.Compare(a.Name, b.Name) })
	return d.writeJSON(d.file("identities.json"), f)
}

// CreateNamed gives an identity a name. Its change history must be stored and its keys be in the vault already. An empty name means
// "default" for the first identity and a random one later; an empty vault means the default vault. Names and identifiers are unique
// (ErrExists).
func (d *Dir) CreateNamed(ctx context.Context, name, identifier, vault string) (NamedIdentity, error) {
	if name != "" {
		if err := CheckName("identity", name); err != nil {
			return NamedIdentity{}, err
		}
	}
	if _, err := d.ChangeHistory(identifier); err != nil {
		return NamedIdentity{}, err
	}
	var n NamedIdentity
	err := d.changeIdentities(ctx, func(f *identitiesFile) error {
		v, err := d.Vault(vault)
		if err != nil {
			return err
		}
		n = NamedIdentity{Name: name, Identifier: identifier, Vault: v.Name, IsDefault: len(f.Identities) == 0}
		switch {
		case name == "" && len(f.Identities) == 0:
			n.Name = DefaultName
		case name == "":
			for n.Name = RandomName(); f.find(n.Name) >= 0; n.Name = RandomName() {
			}
		case f.find(name) >= 0:
			return exists("identity", name)
		}
		for _, other := range f.Identities {
			if other.Identifier == identifier {
				return fmt.Errorf("%w under the name %q", exists("identity", identifier), other.Name)
			}
		}
		f.Identities = append(f.Identities, n)
		return nil
	})
	return n, err
}

// NamedIdentity returns an identity by name; the empty name means the default. The error is a NotFoundError if there is none.
func (d *Dir) NamedIdentity(name string) (NamedIdentity, error) {
	f, err := d.readIdentities()
	if err != nil {
		return NamedIdentity{}, err
	}
	for _, n := range f.Identities {
		if n.Name == name || name == "" && n.IsDefault {
			return d.whereKeyIs(n), nil
		}
	}
	return NamedIdentity{}, &NotFoundError{Kind: "identity", Name: name}
}

// Identities returns all named identities, sorted by name.
func (d *Dir) Identities() ([]NamedIdentity, error) {
	f, err := d.readIdentities()
	for i, n := range f.Identities {
		f.Identities[i] = d.whereKeyIs(n)
	}
	return f.Identities, err
}

// whereKeyIs finds the vault of an identity whose rotation into another vault may have been interrupted: its key is there if that has it.
func (d *Dir) whereKeyIs(n NamedIdentity) NamedIdentity {
	if n.MovingTo == "" {
		return n
	}
	if v, err := d.Vault(n.MovingTo); err == nil {
		if h, err := d.latestKey(n.Identifier); err == nil && v.Holds(h) {
			n.Left, n.Vault = n.Vault, n.MovingTo
		}
	}
	return n
}

// latestKey is the handle of the key that an identity's stored history names.
func (d *Dir) latestKey(identifier string) (vault.Handle, error) {
	raw, err := d.ChangeHistory(identifier)
	if err != nil {
		return "", err
	}
	i, err := identity.Import(raw, nil)
	if err != nil {
		return "", err
	}
	return vault.HandleOf(i.Latest().Key.Bytes), nil
}

// MoveIdentity notes that the next key of an identity will be in another vault, before that is made: should the process end while the identity is rotated,
// its key is found wherever it is. SetIdentityVault ends it.
func (d *Dir) MoveIdentity(ctx context.Context, name, vault string) error {
	return d.setVault(ctx, name, vault, func(n *NamedIdentity) { n.MovingTo = vault })
}

// SetDefaultIdentity makes an identity the default.
func (d *Dir) SetDefaultIdentity(ctx context.Context, name string) error {
	return d.changeIdentities(ctx, func(f *identitiesFile) error {
		if f.find(name) < 0 {
			return &NotFoundError{Kind: "identity", Name: name}
		}
		for i := range f.Identities {
			f.Identities[i].IsDefault = f.Identities[i].Name == name
		}
		return nil
	})
}

// SetIdentityVault records that an identity's key is in another vault.
func (d *Dir) SetIdentityVault(ctx context.Context, name, vault string) error {
	return d.setVault(ctx, name, vault, func(n *NamedIdentity) { n.Vault, n.MovingTo = vault, "" })
}

func (d *Dir) setVault(ctx context.Context, name, vault string, set func(*NamedIdentity)) error {
	if _, err := d.Vault(vault); err != nil {
		return err
	}
	return d.changeIdentities(ctx, func(f *identitiesFile) error {
		i := f.find(name)
		if i < 0 {
			return &NotFoundError{Kind: "identity", Name: name}
		}
		set(&f.Identities[i])
		return nil
	})
}

// NodesOf returns the names of the running nodes that have an identity. With an error it returns those that could be read: another one may have it too.
func (d *Dir) NodesOf(identifier string) ([]string, error) {
	nodes, unread, err := d.allNodes()
	errs := []error{err}
	for _, u := range unread {
		errs = append(errs, u.err)
	}
	var names []string
	for _, n := range nodes {
		if n.Identifier == identifier && n.Status() == Running {
			names = append(names, n.Name)
		}
	}
	return names, errors.Join(errs...)
}

// RenameIdentity gives an identity another name; nodes that use it keep it.
func (d *Dir) RenameIdentity(ctx context.Context, from, to string) error {
	if err := CheckName("identity", to); err != nil {
		return err
	}
	return d.changeIdentities(ctx, func(f *identitiesFile) error {
		i := f.find(from)
		if i < 0 {
			return &NotFoundError{Kind: "identity", Name: from}
		}
		if from == to {
			return nil
		}
		if f.find(to) >= 0 {
			return exists("identity", to)
		}
		f.Identities[i].Name = to
		nodes, unread, err := d.allNodes()
		if err != nil {
			return err
		}
		if len(unread) > 0 { // it may have the identity under its name
			return unread[0].err
		}
		for _, n := range nodes {
			if n.IdentityName == from && n.Identifier == f.Identities[i].Identifier {
				n.IdentityName = to
				if err := d.writeNode(n); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// perhaps names nodes that cannot be read among the users of something.
func perhaps(unread []unreadNode) (users []string) {
	for _, u := range unread {
		users = append(users, fmt.Sprintf("perhaps node %q (%v)", u.name, u.err))
	}
	return users
}

// DeleteIdentity forgets the name and the purpose keys of an identity. It refuses while a node has the identity (InUseError). The
// public change history stays, as peers and projects may refer to it. The caller deletes the secret keys from the vault.
func (d *Dir) DeleteIdentity(ctx context.Context, name string) error {
	return d.changeIdentities(ctx, func(f *identitiesFile) error {
		i := f.find(name)
		if i < 0 {
			return &NotFoundError{Kind: "identity", Name: name}
		}
		nodes, unread, err := d.allNodes()
		if err != nil {
			return err
		}
		users := perhaps(unread)
		for _, n := range nodes {
			if n.Identifier == f.Identities[i].Identifier {
				users = append(users, fmt.Sprintf("node %q", n.Name))
			}
		}
		if len(users) > 0 {
			return &InUseError{Kind: "identity", Name: name, By: users}
		}
		if err := d.deletePurposeKeys(f.Identities[i].Identifier); err != nil {
			return err
		}
		f.Identities = slices.Delete(f.Identities, i, i+1)
		if len(f.Identities) == 1 {
			f.Identities[0].IsDefault = true
		}
		return nil
	})
}
