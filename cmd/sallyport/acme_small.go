//go:build small

package main

import (
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
