//go:build !small

// Package oidc signs people in with a provider of OpenID Connect, through the device flow (RFC 8628): the authority asks the provider for a code, a person
// types it into the provider's page in a browser, and the provider tells the authority who that was. Token and client secret stay between the provider
// and the authority, so a token has no way to be replayed by a member, and needs no nonce: it is the answer to the authority's own question, and counts for
// the identity that the question was asked for.
package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Bounds of what a provider may say and do.
const (
	maxReply    = 1 << 20          // bytes of one answer
	maxValue    = 255              // bytes of an attribute's value, of a code and of an address
	maxText     = 200              // bytes of a provider's error that are repeated
	callTimeout = 4 * time.Second  // two calls fit into the time for which a member waits for an answer
	maxFlow     = 10 * time.Minute // how long a person may take, whatever the provider says
	skew        = time.Minute      // by how much the clocks may differ
)

// The errors of a sign-in. What the provider says is in their text, bounded and without control characters.
var (
	ErrProvider = errors.New("the provider of OpenID Connect does not answer as it should")
	ErrDenied   = errors.New("the provider of OpenID Connect did not sign in")
	ErrClaims   = errors.New("what the provider of OpenID Connect says of this person is not enough")
	ErrClock    = errors.New("the provider's token is from another time: the clock of the authority or of the provider is wrong")
)

// algorithms are the signatures that are believed, all with a public key: not none, and none with a shared secret.
var algorithms = []string{gooidc.RS256, gooidc.RS384, gooidc.RS512, gooidc.ES256, gooidc.ES384, gooidc.ES512, gooidc.PS256, gooidc.PS384, gooidc.PS512, gooidc.EdDSA}

// Config says which provider is believed, and what of it.
type Config struct {
	// Issuer is the provider's address. It must be https, but on the loopback interface.
	Issuer string
	// ClientID and ClientSecret are what the provider knows the authority as.
	ClientID, ClientSecret string
	// Scopes are asked for beside openid.
	Scopes []string
	// Attributes are the claims that become attributes, by claim: text, a number, true or false; a list becomes its sorted values with commas between.
	Attributes map[string]string
	// Require are claims that must have a value; a list must contain it.
	Require map[string]string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Person is who signed in.
type Person struct {
	Subject    string
	Attributes map[string]string
}

// Provider asks one provider. Its methods may be called from several goroutines.
type Provider struct {
	c      Config
	client *http.Client

	mu       sync.Mutex
	oauth    *oauth2.Config
	verifier *gooidc.IDTokenVerifier
	found    *gooidc.Provider
}

// New checks a configuration. The provider is asked when somebody signs in, so that an authority starts without it.
func New(c Config) (*Provider, error) {
	if err := safeAddress(c.Issuer); err != nil {
		return nil, fmt.Errorf("the issuer: %w", err)
	}
	if c.ClientID == "" {
		return nil, errors.New("no client id")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Provider{c: c, client: &http.Client{
		Timeout:   callTimeout,
		Transport: bounded{http.DefaultTransport.(*http.Transport).Clone()},
		// The secret and the token go where the configuration says, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("redirected") },
	}}, nil
}

// safeAddress allows https, and http on the loopback interface.
func safeAddress(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return fmt.Errorf("%q is not an address such as https://login.example.com", clip(text))
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%q must begin with https://", clip(text))
}

// bounded ends answers that are too long.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxReply), resp.Body}
	}
	return resp, err
}

// clip makes text of others fit for a log and an answer.
func clip(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}

