package servers

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/freeport"
)

// ErrNotInstalled reports a server that the machine does not have.
var ErrNotInstalled = errors.New("not installed")

// postgresPassword is that of the superuser postgres.
const postgresPassword = "superuser's secret"

// Postgres is a cluster of PostgreSQL with a superuser postgres, which asks for passwords and forgets what it has when it is closed. It belongs to no test,
// so that many can share it.
type Postgres struct {
	// Address is where it listens, host:port.
	Address string

	dir, bin string
	attr     *syscall.SysProcAttr
	cmd      *exec.Cmd
}

// StartPostgres starts a cluster of its own, which ends with the test; where the server is not installed the test is skipped.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	p, err := NewPostgres()
	if errors.Is(err, ErrNotInstalled) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// NewPostgres makes a cluster in a new directory and starts it; ErrNotInstalled if there is no PostgreSQL.
func NewPostgres() (*Postgres, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil && len(found) == 0 {
		found = append(found, path)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("PostgreSQL is %w: its package is called postgresql", ErrNotInstalled)
	}
	dir, err := os.MkdirTemp("", "postgres")
	if err != nil {
		return nil, err
	}
	p := &Postgres{dir: dir, bin: filepath.Dir(found[len(found)-1])}
	if err := p.make(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	if err := p.Begin(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Postgres) make() error {
	p.attr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if os.Getuid() == 0 { // it does not run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				return fmt.Errorf("no user to run PostgreSQL as: %w", err)
			}
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		p.attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(p.dir, int(uid), int(gid)); err != nil {
			return err
		}
	}
	password := filepath.Join(p.dir, "password")
	if err := os.WriteFile(password, []byte(postgresPassword), 0o644); err != nil {
		return err
	}
	cmd := p.command("initdb", "-D", p.data(), "-U", "postgres", "--auth=scram-sha-256", "--pwfile="+password, "--no-sync", "--encoding=UTF8", "--locale=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	port, err := freeport.Get()
	p.Address = fmt.Sprint("127.0.0.1:", port)
	return err
}

func (p *Postgres) data() string { return filepath.Join(p.dir, "data") }

func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = p.dir, []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=" + p.dir}, p.attr
	return cmd
}

// Begin starts a cluster that was stopped, and waits until it takes connections.
func (p *Postgres) Begin() error {
	_, port, _ := net.SplitHostPort(p.Address)
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = p.command("postgres", "-D", p.data(), "-p", port, "-k", p.dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB",
		"-c", "max_connections=200")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		// The file's last line says what the server does.
		b, _ := os.ReadFile(filepath.Join(p.data(), "postmaster.pid"))
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if len(lines) >= 8 && strings.TrimSpace(lines[7]) == "ready" && lines[0] == strconv.Itoa(p.cmd.Process.Pid) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("PostgreSQL does not start: %s", p.Log())
		}
	}
}

// Log returns what the server has written.
func (p *Postgres) Log() string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	return string(b)
}

// Execute has psql run statements as the superuser.
func (p *Postgres) Execute(database, statements string) error {
	cmd := exec.Command(filepath.Join(p.bin, "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statements, p.URL("", "", database))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("psql: %w: %s", err, out)
	}
	return nil
}

// Stop ends the server at once, as a crash would; what was committed is there when it begins again.
func (p *Postgres) Stop() {
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(syscall.SIGQUIT)
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// Close stops the server and removes what it has.
func (p *Postgres) Close() error {
	p.Stop()
	return os.RemoveAll(p.dir)
}

// PatientURL is URL for tests on busy machines: what takes long is no failure.
func (p *Postgres) PatientURL(name, password, database string, settings ...string) string {
	return p.URL(name, password, database, append([]string{"connect_timeout", "60", "statement_timeout", "60000", "idle_in_transaction_session_timeout", "60000"}, settings...)...)
}

// URL is where a user finds a database. An empty user is the superuser.
func (p *Postgres) URL(name, password, database string, settings ...string) string {
	if name == "" {
		name, password = "postgres", postgresPassword
	}
	values := url.Values{"sslmode": {"disable"}}
	for i := 0; i+1 < len(settings); i += 2 {
		values.Set(settings[i], settings[i+1])
	}
	return (&url.URL{Scheme: "postgres", User: url.UserPassword(name, password), Host: p.Address, Path: "/" + database, RawQuery: values.Encode()}).String()
}
