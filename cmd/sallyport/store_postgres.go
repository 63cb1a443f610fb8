//go:build !small && !nopostgres

package main

import (
	"context"
	"log/slog"

	"sallyport/authority/postgres"
	"sallyport/node"
	"sallyport/routing"
	"sallyport/routing/registry"
)

// openPostgres opens a database; copies are prepared in dir.
func openPostgres(ctx context.Context, url, dir string) (remoteDatabase, error) {
	db, err := postgres.Open(ctx, url, dir)
	if err != nil {
		return nil, err
	}
	return db, nil
}

// checkPostgres reports what would keep openPostgres from succeeding, and changes nothing.
func checkPostgres(ctx context.Context, url string) error { return postgres.Check(ctx, url) }

// checkRegistryURL refuses a URL with which openRegistry fails. The database need not be there.
func checkRegistryURL(url string) error { return registry.CheckURL(url) }

// prepareRegistry makes the tables of relays ready.
func prepareRegistry(ctx context.Context, url string) error { return registry.Prepare(ctx, url) }

// openRegistry begins to tell of a relay in a database, and to keep a copy of what others tell.
func openRegistry(url string, self routing.RelayNode, log *slog.Logger) (*node.RelayRegistry, error) {
	r, err := registry.Open(url, self, log)
	if err != nil {
		return nil, err
	}
	return &node.RelayRegistry{Registry: r, Self: self, Store: &node.StoreState{Name: r.Name(), State: r.State}, Close: r.Close}, nil
}
