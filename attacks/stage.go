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
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/freeport"
)

// stageOptions differ from row to row.
type stageOptions struct {
	// relay and bank are further arguments of `node create` for them.
	relay, bank []string
	// descriptors is `ulimit -n` of the relay; 0 leaves it.
	descriptors int
	// project has an authority, and bank and shop are its members, each with a home of its own.
	project bool
}

// plain reports whether it is the stage of most rows.
func (o stageOptions) plain() bool {
	return len(o.relay) == 0 && len(o.bank) == 0 && o.descriptors == 0 && !o.project
}

// stage is the story in small: a relay, the bank's node with outlets and a relay name, the shop's node with inlets, and a server
// that answers with what it is sent. All are processes of this machine.
type stage struct {
	suite     *suite
	binary    string
	dir       string
	env       []string
	relay     string // host:port
	relayPort string
	bank      string // the bank's node, host:port
	inlet     string // host:port of the way to the server
	pgInlet   string // host:port of the way to PostgreSQL, if there is one
	target    *echoServer
	nodes     []string          // all that are there
	homes     map[string]string // state directories by node; "home" for those that are not named
	project   bool
}

// statusAt lets a node serve its metrics at a free port.
var statusAt = []string{"--status-endpoint", "127.0.0.1:0"}

// wideLimits gives an outlet with places for what attacks hold there.
const wideLimits = `{"outlet-connections": 20000}`

