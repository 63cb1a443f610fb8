package main

import (
	"context"
	"log/slog"
	"sync"

	"sallyport/crypto/identity"
	"sallyport/crypto/vault"
	"sallyport/state"
)

// openVaults are the vaults that this process has opened, by path: to open one may take a second, or a question.
type openVaults struct {
	mu sync.Mutex
	m  map[string]vault.Vault
}

// openVault opens a vault, once: with --in-memory one that is in this process alone, whose keys a killed process takes along.
func (a *app) openVault(v state.Vault) (vault.Vault, error) {
	a.vaults.mu.Lock()
	defer a.vaults.mu.Unlock()
	if keys := a.vaults.m[v.Path]; keys != nil {
		return keys, nil
	}
	keys, err := a.newVault(v)
	if err != nil {
		return nil, err
	}
	if a.vaults.m == nil {
		a.vaults.m = map[string]vault.Vault{}
	}
	a.vaults.m[v.Path] = keys
	return keys, nil
}

func (a *app) newVault(v state.Vault) (vault.Vault, error) {
	if a.isInMemory {
		return vault.NewMemory(), nil
	}
	return vault.OpenFile(v.Path)
}

// retirePurposeKeys deletes the purpose keys that earlier versions kept in the vault. What cannot be deleted is said.
func (a *app) retirePurposeKeys(ctx context.Context, s *self, log *slog.Logger) {
	v, err := a.dirOnce.Vault(s.named.Vault)
	if err != nil {
		return
	}
	keys, err := a.openVault(v)
	if err != nil {
		return
	}
	software, ok := keys.(*vault.Software)
	if !ok {
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