// discover reads what the provider says about itself, once it has answered.
func (p *Provider) discover(ctx context.Context) (*oauth2.Config, *gooidc.IDTokenVerifier, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.oauth != nil {
		return p.oauth, p.verifier, nil
	}
	// The keys are fetched with this context later, so it must not end with the request.
	found, err := gooidc.NewProvider(gooidc.ClientContext(context.WithoutCancel(ctx), p.client), p.c.Issuer)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %s", ErrProvider, clip(err.Error()))
	}
	var more struct {
		Keys string   `json:"jwks_uri"`
		How  []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := found.Claims(&more); err != nil {
		return nil, nil, fmt.Errorf("%w: %s", ErrProvider, clip(err.Error()))
	}
	at := found.Endpoint()
	if at.DeviceAuthURL == "" {
		return nil, nil, fmt.Errorf("%w: it has no device flow", ErrProvider)
	}
	for _, address := range []string{at.DeviceAuthURL, at.TokenURL, more.Keys} {
		if err := safeAddress(address); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrProvider, err)
		}
	}
	// Left to be found out, "not yet" would be taken for the wrong way. Without a list it is client_secret_basic (OpenID Connect Discovery 1.0, section 3).
	at.AuthStyle = oauth2.AuthStyleInHeader
	if p.c.ClientSecret == "" || len(more.How) > 0 && !slices.Contains(more.How, "client_secret_basic") {
		at.AuthStyle = oauth2.AuthStyleInParams
	}
	p.oauth = &oauth2.Config{
		ClientID: p.c.ClientID, ClientSecret: p.c.ClientSecret, Endpoint: at,
		Scopes: append([]string{gooidc.ScopeOpenID}, p.c.Scopes...),
	}
	p.found = found
	p.verifier = found.VerifierContext(gooidc.ClientContext(context.Background(), p.client), p.verification())
	return p.oauth, p.verifier, nil
}

// verification is what a token is held against beside issuer and keys.
func (p *Provider) verification() *gooidc.Config {
	return &gooidc.Config{ClientID: p.c.ClientID, SupportedSigningAlgs: algorithms, Now: func() time.Time { return p.c.Now().Add(-skew) }}
}

// Flow is a sign-in that was begun.
type Flow struct {
	// UserCode is what the person types at Address; Complete, if it is not empty, is an address with the code in it.
	UserCode, Address, Complete string
	// Expires is when it is too late.
	Expires time.Time

	answer *oauth2.DeviceAuthResponse
	began  time.Time
}

// Begin asks the provider for a code.
func (p *Provider) Begin(ctx context.Context) (*Flow, error) {
	oauth, _, err := p.discover(ctx)
	if err != nil {
		return nil, err
	}
	began := p.c.Now()
	answer, err := oauth.DeviceAuth(context.WithValue(ctx, oauth2.HTTPClient, p.client))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrProvider, clip(err.Error()))
	}
	f := &Flow{UserCode: answer.UserCode, Address: answer.VerificationURI, Complete: answer.VerificationURIComplete, answer: answer, began: began, Expires: began.Add(maxFlow)}
	if answer.Expiry.Before(f.Expires) && !answer.Expiry.IsZero() {
		f.Expires = answer.Expiry
	}
	for _, text := range []string{f.UserCode, f.Address, f.Complete} {
		if len(text) > maxValue || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return nil, fmt.Errorf("%w: a code or an address that cannot be shown", ErrProvider)
		}
	}
	if err := safeAddress(f.Address); err != nil || f.UserCode == "" {
		return nil, fmt.Errorf("%w: the address for the code: %w", ErrProvider, err)
	}
	return f, nil
}

// Wait waits until the person has signed in, asking the provider as often as it allows.
func (p *Provider) Wait(ctx context.Context, f *Flow) (*Person, error) {
	oauth, verifier, err := p.discover(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(ctx, f.Expires)
	defer cancel()
	token, err := oauth.DeviceAccessToken(context.WithValue(ctx, oauth2.HTTPClient, p.client), f.answer)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrDenied, clip(err.Error()))
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok || len(raw) > maxReply {
		return nil, fmt.Errorf("%w: no token that says who it was", ErrProvider)
	}
	return p.person(ctx, verifier, raw, f.began, func(ctx context.Context, subject string) (map[string]any, error) { return p.more(ctx, token, subject) })
}

