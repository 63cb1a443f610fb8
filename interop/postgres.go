package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/internal/freeport"
)

// postgres is a cluster of the driver's own: fresh, on a free port, gone at the end.
type postgres struct {
	procs  *processes
	bin    string // directory of the server's programs
	port   int
	server *exec.Cmd
	ended  chan error

	databases int // that were made beside the first
}

// startPostgres creates and starts a cluster with pgbench's tables under dir.
func startPostgres(ctx context.Context, procs *processes, dir string) (*postgres, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return nil, errors.New("no PostgreSQL server in /usr/lib/postgresql: install the package postgresql")
	}
	port, err := freeport.Get()
	if err != nil {
		return nil, err
	}
	p := &postgres{procs: procs, bin: filepath.Dir(found[len(found)-1]), port: port, ended: make(chan error, 1)}
	data := filepath.Join(dir, "pg")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	attr, err := unprivileged(data)
	if err != nil {
		return nil, err
	}
	if err := p.asUser(ctx, attr, data, "initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--encoding=UTF8", "--locale=C"); err != nil {
		return nil, err
	}
	p.server = exec.Command(filepath.Join(p.bin, "postgres"), "-D", data, "-p", strconv.Itoa(port), "-k", data,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=32MB", "-c", "logging_collector=off")
	p.server.Dir, p.server.SysProcAttr = data, attr
	if err := procs.start(p.server); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	go func() { p.ended <- procs.wait(p.server) }()
	if err := p.ready(ctx); err != nil {
		p.stop()
		return nil, err
	}
	if out, err := p.client(ctx, port, "pgbench", "-i", "-s", "2", "-q", "postgres"); err != nil {
		p.stop()
		return nil, fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	return p, nil
}

// unprivileged gives the directory to an unprivileged user when the driver is
// root, because the server refuses to run as root.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() != 0 {
		return attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, fmt.Errorf("no user to run PostgreSQL as: %w", err)
		}
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, os.Chown(dir, uid, gid)
}

func (p *postgres) asUser(ctx context.Context, attr *syscall.SysProcAttr, dir, name string, args ...string) error {
	var out strings.Builder
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = dir, attr, &out, &out
	cmd.WaitDelay = time.Second
	if err := p.procs.run(cmd); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, firstLine([]byte(out.String())))
	}
	return nil
}

// ready waits until the server answers.
func (p *postgres) ready(ctx context.Context) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		out, err := p.client(ctx, p.port, "psql", "-Atc", "select 1", "postgres")
		switch {
		case err == nil && out == "1":
			return nil
		case time.Now().After(deadline) || ctx.Err() != nil:
			return fmt.Errorf("PostgreSQL does not answer: %s", firstLine([]byte(out)))
		}
		select {
		case err := <-p.ended:
			p.ended <- err
			return fmt.Errorf("PostgreSQL ended at once: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// client runs psql or pgbench against a port, either the server's or an inlet's.
func (p *postgres) client(ctx context.Context, port int, name string, args ...string) (string, error) {
	args = append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "postgres"}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGCONNECT_TIMEOUT=10", "PGSSLMODE=disable", "PGGSSENCMODE=disable", "HOME=/nonexistent"}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	err := p.procs.run(cmd)
	return strings.TrimSpace(out.String()), err
}

// database makes a database that is empty, and returns its URL.
func (p *postgres) database(ctx context.Context) (string, error) {
	p.databases++
	name := fmt.Sprint("fleet", p.databases)
	if out, err := p.client(ctx, p.port, "psql", "-c", "create database "+name, "postgres"); err != nil {
		return "", fmt.Errorf("create database: %w: %s", err, firstLine([]byte(out)))
	}
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", p.port, name), nil
}

// query checks that a value makes the way through the portal and back.
func (p *postgres) query(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	out, err := p.client(ctx, port, "psql", "-Atc", "select count(*)*7 from pgbench_branches", "postgres")
	if err != nil {
		return fmt.Errorf("psql: %w: %s", orContext(ctx, err), firstLine([]byte(out)))
	}
	if out != "14" {
		return fmt.Errorf("psql: got %q, want 14", out)
	}
	return nil
}

var (
	noneFailed = regexp.MustCompile(`(?m)^number of failed transactions: 0 `)
	processed  = regexp.MustCompile(`(?m)^number of transactions actually processed: ([1-9][0-9]*)`)
	tps        = regexp.MustCompile(`(?m)^tps = ([0-9]+)`)
)

// bench runs pgbench and demands that no transaction failed. It returns the rate as text. pgbench counts the time in which it connects, one session after the other: where that took all of it
// nothing has failed, and it has longer.
func (p *postgres) bench(ctx context.Context, port int, length time.Duration, selectOnly bool) (rate string, err error) {
	for range 3 {
		var none bool
		if rate, none, err = p.benchOnce(ctx, port, length, selectOnly); !none {
			break
		}
		length *= 3
	}
	return rate, err
}

func (p *postgres) benchOnce(ctx context.Context, port int, length time.Duration, selectOnly bool) (rate string, none bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, length+15*time.Second)
	defer cancel()
	args := []string{"-n", "-c", "4", "-j", "1", "-T", strconv.Itoa(int(length.Seconds()))}
	if selectOnly {
		args = append(args, "-S")
	}
	out, err := p.client(ctx, port, "pgbench", append(args, "postgres")...)
	if err != nil {
		return "", false, fmt.Errorf("pgbench: %w: %s", orContext(ctx, err), lastLine(out))
	}
	return benched(out)
}

// benched reads what pgbench prints: the rate, or that there was time for no transaction.
func benched(out string) (rate string, none bool, err error) {
	if !noneFailed.MatchString(out) {
		return "", false, fmt.Errorf("pgbench: failed transactions: %s", lastLine(out))
	}
	found := tps.FindStringSubmatch(out)
	if !processed.MatchString(out) || found == nil {
		return "", true, fmt.Errorf("pgbench: no transactions: %s", lastLine(out))
	}
	return found[1] + " tps", false, nil
}

// stop ends the server, first politely.
func (p *postgres) stop() {
	p.server.Process.Signal(syscall.SIGINT) // "fast shutdown"
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		syscall.Kill(-p.server.Process.Pid, syscall.SIGKILL)
		<-p.ended
	}
}

// orContext prefers "deadline exceeded" over "signal: killed".
func orContext(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return firstLine([]byte(lines[len(lines)-1]))
}
