//go:build small

// Package oidc stands for sign-ins with OpenID Connect in a program that was built without them.
package oidc

import (
	"context"
	"errors"
	"time"
)

// The errors of a sign-in.
var (
	ErrProvider = errors.New("this program was built without OpenID Connect")
	ErrDenied   = errors.New("the provider of OpenID Connect did not sign in")
	ErrClaims   = errors.New("what the provider of OpenID Connect says of this person is not enough")
	ErrClock    = errors.New("the provider's token is from another time")
)

// Config says which provider is believed.
type Config struct {
	Issuer, ClientID, ClientSecret string
	Scopes                         []string
	Attributes, Require            map[string]string
	Now                            func() time.Time
}

// Person is who signed in.
type Person struct {
	Subject    string
	Attributes map[string]string
}

// Provider asks one provider. There is none.
type Provider struct{}

// New fails.
func New(Config) (*Provider, error) { return nil, ErrProvider }

// Begin fails.
func (*Provider) Begin(context.Context) (*Flow, error) { return nil, ErrProvider }

// Wait fails.
func (*Provider) Wait(context.Context, *Flow) (*Person, error) { return nil, ErrProvider }

// Flow is a sign-in that was begun.
type Flow struct {
	// UserCode is what the person types at Address; Complete, if it is not empty, is an address with the code in it.
	UserCode, Address, Complete string
	// Expires is when it is too late.
	Expires time.Time
}
