package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// stageOptions differ from row to row.
type stageOptions struct {
	// relay and bank are further arguments of `node create` for them.
	relay, bank []string
	// descriptors is `ulimit -n` of the relay; 0 leaves it.
	descriptors int
}

// stage is the story in small: a relay, the bank's node with an outlet and a relay name, the shop's node with an inlet, and a server
// that answers with what it is sent. All are processes of this machine.
type stage struct {
	binary, dir string
	verbose     bool
	env         []string
	relay       string // host:port
	relayPort   string
	bank        string // the bank's node, host:port
	inlet       string // host:port
	target      *echoServer
	nodes       []string
}

func newStage(ctx context.Context, binary string, o stageOptions, verbose bool) (_ *stage, err error) {
	dir, err := os.MkdirTemp("", "attacks-")
	if err != nil {
		return nil, err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	s := &stage{binary: binary, dir: dir, verbose: verbose, nodes: []string{"relay", "bank", "shop"}}
	s.env = append(os.Environ(), "SALLYPORT_HOME="+filepath.Join(dir, "home"), "NO_COLOR=1", "QUIET=1")
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.target, err = newEchoServer(); err != nil {
		return nil, err
	}
	create := append([]string{"node", "create", "relay", "--no-status-endpoint"}, o.relay...)
	if i := indexOf(o.relay, "--status-endpoint"); i >= 0 {
		create = append([]string{"node", "create", "relay"}, o.relay...)
	}
	if o.descriptors > 0 {
		_, err = s.shell(ctx, fmt.Sprintf("ulimit -n %d", o.descriptors), create...)
	} else {
		_, err = s.cli(ctx, create...)
	}
	if err != nil {
		return nil, err
	}
	if s.relay, err = s.listensAt(ctx, "relay"); err != nil {
		return nil, err
	}
	_, s.relayPort, _ = net.SplitHostPort(s.relay)
	for _, args := range [][]string{
		append([]string{"node", "create", "bank", "--no-status-endpoint", "--limits", `{"outlet-connections": 20000}`}, o.bank...),
		{"tcp-outlet", "create", "--at", "bank", "--to", s.target.addr(), "--from", "db"},
		{"relay", "create", "db", "--at", "/dnsaddr/127.0.0.1/tcp/" + s.relayPort + "/secure/api", "--to", "bank"},
		{"node", "create", "shop", "--no-status-endpoint"},
	} {
		if _, err := s.cli(ctx, args...); err != nil {
			return nil, err
		}
	}
	if s.bank, err = s.listensAt(ctx, "bank"); err != nil {
		return nil, err
	}
	if s.inlet, err = s.newInlet(ctx, "shop", "main"); err != nil {
		return nil, err
	}
	return s, nil
}

func indexOf(list []string, s string) int {
	for i, v := range list {
		if v == s {
			return i
		}
	}
	return -1
}

// newInlet opens an inlet to the bank's outlet through the relay and waits until it is up.
func (s *stage) newInlet(ctx context.Context, node, alias string) (string, error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	at := net.JoinHostPort("127.0.0.1", port)
	_, err = s.cli(ctx, "tcp-inlet", "create", alias, "--at", node, "--from", at, "--to",
		"/dnsaddr/127.0.0.1/tcp/"+s.relayPort+"/secure/api/service/forward_to_db/secure/api/service/db")
	if err != nil {
		return "", err
	}
	return at, s.await(ctx, "the inlet carries data", func() error { return once(at) })
}

// await tries f until it succeeds, for 20 s.
func (s *stage) await(ctx context.Context, what string, f func() error) error {
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return nil
		}
	}
	return fmt.Errorf("not in time: %s: %w", what, err)
}

// cli runs a command and returns what it printed. Output goes to a file: a node in the background keeps descriptors.
func (s *stage) cli(ctx context.Context, args ...string) (string, error) {
	return s.shell(ctx, "true", args...)
}

// shell runs a command after a line of shell.
func (s *stage) shell(ctx context.Context, first string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 45*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", first + ` && exec "$0" "$@"`, s.binary}, args...)...)
	cmd.Env = s.env
	out, err := os.CreateTemp(s.dir, "out")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	runErr := cmd.Run()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if runErr != nil {
		return text, fmt.Errorf("sallyport %s: %w: %.500s", strings.Join(args, " "), runErr, text)
	}
	return text, nil
}

// record is a node's record in the state directory.
type record struct {
	Listener string `json:"tcp_listener_address"`
	Status   string `json:"status_endpoint"`
	Process  struct {
		PID int `json:"pid"`
	} `json:"process"`
}

func (s *stage) record(node string) (r record, err error) {
	b, err := os.ReadFile(filepath.Join(s.dir, "home", "nodes", node, "node.json"))
	if err != nil {
		return r, err
	}
	return r, json.NewDecoder(bytes.NewReader(b)).Decode(&r)
}

func (s *stage) listensAt(ctx context.Context, node string) (string, error) {
	var at string
	return at, s.await(ctx, node+" listens", func() error {
		r, err := s.record(node)
		if at = r.Listener; err == nil && at == "" {
			err = errors.New("no listener")
		}
		return err
	})
}

// pid returns the process of a node.
func (s *stage) pid(node string) int {
	r, _ := s.record(node)
	return r.Process.PID
}

// rss returns a figure of /proc/PID/status in bytes: VmRSS now, VmHWM at most.
func (s *stage) rss(node, figure string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid(node)))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, figure+":"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// memory says what the nodes took at most.
func (s *stage) memory() (list []string) {
	for _, n := range s.nodes {
		if most := s.rss(n, "VmHWM"); most > 0 {
			list = append(list, fmt.Sprintf("%s %d MB", n, most>>20))
		}
	}
	return list
}

// logSize returns how much a node has logged.
func (s *stage) logSize(node string) int64 {
	info, err := os.Stat(s.logPath(node))
	if err != nil {
		return 0
	}
	return info.Size()
}

func (s *stage) logPath(node string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	path, _ := s.cli(ctx, "node", "logs", node)
	return strings.TrimSpace(path)
}

// answers measures how long a node takes to answer a command.
func (s *stage) answers(ctx context.Context, node string) (time.Duration, error) {
	began := time.Now()
	_, err := s.cli(ctx, "node", "show", node)
	return time.Since(began), err
}

func (s *stage) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if s.verbose {
		for _, n := range s.nodes {
			if b, err := os.ReadFile(s.logPath(n)); err == nil {
				fmt.Fprintf(os.Stderr, "--- %s\n%s\n", n, tail(b, 4000))
			}
		}
	}
	_, _ = s.cli(ctx, "node", "delete", "--all", "--yes", "--force")
	if s.target != nil {
		s.target.close()
	}
	_ = os.RemoveAll(s.dir)
}

func tail(b []byte, n int) []byte { return b[max(len(b)-n, 0):] }

func freePort() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return port, err
}

// once sends a few bytes through an inlet and reads them back.
func once(at string) error {
	c, err := net.DialTimeout("tcp", at, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "hello" {
		return fmt.Errorf("read %q", b)
	}
	return nil
}
