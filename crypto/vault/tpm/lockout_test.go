//go:build !small

package tpm

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"sallyport/crypto/vault"
)

// lockOut makes a TPM refuse what its protection against guessing covers, by guesses.
func lockOut(t *testing.T, v *Vault) {
	t.Helper()
	must(t, v.with(t.Context(), "lock out", func(c transport.TPM, _ tpm2.NamedHandle) error {
		template := tpm2.ECCSRKTemplate
		template.ObjectAttributes.NoDA = false
		made, err := tpm2.CreatePrimary{
			PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template),
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("right")}}},
		}.Execute(c)
		if err != nil {
			return err
		}
		defer flush(c, made.ObjectHandle)
		for range 100 {
			_, err := tpm2.Create{
				ParentHandle: tpm2.AuthHandle{Handle: made.ObjectHandle, Name: made.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))}, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate),
			}.Execute(c)
			if errors.Is(err, tpm2.TPMRCLockout) {
				return nil
			}
			if err == nil {
				return errors.New("a wrong password is right")
			}
		}
		return errors.New("it is not locked out after 100 guesses")
	}))
}

// unlock is what tpm2_dictionarylockout --clear-lockout does.
func unlock(t *testing.T, v *Vault) {
	t.Helper()
	must(t, v.with(t.Context(), "unlock", func(c transport.TPM, _ tpm2.NamedHandle) error {
		const lockReset, lockoutHandle, password = 0x139, 0x4000000A, 0x40000009
		b := []byte{0x80, 0x02, 0, 0, 0, 0}
		b = binary.BigEndian.AppendUint32(b, lockReset)
		b = binary.BigEndian.AppendUint32(b, lockoutHandle)
		b = binary.BigEndian.AppendUint32(b, 9)
		b = append(binary.BigEndian.AppendUint32(b, password), 0, 0, 0, 0, 0) // no nonce, no attributes, an empty password
		binary.BigEndian.PutUint32(b[2:], uint32(len(b)))
		answer, err := c.Send(b)
		if err == nil && (len(answer) < 10 || binary.BigEndian.Uint32(answer[6:]) != 0) {
			err = errors.New("refused")
		}
		return err
	}))
}

// TestTrustKeysTPMLockedOut: a TPM that is locked out after guesses at something else goes on signing with our keys, which need no password. One whose
// storage root key, which somebody else made, is covered by the protection refuses, in one line with what to do; and goes on when that was done.
func TestTrustKeysTPMLockedOut(t *testing.T) {
	ctx := t.Context()
	v, err := Open(t.TempDir()+"/v", software(t), nil)
	must(t, err)
	h, _, err := v.GenerateSigningKey(ctx, vault.P256)
	must(t, err)
	lockOut(t, v)
	if _, err := v.Sign(ctx, h, []byte("text")); err != nil {
		t.Errorf("our own key: %v", err)
	}

	v, err = Open(t.TempDir()+"/v", software(t), nil)
	must(t, err)
	must(t, v.with(ctx, "replace the root key", func(c transport.TPM, srk tpm2.NamedHandle) error {
		if _, err := (tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &srk, PersistentHandle: parent}).Execute(c); err != nil {
			return err
		}
		template := tpm2.ECCSRKTemplate
		template.ObjectAttributes.NoDA = false
		made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(template)}.Execute(c)
		if err != nil {
			return err
		}
		defer flush(c, made.ObjectHandle)
		_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}, PersistentHandle: parent}.Execute(c)
		return err
	}))
	h, key, err := v.GenerateSigningKey(ctx, vault.P256)
	must(t, err)
	lockOut(t, v)
	for what, try := range map[string]func() error{
		"sign": func() error { _, err := v.Sign(ctx, h, []byte("text")); return err },
		"make": func() error { _, _, err := v.GenerateSigningKey(ctx, vault.P256); return err },
	} {
		if err := try(); !errors.Is(err, vault.ErrRefused) || !strings.Contains(err.Error(), "locked after wrong passwords: wait, or tpm2_dictionarylockout --clear-lockout") ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
	unlock(t, v)
	sig, err := v.Sign(ctx, h, []byte("text"))
	must(t, err)
	must(t, vault.Verify(key, []byte("text"), sig))
}
