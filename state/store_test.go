package state

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"sync"
	"testing"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/project"
)

// rotated returns a history of two changes and its beginning of one.
func rotated(t *testing.T) (short, long *identity.Identity) {
	t.Helper()
	long = own(t, 9)
	// The first change has the same bytes in a history of its own: only the length of the outer array differs.
	end := bytes.LastIndex(long.History(), []byte{0x83, 0x58})
	short, err := identity.Import(append([]byte{0x81}, long.History()[1:end]...), nil)
	must(t, err)
	if len(short.Changes()) != 1 || len(long.Changes()) != 2 || short.Identifier() != long.Identifier() {
		t.Fatal("unexpected vector")
	}
	return short, long
}

func TestIdentityStore(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	short, long := rotated(t)
	id := long.Identifier()
	_, err := d.Store().Identity(ctx, id)
	wantError(t, err, identity.ErrNotFound, "there is no change history")
	wantError(t, err, ErrNotFound)
	check := func(want *identity.Identity) {
		t.Helper()
		got, err := d.Store().Identity(ctx, id)
		if err != nil || !bytes.Equal(got.History(), want.History()) {
			t.Errorf("got %v, %v", got, err)
		}
	}
	for _, i := range []*identity.Identity{short, short, long, long} { // new, equal, newer, equal
		must(t, d.Store().PutIdentity(ctx, i))
		check(i)
	}
	wantError(t, d.Store().PutIdentity(ctx, short), identity.ErrConsistency)
	check(long)

	// What was changed on disk is refused, and not overwritten.
	path := d.historyPath(id.String())
	broken := bytes.Clone(long.History())
	broken[len(broken)-1] ^= 1
	must(t, os.WriteFile(path, broken, 0o600))
	_, err = d.Store().Identity(ctx, id)
	wantError(t, err, ErrBroken, path, "does not verify")
	wantError(t, err, identity.ErrVerification)
	wantError(t, d.Store().PutIdentity(ctx, long), ErrBroken)
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, broken) {
		t.Errorf("file changed: %v", err)
	}
	// A history in the place of another one.
	must(t, os.WriteFile(path, own(t, 1).History(), 0o600))
	_, err = d.Store().Identity(ctx, id)
	wantError(t, err, ErrBroken)
}

// The newest history wins, in whichever order they arrive.
func TestPutIdentityRace(t *testing.T) {
	short, long := rotated(t)
	d := open(t)
	var wg sync.WaitGroup
	for k := range 16 {
		wg.Go(func() {
			other, err := Open(d.Path())
			if err != nil {
				t.Error(err)
				return
			}
			if i := []*identity.Identity{short, long}[k%2]; i == long {
				err = other.Store().PutIdentity(t.Context(), i)
			} else {
				_ = other.Store().PutIdentity(t.Context(), i) // may be too late
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := d.Store().Identity(t.Context(), long.Identifier()); err != nil || len(got.Changes()) != 2 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestRetirePurposeKeys: what earlier versions stored is handed over once and is gone then; what cannot be wiped stays.
func TestRetirePurposeKeys(t *testing.T) {
	d := open(t)
	withIdentity(t, d, "a", 1)
	id := own(t, 1).Identifier().String()
	stored := map[identity.Purpose]string{identity.SecureChannel: "z", identity.CredentialSigning: "y"}
	for p, content := range stored {
		path, err := d.purposeKeyPath(id, p)
		must(t, err)
		must(t, writeFile(path, []byte(content)))
	}
	broken := errors.New("no")
	wantError(t, d.RetirePurposeKeys(id, func([]byte) error { return broken }), broken)
	got := map[string]bool{}
	wipe := func(raw []byte) error { got[string(raw)] = true; return nil }
	must(t, d.RetirePurposeKeys(id, wipe))
	if len(got) != 2 || !got["y"] || !got["z"] {
		t.Errorf("%v", got)
	}
	clear(got)
	must(t, d.RetirePurposeKeys(id, wipe))
	if len(got) != 0 {
		t.Errorf("handed over again: %v", got)
	}
}

// The store and a vault of it serve a Manager, and what it made is there after opening again.
func TestManager(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	manager := func() *identity.Manager {
		t.Helper()
		v, err := d.EnsureVault(ctx, "")
		must(t, err)
		keys, err := vault.OpenFile(v.Path)
		must(t, err)
		again, err := Open(d.Path())
		must(t, err)
		return identity.New(identity.Options{Vault: keys, Store: again.Store()})
	}
	me, err := manager().Create(ctx, identity.CreateOptions{})
	must(t, err)
	_, err = d.CreateNamed(ctx, "", me.Identifier().String(), "")
	must(t, err)
	key, err := manager().SecureChannelKey(ctx, me.Identifier())
	must(t, err)
	id := me.Identifier()
	_, err = manager().VerifyAttestation(ctx, key.Attestation, &id)
	must(t, err)
}

func TestImportProject(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	short, long := rotated(t)
	p, _ := samples(t)
	p.Identity, p.ChangeHistory = "", long.Hex()
	must(t, d.ImportProject(ctx, p))
	p.ChangeHistory = short.Hex()
	must(t, d.ImportProject(ctx, p)) // older: the known one stays
	if got, err := d.Store().Identity(ctx, long.Identifier()); err != nil || len(got.Changes()) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	raw, err := hex.DecodeString(p.AuthorityChangeHistory)
	must(t, err)
	authority, err := identity.Import(raw, nil)
	must(t, err)
	if _, err := d.Store().Identity(ctx, authority.Identifier()); err != nil {
		t.Error(err)
	}
	p.AuthorityChangeHistory = "00"
	wantError(t, d.ImportProject(ctx, p), identity.ErrVerification, `project "awesome"`)
	p.AuthorityChangeHistory, p.ID = "", ""
	wantError(t, d.ImportProject(ctx, p), project.ErrMissing)
}
