package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/crypto/vault"
	"sallyport/node/resource"
)

// box makes a state with two identities in two vaults, one of which is elsewhere, two nodes and an authority's store.
func box(t *testing.T) (d *Dir, elsewhere string) {
	t.Helper()
	d = open(t)
	withIdentity(t, d, "first", 0)
	elsewhere = filepath.Join(t.TempDir(), "keys")
	if _, err := d.CreateVault(t.Context(), "other", elsewhere, VaultHome{Locked: true, KeyFile: "/run/key"}, nil); err != nil {
		t.Fatal(err)
	}
	must(t, d.Store().PutIdentity(t.Context(), own(t, 1)))
	_, err := d.CreateNamed(t.Context(), "second", own(t, 1).Identifier().String(), "other")
	must(t, err)
	for n, v := range []string{d.file("vaults", "default"), elsewhere} {
		handle := string(vault.HandleOf(own(t, n).Latest().Key.Bytes))
		must(t, os.WriteFile(filepath.Join(v, "ed25519-"+handle), []byte("secret of "+v), 0o600))
	}
	must(t, os.WriteFile(d.file("vaults", "default", "ed25519-"+strings.Repeat("0", 64)), []byte("another's"), 0o600))
	must(t, os.WriteFile(d.file("vaults", "default", ".new-1"), []byte("half"), 0o600))
	process, err := CurrentProcess()
	must(t, err)
	for name, n := range map[string]Node{
		"n1": {IdentityName: "first", Identifier: own(t, 0).Identifier().String(), Process: process, AdminSocket: "/x/admin.sock"},
		"authority-p": {IdentityName: "second", Identifier: own(t, 1).Identifier().String(), IsAuthority: true,
			Options: NodeOptions{Authority: &AuthorityOptions{ProjectIdentifier: "p", TrustedIdentities: []byte("{}"), OIDC: OIDCOptions{SecretFile: "/etc/oidc"}}}},
	} {
		n.Name = name
		_, err := d.CreateNode(t.Context(), n)
		must(t, err)
	}
	must(t, d.SaveResources(t.Context(), "n1", []resource.Stored{{Kind: "certificate", Name: "c", Request: []byte(`{"certificate": "/etc/c.pem", "key": "/etc/k.pem"}`)}}))
	must(t, d.PutRevoked("n1", []byte("revoked")))
	must(t, d.PutPins("client", []byte("{}"))) // of a node within another program, which has no record
	must(t, os.WriteFile(d.file("nodes", "n1", "stdout.log"), []byte("log"), 0o600))
	must(t, os.WriteFile(d.StorePath("p"), []byte("store"), 0o600))
	return d, elsewhere
}

// put restores a copy.
func put(t *testing.T, d *Dir, c *Copy, replace bool) (string, error) {
	t.Helper()
	return d.Restore(t.Context(), replace, func(s *Staging) error {
		for _, f := range c.Files {
			w, err := s.Create(f.Name)
			if err != nil {
				return err
			}
			_, err = w.Write(f.Data)
			if err := errors.Join(err, w.Close()); err != nil {
				return err
			}
		}
		for _, name := range c.Stores {
			w, err := s.Create(name)
			if err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
		}
		return nil
	})
}

func names(c *Copy) (all []string) {
	for _, f := range c.Files {
		all = append(all, f.Name)
	}
	return all
}

