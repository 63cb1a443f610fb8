package identity

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sallyport/crypto/vault"
)

// TestCheckKeys finds a primary key that is gone or damaged, and leaves no other secret in the vault than that one.
func TestCheckKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "vault")
	keys, err := vault.OpenFile(dir)
	must(t, err)
	m := New(Options{Vault: keys, Store: NewMemoryStore()})
	i, err := m.Create(t.Context(), CreateOptions{})
	must(t, err)
	must(t, m.CheckKeys(t.Context(), i.Identifier()))
	if _, ok := m.KeyState(i.Identifier()); !ok {
		t.Error("there is no key for channels")
	}
	file := func(kind string) string {
		found, err := filepath.Glob(filepath.Join(dir, kind+"-*"))
		if err != nil || len(found) != 1 {
			t.Fatal(found, err)
		}
		return found[0]
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("%d files in the vault (%v): purpose keys belong into memory", len(all), err)
	}
	primary := file("ed25519")
	content, err := os.ReadFile(primary)
	must(t, err)
	content[7] ^= 1
	must(t, os.WriteFile(primary, content, 0o600))
	wantIs(t, "damaged", m.CheckKeys(t.Context(), i.Identifier()), vault.ErrKey)
	must(t, os.Remove(primary))
	wantIs(t, "gone", m.CheckKeys(t.Context(), i.Identifier()), vault.ErrNotFound)
	wantIs(t, "a stranger", m.CheckKeys(t.Context(), Identifier{}), ErrNotFound)
}

// TestOwnIsReadAgain: what an identity shows is not kept for longer than a second, and not beyond a rotation.
func TestOwnIsReadAgain(t *testing.T) {
	n := newNode(t)
	id := n.create(t, CreateOptions{}).Identifier()
	a, err := n.Own(t.Context(), id)
	must(t, err)
	if b, err := n.Own(t.Context(), id); err != nil || a != b {
		t.Errorf("read again at once (%v)", err)
	}
	n.now += Timestamp(ownTTL / time.Second)
	c, err := n.Own(t.Context(), id)
	must(t, err)
	if a == c || c.Key.Handle != a.Key.Handle {
		t.Error("not read again after a second, or another key")
	}
	_, err = n.Rotate(t.Context(), id, RotateOptions{})
	must(t, err)
	d, err := n.Own(t.Context(), id)
	must(t, err)
	if d.Key.Handle == c.Key.Handle || string(d.History) == string(c.History) {
		t.Error("shows what it was before the rotation")
	}
	must(t, n.Delete(t.Context(), id))
	if _, err := n.Own(t.Context(), id); err == nil {
		t.Error("shows something after its keys were deleted")
	}
}