func newStage(ctx context.Context, u *suite, o stageOptions) (_ *stage, err error) {
	dir, err := os.MkdirTemp(u.dir, "stage-")
	if err != nil {
		return nil, err
	}
	s := &stage{suite: u, binary: u.binary, dir: dir, homes: map[string]string{}, project: o.project}
	s.env = append(os.Environ(), "NO_COLOR=1", "QUIET=1", "NO_INPUT=1", "GORACE=log_path="+filepath.Join(dir, "race"))
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.target, err = newEchoServer(); err != nil {
		return nil, err
	}
	if o.project {
		err = s.makeProject(ctx)
	} else {
		err = s.makeRelay(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	if s.relay, err = s.listensAt(ctx, "relay"); err != nil {
		return nil, err
	}
	_, s.relayPort, _ = net.SplitHostPort(s.relay)
	if err = s.newNode(ctx, "bank", append([]string{"--limits", wideLimits}, o.bank...)...); err != nil {
		return nil, err
	}
	if err = s.newNode(ctx, "shop"); err != nil {
		return nil, err
	}
	outlets := map[string]string{"db": s.target.addr()}
	if u.database != nil {
		outlets["pg"] = u.database.addr()
	}
	for name, to := range outlets {
		if _, err = s.cli(ctx, "bank", "tcp-outlet", "create", "--at", "bank", "--to", to, "--from", name); err != nil {
			return nil, err
		}
	}
	if err = s.newRelayName(ctx, "bank"); err != nil {
		return nil, err
	}
	if s.bank, err = s.listensAt(ctx, "bank"); err != nil {
		return nil, err
	}
	if s.inlet, err = s.newInlet(ctx, "shop", "db"); err != nil {
		return nil, err
	}
	if err = s.await(ctx, "the inlet carries data", func() error { return once(s.inlet) }); err != nil {
		return nil, err
	}
	if u.database != nil {
		s.pgInlet, err = s.newInlet(ctx, "shop", "pg")
	}
	return s, err
}

// makeRelay makes a relay without an authority.
func (s *stage) makeRelay(ctx context.Context, o stageOptions) error {
	s.nodes = append(s.nodes, "relay")
	port, err := freeport.Get() // it is there again after a restart
	if err != nil {
		return err
	}
	first := "true"
	if o.descriptors > 0 {
		first = fmt.Sprintf("ulimit -n %d", o.descriptors)
	}
	create := append([]string{"node", "create", "relay", "--tcp-listener-address", fmt.Sprint("127.0.0.1:", port)}, statusAt...)
	_, err = s.shell(ctx, "relay", first, append(create, o.relay...)...)
	return err
}

// makeProject makes a project with its authority and relay, and members that are to have the nodes bank and shop.
func (s *stage) makeProject(ctx context.Context) error {
	s.nodes = append(s.nodes, "authority", "relay")
	authority, err := freeport.Get()
	if err != nil {
		return err
	}
	relay, err := freeport.Get()
	if err != nil {
		return err
	}
	if _, err := s.cli(ctx, "relay", "project", "create", "p", "--authority-port", fmt.Sprint(authority), "--relay-port", fmt.Sprint(relay),
		"--authority-status", "127.0.0.1:0", "--relay-status", "127.0.0.1:0"); err != nil {
		return err
	}
	for _, member := range []string{"bank", "shop"} {
		s.homes[member] = member
		args := []string{"project", "ticket"}
		if member == "bank" {
			args = append(args, "--relay", "db")
		}
		ticket, err := s.cli(ctx, "relay", args...)
		if err != nil {
			return err
		}
		if _, err := s.cli(ctx, member, "project", "enroll", ticket); err != nil {
			return err
		}
	}
	return nil
}

// newNode creates a node in the background.
func (s *stage) newNode(ctx context.Context, node string, args ...string) error {
	if !slices.Contains(s.nodes, node) {
		s.nodes = append(s.nodes, node)
	}
	_, err := s.cli(ctx, node, append(append([]string{"node", "create", node}, statusAt...), args...)...)
	return err
}

// relayRoute is the way to the relay's node of a stage without an authority.
func (s *stage) relayRoute() string { return "/dnsaddr/127.0.0.1/tcp/" + s.relayPort + "/secure/api" }

// newRelayName registers a node as db at the relay.
func (s *stage) newRelayName(ctx context.Context, node string) error {
	args := []string{"relay", "create", "db", "--to", node}
	if !s.project {
		args = append(args, "--at", s.relayRoute())
	}
	_, err := s.cli(ctx, node, args...)
	return err
}

// newInlet opens an inlet to an outlet of the bank's, through the relay.
func (s *stage) newInlet(ctx context.Context, node, outlet string, more ...string) (string, error) {
	port, err := freeport.Get()
	if err != nil {
		return "", err
	}
	at := fmt.Sprint("127.0.0.1:", port)
	args := []string{"tcp-inlet", "create", "--at", node, "--from", at}
	if s.project {
		args = append(args, "--via", "db", "--to", outlet)
	} else {
		args = append(args, "--to", s.relayRoute()+"/service/forward_to_db/secure/api/service/"+outlet)
	}
	_, err = s.cli(ctx, node, append(args, more...)...)
	return at, err
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

// cli runs a command in the home of a node and returns what it printed.
func (s *stage) cli(ctx context.Context, node string, args ...string) (string, error) {
	return s.shell(ctx, node, "true", args...)
}

// shell runs a command after a line of shell. Output goes to a file: a node in the background keeps descriptors.
func (s *stage) shell(ctx context.Context, node, first string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", first + ` && exec "$0" "$@"`, s.binary}, args...)...)
	cmd.Env = append(s.env, "SALLYPORT_HOME="+s.home(node))
	out, err := os.CreateTemp(s.dir, "out")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	errs, err := os.CreateTemp(s.dir, "err")
	if err != nil {
		return "", err
	}
	defer os.Remove(errs.Name())
	defer errs.Close()
	cmd.Stdout, cmd.Stderr = out, errs
	runErr := cmd.Run()
	b, err := os.ReadFile(out.Name())
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if runErr != nil {
		b, _ = os.ReadFile(errs.Name())
		return text, fmt.Errorf("sallyport %s: %w: %.500s%.500s", strings.Join(args, " "), runErr, text, b)
	}
	return text, nil
}

// home is the state directory that a node is in.
func (s *stage) home(node string) string {
	name := s.homes[node]
	if name == "" {
		name = "home"
	}
	return filepath.Join(s.dir, name)
}

// nodeName is what a node is called on the command line.
func (s *stage) nodeName(node string) string {
	if s.project && (node == "relay" || node == "authority") {
		return node + "-p"
	}
	return node
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
	b, err := os.ReadFile(filepath.Join(s.home(node), "nodes", s.nodeName(node), "node.json"))
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

// forgetPeaks lets memory count from now on.
func (s *stage) forgetPeaks() {
	for _, n := range s.nodes {
		if pid := s.pid(n); pid > 0 {
			_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // VmHWM begins anew (proc(5))
		}
	}
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
	path, _ := s.cli(ctx, node, "node", "logs", s.nodeName(node))
	return strings.TrimSpace(path)
}

// answers measures how long a node takes to answer a command.
func (s *stage) answers(ctx context.Context, node string) (time.Duration, error) {
	began := time.Now()
	_, err := s.cli(ctx, node, "node", "show", s.nodeName(node))
	return time.Since(began), err
}

func (s *stage) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, n := range s.nodes {
		s.showLog(n)
	}
	ended := map[string]bool{}
	for _, n := range append(s.nodes, "relay") {
		if home := s.home(n); !ended[home] {
			ended[home] = true
			_, _ = s.cli(ctx, n, "node", "delete", "--all", "--yes", "--force")
		}
	}
	if s.target != nil {
		s.target.close()
	}
	_ = os.RemoveAll(s.dir)
}

// showLog shows the end of what a node has logged, if that is wanted.
func (s *stage) showLog(node string) {
	if !s.suite.verbose {
		return
	}
	if b, err := os.ReadFile(s.logPath(node)); err == nil {
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", node, tail(b, 4000))
	}
}

func tail(b []byte, n int) []byte { return b[max(len(b)-n, 0):] }

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

// removeNode deletes a node that an attack created.
func (s *stage) removeNode(ctx context.Context, node string) {
	s.showLog(node)
	_, _ = s.cli(context.WithoutCancel(ctx), node, "node", "delete", node, "--yes", "--force")
	s.nodes = slices.DeleteFunc(s.nodes, func(n string) bool { return n == node })
}
