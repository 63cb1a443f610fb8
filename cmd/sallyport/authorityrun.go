//go:build !small

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/node"
	"sallyport/state"
)

// authorityServices opens an authority's store and makes its services.
func (a *app) authorityServices(ctx context.Context, self *self, o *state.AuthorityOptions, log *slog.Logger) (*node.AuthorityOptions, error) {
	trusted, err := parseTrusted(o.TrustedIdentities)
	if err != nil {
		return nil, err
	}
	store, where, err := a.openStore(ctx, o)
	if err != nil {
		return nil, err
	}
	ttl := time.Duration(0)
	for _, given := range []struct{ name, text string }{{"CREDENTIAL_TTL_SECS", os.Getenv("CREDENTIAL_TTL_SECS")}, {"--credential-ttl", o.CredentialTTL}} {
		if given.text == "" {
			continue
		}
		if ttl, err = authority.ParseTTL(given.text); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", given.name, err), store.Close())
		}
	}
	events := &node.AuthorityEvents{}
	var admins *node.AccountAdmins
	var isAdmin func(context.Context, identity.Identifier) bool
	if o.AccountAuthority != "" {
		account, err := node.AuthorityHistory(ctx, self.manager, o.AccountAuthority)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--account-authority: %w", err), store.Close())
		}
		admins = node.NewAccountAdmins(account, o.ProjectIdentifier)
		isAdmin = admins.Is
	}
	signIn, err := signInOptions(&o.OIDC)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	auth, err := authority.New(ctx, authority.Options{
		Store: store, Identities: self.manager, Self: self.id, ProjectID: o.ProjectIdentifier, TrustedIdentities: trusted, CredentialTTL: ttl,
		NoDirectAuthentication: o.NoDirectAuthentication, NoTokenEnrollment: o.NoTokenEnrollment, DisableTrustContextID: o.DisableTrustContextID,
		AccountAdmin: isAdmin, EnforceAdminChecks: o.EnforceAdminChecks, SignIn: signIn, Log: log, Events: events,
	})
	if err != nil {
		_ = store.Close()
		return nil, err
	}
	closeStore := store.Close
	if o.Store != "" {
		following, stop := context.WithCancel(context.WithoutCancel(ctx))
		var follower sync.WaitGroup
		follower.Go(func() { auth.Follow(following, followStore) })
		closeStore = func() error {
			stop()
			follower.Wait()
			return store.Close()
		}
	}
	return &node.AuthorityOptions{
		Services: auth.Services(), Revocations: auth, AccountAdmins: admins, Events: events, Store: where, Close: closeStore,
		Snapshot: func(ctx context.Context) (*authority.Snapshot, error) {
			return authority.TakeSnapshot(ctx, store, a.dirOnce.Path())
		},
	}, nil
}
