// Package servers starts real servers for tests, as the distribution has them: proxies (tinyproxy, squid, danted) and what stands in front of
// others (nginx, haproxy). A test that needs one that is not installed is skipped.
package servers

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"sallyport/internal/freeport"
)

// Server is a running server.
type Server struct {
	// Address is where it listens, host:port.
	Address string
	// Dir has its files.
	Dir string

	t    testing.TB
	cmd  *exec.Cmd
	args []string
	out  *os.File
}

// find returns the path of a program, also where only root looks.
func find(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path := filepath.Join(dir, name)
		if s, err := os.Stat(path); err == nil && s.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// Start starts a program with a configuration, in which {{.Port}} is where it is to listen on 127.0.0.1, {{.Dir}} a directory of its own, and
// {{.X}} what values has for X. {{.Config}} in args is the configuration's path. It is stopped with the test.
func Start(t testing.TB, program, config string, values map[string]string, args ...string) *Server {
	t.Helper()
	path := find(program)
	if path == "" {
		t.Skipf("%s is not installed", program)
	}
	dir, err := os.MkdirTemp("", program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // some change their user
		t.Fatal(err)
	}
	all := map[string]string{"Port": freeport.For(t), "Dir": dir, "Config": filepath.Join(dir, "config")}
	for k, v := range values {
		all[k] = v
	}
	fill := func(text string) string {
		var b bytes.Buffer
		if err := template.Must(template.New("").Option("missingkey=error").Parse(text)).Execute(&b, all); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if err := os.WriteFile(all["Config"], []byte(fill(config)), 0o644); err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: "127.0.0.1:" + all["Port"], Dir: dir, t: t, args: []string{path}}
	for _, a := range args {
		s.args = append(s.args, fill(a))
	}
	if s.out, err = os.Create(filepath.Join(dir, "output")); err != nil {
		t.Fatal(err)
	}
	s.Begin()
	t.Cleanup(func() {
		s.Stop()
		_ = s.out.Close()
		if t.Failed() {
			b, _ := os.ReadFile(s.out.Name())
			t.Logf("%s: %.2000s", program, b)
		}
	})
	return s
}

// Begin starts a server that was stopped, and waits until it listens.
func (s *Server) Begin() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.Dir, s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", s.Address); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			b, _ := os.ReadFile(s.out.Name())
			s.t.Fatalf("%s does not listen: %s", strings.Join(s.args, " "), b)
		}
	}
}

// Stop ends the server at once, with the processes that it started.
func (s *Server) Stop() {
	if s.cmd == nil {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Output returns what it has written.
func (s *Server) Output() string {
	b, _ := os.ReadFile(s.out.Name())
	return string(b)
}

// Tinyproxy starts an HTTP proxy; user and password may be empty.
func Tinyproxy(t testing.TB, user, password string) *Server {
	t.Helper()
	auth := ""
	if user != "" {
		auth = fmt.Sprintf("BasicAuth %s %s\n", user, password)
	}
	return Start(t, "tinyproxy", "Port {{.Port}}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nAllow 127.0.0.1\nLogLevel Connect\n"+auth, nil,
		"-d", "-c", "{{.Config}}")
}

// Squid starts an HTTP proxy that lets through what ports says, such as "1-65535".
func Squid(t testing.TB, ports string) *Server {
	t.Helper()
	return Start(t, "squid", `http_port 127.0.0.1:{{.Port}}
acl good port {{.Ports}}
http_access deny !good
http_access allow all
pid_filename {{.Dir}}/pid
cache_log stdio:{{.Dir}}/cache.log
access_log none
cache deny all
coredump_dir {{.Dir}}
shutdown_lifetime 0 seconds
`, map[string]string{"Ports": ports}, "-N", "-f", "{{.Config}}")
}

// Danted starts a SOCKS5 proxy without passwords.
func Danted(t testing.TB) *Server {
	t.Helper()
	return Start(t, "danted", `logoutput: stderr
internal: 127.0.0.1 port = {{.Port}}
external: lo
external.rotation: route
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }
socks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
`, nil, "-f", "{{.Config}}", "-p", "{{.Dir}}/pid", "-N", "1")
}
