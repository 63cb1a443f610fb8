//go:build !small

package oidc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

const issuer = "https://login.example.com"

func provider(t *testing.T, now func() time.Time) *Provider {
	t.Helper()
	p, err := New(Config{
		Issuer: issuer, ClientID: "sallyport", Now: now,
		Attributes: map[string]string{"email": "email", "groups": "groups", "level": "level", "address": "address"},
		Require:    map[string]string{"email_verified": "true", "groups": "analysts"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestTokens: only a token of the issuer, for the client, made now and signed with the issuer's key says who somebody is.
func TestTokens(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	claims := func(change map[string]any) []byte {
		all := map[string]any{
			"iss": issuer, "aud": "sallyport", "sub": "id1", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "email": "a@example.com", "email_verified": true,
			"groups": []string{"readers", "analysts"}, "level": 3, "address": map[string]any{"street": "x"},
		}
		maps.Copy(all, change)
		b, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sign := func(algorithm jose.SignatureAlgorithm, with any, body []byte) string {
		t.Helper()
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: with}, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := signer.Sign(body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	rs := func(change map[string]any) string { return sign(jose.RS256, key, claims(change)) }
	b64 := base64.RawURLEncoding.EncodeToString
	none := b64([]byte(`{"alg":"none"}`)) + "." + b64(claims(nil)) + "."
	public := bytes.Repeat([]byte{1}, 256)
	for name, c := range map[string]struct {
		token string
		err   error
	}{
		"as it should be":           {rs(nil), nil},
		"for several and this one":  {rs(map[string]any{"aud": []string{"sallyport", "other"}, "azp": "sallyport"}), nil},
		"alg none":                  {none, ErrProvider},
		"a shared secret":           {sign(jose.HS256, public, claims(nil)), ErrProvider},
		"another key":               {sign(jose.RS256, other, claims(nil)), ErrProvider},
		"another issuer":            {rs(map[string]any{"iss": "https://login.example.org"}), ErrProvider},
		"another audience":          {rs(map[string]any{"aud": "other"}), ErrProvider},
		"no audience":               {rs(map[string]any{"aud": nil}), ErrProvider},
		"for several, another azp":  {rs(map[string]any{"aud": []string{"sallyport", "other"}, "azp": "other"}), ErrProvider},
		"for several, without azp":  {rs(map[string]any{"aud": []string{"sallyport", "other"}}), ErrProvider},
		"another client's, for us":  {rs(map[string]any{"azp": "other"}), ErrProvider},
		"expired":                   {rs(map[string]any{"exp": now.Add(-2 * time.Minute).Unix()}), ErrClock},
		"expired within the skew":   {rs(map[string]any{"exp": now.Add(-20 * time.Second).Unix()}), nil},
		"a day before":              {rs(map[string]any{"iat": now.Add(-24 * time.Hour).Unix()}), ErrClock},
		"a day after":               {rs(map[string]any{"iat": now.Add(24 * time.Hour).Unix(), "exp": now.Add(25 * time.Hour).Unix()}), ErrClock},
		"without a time":            {rs(map[string]any{"iat": nil}), ErrProvider},
		"no subject":                {rs(map[string]any{"sub": ""}), ErrClaims},
		"a long subject":            {rs(map[string]any{"sub": strings.Repeat("x", 300)}), ErrClaims},
		"not verified":              {rs(map[string]any{"email_verified": false}), ErrClaims},
		"verified is text of other": {rs(map[string]any{"email_verified": "yes"}), ErrClaims},
		"not in the group":          {rs(map[string]any{"groups": []string{"readers"}}), ErrClaims},
		"a part of the group":       {rs(map[string]any{"groups": "analysts,readers"}), ErrClaims},
		"a long value":              {rs(map[string]any{"email": strings.Repeat("x", 300)}), ErrClaims},
		"no token":                  {"nonsense", ErrProvider},
		"empty":                     {"", ErrProvider},
	} {
		p := provider(t, func() time.Time { return now })
		verifier := gooidc.NewVerifier(issuer, &gooidc.StaticKeySet{PublicKeys: []crypto.PublicKey{key.Public()}}, p.verification())
		person, err := p.person(t.Context(), verifier, c.token, now, func(context.Context, string) (map[string]any, error) { return nil, nil })
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err != nil {
			if len(err.Error()) > 3*maxText {
				t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
			}
			continue
		}
		want := map[string]string{"email": "a@example.com", "groups": "analysts,readers", "level": "3"}
		if person.Subject != "id1" || !maps.Equal(person.Attributes, want) {
			t.Errorf("%s: %+v", name, person)
		}
	}
}

// TestAddresses: secrets and tokens go over https, or stay on the machine.
func TestAddresses(t *testing.T) {
	for address, safe := range map[string]bool{
		"https://login.example.com": true, "https://login.example.com/realms/x": true, "http://127.0.0.1:1": true, "http://localhost:1/": true, "http://[::1]:1": true,
		"http://login.example.com": false, "ftp://x": false, "": false, "https://": false, "https://user:password@x": false, "http://localhost.example.com": false, "javascript:x": false,
	} {
		if err := safeAddress(address); (err == nil) != safe {
			t.Errorf("%q: %v", address, err)
		}
	}
	if text := clip(strings.Repeat("a\n\x1b[31m", 100)); len(text) > maxText+3 || strings.ContainsAny(text, "\n\x1b") {
		t.Errorf("%q", text)
	}
}
