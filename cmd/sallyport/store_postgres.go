//go:build !small && !nopostgres

package main

import (
	"context"

	"sallyport/authority/postgres"
)

// openPostgres opens a database; copies are prepared in dir.
func openPostgres(ctx context.Context, url, dir string) (remoteDatabase, error) {
	db, err := postgres.Open(ctx, url, dir)
	if err != nil {
		return nil, err
	}
	return db, nil
}
