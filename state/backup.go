package state

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"sallyport/crypto/identity"
)

// Copy is what a state directory holds at one moment.
type Copy struct {
	// Files are all but the authorities' stores, by their slash-separated names in the directory. Some are secret: Wipe them.
	Files []CopiedFile
	// Stores are the names of the authorities' stores, which are databases: whoever has them open copies them.
	Stores []string
	// Identities, Vaults and Nodes are those that it has.
	Identities []NamedIdentity
	Vaults     []Vault
	Nodes      []Node
	// Elsewhere is what the state needs and is not in it: keys in machines of their own, what opens vaults, files that were named.
	Elsewhere []Elsewhere
}

// Elsewhere is something that a state directory needs and does not hold.
type Elsewhere struct {
	What string `json:"what"` // such as `the keys of vault "hsm"`
	At   string `json:"at"`   // where it is
}

// CopiedFile is a small file.
type CopiedFile struct {
	Name string
	Data []byte
}

// Wipe overwrites the content of the files in memory.
func (c *Copy) Wipe() {
	for _, f := range c.Files {
		clear(f.Data)
	}
}

// vaultsDir is where the vaults of a Copy lie, each under its name, wherever they lay.
const vaultsDir = "vaults"

// storeName is the name of an authority's store in a state directory, for the identifier of its project.
func storeName(projectIdentifier string) string { return "authority-" + projectIdentifier + ".db" }

// StorePath returns where the store of an authority is.
func (d *Dir) StorePath(projectIdentifier string) string { return d.file(storeName(projectIdentifier)) }

// Copy reads the state as it is at one moment, under the lock: of a node, if it is not empty, only that node, with the identities that it works with, their
// keys, and what is public of all others. Logs and what belongs to a running process are left out.
func (d *Dir) Copy(ctx context.Context, node string) (c *Copy, err error) {
	c = &Copy{}
	err = d.locked(ctx, func() error { return d.copyAll(c, node) })
	if err != nil {
		c.Wipe()
		return nil, err
	}
	return c, nil
}

func (d *Dir) copyAll(c *Copy, only string) error {
	def, err := d.defaultNode()
	if err != nil {
		return err
	}
	names, err := d.nodeNames()
	if err != nil {
		return err
	}
	if only != "" {
		if !slices.Contains(names, only) {
			return &NotFoundError{Kind: "node", Name: only}
		}
		names, def = []string{only}, only
	}
	ids, err := d.readIdentities()
	if err != nil {
		return err
	}
	var vaults vaultsFile
	if err := d.readJSON(d.file("vaults.json"), &vaults); err != nil {
		return err
	}
	wanted := map[string]bool{} // names of identities that --node needs
	for _, name := range names {
		n, err := d.readNode(name)
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
		if err := d.copyNode(c, n, wanted); err != nil {
			return err
		}
	}
	if only == "" { // a node within another program has no record
		others, err := entries(d.file("nodes"))
		if err != nil {
			return err
		}
		for _, name := range others {
			if CheckName("node", name) != nil || slices.Contains(names, name) {
				continue
			}
			if err := d.copyTrust(c, name); err != nil {
				return err
			}
		}
	}
	c.Identities, c.Vaults = ids.Identities, vaults.Vaults
	if only != "" {
		d.keepOnly(c, wanted)
	}
	for _, v := range c.Vaults {
		if err := d.copyVaultFiles(c, v, only != ""); err != nil {
			return err
		}
	}
	kept := vaultsFile{Version: fileVersion, Vaults: slices.Clone(c.Vaults)}
	for i := range kept.Vaults {
		kept.Vaults[i].Path = vaultsDir + "/" + kept.Vaults[i].Name // Restore makes it absolute
	}
	for name, v := range map[string]any{
		"identities.json": identitiesFile{Version: fileVersion, Identities: c.Identities}, "vaults.json": kept, "nodes.json": nodesFile{Version: fileVersion, Default: def},
	} {
		b, err := encodeJSON(name, v)
		if err != nil {
			return err
		}
		c.Files = append(c.Files, CopiedFile{name, b})
	}
	for _, name := range []string{"projects.json", pinsFile} {
		if err := c.add(d.path, name, true); err != nil {
			return err
		}
	}
	for _, dir := range []string{"histories", "credentials", "purpose_keys"} {
		if err := c.addAll(d.path, dir, nil); err != nil {
			return err
		}
	}
	slices.SortFunc(c.Files, func(a, b CopiedFile) int { return strings.Compare(a.Name, b.Name) })
	return d.copyStores(c, only != "")
}

