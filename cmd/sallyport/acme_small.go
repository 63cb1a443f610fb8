//go:build small

package main

import (
	"errors"
	"log/slog"

	"sallyport/node"
	"sallyport/proxy"
	"sallyport/state"
)

func (a *app) newIssuer(o state.ACMEOptions, _ *proxy.Rules, _ *slog.Logger) (node.Issuer, error) {
	if len(o.Domains) == 0 {
		return nil, nil
	}
	return nil, errSmall("ACME")
}

// errSmall says that something was left out of this program.
func errSmall(what string) error { return errors.New("this program was built without " + what) }
