package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// pgScale is the scale of pgbench's tables: one branch would make transactions wait for each other more than for the path.
const pgScale = 10

// pgBin returns the directory of the newest PostgreSQL's programs, as Debian has them.
func pgBin() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is good
	if len(found) == 0 {
		return "", errors.New("initdb is missing: install the package postgresql")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

// pgURL is how a client reaches the database by a port.
func pgURL(port int) string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", loopback(port))
}

// startPostgres starts a database without durability, so that the disk is not what is measured, and fills pgbench's tables.
func (s *servers) startPostgres(ctx context.Context) error {
	bin, err := pgBin()
	if err != nil {
		return err
	}
	if s.pgDir, err = os.MkdirTemp("", "paths-postgres"); err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Getuid() == 0 { // PostgreSQL does not run as root
		owner, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, err1 := strconv.Atoi(owner.Uid)
		gid, err2 := strconv.Atoi(owner.Gid)
		if err := errors.Join(err1, err2, os.Chown(s.pgDir, uid, gid)); err != nil {
			return err
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	data := filepath.Join(s.pgDir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--encoding=UTF8", "--locale=C")
	initdb.Dir, initdb.SysProcAttr, initdb.Env = s.pgDir, attr, s.env
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, lastLine(string(out)))
	}
	port := s.ports[svcPG]
	p, err := spawnAs(attr, "server", filepath.Join(s.dir, "postgres.log"), s.env, filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
	if err != nil {
		return err
	}
	s.procs = append(s.procs, p)
	if err := waitListening(ctx, []*proc{p}, port); err != nil {
		return err
	}
	for {
		_, err := run(ctx, s.dir, s.env, filepath.Join(bin, "pgbench"), "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", "postgres", "-i", "-q", "-s", strconv.Itoa(pgScale), "postgres")
		if err == nil {
			return nil
		}
		if sleep(ctx, 200*time.Millisecond) != nil { // it may be starting still
			return err
		}
	}
}
