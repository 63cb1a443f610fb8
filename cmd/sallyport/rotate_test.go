package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/state"
)

// crash is what ends a command at a point, as the end of its process would: nothing that is behind the point happens.
type crash struct{}

// crashing is a vault in which a command ends.
type crashing struct {
	vault.Vault
	before, after string // a method's call at whose beginning or end that is
}

func (c *crashing) at(when, method string) {
	if when == method {
		panic(crash{})
	}
}

func (c *crashing) GenerateSigningKey(ctx context.Context, a vault.KeyAlgorithm) (vault.Handle, vault.VerifyingKey, error) {
	h, k, err := c.Vault.GenerateSigningKey(ctx, a)
	c.at(c.after, "generate")
	return h, k, err
}

func (c *crashing) Sign(ctx context.Context, h vault.Handle, data []byte) (vault.Signature, error) {
	c.at(c.before, "sign")
	return c.Vault.Sign(ctx, h, data)
}

func (c *crashing) DeleteSigningKey(ctx context.Context, h vault.Handle) error {
	c.at(c.before, "delete")
	err := c.Vault.DeleteSigningKey(ctx, h)
	c.at(c.after, "delete")
	return err
}

// TestTrustRotateCrash: wherever a rotation into another vault ends, the identity works, and the next command does what was left to do.
func TestTrustRotateCrash(t *testing.T) {
	for name, c := range map[string]struct {
		old, next crashing
		rotated   bool
	}{
		"new key made":       {next: crashing{after: "generate"}},
		"signs with the new": {next: crashing{before: "sign"}},
		"signs with the old": {old: crashing{before: "sign"}},
		"history written":    {old: crashing{before: "delete"}, rotated: true},
		"old key deleted":    {old: crashing{after: "delete"}, rotated: true},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			d, err := state.Open(home)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("SALLYPORT_HOME", home)
			run := func(a *app, args ...string) (out string) {
				t.Helper()
				var stdout, stderr bytes.Buffer
				a.stdout, a.stderr, a.stdin, a.output, a.noInput = &stdout, &stderr, bytes.NewReader(nil), "plain", true
				root := newRoot(a)
				root.SetArgs(args)
				if err := root.ExecuteContext(t.Context()); err != nil {
					t.Fatalf("%q: %v\n%s", args, err, stderr.String())
				}
				return stdout.String()
			}
			run(&app{vaults: &openVaults{}}, "vault", "create", "old")
			run(&app{vaults: &openVaults{}}, "vault", "create", "next")
			run(&app{vaults: &openVaults{}}, "identity", "create", "i", "--vault", "old")
			before, err := d.NamedIdentity("i")
			if err != nil {
				t.Fatal(err)
			}
			first := len(keysOf(t, d, "old"))

			a := &app{vaults: &openVaults{}}
			for vaultName, with := range map[string]crashing{"old": c.old, "next": c.next} {
				v, err := d.Vault(vaultName)
				if err != nil {
					t.Fatal(err)
				}
				if with.Vault, err = vault.OpenFile(v.Path); err != nil {
					t.Fatal(err)
				}
				a.openVault(v).open = func(context.Context) (vault.Vault, error) { return &with, nil }
			}
			func() {
				defer func() {
					if r := recover(); r != (crash{}) {
						t.Fatalf("it does not end there: %v", r)
					}
				}()
				run(a, "identity", "rotate", "i", "--vault", "next")
			}()

			id, err := identity.ParseIdentifier(before.Identifier)
			if err != nil {
				t.Fatal(err)
			}
			works := func(when, vaultName string) {
				t.Helper()
				a := &app{vaults: &openVaults{}}
				var out bytes.Buffer
				a.stdout, a.stderr = &out, &out
				s, err := a.identityOf(t.Context(), "i")
				if err != nil {
					t.Fatal(err)
				}
				if err := s.manager.CheckKeys(t.Context(), id); err != nil || s.named.Vault != vaultName {
					t.Errorf("%s: its vault is %s: %v", when, s.named.Vault, err)
				}
			}
			where := map[bool]string{false: "old", true: "next"}[c.rotated]
			works("after the crash", where)
			if n := len(keysOf(t, d, "old")); n != map[bool]int{false: first, true: first - 1}[c.rotated] {
				t.Errorf("%d keys in the old vault", n)
			}
			if c.rotated {
				if n, err := d.NamedIdentity("i"); err != nil || n.Vault != "next" || n.MovingTo != "" || n.Left != "" {
					t.Errorf("%+v, %v", n, err)
				}
				run(&app{vaults: &openVaults{}}, "vault", "delete", "old", "--yes")
			}
			run(&app{vaults: &openVaults{}}, "identity", "rotate", "i", "--vault", "next")
			works("rotated again", "next")
			if i, err := d.Store().Identity(t.Context(), id); err != nil || len(i.Changes()) != map[bool]int{false: 2, true: 3}[c.rotated] {
				t.Errorf("%v", err)
			}
			if _, err := d.Vault("old"); !c.rotated && (err != nil || len(keysOf(t, d, "old")) != first-1) || c.rotated && !errors.Is(err, state.ErrNotFound) {
				t.Errorf("the old vault: %v", err)
			}
		})
	}
}

func keysOf(t *testing.T, d *state.Dir, vaultName string) (names []string) {
	t.Helper()
	v, err := d.Vault(vaultName)
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(v.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
