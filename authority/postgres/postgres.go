package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/authority"
	"sallyport/internal/database"
)

// Database is an authority's database in PostgreSQL.
type Database struct {
	pool *database.Pool
	dir  string // for copies
	// patience is how long anything takes that is asked, until it is said that the store is away.
	patience time.Duration

	writes writes

	mu    sync.Mutex
	since time.Time // since when it is as it is
	err   error     // why it is away, nil if it is there
	known bool
}

var _ authority.Database = (*Database)(nil)

// Open connects to the database at a URL, which libpq would understand too, and brings its tables to this version. A server that does not
// answer within 2 s is an error that matches authority.ErrStoreAway. Later the server may go and come back at any time. Copies are prepared
// in dir.
func Open(ctx context.Context, url, dir string) (*Database, error) {
	pool, err := database.Open(url)
	if err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	d := &Database{pool: pool, dir: dir, patience: pool.Patience}
	d.writes.d = d
	if err := d.note(pool.Prepare(ctx, schema)); err != nil {
		d.pool.Close()
		return nil, err
	}
	return d, nil
}

// Check reports what would keep Open from succeeding with a URL, and changes nothing.
func Check(ctx context.Context, url string) error {
	pool, err := database.Open(url)
	if err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	defer pool.Close()
	d := &Database{pool: pool}
	return d.fault(pool.Check(ctx, schema))
}

// Name returns where the database is, without user and password.
func (d *Database) Name() string { return d.pool.Name }

// State returns since when the database is there, or is away and why, as the last that was asked of it showed.
func (d *Database) State() (since time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.since, d.err
}

// note keeps what an answer, or none, says about the database.
func (d *Database) note(err error) error {
	err = d.fault(err)
	var gone error
	if errors.Is(err, authority.ErrStoreAway) {
		gone = err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.known || (gone == nil) != (d.err == nil) {
		d.known, d.since = true, time.Now()
	}
	d.err = gone
	return err
}

// Close releases all connections.
func (d *Database) Close() error {
	d.writes.close()
	d.pool.Close()
	return nil
}

// View implements authority.Database. Each read is a statement of its own.
func (d *Database) View(ctx context.Context, f func(authority.Tx) error) error {
	own, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	var err error
	for try := range tries {
		if err = f(&tx{ctx: own, q: d.pool}); err == nil || !database.MayRetry(err) || own.Err() != nil {
			break
		}
		pause(own, try)
	}
	if ctx.Err() != nil {
		return ctx.Err() // the caller has no use for the answer, which says nothing about the database
	}
	return d.note(err)
}

// Snapshot implements authority.Database. It takes as long as f.
func (d *Database) Snapshot(ctx context.Context, f func(authority.Tx) error) error {
	return d.note(pgx.BeginTxFunc(ctx, d.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
			return err
		}
		return f(&tx{ctx: ctx, q: t})
	}))
}

// Load implements authority.Database.
func (d *Database) Load(ctx context.Context, f func(authority.Tx) error) error {
	return d.note(pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
		if _, err := t.Exec(ctx, "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
			return err
		}
		w := &tx{ctx: ctx, q: t}
		if _, err := w.lock(); err != nil {
			return err
		}
		if err := f(w); err != nil {
			return err
		}
		return w.finish()
	}))
}

// Update implements authority.Database. ctx is not looked at any more once f runs.
func (d *Database) Update(ctx context.Context, f func(authority.Tx) error) error {
	return d.writes.do(ctx, f)
}

// Batch implements authority.Database: it is Update, which joins what comes at the same time by itself.
func (d *Database) Batch(ctx context.Context, f func(authority.Tx) error) error {
	return d.writes.do(ctx, f)
}

// Copy implements authority.Database: it makes an embedded database with the same rows.
func (d *Database) Copy(ctx context.Context, w io.Writer) error {
	dir, err := os.MkdirTemp(d.dir, ".authority-*.tmp")
	if err != nil {
		return fmt.Errorf("authority: copy of the store: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "authority.db")
	to, err := authority.OpenStore(path)
	if err != nil {
		return err
	}
	_, err = authority.Migrate(ctx, authority.NewStore(d), to)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("authority: copy of the store: %w", err)
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}