// copyNode adds what a node is started again from. Its process and its socket are not those of the node that is restored.
func (d *Dir) copyNode(c *Copy, n Node, wanted map[string]bool) error {
	wanted[n.IdentityName], wanted[n.Options.Identity] = true, true
	list, err := d.Resources(n.Name)
	if err != nil {
		return err
	}
	for _, r := range list {
		var names struct{ Identity, Certificate, Key string } // in whatever kind has them
		if err := json.Unmarshal(r.Request, &names); err != nil {
			return fmt.Errorf("node %q: %s %s: %w", n.Name, r.Kind, r.Name, err)
		}
		wanted[names.Identity] = true
		for _, path := range []string{names.Certificate, names.Key} {
			if filepath.IsAbs(path) {
				c.Elsewhere = append(c.Elsewhere, Elsewhere{fmt.Sprintf("a file of %s %q of node %q", r.Kind, r.Name, n.Name), path})
			}
		}
	}
	if n.Configuration != nil {
		for _, path := range n.Configuration.Paths {
			c.Elsewhere = append(c.Elsewhere, Elsewhere{fmt.Sprintf("the configuration of node %q", n.Name), path})
		}
	}
	for what, path := range map[string]string{"certificate": n.Options.TLSCertificate, "certificate's key": n.Options.TLSKey} {
		if path != "" {
			c.Elsewhere = append(c.Elsewhere, Elsewhere{fmt.Sprintf("the %s of node %q", what, n.Name), path})
		}
	}
	if o := n.Options.Authority; o != nil && o.OIDC.SecretFile != "" {
		c.Elsewhere = append(c.Elsewhere, Elsewhere{fmt.Sprintf("the OpenID Connect secret of node %q", n.Name), o.OIDC.SecretFile})
	}
	if o := n.Options.Authority; o != nil && o.Store != "" {
		c.Elsewhere = append(c.Elsewhere, Elsewhere{fmt.Sprintf("the members of node %q, which pg_dump saves", n.Name), "PostgreSQL, " + o.Store})
	}
	n.Process, n.AdminSocket = Process{}, ""
	at := "nodes/" + n.Name
	b, err := encodeJSON(at, nodeFile{Version: fileVersion, Node: n})
	if err != nil {
		return err
	}
	c.Files = append(c.Files, CopiedFile{at + "/node.json", b})
	if err := c.add(d.path, at+"/resources.json", true); err != nil {
		return err
	}
	if err := c.addAll(d.path, at+"/kafka_keys", nil); err != nil {
		return err
	}
	return d.copyTrust(c, n.Name)
}

// copyTrust adds whom a node expects, who was revoked, and which nodes act as one with it.
func (d *Dir) copyTrust(c *Copy, node string) error {
	for _, name := range []string{revokedFile, pinsFile, fleetFile, delegateFile} {
		if err := c.add(d.path, "nodes/"+node+"/"+name, true); err != nil {
			return err
		}
	}
	return nil
}

// keepOnly leaves the identities that are wanted and their vaults.
func (d *Dir) keepOnly(c *Copy, wanted map[string]bool) {
	c.Identities = slices.DeleteFunc(slices.Clone(c.Identities), func(n NamedIdentity) bool { return !wanted[n.Name] })
	c.Vaults = slices.DeleteFunc(slices.Clone(c.Vaults), func(v Vault) bool {
		return !slices.ContainsFunc(c.Identities, func(n NamedIdentity) bool { return n.Vault == v.Name || n.MovingTo == v.Name })
	})
	if len(c.Identities) == 1 {
		c.Identities[0].IsDefault = true
	}
	if len(c.Vaults) == 1 {
		c.Vaults[0].IsDefault = true
	}
}

