package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"sallyport/internal/freeport"
)

// database is a PostgreSQL server with pgbench's tables, for the neighbour.
type database struct {
	port string
	cmd  *exec.Cmd
}

func (d *database) addr() string { return net.JoinHostPort("127.0.0.1", d.port) }

// startDatabase starts one; an error says what is missing.
func startDatabase(ctx context.Context, dir string) (_ *database, err error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return nil, errors.New("initdb of PostgreSQL is not there (Debian package postgresql)")
	}
	bin := filepath.Dir(found[len(found)-1])
	if _, err := exec.LookPath("pgbench"); err != nil {
		return nil, errors.New("pgbench is not there (Debian package postgresql)")
	}
	as := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	data := filepath.Join(dir, "postgres")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, err
	}
	if os.Getuid() == 0 { // the server refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(data, uid, gid); err != nil {
			return nil, err
		}
	}
	port, err := freeport.Get()
	if err != nil {
		return nil, err
	}
	d := &database{port: strconv.Itoa(port)}
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr, cmd.Env = "/", as, []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
		return cmd
	}
	if out, err := run("initdb", "-D", data, "-A", "trust", "-U", "postgres", "--no-sync", "--encoding=UTF8", "--locale=C").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %.300s", err, out)
	}
	d.cmd = run("postgres", "-D", data, "-p", d.port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off",
		"-c", "log_min_messages=fatal")
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		out, err := exec.CommandContext(ctx, "pgbench", pgbench(d.port, "-i", "-q", "-s", "1")...).CombinedOutput()
		if err == nil {
			return d, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			d.close()
			return nil, fmt.Errorf("pgbench -i: %w: %.300s", err, out)
		}
	}
}

func pgbench(port string, args ...string) []string {
	return append(append([]string{"-h", "127.0.0.1", "-p", port, "-U", "postgres"}, args...), "postgres")
}

func (d *database) close() {
	_ = d.cmd.Process.Signal(syscall.SIGQUIT) // at once, without writing what it has
	_ = d.cmd.Wait()
}

// pgRate is how many transactions a second the neighbour asks for.
const pgRate = 100

// pgLoad is pgbench at work.
type pgLoad struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu      sync.Mutex
	ended   error
	counted bool
	seconds int
	sum     float64 // of transactions a second
	worst   float64
}

var progress = regexp.MustCompile(`^progress: [0-9.]+ s, ([0-9.]+) tps`)

// startPgbench lets two clients select through the inlet at port.
func startPgbench(port string) (*pgLoad, error) {
	p := &pgLoad{done: make(chan struct{})}
	p.cmd = exec.Command("pgbench", pgbench(port, "-n", "-S", "-c", "2", "-R", strconv.Itoa(pgRate), "-P", "1", "-T", "7200")...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.cmd.Env = append(os.Environ(), "LC_ALL=C")
	errs, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		var last []string
		for in := bufio.NewScanner(errs); in.Scan(); {
			m := progress.FindStringSubmatch(in.Text())
			if m == nil {
				last = append(last, in.Text())
				continue
			}
			tps, _ := strconv.ParseFloat(m[1], 64)
			p.mu.Lock()
			if p.counted {
				if p.seconds == 0 || tps < p.worst {
					p.worst = tps
				}
				p.seconds++
				p.sum += tps
			}
			p.mu.Unlock()
		}
		err := p.cmd.Wait()
		p.mu.Lock()
		p.ended = fmt.Errorf("pgbench ended: %w: %.300s", err, strings.Join(last[max(0, len(last)-3):], "; "))
		p.mu.Unlock()
	}()
	return p, nil
}

// count begins to count what it reports.
func (p *pgLoad) count() {
	p.mu.Lock()
	p.counted = true
	p.mu.Unlock()
}

// stop ends it and returns the mean of what it had in each second; err is not nil if it had ended before.
func (p *pgLoad) stop() (tps float64, seconds int, err error) {
	p.mu.Lock()
	err = p.ended
	p.mu.Unlock()
	_ = p.cmd.Process.Kill()
	<-p.done
	if p.seconds > 0 {
		tps = p.sum / float64(p.seconds)
	}
	return tps, p.seconds, err
}