// more asks the provider for the claims of a person that are not in the token (OpenID Connect Core 1.0, section 5.3); none if it does not say them.
func (p *Provider) more(ctx context.Context, token *oauth2.Token, subject string) (map[string]any, error) {
	p.mu.Lock()
	found := p.found
	p.mu.Unlock()
	if found.UserInfoEndpoint() == "" {
		return nil, nil
	}
	if err := safeAddress(found.UserInfoEndpoint()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProvider, err)
	}
	info, err := found.UserInfo(gooidc.ClientContext(ctx, p.client), oauth2.StaticTokenSource(token))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrProvider, clip(err.Error()))
	}
	if info.Subject != subject {
		return nil, fmt.Errorf("%w: it speaks of somebody else", ErrProvider)
	}
	var claims map[string]any
	if err := info.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrProvider, clip(err.Error()))
	}
	return claims, nil
}

// person verifies a token and reads who it is about. more is asked for claims that are not in it; what is in it counts more.
func (p *Provider) person(ctx context.Context, verifier *gooidc.IDTokenVerifier, raw string, began time.Time,
	more func(ctx context.Context, subject string) (map[string]any, error)) (*Person, error) {
	token, err := verifier.Verify(ctx, raw)
	var expired *gooidc.TokenExpiredError
	switch {
	case errors.As(err, &expired):
		return nil, fmt.Errorf("%w: it ended at %s, and here it is %s", ErrClock, expired.Expiry.UTC().Format(time.RFC3339), p.c.Now().UTC().Format(time.RFC3339))
	case err != nil:
		return nil, fmt.Errorf("%w: %s", ErrProvider, clip(err.Error()))
	case token.IssuedAt.After(p.c.Now().Add(skew)) || token.IssuedAt.Before(began.Add(-skew)):
		return nil, fmt.Errorf("%w: it was made at %s, and here it is %s", ErrClock, token.IssuedAt.UTC().Format(time.RFC3339), p.c.Now().UTC().Format(time.RFC3339))
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrProvider, clip(err.Error()))
	}
	// A token for several must say that it was made for this one.
	if azp, ok := claims["azp"]; (ok || len(token.Audience) > 1) && azp != p.c.ClientID {
		return nil, fmt.Errorf("%w: a token for another client", ErrProvider)
	}
	if token.Subject == "" || len(token.Subject) > maxValue {
		return nil, fmt.Errorf("%w: no subject", ErrClaims)
	}
	wanted := append(sorted(p.c.Require), sorted(p.c.Attributes)...)
	if slices.ContainsFunc(wanted, func(claim string) bool { return claims[claim] == nil }) {
		others, err := more(ctx, token.Subject)
		if err != nil {
			return nil, err
		}
		for _, claim := range wanted {
			if claims[claim] == nil {
				claims[claim] = others[claim]
			}
		}
	}
	for _, claim := range sorted(p.c.Require) {
		if values, _ := valuesOf(claims[claim]); !slices.Contains(values, p.c.Require[claim]) {
			return nil, fmt.Errorf("%w: %s is not %s", ErrClaims, claim, p.c.Require[claim])
		}
	}
	out := &Person{Subject: token.Subject, Attributes: map[string]string{}}
	for _, claim := range sorted(p.c.Attributes) {
		values, ok := valuesOf(claims[claim])
		if !ok {
			continue
		}
		slices.Sort(values)
		value := strings.Join(values, ",")
		if len(value) > maxValue {
			return nil, fmt.Errorf("%w: %s is longer than %d bytes", ErrClaims, claim, maxValue)
		}
		out.Attributes[p.c.Attributes[claim]] = value
	}
	return out, nil
}

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// valuesOf are the values of a claim as text; ok is false if there is none, or it is something else than text, numbers and booleans.
func valuesOf(claim any) (values []string, ok bool) {
	switch v := claim.(type) {
	case string:
		return []string{v}, true
	case bool:
		return []string{strconv.FormatBool(v)}, true
	case float64:
		return []string{strconv.FormatFloat(v, 'f', -1, 64)}, true
	case json.Number:
		return []string{v.String()}, true
	case []any:
		for _, item := range v {
			one, ok := valuesOf(item)
			if !ok || len(one) != 1 {
				return nil, false
			}
			values = append(values, one[0])
		}
		return values, true
	}
	return nil, false
}
