// Package database connects to PostgreSQL for those that keep something there: bounded in time, with tables brought to a version, and without secrets in errors.
package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// connectTimeout is how long one attempt to connect takes, all hosts of the URL together.
	connectTimeout = 1500 * time.Millisecond
	// patience is how long a question takes at most.
	patience = 1900 * time.Millisecond
	// sessionTimeout is after how long the server itself ends a statement, or the transaction of somebody who has gone without a word, whom
	// others may wait for.
	sessionTimeout = 3 * time.Second
	// maxConnections are open at once, unless pool_max_conns in the URL says otherwise.
	maxConnections = 8
)

// ErrURL says no more, since the URL has a password in it.
var ErrURL = errors.New("the URL of the database cannot be read: it must look like postgres://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full, with special characters percent-encoded")

// Pool is a pool of connections to a database.
type Pool struct {
	*pgxpool.Pool
	// Name says which database it is, without user and password.
	Name string
	// Patience is how long anything takes that is asked, until it is said that the database is away: 1.9 s, and connect_timeout if the URL has it.
	Patience time.Duration
}

// Open makes a pool for a URL, which libpq would understand too. It does not connect.
func Open(url string) (*Pool, error) {
	if !strings.HasPrefix(url, "postgres://") && !strings.HasPrefix(url, "postgresql://") {
		return nil, ErrURL
	}
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, ErrURL
	}
	if !strings.Contains(url, "pool_max_conns=") {
		c.MaxConns = maxConnections
	}
	bound := patience
	if strings.Contains(url, "connect_timeout=") {
		bound += c.ConnConfig.ConnectTimeout
	} else {
		c.ConnConfig.ConnectTimeout = connectTimeout / time.Duration(1+len(c.ConnConfig.Fallbacks))
	}
	milliseconds := strconv.FormatInt(sessionTimeout.Milliseconds(), 10)
	for name, value := range map[string]string{
		"application_name": "sallyport", "statement_timeout": milliseconds, "idle_in_transaction_session_timeout": milliseconds,
	} {
		if c.ConnConfig.RuntimeParams[name] == "" {
			c.ConnConfig.RuntimeParams[name] = value
		}
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), c)
	if err != nil {
		return nil, ErrURL
	}
	return &Pool{pool, nameOf(c), bound}, nil
}

func nameOf(c *pgxpool.Config) string {
	host := c.ConnConfig.Host
	if !strings.HasPrefix(host, "/") {
		host = net.JoinHostPort(host, strconv.Itoa(int(c.ConnConfig.Port)))
	}
	return "postgres://" + host + "/" + c.ConnConfig.Database
}

// Schema are tables with a version.
type Schema struct {
	Table   string // has the versions that were applied
	Version int    // that is read and written
	// Files has migrations/0001.sql, which makes version 1, and so on.
	Files fs.FS
	// First is run after version 1 was made, if it is not nil.
	First func(ctx context.Context, tx pgx.Tx) error
}

// ErrVersion reports tables of a version that cannot be used, or not be brought to the one that is needed.
var ErrVersion = errors.New("the tables have another version")

// Prepare brings tables to their version, if they are not, in one transaction, one process at a time.
func (p *Pool) Prepare(ctx context.Context, s Schema) error { return p.prepare(ctx, s, nil) }

// errTrial ends a transaction that is not to be committed.
var errTrial = errors.New("for trial")

// Check reports whether Prepare would succeed, and changes nothing: what would have to be done is done, and taken back.
func (p *Pool) Check(ctx context.Context, s Schema) error {
	if err := p.prepare(ctx, s, errTrial); !errors.Is(err, errTrial) {
		return err
	}
	return nil
}

// prepare is Prepare, the transaction of which ends with an error if that is not nil.
func (p *Pool) prepare(ctx context.Context, s Schema, end error) error {
	short, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	version, err := s.version(short, p.Pool)
	if err == nil && version < s.Version {
		err = pgx.BeginFunc(ctx, p.Pool, func(tx pgx.Tx) error {
			if err := s.migrate(ctx, tx); err != nil {
				return err
			}
			return end
		})
	}
	var pg *pgconn.PgError
	switch {
	case err == nil && version > s.Version:
		return fmt.Errorf("%w: %s has version %d, and this program knows version %d: use a newer program", ErrVersion, s.Table, version, s.Version)
	case errors.As(err, &pg) && pg.Code == codePermission:
		return fmt.Errorf("%w: %s has version %d, version %d is needed, and this role must not change them: as their owner: sallyport authority migrate --to @FILE: %w",
			ErrVersion, s.Table, version, s.Version, err)
	}
	return err
}

type rower interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// version returns the version of the tables, 0 if there are none.
func (s Schema) version(ctx context.Context, q rower) (version int, err error) {
	var there bool
	// to_regclass would answer from a cache, in which a transaction that has waited for another one does not find what that one made.
	if err := q.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relname = $1 AND n.nspname = ANY (current_schemas(false)))`, s.Table).Scan(&there); err != nil || !there {
		return 0, err
	}
	err = q.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM "+s.Table).Scan(&version)
	return version, err
}

// migrationLock is the advisory lock of who changes tables: "sallypor" as a number.
const migrationLock = 0x73616c6c79706f72

func (s Schema) migrate(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, "SET LOCAL statement_timeout = 0"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
		return err
	}
	version, err := s.version(ctx, tx)
	if err != nil {
		return err
	}
	if version == 0 {
		if _, err := tx.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+s.Table+" (version int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())"); err != nil {
			return err
		}
	}
	for n := version + 1; n <= s.Version; n++ {
		text, err := fs.ReadFile(s.Files, fmt.Sprintf("migrations/%04d.sql", n))
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, string(text)); err != nil {
			return fmt.Errorf("migration %d: %w", n, err)
		}
		if n == 1 && s.First != nil {
			if err := s.First(ctx, tx); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "INSERT INTO "+s.Table+" (version) VALUES ($1)", n); err != nil {
			return err
		}
	}
	return nil
}
