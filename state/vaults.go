package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/crypto/vault"
	"sallyport/internal/wholefile"
)

// Vault is a place for secret keys.
type Vault struct {
	Name string `json:"name"`
	// Path is the absolute path of the directory with the keys, for package crypto/vault.
	Path string `json:"path"`
	// IsDefault marks the vault used when none is named.
	IsDefault bool `json:"is_default"`
	// KMS tells that signing keys are in AWS KMS; the directory holds what is known of them.
	KMS bool `json:"kms"`
	VaultHome
}

// Kinds of vaults, beside that of plain or encrypted files, which is the empty kind.
const (
	VaultPKCS11 = "pkcs11"
	VaultAWSKMS = "aws-kms"
	VaultTPM    = "tpm"
)

// VaultHome says where a vault's keys are and what opens it. It holds no secret.
type VaultHome struct {
	// Kind is one of the Vault constants, or empty.
	Kind string `json:"kind,omitempty"`
	// Locked tells that files are encrypted.
	Locked bool `json:"locked,omitempty"`
	// PassphraseFile, KeyFile and Credential are where the passphrase, key or PIN is read from: a file, or a credential of systemd. All
	// empty: a person is asked.
	PassphraseFile string `json:"passphrase_file,omitempty"`
	KeyFile        string `json:"key_file,omitempty"`
	Credential     string `json:"credential,omitempty"`
	// URI names a PKCS#11 token (RFC 7512), without a PIN.
	URI string `json:"uri,omitempty"`
	// Device is a TPM's device or socket, PCRs the registers that keys are bound to.
	Device string `json:"device,omitempty"`
	PCRs   string `json:"pcrs,omitempty"`
}

// Holds reports whether a key is in the vault, or what names one that is in a machine of its own. Nothing is opened.
func (v Vault) Holds(h vault.Handle) bool {
	names, err := entries(v.Path)
	return err == nil && slices.ContainsFunc(names, func(name string) bool { return strings.Contains(name, string(h)) })
}

type vaultsFile struct {
	Version int     `json:"version"`
	Vaults  []Vault `json:"vaults"`
}

func (f *vaultsFile) find(name string) int {
	return slices.IndexFunc(f.Vaults, func(v Vault) bool { return v.Name == name })
}

func (d *Dir) changeVaults(ctx context.Context, change func(*vaultsFile) error) error {
	return d.locked(ctx, func() error {
		var f vaultsFile
		if err := d.readJSON(d.file("vaults.json"), &f); err != nil {
			return err
		}
		if err := change(&f); err != nil {
			return err
		}
		return d.writeVaults(&f)
	})
}

func (d *Dir) writeVaults(f *vaultsFile) error {
	f.Version = fileVersion
	slices.SortFunc(f.Vaults, func(a, b Vault) int { return strings.Compare(a.Name, b.Name) })
	return d.writeJSON(d.file("vaults.json"), f)
}

// CreateVault records a vault and creates its directory with mode 0700. An empty name means "default" for the first vault and a
// random one later. An empty path means vaults/NAME in the state directory; a path elsewhere may exist already, with keys, if it is
// a directory of ours that nobody else can use.
//
// prepare, if it is not nil, makes of the directory what the vault needs; when it fails there is no vault.
func (d *Dir) CreateVault(ctx context.Context, name, path string, home VaultHome, prepare func(Vault) error) (Vault, error) {
	if name != "" {
		if err := CheckName("vault", name); err != nil {
			return Vault{}, err
		}
	}
	var v Vault
	err := d.changeVaults(ctx, func(f *vaultsFile) (err error) {
		v, err = d.addVault(f, name, path, home, prepare)
		return err
	})
	return v, err
}

// SetVaultHome writes down what opens a vault, after change has seen to it.
func (d *Dir) SetVaultHome(ctx context.Context, name string, home VaultHome, change func() error) error {
	return d.changeVaults(ctx, func(f *vaultsFile) error {
		i := f.find(name)
		if i < 0 {
			return &NotFoundError{Kind: "vault", Name: name}
		}
		f.Vaults[i].VaultHome = home
		return change()
	})
}

// EnsureVault returns a vault by name, the default one if the name is empty, and creates the first vault if there is none yet and
// the name is empty or "default".
func (d *Dir) EnsureVault(ctx context.Context, name string) (Vault, error) {
	v, err := d.Vault(name)
	if !errors.Is(err, ErrNotFound) || name != "" && name != DefaultName {
		return v, err
	}
	err = d.changeVaults(ctx, func(f *vaultsFile) error {
		// Another process may have been faster.
		for _, have := range f.Vaults {
			if have.Name == name || name == "" && have.IsDefault {
				v = have
				return nil
			}
		}
		if len(f.Vaults) > 0 {
			return &NotFoundError{Kind: "vault", Name: name}
		}
		v, err = d.addVault(f, DefaultName, "", VaultHome{}, nil)
		return err
	})
	return v, err
}

