package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/bench/wire"
)

// Addresses of the three machines. The relay has one on each wire; the inlet's machine moves between two.
const (
	inletAddr  = "10.78.1.1"
	inletMoved = "10.78.1.9"
	relayAddr  = "10.78.1.2"
	relayFar   = "10.78.2.2"
	outletAddr = "10.78.2.1"
)

// Ports: of the relay, of the servers in the outlet's namespace, and of the inlets.
const (
	relayPort    = 9300
	dataPort     = 9301
	redisPort    = 9302
	postgresPort = 9303
	plainPort    = 9305
	firstInlet   = 9310
)

// portals are the services that are carried, each by an outlet and an inlet of its own.
var portals = []struct {
	name   string
	target int
	flags  []string // of both ends
	outlet []string // of the outlet alone
}{
	{"data", dataPort, nil, nil},
	{"redis", redisPort, nil, nil},
	{"postgres", postgresPort, nil, nil},
	{"brief", dataPort, []string{"--hold", "4s"}, nil},
	{"many", dataPort, nil, []string{"--max-connections", "4000"}},
}

// briefHold is the hold of the portal brief.
const briefHold = 4 * time.Second

// machine is a namespace with one node.
type machine struct {
	*wire.Namespace
	role string // the node's name, too
	home string
}

// world is the inlet's machine, the relay's and the outlet's in a row, joined by two wires, with a node on each.
type world struct {
	dir, program         string
	inlet, relay, outlet *machine
	near, far            *wire.Wire
	servers              *servers
	hasFleet             bool
}

func newWorld(ctx context.Context, program string) (_ *world, err error) {
	w := &world{program: program}
	if w.dir, err = os.MkdirTemp("", "faults"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := os.Chmod(w.dir, 0o755); err != nil { // the database has a user of its own
		return nil, err
	}
	for _, m := range []**machine{&w.inlet, &w.relay, &w.outlet} {
		role := map[**machine]string{&w.inlet: "green", &w.relay: "relay", &w.outlet: "blue"}[m]
		n, err := wire.New()
		if err != nil {
			return nil, err
		}
		*m = &machine{n, role, filepath.Join(w.dir, role)}
		if err := os.Mkdir((*m).home, 0o700); err != nil {
			return nil, err
		}
	}
	end := func(m *machine, addr, device string) wire.End {
		return wire.End{Namespace: m.Namespace, Device: device, Address: netip.PrefixFrom(netip.MustParseAddr(addr), 24)}
	}
	if w.near, err = wire.Connect(end(w.inlet, inletAddr, "near"), end(w.relay, relayAddr, "near"), usual, usual); err != nil {
		return nil, err
	}
	if w.far, err = wire.Connect(end(w.outlet, outletAddr, "far"), end(w.relay, relayFar, "far"), usual, usual); err != nil {
		return nil, err
	}
	if w.servers, err = startServers(ctx, w); err != nil {
		return nil, err
	}
	return w, w.nodes(ctx)
}

// usual is what a wire does when nothing is wrong: a quarter of a millisecond each way.
var usual = wire.Options{Delay: 250 * time.Microsecond}

// nodes creates the nodes and their portals.
func (w *world) nodes(ctx context.Context) error {
	route := func(addr string) string { return fmt.Sprintf("/ip4/%s/tcp/%d/secure/api", addr, relayPort) }
	type step struct {
		m    *machine
		args []string
	}
	steps := []step{
		{w.relay, []string{"node", "create", "relay", "--tcp-listener-address", fmt.Sprintf("0.0.0.0:%d", relayPort)}},
		{w.relay, []string{"authority", "create", "--tcp-listener-address", fmt.Sprintf("0.0.0.0:%d", authorityPort),
			"--project-identifier", "faults", "--trusted-identities", "{}"}},
		{w.outlet, []string{"node", "create", "blue"}},
		{w.inlet, []string{"node", "create", "green"}},
		{w.outlet, []string{"relay", "create", "blue", "--at", route(relayFar), "--to", "blue"}},
	}
	for i, p := range portals {
		steps = append(steps, step{w.outlet, append([]string{"tcp-outlet", "create", p.name, "--at", "blue", "--to", fmt.Sprintf("127.0.0.1:%d", p.target)}, slices.Concat(p.flags, p.outlet)...)},
			step{w.inlet, append([]string{"tcp-inlet", "create", p.name, "--at", "green", "--from", fmt.Sprintf("127.0.0.1:%d", firstInlet+i),
				"--to", route(relayAddr) + "/service/forward_to_blue/secure/api/service/" + p.name}, p.flags...)})
	}
	for _, s := range steps {
		if _, err := w.command(ctx, s.m, s.args...); err != nil {
			return err
		}
	}
	return nil
}

// command runs the program on a machine and returns what it wrote.
func (w *world) command(ctx context.Context, m *machine, args ...string) (string, error) {
	var text []byte
	err := m.Do(func() error {
		cmd := exec.CommandContext(ctx, w.program, args...)
		cmd.Dir = w.dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + m.home, "SALLYPORT_HOME=" + m.home, "LANG=C", "NO_INPUT=true", "NO_COLOR=1", "QUIET=true"}
		out, err := os.CreateTemp(w.dir, "out") // a node in the background keeps what its starter gave it: no pipes
		if err != nil {
			return err
		}
		defer os.Remove(out.Name())
		defer out.Close()
		cmd.Stdout, cmd.Stderr = out, out
		err = cmd.Run()
		text, _ = os.ReadFile(out.Name())
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", filepath.Base(w.program), strings.Join(args, " "), err, bytes.TrimSpace(text))
		}
		return nil
	})
	return string(text), err
}

