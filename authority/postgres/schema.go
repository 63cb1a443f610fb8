package postgres

import (
	"context"
	"embed"

	"github.com/jackc/pgx/v5"

	"sallyport/authority"
	"sallyport/internal/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// schema are the tables that this package reads and writes.
var schema = database.Schema{Table: "authority_schema", Version: 1, Files: migrations, First: func(ctx context.Context, t pgx.Tx) error {
	_, err := t.Exec(ctx, "INSERT INTO authority_state (list, trail_hash) VALUES ($1, $2)", authority.NewListName(), make([]byte, 32))
	return err
}}
