package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sallyport/authority"
	"sallyport/authority/oidc"
	"sallyport/state"
)

// signInPause is how often it is asked whether a person has signed in.
const signInPause = 2 * time.Second

// beginsIn is how long an authority may take to ask its provider for a code; one that believes no provider does not answer.
const beginsIn = 10 * time.Second

// maxClientSecret is the longest client secret that is read, in bytes.
const maxClientSecret = 4096

// checkOIDC checks and completes what an authority is told of a provider of OpenID Connect.
func checkOIDC(o *state.OIDCOptions) error {
	if o.Issuer == "" {
		if o.ClientID != "" || o.SecretFile != "" || len(o.Scopes)+len(o.Claims)+len(o.Require) > 0 || o.Lifetime != "" {
			return usageError("the arguments '--oidc-...' need '--oidc-issuer <URL>'")
		}
		return nil
	}
	if o.SecretFile != "" {
		path, err := filepath.Abs(o.SecretFile)
		if err != nil {
			return err
		}
		o.SecretFile = path // the next start may be elsewhere
	}
	_, err := signInOptions(o)
	return err
}

// signInOptions reads them; nil if nobody signs in.
func signInOptions(o *state.OIDCOptions) (*authority.SignInOptions, error) {
	if o == nil || o.Issuer == "" {
		return nil, nil
	}
	c := oidc.Config{Issuer: o.Issuer, ClientID: o.ClientID, Scopes: o.Scopes, Attributes: map[string]string{}, Require: map[string]string{}}
	if c.ClientID == "" {
		return nil, usageError("the following required arguments were not provided: --oidc-client-id <ID>")
	}
	if o.SecretFile != "" {
		text, err := os.ReadFile(o.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("--oidc-client-secret-file: %w", err)
		}
		if c.ClientSecret = strings.TrimSpace(string(text)); c.ClientSecret == "" || len(text) > maxClientSecret {
			return nil, fmt.Errorf("--oidc-client-secret-file: %s holds no secret, or one of more than %d bytes", o.SecretFile, maxClientSecret)
		}
	}
	for _, pair := range o.Claims {
		claim, attribute, found := strings.Cut(pair, "=")
		if !found {
			attribute = claim
		}
		if err := authority.CheckSignInAttribute(attribute); err != nil {
			return nil, usageError("invalid value '%s' for '--oidc-claim': %v", pair, err)
		}
		c.Attributes[claim] = attribute
	}
	for _, pair := range o.Require {
		claim, value, found := strings.Cut(pair, "=")
		if !found || claim == "" {
			return nil, usageError("invalid value '%s' for '--oidc-require': it must be CLAIM=VALUE", pair)
		}
		c.Require[claim] = value
	}
	out := &authority.SignInOptions{}
	if o.Lifetime != "" {
		d, err := parseDuration(o.Lifetime)
		if err != nil || d < time.Minute {
			return nil, usageError("invalid value '%s' for '--oidc-lifetime': it must be a duration of a minute or more", o.Lifetime)
		}
		out.Lifetime = d
	}
	var err error
	if out.Provider, err = oidc.New(c); err != nil {
		return nil, usageError("--oidc-issuer, --oidc-client-id: %v", err)
	}
	return out, nil
}

// signIn makes an identity a member by signing in with the provider that a project's authority believes, and stores its credential.
func (a *app) signIn(ctx context.Context, t *trustFlags) (raw []byte, who *self, err error) {
	p, err := a.findProject(argsOf(t.project))
	if err != nil {
		return nil, nil, err
	}
	err = a.askAuthority(ctx, *t, func(ctx context.Context, c *authority.Client, s *self) error {
		who = s
		asked, cancel := context.WithTimeout(ctx, beginsIn)
		code, err := c.BeginSignIn(asked)
		err = ofOurs(ctx, asked, err)
		cancel()
		if err != nil {
			return withHint(err, "an authority that believes a provider is made with: sallyport authority create --oidc-issuer URL")
		}
		a.note("To become a member as %s, open %s and enter the code %s", s.named.Identifier, code.Address, code.UserCode)
		if code.Complete != "" {
			a.note("or open %s", code.Complete)
		}
		for done := false; !done; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(signInPause):
			}
			if done, err = c.PollSignIn(ctx); err != nil {
				return err
			}
		}
		if raw, err = c.RenewingCredential(ctx); err != nil {
			return enrollError(err)
		}
		return a.storeCredential(ctx, s.manager, raw, s.id, p.CredentialScope(), "")
	})
	return raw, who, err
}