// TestCopyAndRestore: what was copied is there in another place, with paths of its own, and nothing that belonged to a process.
func TestCopyAndRestore(t *testing.T) {
	d, elsewhere := box(t)
	c, err := d.Copy(t.Context(), "")
	must(t, err)
	if !slices.Equal(c.Stores, []string{"authority-p.db"}) || len(c.Identities) != 2 || len(c.Nodes) != 2 {
		t.Errorf("%+v", c)
	}
	for _, name := range names(c) {
		if !mayRestore(name) || strings.Contains(name, ".new-") || strings.Contains(name, ".log") {
			t.Errorf("%s is copied", name)
		}
	}
	var at []string
	for _, e := range c.Elsewhere {
		at = append(at, e.At)
	}
	if slices.Sort(at); !slices.Equal(at, []string{"/etc/c.pem", "/etc/k.pem", "/etc/oidc", "/run/key"}) {
		t.Errorf("elsewhere: %v", c.Elsewhere)
	}
	to := open(t)
	if replaced, err := put(t, to, c, false); err != nil || replaced != "" {
		t.Fatal(replaced, err)
	}
	for _, name := range []string{"default", "other"} {
		v, err := to.Vault(name)
		must(t, err)
		if v.Path != to.file("vaults", name) {
			t.Errorf("vault %s is at %s", name, v.Path)
		}
	}
	handle := string(vault.HandleOf(own(t, 1).Latest().Key.Bytes))
	if b, err := os.ReadFile(to.file("vaults", "other", "ed25519-"+handle)); err != nil || string(b) != "secret of "+elsewhere {
		t.Errorf("%q, %v", b, err)
	}
	n, err := to.Node("n1")
	must(t, err)
	if n.Process != (Process{}) || n.AdminSocket != "" || n.Status() != Stopped {
		t.Errorf("%+v", n)
	}
	if b, err := to.Revoked("n1"); err != nil || string(b) != "revoked" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := to.Pins("client"); err != nil || string(b) != "{}" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(to.StorePath("p") + ".made"); err != nil {
		t.Error(err)
	}
	must(t, filepath.WalkDir(to.path, func(path string, e fs.DirEntry, err error) error {
		must(t, err)
		info, err := e.Info()
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return nil
	}))
	wantError(t, func() error { _, err := put(t, to, c, false); return err }(), ErrNotEmpty, "identities.json")
	// The process of node n1 is this one, so where it is recorded nothing is replaced.
	wantError(t, func() error { _, err := put(t, d, c, true); return err }(), ErrInUse, "n1")
	withIdentity(t, to, "third", 2)
	replaced, err := put(t, to, c, true)
	must(t, err)
	if filepath.Dir(replaced) != to.path {
		t.Fatalf("what was there is in %q", replaced)
	}
	if before, err := Open(replaced); err != nil {
		t.Error(err)
	} else if ids, err := before.Identities(); err != nil || len(ids) != 3 {
		t.Errorf("%v, %v", ids, err)
	}
	if ids, err := to.Identities(); err != nil || len(ids) != 2 {
		t.Errorf("%v, %v", ids, err)
	}
	if left, err := to.Reset(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestCopyOfANode: with a node go its identity and the key of that, and not those of others.
func TestCopyOfANode(t *testing.T) {
	d, _ := box(t)
	c, err := d.Copy(t.Context(), "n1")
	must(t, err)
	for _, name := range names(c) {
		if strings.Contains(name, "authority-p") || strings.Contains(name, strings.Repeat("0", 64)) || strings.Contains(name, "vaults/other") {
			t.Errorf("%s goes with n1", name)
		}
	}
	handle := string(vault.HandleOf(own(t, 0).Latest().Key.Bytes))
	if len(c.Stores) != 0 || len(c.Identities) != 1 || !slices.Contains(names(c), "vaults/default/ed25519-"+handle) {
		t.Errorf("%v", names(c))
	}
	to := open(t)
	if _, err := put(t, to, c, false); err != nil {
		t.Fatal(err)
	}
	if n, err := to.Node(""); err != nil || n.Name != "n1" {
		t.Errorf("%v, %v", n, err)
	}
	c, err = d.Copy(t.Context(), "authority-p")
	if err != nil || !slices.Equal(c.Stores, []string{"authority-p.db"}) {
		t.Errorf("%v, %v", c, err)
	}
	_, err = d.Copy(t.Context(), "nosuch")
	wantError(t, err, ErrNotFound, "nosuch")
}

// TestRestoreRefuses: a restore that fails anywhere leaves what was there, and nothing of its own.
func TestRestoreRefuses(t *testing.T) {
	d, _ := box(t)
	c, err := d.Copy(t.Context(), "")
	must(t, err)
	to := open(t)
	withIdentity(t, to, "mine", 2)
	for what, broken := range map[string]CopiedFile{
		"name":    {"../x", nil},
		"twice":   {"identities.json", nil},
		"strange": {"nodes/n1/stdout.log", nil},
		"broken":  {"projects.json", []byte("{")},
		"newer":   {"projects.json", []byte(`{"version": 99}`)},
	} {
		bad := *c
		bad.Files = append(slices.Clone(c.Files), broken)
		if _, err := put(t, to, &bad, true); err == nil {
			t.Errorf("%s: restored", what)
		}
		if ids, err := to.Identities(); err != nil || len(ids) != 1 {
			t.Errorf("%s: %v, %v", what, ids, err)
		}
		list, err := os.ReadDir(to.path)
		must(t, err)
		for _, e := range list {
			if strings.HasPrefix(e.Name(), ".restore") || strings.HasPrefix(e.Name(), "re") {
				t.Errorf("%s: %s is left", what, e.Name())
			}
		}
	}
}

// TestRestoreInterrupted: whatever of a restore is left to do after its files are written, whoever opens the directory next does it.
func TestRestoreInterrupted(t *testing.T) {
	d, _ := box(t)
	c, err := d.Copy(t.Context(), "")
	must(t, err)
	done := open(t)
	if _, err := put(t, done, c, false); err != nil {
		t.Fatal(err)
	}
	for stage := range 6 {
		to := open(t)
		withIdentity(t, to, "mine", 2)
		must(t, os.CopyFS(to.file(readyName), os.DirFS(done.path)))
		must(t, os.Remove(to.file(readyName, lockName)))
		info, err := os.Lstat(to.file(readyName))
		must(t, err)
		aside := to.file(replacedName + info.ModTime().UTC().Format(replacedTime))
		old, err := to.replaceable()
		must(t, err)
		if stage >= 1 { // one of those that were there has gone aside
			must(t, os.Mkdir(aside, 0o700))
			must(t, os.Rename(to.file(old[0]), filepath.Join(aside, old[0])))
		}
		if stage >= 2 { // all have
			for _, name := range old[1:] {
				must(t, os.Rename(to.file(name), filepath.Join(aside, name)))
			}
		}
		if stage >= 3 {
			must(t, os.Rename(to.file(readyName), to.file(movingName)))
		}
		if stage >= 4 { // one is in its place
			must(t, os.Rename(to.file(movingName, "identities.json"), to.file("identities.json")))
		}
		if stage >= 5 { // and somebody writes another
			must(t, os.WriteFile(to.file("projects.json"), []byte(`{"version": 1}`), 0o600))
			must(t, os.MkdirAll(to.file("histories"), 0o700))
			must(t, os.WriteFile(to.file("histories", "late"), nil, 0o600))
		}
		again, err := Open(to.path)
		if err != nil {
			t.Fatalf("stage %d: %v", stage, err)
		}
		ids, err := again.Identities()
		if err != nil || len(ids) != 2 {
			t.Errorf("stage %d: %v, %v", stage, ids, err)
		}
		if _, err := os.Stat(again.file("histories", own(t, 0).Identifier().String())); err != nil {
			t.Errorf("stage %d: %v", stage, err)
		}
		if before, err := Open(aside); err != nil {
			t.Error(err)
		} else if ids, err := before.Identities(); err != nil || len(ids) != 1 || ids[0].Name != "mine" {
			t.Errorf("stage %d: what was there is %v, %v", stage, ids, err)
		}
		for _, name := range []string{readyName, movingName} {
			if _, err := os.Lstat(again.file(name)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("stage %d: %s is left: %v", stage, name, err)
			}
		}
	}
}

// FuzzMayRestore: no name leads out of the state directory, and none to what nobody restores.
func FuzzMayRestore(f *testing.F) {
	for _, name := range []string{"identities.json", "authority-p.db", "vaults/default/lock", "nodes/n1/node.json", "nodes/n1/../../x", "nodes/n1/admin.sock", "histories/..", "lock", "reserve"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !mayRestore(name) {
			return
		}
		if !filepath.IsLocal(name) || filepath.Clean(name) != name || strings.HasPrefix(filepath.Base(name), ".") {
			t.Errorf("%q", name)
		}
		if first, _, _ := strings.Cut(name, "/"); !isOwn(first) || first == reserveName || first == lockName || strings.HasPrefix(first, "restored") || strings.HasPrefix(first, replacedName) {
			t.Errorf("%q", name)
		}
	})
}
