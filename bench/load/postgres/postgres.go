// Package postgres has clients of PostgreSQL for load: the simple query protocol, and pgbench's transaction, which is like that of TPC-B.
package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/bench/load"
)

// closeTimeout bounds how long a connection's goodbye may take.
const closeTimeout = time.Second

type conn struct {
	*pgx.Conn
	ctx context.Context
}

func (c *conn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.Conn.Close(ctx)
}

func dial(ctx context.Context, url string) (*conn, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, ctx: ctx}, nil
}

// Simple sends one statement with the simple query protocol: one message there, one answer back. The URL is that of pgx, such as
// postgres://user@127.0.0.1:5432/db.
func Simple(url, statement string) load.Dial {
	return func(ctx context.Context) (load.Client, error) {
		c, err := dial(ctx, url)
		if err != nil {
			return nil, err
		}
		return &simple{conn: c, statement: statement}, nil
	}
}

type simple struct {
	*conn
	statement string
}

func (s *simple) Do() error {
	return s.PgConn().Exec(s.ctx, s.statement).Close()
}

// TPCB makes pgbench's transaction on tables of the given scale (`pgbench -i -s SCALE`): three updates, a query and an insert between BEGIN and END, each a
// round trip with a prepared statement, as `pgbench -M prepared` does.
func TPCB(url string, scale int) load.Dial {
	return func(ctx context.Context) (load.Client, error) {
		c, err := dial(ctx, url)
		if err != nil {
			return nil, err
		}
		return &tpcb{conn: c, scale: max(scale, 1)}, nil
	}
}

type tpcb struct {
	*conn
	scale int
}

// Rows for each unit of the scale, as in pgbench.
const (
	accountsPerBranch = 100_000
	tellersPerBranch  = 10
)

func (t *tpcb) Do() (err error) {
	aid, bid, tid := 1+rand.IntN(accountsPerBranch*t.scale), 1+rand.IntN(t.scale), 1+rand.IntN(tellersPerBranch*t.scale)
	delta := rand.IntN(10_001) - 5_000
	if _, err := t.Exec(t.ctx, "BEGIN"); err != nil {
		return err
	}
	if _, err := t.Exec(t.ctx, "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2", delta, aid); err != nil {
		return err
	}
	var balance int
	if err := t.QueryRow(t.ctx, "SELECT abalance FROM pgbench_accounts WHERE aid = $1", aid).Scan(&balance); err != nil {
		return fmt.Errorf("account %d: %w", aid, err)
	}
	if _, err := t.Exec(t.ctx, "UPDATE pgbench_tellers SET tbalance = tbalance + $1 WHERE tid = $2", delta, tid); err != nil {
		return err
	}
	if _, err := t.Exec(t.ctx, "UPDATE pgbench_branches SET bbalance = bbalance + $1 WHERE bid = $2", delta, bid); err != nil {
		return err
	}
	if _, err := t.Exec(t.ctx, "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES ($1, $2, $3, $4, CURRENT_TIMESTAMP)", tid, bid, aid, delta); err != nil {
		return err
	}
	_, err = t.Exec(t.ctx, "END")
	return err
}
