//go:build !small

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"

	"sallyport/node"
	"sallyport/node/acme"
	"sallyport/proxy"
	"sallyport/state"
)

// newIssuer returns what gets certificates by ACME, with its cache in the state directory; nil where nothing was asked for.
func (a *app) newIssuer(o state.ACMEOptions, proxies *proxy.Rules, log *slog.Logger) (node.Issuer, error) {
	if len(o.Domains) == 0 {
		return nil, nil
	}
	dir, err := a.dir()
	if err != nil {
		return nil, err
	}
	options := acme.Options{Domains: o.Domains, Directory: o.Directory, Email: o.Email, Cache: filepath.Join(dir.Path(), "acme"), Log: log,
		Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			through, err := proxies.For(address)
			if err != nil {
				return nil, err
			}
			c, early, err := through.Dial(ctx, address)
			if err == nil && len(early) > 0 {
				_ = c.Close()
				return nil, errors.New("the ACME server speaks before TLS")
			}
			return c, err
		}}
	if o.CA != "" {
		if options.Roots, err = rootsIn(o.CA); err != nil {
			return nil, err
		}
	}
	return acme.New(options)
}