func (d *Dir) addVault(f *vaultsFile, name, path string, home VaultHome, prepare func(Vault) error) (Vault, error) {
	switch {
	case name == "" && len(f.Vaults) == 0:
		name = DefaultName
	case name == "":
		for name = RandomName(); f.find(name) >= 0; name = RandomName() {
		}
	case f.find(name) >= 0:
		return Vault{}, exists("vault", name)
	}
	if path == "" {
		path = d.file("vaults", name)
	}
	path, err := d.claimPath(f, path)
	if err != nil {
		return Vault{}, err
	}
	_, statErr := os.Lstat(path)
	isNew := errors.Is(statErr, os.ErrNotExist)
	if err := mkdir(path); err != nil {
		return Vault{}, fmt.Errorf("vault %q: %w", name, err)
	}
	info, err := os.Stat(path)
	if err == nil {
		err = checkOwned(path, info, 0o077)
	}
	if err != nil {
		return Vault{}, fmt.Errorf("vault %q: %w", name, err)
	}
	v := Vault{Name: name, Path: path, IsDefault: len(f.Vaults) == 0, KMS: home.Kind == VaultAWSKMS, VaultHome: home}
	if prepare != nil {
		if err := prepare(v); err != nil {
			if isNew {
				err = errors.Join(err, os.RemoveAll(path))
			}
			return Vault{}, err
		}
	}
	f.Vaults = append(f.Vaults, v)
	return v, nil
}

// claimPath returns the absolute path and makes sure that no vault lies there.
func (d *Dir) claimPath(f *vaultsFile, path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for _, v := range f.Vaults {
		if v.Path == path {
			return "", fmt.Errorf("%w: vault %q already lies in %s", ErrInUse, v.Name, path)
		}
	}
	return path, nil
}

// Vault returns a vault by name; the empty name means the default. The error is a NotFoundError if there is none.
func (d *Dir) Vault(name string) (Vault, error) {
	list, err := d.Vaults()
	if err != nil {
		return Vault{}, err
	}
	for _, v := range list {
		if v.Name == name || name == "" && v.IsDefault {
			return v, nil
		}
	}
	return Vault{}, &NotFoundError{Kind: "vault", Name: name}
}

// Vaults returns all vaults, sorted by name.
func (d *Dir) Vaults() ([]Vault, error) {
	var f vaultsFile
	err := d.readJSON(d.file("vaults.json"), &f)
	return f.Vaults, err
}

// SetDefaultVault makes a vault the default.
func (d *Dir) SetDefaultVault(ctx context.Context, name string) error {
	return d.changeVaults(ctx, func(f *vaultsFile) error {
		if f.find(name) < 0 {
			return &NotFoundError{Kind: "vault", Name: name}
		}
		for i := range f.Vaults {
			f.Vaults[i].IsDefault = f.Vaults[i].Name == name
		}
		return nil
	})
}

// MoveVault moves the keys of a vault to another directory, which must not exist. It copies, switches, and then deletes the old
// directory, so that a crash loses nothing. It refuses while a running node uses the vault (InUseError).
func (d *Dir) MoveVault(ctx context.Context, name, path string) error {
	whole, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if v, err := d.Vault(name); err == nil && v.Path == whole { // a script that runs again
		return nil
	}
	return d.relocate(ctx, name, func(f *vaultsFile, v *Vault) (err error) {
		v.Path, err = d.claimPath(f, path)
		return err
	})
}

// RenameVault gives a vault another name, also in the identities that use it; a vault in the state directory moves to its new place
// there. It refuses while a running node uses the vault (InUseError).
func (d *Dir) RenameVault(ctx context.Context, from, to string) error {
	if err := CheckName("vault", to); err != nil {
		return err
	}
	if from == to {
		_, err := d.Vault(from)
		return err
	}
	return d.relocate(ctx, from, func(f *vaultsFile, v *Vault) (err error) {
		if f.find(to) >= 0 {
			return exists("vault", to)
		}
		v.Name = to
		if d.inside(v.Path) {
			v.Path, err = d.claimPath(f, d.file("vaults", to))
		}
		return err
	})
}

