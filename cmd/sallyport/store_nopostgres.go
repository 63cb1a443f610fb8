//go:build small || nopostgres

package main

import (
	"context"
	"errors"
)

// openPostgres fails: this program is built without PostgreSQL.
func openPostgres(context.Context, string, string) (remoteDatabase, error) {
	return nil, errors.New("this program is built without PostgreSQL: use the full one for an authority whose store is there")
}