// copyVaultFiles adds the keys of a vault, or what is known of keys that are in a machine of their own; with own only those of the identities of c.
func (d *Dir) copyVaultFiles(c *Copy, v Vault, own bool) error {
	var only []string
	if own {
		for _, n := range c.Identities {
			if n.Vault != v.Name && n.MovingTo != v.Name {
				continue
			}
			h, err := d.latestKey(n.Identifier)
			if err != nil {
				return fmt.Errorf("identity %q: %w", n.Name, err)
			}
			only = append(only, string(h))
		}
	}
	switch v.Kind {
	case VaultPKCS11:
		c.Elsewhere = append(c.Elsewhere, Elsewhere{fmt.Sprintf("the keys of vault %q", v.Name), v.URI})
	case VaultAWSKMS:
		c.Elsewhere = append(c.Elsewhere, Elsewhere{fmt.Sprintf("the keys of vault %q", v.Name), "AWS KMS"})
	case VaultTPM:
		c.Elsewhere = append(c.Elsewhere, Elsewhere{fmt.Sprintf("the keys of vault %q, which no other machine can use", v.Name), "the TPM at " + v.Device})
	}
	for what, path := range map[string]string{"key file": v.KeyFile, "passphrase or PIN": v.PassphraseFile, "systemd credential": v.Credential} {
		if path != "" {
			c.Elsewhere = append(c.Elsewhere, Elsewhere{fmt.Sprintf("the %s that opens vault %q", what, v.Name), path})
		}
	}
	before := len(c.Files)
	err := c.addAll(v.Path, ".", func(name string) bool {
		return !own || !strings.Contains(name, "-") || slices.ContainsFunc(only, func(h string) bool { return strings.Contains(name, h) })
	})
	for i := range c.Files[before:] {
		c.Files[before+i].Name = vaultsDir + "/" + v.Name + "/" + c.Files[before+i].Name
	}
	if err != nil {
		return fmt.Errorf("vault %q: %w", v.Name, err)
	}
	return nil
}

func (d *Dir) copyStores(c *Copy, own bool) error {
	names, err := entries(d.path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if ok, _ := filepath.Match("authority-*.db", name); !ok {
			continue
		}
		mine := func(n Node) bool {
			return n.Options.Authority != nil && storeName(n.Options.Authority.ProjectIdentifier) == name
		}
		if !own || slices.ContainsFunc(c.Nodes, mine) {
			c.Stores = append(c.Stores, name)
		}
	}
	return nil
}

// addAll adds the regular files of a directory; there may be none. Those that begin with a dot are being written.
func (c *Copy) addAll(root, dir string, wanted func(name string) bool) error {
	names, err := entries(filepath.Join(root, dir))
	if err != nil {
		return err
	}
	for _, name := range names {
		if wanted != nil && !wanted(name) {
			continue
		}
		if info, err := os.Lstat(filepath.Join(root, dir, name)); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := c.add(root, filepath.Join(dir, name), true); err != nil {
			return err
		}
	}
	return nil
}

// add adds a file; missing says that it need not be there.
func (c *Copy) add(root, name string, missing bool) error {
	f, err := os.OpenFile(filepath.Join(root, name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if missing && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", f.Name(), maxFile)
	}
	if err != nil {
		clear(data)
		return err
	}
	c.Files = append(c.Files, CopiedFile{filepath.ToSlash(name), data})
	return nil
}

// mayRestore reports whether a file of this name, slash-separated, is one that Copy makes, or a store: nothing else gets into a state directory from a
// backup.
func mayRestore(name string) bool {
	plain := func(s string) bool {
		return s != "" && !strings.HasPrefix(s, ".") && len(s) < 256 && !strings.ContainsAny(s, "/\\\x00")
	}
	parts := strings.Split(name, "/")
	for _, p := range parts {
		if !plain(p) {
			return false
		}
	}
	switch {
	case len(parts) == 1:
		store, _ := filepath.Match("authority-*.db", name)
		return store || slices.Contains([]string{"identities.json", "vaults.json", "nodes.json", "projects.json", pinsFile}, name)
	case len(parts) == 2 && parts[0] == "histories":
		id, err := identity.ParseIdentifier(parts[1])
		return err == nil && id.String() == parts[1]
	case len(parts) == 2:
		return parts[0] == "credentials" || parts[0] == "purpose_keys"
	case parts[0] == vaultsDir:
		return len(parts) == 3 && CheckName("vault", parts[1]) == nil
	case parts[0] != "nodes" || CheckName("node", parts[1]) != nil:
		return false
	case len(parts) == 3:
		return slices.Contains([]string{"node.json", "resources.json", revokedFile, pinsFile, fleetFile, delegateFile}, parts[2])
	}
	raw, err := hex.DecodeString(strings.TrimSuffix(parts[3], ".json"))
	return len(parts) == 4 && parts[2] == "kafka_keys" && err == nil && len(raw) == 16
}
