//go:build !small

package tpm

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"sallyport/crypto/vault"
	"sallyport/crypto/vault/tpm/tpmtest"
)

func software(t *testing.T) string {
	t.Helper()
	socket, _ := tpmtest.Start(t)
	return socket
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestTrustKeysTPM: keys are made, sign, survive another process, and stop signing when a PCR that they are bound to changes.
func TestTrustKeysTPM(t *testing.T) {
	ctx := t.Context()
	socket := software(t)
	dir := t.TempDir() + "/vault"
	check := func(v *Vault, h vault.Handle, key vault.VerifyingKey) error {
		sig, err := v.Sign(ctx, h, []byte("text"))
		if err != nil {
			return err
		}
		return vault.Verify(key, []byte("text"), sig)
	}
	v, err := Open(dir, socket, nil)
	must(t, err)
	if _, _, err := v.GenerateSigningKey(ctx, vault.Ed25519); !errors.Is(err, vault.ErrAlgorithm) {
		t.Error(err)
	}
	h, key, err := v.GenerateSigningKey(ctx, vault.P256)
	must(t, err)
	for range 5 { // nothing is left loaded: a TPM holds three keys
		must(t, check(v, h, key))
	}
	again, err := Open(dir, socket, nil)
	must(t, err)
	must(t, check(again, h, key))

	bound, err := Open(t.TempDir()+"/vault", socket, []uint{0, 16})
	must(t, err)
	bh, bkey, err := bound.GenerateSigningKey(ctx, vault.P256)
	must(t, err)
	must(t, check(bound, bh, bkey))
	// The PCRs cannot be left out.
	free, err := Open(string(bound.records), socket, nil)
	must(t, err)
	if err := check(free, bh, bkey); err == nil {
		t.Error("a bound key signs without its PCRs")
	}
	must(t, v.with(ctx, "extend", func(c transport.TPM, _ tpm2.NamedHandle) error {
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(16), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
		}.Execute(c)
		return err
	}))
	if err := check(bound, bh, bkey); !errors.Is(err, vault.ErrRefused) || !strings.Contains(err.Error(), "PCRs [0 16]") {
		t.Errorf("a bound key after the machine changed: %v", err)
	}
	must(t, check(v, h, key))

	must(t, v.DeleteSigningKey(ctx, h))
	if err := check(v, h, key); !errors.Is(err, vault.ErrNotFound) {
		t.Error(err)
	}

	// The key of another TPM.
	other, err := Open(string(bound.records), software(t), nil)
	must(t, err)
	if err := check(other, bh, bkey); !errors.Is(err, vault.ErrKey) {
		t.Errorf("the key of another TPM: %v", err)
	}
}

// TestTrustKeysTPMFaults: each fault is one line that says what to do, and leaves nothing.
func TestTrustKeysTPMFaults(t *testing.T) {
	ctx := t.Context()
	none, err := Open(t.TempDir()+"/v", "/nowhere/tpm", nil)
	must(t, err)
	if _, _, err := none.GenerateSigningKey(ctx, vault.P256); !errors.Is(err, vault.ErrAway) || !strings.Contains(err.Error(), "--tpm-device") {
		t.Error(err)
	}
	for code, want := range map[error]string{
		tpm2.TPMRCLockout: "locked", tpm2.TPMRCPolicyFail: "PCRs", tpm2.TPMRCAuthFail: "password", tpm2.TPMRCIntegrity: "another TPM", os.ErrPermission: "tss",
	} {
		if err := none.explain("sign", fmt.Errorf("x: %w", code)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v: %v", code, err)
		}
	}
	v, err := Open(t.TempDir()+"/v", software(t), nil)
	must(t, err)
	owned := false
	err = v.with(ctx, "own", func(c transport.TPM, _ tpm2.NamedHandle) error {
		_, err := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: parent, Name: nameOf(t, c)}, PersistentHandle: parent}.Execute(c)
		if err == nil {
			_, err = tpm2.HierarchyChangeAuth{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("secret")}}.Execute(c)
		}
		owned = err == nil
		return err
	})
	if !owned {
		t.Fatal(err)
	}
	if _, _, err := v.GenerateSigningKey(ctx, vault.P256); !errors.Is(err, vault.ErrRefused) || !strings.Contains(err.Error(), "password") {
		t.Error(err)
	}
	if left, err := os.ReadDir(string(v.records)); err != nil || len(left) > 0 {
		t.Errorf("%v is left (%v)", left, err)
	}
}

func nameOf(t *testing.T, c transport.TPM) tpm2.TPM2BName {
	t.Helper()
	r, err := tpm2.ReadPublic{ObjectHandle: parent}.Execute(c)
	must(t, err)
	return r.Name
}

func TestParsePCRs(t *testing.T) {
	if got, err := ParsePCRs("0, 2,23"); err != nil || !reflect.DeepEqual(got, []uint{0, 2, 23}) {
		t.Error(got, err)
	}
	for _, text := range []string{"24", "-1", "0,0", "a", "0,", ","} {
		if got, err := ParsePCRs(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
