//go:build small || nopostgres

package main

import (
	"context"
	"errors"
	"log/slog"

	"sallyport/node"
	"sallyport/routing"
)

var errNoPostgres = errors.New("this program is built without PostgreSQL: use the full one where members or relay names are kept there")

// openPostgres fails: this program is built without PostgreSQL.
func openPostgres(context.Context, string, string) (remoteDatabase, error) { return nil, errNoPostgres }

// checkPostgres fails, and so does checkRegistryURL.
func checkPostgres(context.Context, string) error { return errNoPostgres }

func checkRegistryURL(string) error { return errNoPostgres }

// prepareRegistry fails, and so does openRegistry.
func prepareRegistry(context.Context, string) error { return errNoPostgres }

func openRegistry(string, routing.RelayNode, *slog.Logger) (*node.RelayRegistry, error) {
	return nil, errNoPostgres
}
