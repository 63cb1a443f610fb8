package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/crypto/vault/awskms"
	"sallyport/crypto/vault/pkcs11"
	"sallyport/crypto/vault/tpm"
	"sallyport/state"
)

// openVaults are the vaults that this process works with, by path, and what opened them.
type openVaults struct {
	mu    sync.Mutex
	m     map[string]*lazyVault
	given map[string][]byte // what a person typed, by vault name

	confined bool // the process may not write everywhere any more
}

func (o *openVaults) isConfined() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.confined
}

// openVault returns a vault, which is opened when a key of it is first needed: that may take a second, or a question. With --in-memory it is in
// this process alone, and a killed process takes its keys along.
func (a *app) openVault(v state.Vault) *lazyVault {
	a.vaults.mu.Lock()
	defer a.vaults.mu.Unlock()
	if a.vaults.m == nil {
		a.vaults.m = map[string]*lazyVault{}
	}
	l := a.vaults.m[v.Path]
	if l == nil || l.home != v.Kind { // another one may lie there by now
		l = &lazyVault{home: v.Kind, open: func(ctx context.Context) (vault.Vault, error) { return a.newVault(ctx, v) }}
		a.vaults.m[v.Path] = l
	}
	return l
}

// newVault opens a vault.
func (a *app) newVault(ctx context.Context, v state.Vault) (vault.Vault, error) {
	if a.isInMemory {
		return vault.NewMemory(), nil
	}
	switch v.Kind {
	case state.VaultPKCS11:
		return a.openToken(v)
	case state.VaultAWSKMS:
		k, err := awskms.Open(v.Path)
		if err != nil {
			return nil, fmt.Errorf("vault %s: %w", v.Name, err)
		}
		a.atEnd = append(a.atEnd, k.Close)
		return k, nil
	case state.VaultTPM:
		pcrs, err := tpm.ParsePCRs(v.PCRs)
		if err != nil {
			return nil, fmt.Errorf("vault %s: %w", v.Name, err)
		}
		return tpm.Open(v.Path, v.Device, pcrs)
	}
	locked, err := vault.IsLocked(v.Path)
	if err != nil {
		return nil, err
	}
	if !locked {
		return vault.OpenFile(v.Path)
	}
	var opened vault.Vault
	err = a.withSecret(ctx, v, func(s vault.Secret) error {
		software, err := vault.OpenLocked(v.Path, s)
		if err == nil {
			opened = software
		}
		return err
	})
	return opened, err
}

// openToken opens a vault in a PKCS#11 token.
func (a *app) openToken(v state.Vault) (*pkcs11.Vault, error) {
	u, err := pkcs11.ParseURI(v.URI)
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", v.Name, err)
	}
	t, err := pkcs11.Open(pkcs11.Options{Records: v.Path, URI: u, Confined: a.vaults.isConfined(), PIN: func(ctx context.Context) ([]byte, error) { return a.pin(ctx, v) }})
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", v.Name, err)
	}
	a.atEnd = append(a.atEnd, t.Close)
	return t, nil
}

// lazyVault is a vault that is opened at its first use. What fails is tried again at the next.
type lazyVault struct {
	home string
	open func(ctx context.Context) (vault.Vault, error)
	mu   sync.Mutex
	v    vault.Vault
}

func (l *lazyVault) get(ctx context.Context) (vault.Vault, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.v == nil {
		v, err := l.open(ctx)
		if err != nil {
			return nil, err
		}
		l.v = v
	}
	return l.v, nil
}

// GenerateSigningKey implements vault.Vault.
func (l *lazyVault) GenerateSigningKey(ctx context.Context, a vault.KeyAlgorithm) (vault.Handle, vault.VerifyingKey, error) {
	v, err := l.get(ctx)
	if err != nil {
		return "", vault.VerifyingKey{}, err
	}
	return v.GenerateSigningKey(ctx, a)
}

// VerifyingKey implements vault.Vault.
func (l *lazyVault) VerifyingKey(ctx context.Context, h vault.Handle) (vault.VerifyingKey, error) {
	v, err := l.get(ctx)
	if err != nil {
		return vault.VerifyingKey{}, err
	}
	return v.VerifyingKey(ctx, h)
}

// Sign implements vault.Vault.
func (l *lazyVault) Sign(ctx context.Context, h vault.Handle, data []byte) (vault.Signature, error) {
	v, err := l.get(ctx)
	if err != nil {
		return vault.Signature{}, err
	}
	return v.Sign(ctx, h, data)
}

// DeleteSigningKey implements vault.Vault.
func (l *lazyVault) DeleteSigningKey(ctx context.Context, h vault.Handle) error {
	v, err := l.get(ctx)
	if err != nil {
		return err
	}
	return v.DeleteSigningKey(ctx, h)
}

// adopter is a vault that can take a key into use that it has under a name of its own.
type adopter interface {
	AdoptSigningKey(ctx context.Context, name string) (vault.Handle, vault.VerifyingKey, error)
}

// adopt finds the key that --key-id names: by its handle, or where the vault has names of its own by that.
func (l *lazyVault) adopt(ctx context.Context, name string) (vault.Handle, error) {
	v, err := l.get(ctx)
	if err != nil {
		return "", err
	}
	if with, ok := v.(adopter); ok {
		h, _, err := with.AdoptSigningKey(ctx, name)
		return h, err
	}
	return vault.Handle(name), nil
}

// homeOf tells where an identity's primary key is if that may be away; empty for files.
func homeOf(v state.Vault) string {
	if v.Kind == "" {
		return ""
	}
	return fmt.Sprintf("vault %s (%s)", v.Name, v.Kind)
}

// retirePurposeKeys deletes the purpose keys that earlier versions kept in the vault. What cannot be deleted is said.
func (a *app) retirePurposeKeys(ctx context.Context, s *self, log *slog.Logger) {
	v, err := a.dirOnce.Vault(s.named.Vault)
	if err != nil {
		return
	}
	keys, err := a.openVault(v).get(ctx)
	software, ok := keys.(*vault.Software)
	if err != nil || !ok {
		return
	}
	err = a.dirOnce.RetirePurposeKeys(s.named.Identifier, func(attestation []byte) error {
		p, h, err := identity.AttestedKey(attestation)
		if err != nil {
			return nil // it names no key
		}
		if p == identity.SecureChannel {
			return software.DeleteX25519(ctx, h)
		}
		return software.DeleteSigningKey(ctx, h)
	})
	if err != nil {
		log.Warn("keys of an earlier version are still in the vault", "vault", v.Name, "reason", err.Error())
	}
}

// oneLine is an error with its hint, for a place that has one line.
func oneLine(err error) string {
	text := err.Error()
	if h := (*hinted)(nil); errors.As(err, &h) {
		text += "; " + h.hint
	}
	return strings.ReplaceAll(text, "\n", " ")
}
