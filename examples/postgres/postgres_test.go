// Package postgres is a program that uses a PostgreSQL at another company through pgx: no port, no process beside it.
package postgres

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sallyport/examples/internal/members"
	"sallyport/internal/testproject"
)

// startPostgreSQL starts a server at a Unix socket, and skips the test where PostgreSQL is not installed or cannot be started as root.
func startPostgreSQL(t *testing.T) (socket string) {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed here: apt-get install postgresql")
	}
	bin := filepath.Dir(found[len(found)-1])
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	as := func(name string, args ...string) *exec.Cmd { return exec.Command(filepath.Join(bin, name), args...) }
	if os.Getuid() == 0 { // the server refuses to run as root
		if out, err := exec.Command("chown", "postgres", dir).CombinedOutput(); err != nil {
			t.Skipf("no user postgres here: %s", out)
		}
		as = func(name string, args ...string) *exec.Cmd {
			return exec.Command("setpriv", append([]string{"--reuid", "postgres", "--regid", "postgres", "--clear-groups", filepath.Join(bin, name)}, args...)...)
		}
	}
	data := filepath.Join(dir, "data")
	if out, err := as("initdb", "-D", data, "-A", "trust", "-U", "app", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	server := as("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(os.Interrupt)
		server.Wait()
	})
	return filepath.Join(dir, ".s.PGSQL.5432")
}

func TestPostgreSQL(t *testing.T) {
	socket := startPostgreSQL(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p, err := testproject.Start(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	bank, analysis := members.Open(ctx, t, p, map[string]string{"ockam-relay": "postgres"}), members.Open(ctx, t, p, nil)
	l, err := bank.Listen(ctx, "postgres") // what a node with an outlet does, in Go
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go forward(c, socket)
		}
	}()

	config, err := pgx.ParseConfig("postgres://app@postgres/postgres?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	config.DialFunc = analysis.DialContext
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	var db *pgx.Conn
	for db == nil { // the server may still be starting
		if db, err = pgx.ConnectConfig(ctx, config); err != nil && ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	defer db.Close(ctx)
	var sum int
	if err := db.QueryRow(ctx, "select sum(n) from generate_series(1, 100000) n").Scan(&sum); err != nil || sum != 5000050000 {
		t.Fatal(sum, err)
	}
}

func forward(c net.Conn, socket string) {
	defer c.Close()
	s, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		io.Copy(s, c)
		s.(*net.UnixConn).CloseWrite()
	}()
	io.Copy(c, s)
}
