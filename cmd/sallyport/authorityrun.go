//go:build !small

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/authority"
	"sallyport/crypto/identity"
	"sallyport/node"
	"sallyport/state"
)

// authoritySettings are an authority's options, read.
type authoritySettings struct {
	trusted map[identity.Identifier]map[string]string
	ttl     time.Duration
	account *identity.Identifier // the account authority; nil without one
	signIn  *authority.SignInOptions
}

func (a *app) readAuthority(ctx context.Context, m *identity.Manager, o *state.AuthorityOptions) (s authoritySettings, err error) {
	if s.trusted, err = parseTrusted(o.TrustedIdentities); err != nil {
		return s, err
	}
	for _, given := range []struct{ name, text string }{{"CREDENTIAL_TTL_SECS", os.Getenv("CREDENTIAL_TTL_SECS")}, {"--credential-ttl", o.CredentialTTL}} {
		if given.text == "" {
			continue
		}
		if s.ttl, err = authority.ParseTTL(given.text); err != nil {
			return s, fmt.Errorf("%s: %w", given.name, err)
		}
	}
	if o.AccountAuthority != "" {
		account, err := node.AuthorityHistory(ctx, m, o.AccountAuthority)
		if err != nil {
			return s, fmt.Errorf("--account-authority: %w", err)
		}
		s.account = &account
	}
	s.signIn, err = signInOptions(&o.OIDC)
	return s, err
}

// checkAuthority reports what would keep authorityServices from succeeding, and changes nothing. An embedded store, which may be in use, is not opened.
func (a *app) checkAuthority(ctx context.Context, self *self, o *state.AuthorityOptions) error {
	if _, err := a.readAuthority(ctx, self.manager, o); err != nil {
		return err
	}
	where, err := storeURL(o.Store, "--store")
	if err != nil {
		return err
	}
	if where != "" {
		return checkPostgres(ctx, where)
	}
	path := a.dirOnce.StorePath(o.ProjectIdentifier)
	if err := storeThere(path, o.New); err != nil {
		return err
	}
	if err := unix.Access(path, unix.R_OK|unix.W_OK); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the authority's store %s: %w", path, err)
	}
	return nil
}

// authorityServices opens an authority's store and makes its services.
func (a *app) authorityServices(ctx context.Context, self *self, o *state.AuthorityOptions, log *slog.Logger) (*node.AuthorityOptions, error) {
	settings, err := a.readAuthority(ctx, self.manager, o)
	if err != nil {
		return nil, err
	}
	store, where, err := a.openStore(ctx, o)
	if err != nil {
		return nil, err
	}
	events := &node.AuthorityEvents{}
	var admins *node.AccountAdmins
	var isAdmin func(context.Context, identity.Identifier) bool
	if settings.account != nil {
		admins = node.NewAccountAdmins(*settings.account, o.ProjectIdentifier)
		isAdmin = admins.Is
	}
	auth, err := authority.New(ctx, authority.Options{
		Store: store, Identities: self.manager, Self: self.id, ProjectID: o.ProjectIdentifier, TrustedIdentities: settings.trusted, CredentialTTL: settings.ttl,
		NoDirectAuthentication: o.NoDirectAuthentication, NoTokenEnrollment: o.NoTokenEnrollment, DisableTrustContextID: o.DisableTrustContextID,
		AccountAdmin: isAdmin, EnforceAdminChecks: o.EnforceAdminChecks, SignIn: settings.signIn, Log: log, Events: events,
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