// relocate gives a vault the name and path that change sets.
func (d *Dir) relocate(ctx context.Context, name string, change func(*vaultsFile, *Vault) error) error {
	return d.locked(ctx, func() error {
		var f vaultsFile
		if err := d.readJSON(d.file("vaults.json"), &f); err != nil {
			return err
		}
		i := f.find(name)
		if i < 0 {
			return &NotFoundError{Kind: "vault", Name: name}
		}
		old, v := f.Vaults[i], f.Vaults[i]
		if err := change(&f, &v); err != nil {
			return err
		}
		ids, err := d.readIdentities()
		if err != nil {
			return err
		}
		if err := d.notRunning(name, ids.Identities); err != nil {
			return err
		}
		if v.Path != old.Path {
			if err := d.copyVault(name, old.Path, v.Path); err != nil {
				return err
			}
		}
		f.Vaults[i] = v
		if v.Name != old.Name {
			if err := d.renameInIdentities(&f, &ids, old, v); err != nil {
				return err
			}
		}
		if err := d.writeVaults(&f); err != nil {
			return err
		}
		if v.Path != old.Path {
			if err := os.RemoveAll(old.Path); err != nil {
				return fmt.Errorf("vault %q has moved, but its old place still holds keys: %w", v.Name, err)
			}
		}
		return nil
	})
}

// renameInIdentities is safe against a crash between two files: first both names are known, then the identities change, then the
// caller drops the old name.
func (d *Dir) renameInIdentities(f *vaultsFile, ids *identitiesFile, old, v Vault) error {
	both := vaultsFile{Vaults: slices.Clone(f.Vaults)}
	old.IsDefault = false
	both.Vaults = append(both.Vaults, old)
	if err := d.writeVaults(&both); err != nil {
		return err
	}
	changed := false
	for i := range ids.Identities {
		if ids.Identities[i].Vault == old.Name {
			ids.Identities[i].Vault, changed = v.Name, true
		}
		if ids.Identities[i].MovingTo == old.Name {
			ids.Identities[i].MovingTo, changed = v.Name, true
		}
	}
	if !changed {
		return nil
	}
	return d.writeIdentities(ids)
}

func (d *Dir) copyVault(name, from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("vault %q: cannot move to %s: %w", name, to, os.ErrExist)
	}
	if err := mkdir(filepath.Dir(to)); err != nil {
		return fmt.Errorf("vault %q: %w", name, err)
	}
	err := copyTree(from, to)
	if err == nil {
		err = wholefile.SyncDir(filepath.Dir(to))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("vault %q: %w", name, err), os.RemoveAll(to))
	}
	return nil
}

// notRunning makes sure that no running node uses the vault, for itself or for one of its portals, listeners and channels.
func (d *Dir) notRunning(vault string, ids []NamedIdentity) error {
	nodes, unread, err := d.allNodes()
	if err != nil {
		return err
	}
	users := perhaps(unread)
	for _, n := range nodes {
		if n.Status() != Running {
			continue
		}
		others := d.identitiesFor(n.Name)
		if slices.ContainsFunc(ids, func(i NamedIdentity) bool {
			return (i.Vault == vault || i.MovingTo == vault) && (i.Identifier == n.Identifier || slices.Contains(others, i.Name))
		}) {
			users = append(users, fmt.Sprintf("running node %q", n.Name))
		}
	}
	if len(users) > 0 {
		return &InUseError{Kind: "vault", Name: vault, By: users}
	}
	return nil
}

// identitiesFor returns the names of the identities that a node's resources ask for by name. Resources that cannot be read ask for none.
func (d *Dir) identitiesFor(node string) (names []string) {
	list, _ := d.Resources(node)
	for _, r := range list {
		var request struct {
			Identity string `json:"identity"`
		}
		if json.Unmarshal(r.Request, &request) == nil && request.Identity != "" {
			names = append(names, request.Identity)
		}
	}
	return names
}

// DeleteVault deletes a vault with its keys. It refuses while identities use it (InUseError). A vault outside the state directory is
// only forgotten: its directory, returned as left, stays.
func (d *Dir) DeleteVault(ctx context.Context, name string) (left string, err error) {
	var gone string
	err = d.changeVaults(ctx, func(f *vaultsFile) error {
		i := f.find(name)
		if i < 0 {
			return &NotFoundError{Kind: "vault", Name: name}
		}
		ids, err := d.readIdentities()
		if err != nil {
			return err
		}
		var users []string
		for _, n := range ids.Identities {
			if d.whereKeyIs(n).Vault == name {
				users = append(users, fmt.Sprintf("identity %q", n.Name))
			}
		}
		if len(users) > 0 {
			return &InUseError{Kind: "vault", Name: name, By: users}
		}
		// Take it out of the way under the lock, so that a new vault of this name cannot meet the old keys.
		if path := f.Vaults[i].Path; d.inside(path) {
			gone = d.file("vaults", ".deleted-"+RandomName())
			if err := os.Rename(path, gone); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("vault %q: %w", name, err)
			}
		} else {
			left = path
		}
		f.Vaults = slices.Delete(f.Vaults, i, i+1)
		if len(f.Vaults) == 1 {
			f.Vaults[0].IsDefault = true
		}
		return nil
	})
	if gone != "" && err == nil {
		if err := os.RemoveAll(gone); err != nil {
			return left, fmt.Errorf("vault %q: %w", name, err)
		}
	}
	return left, err
}