var errNoProcess = errors.New("the node has no process")

// pid returns the process of a machine's node.
func (w *world) pid(ctx context.Context, m *machine) (int, error) { return w.pidOf(ctx, m, m.role) }

// pidOf returns the process of a node on a machine.
func (w *world) pidOf(ctx context.Context, m *machine, node string) (int, error) {
	text, err := w.command(ctx, m, "node", "show", node, "--output", "json")
	if err != nil {
		return 0, err
	}
	var shown struct {
		PID     int `json:"pid"`
		Process int `json:"process_id"`
	}
	if err := json.Unmarshal([]byte(text), &shown); err != nil {
		return 0, err
	}
	if pid := max(shown.PID, shown.Process); pid > 1 {
		return pid, nil
	}
	return 0, fmt.Errorf("%w: %s", errNoProcess, node)
}

// hasEnded waits until a killed process has ended, which takes a while on a busy machine: until then its node counts as one that runs.
func hasEnded(pid int) {
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(2 * time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, state, found := bytes.Cut(text, []byte(") ")) // what comes before is the program's name
		if err != nil || !found || state[0] == 'Z' || state[0] == 'X' {
			return
		}
	}
}

// restart ends a machine's node as a fault of the power does, and starts it again after a pause.
func (w *world) restart(ctx context.Context, m *machine, pause time.Duration) error {
	pid, err := w.pid(ctx, m)
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	hasEnded(pid)
	time.Sleep(pause)
	_, err = w.command(ctx, m, "node", "start", m.role)
	return err
}

// drop makes a wire lose everything for a while.
func drop(x *wire.Wire, during time.Duration) error {
	lost := wire.Options{Loss: 1}
	if err := x.Set(lost, lost); err != nil {
		return err
	}
	time.Sleep(during)
	return x.Set(usual, usual)
}

// dial connects a client to an inlet.
func (w *world) dial(portal string) (c *net.TCPConn, err error) {
	port := firstInlet
	for i, p := range portals {
		if p.name == portal {
			port += i
		}
	}
	err = w.inlet.Do(func() error {
		raw, err := net.DialTimeout("tcp4", "127.0.0.1:"+strconv.Itoa(port), 20*time.Second)
		if err == nil {
			c = raw.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// pids returns the processes of the run: all of the namespace but this one, which is its first.
func pids() (list []int) {
	if os.Getpid() != 1 {
		return nil // the namespace is the machine's
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != 1 {
			list = append(list, pid)
		}
	}
	return list
}

// close ends all processes of the run and removes what it wrote.
func (w *world) close() {
	signal := syscall.SIGTERM
	for begun := time.Now(); time.Since(begun) < 8*time.Second; time.Sleep(50 * time.Millisecond) {
		list := pids()
		if len(list) == 0 {
			break
		}
		if time.Since(begun) > 3*time.Second {
			signal = syscall.SIGKILL
		}
		for _, pid := range list {
			_ = syscall.Kill(pid, syscall.SIGCONT)
			_ = syscall.Kill(pid, signal)
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // those that were left to us
		}
	}
	for _, x := range []*wire.Wire{w.near, w.far} {
		if x != nil {
			x.Close()
		}
	}
	for _, m := range []*machine{w.inlet, w.relay, w.outlet} {
		if m != nil {
			_ = m.Close()
		}
	}
	_ = os.RemoveAll(w.dir)
}
