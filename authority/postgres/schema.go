package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sallyport/authority"
)

// migrations bring the tables from one version to the next: 0001.sql makes version 1.
//
//go:embed migrations/*.sql
var migrations embed.FS

// Version is the version of the tables that this package reads and writes.
const Version = 1

// migrationLock is the advisory lock of who changes the tables: "sallypor" as a number.
const migrationLock = 0x73616c6c79706f72

// prepare brings the tables to this version if they are not.
func (d *Database) prepare(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	version, err := d.version(short, d.pool)
	if err == nil && version < Version {
		err = d.migrate(ctx)
	}
	var pg *pgconn.PgError
	switch {
	case err == nil && version > Version:
		return fmt.Errorf("authority: the store %s: its tables have version %d, and this program knows version %d: use a newer program", d.name, version, Version)
	case errors.As(err, &pg) && pg.Code == codePermission:
		return fmt.Errorf("authority: the store %s: its tables have version %d, version %d is needed, and this role must not change them: "+
			"as their owner: sallyport authority migrate --to-file FILE: %w", d.name, version, Version, err)
	}
	return d.note(err)
}

// version returns the version of the tables, 0 if there are none.
func (d *Database) version(ctx context.Context, q querier) (version int, err error) {
	var there bool
	// to_regclass would answer from a cache, in which a transaction that has waited for another one does not find what that one made.
	if err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relname = 'authority_schema' AND n.nspname = ANY (current_schemas(false)))`).Scan(&there); err != nil || !there {
		return 0, err
	}
	err = q.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM authority_schema").Scan(&version)
	return version, err
}

// migrate runs the migrations that are missing, in one transaction, one process at a time.
func (d *Database) migrate(ctx context.Context) error {
	return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
			return err
		}
		version, err := d.version(ctx, t)
		if err != nil {
			return err
		}
		if version == 0 {
			if _, err := t.Exec(ctx, "CREATE TABLE IF NOT EXISTS authority_schema (version int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"); err != nil {
				return err
			}
		}
		for n := version + 1; n <= Version; n++ {
			text, err := migrations.ReadFile(fmt.Sprintf("migrations/%04d.sql", n))
			if err != nil {
				return err
			}
			if _, err := t.Exec(ctx, string(text)); err != nil {
				return fmt.Errorf("migration %d: %w", n, err)
			}
			if n == 1 {
				if _, err := t.Exec(ctx, "INSERT INTO authority_state (list, trail_hash) VALUES ($1, $2)", authority.NewListName(), make([]byte, 32)); err != nil {
					return err
				}
			}
			if _, err := t.Exec(ctx, "INSERT INTO authority_schema (version) VALUES ($1)", n); err != nil {
				return err
			}
		}
		return nil
	})
}
