package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/bench/wire"
)

// Names of the paths: one TCP connection end to end, three haproxy in a row, the reference, ours by relay, the same without lanes, ours directly over UDP,
// and one TCP connection through a tunnel of nebula or of WireGuard, which are direct too.
const (
	pathTCP     = "tcp"
	pathPlain   = "plain"
	pathRef     = "reference"
	pathOurs    = "ours"
	pathOneLane = "one-lane"
	pathDirect  = "direct"
	pathNebula  = "nebula"

	pathWireguard = "wireguard"
)

// serverPort is where the server listens, frontPort where clients connect, hopPort between the nodes.
const (
	serverPort = 9000
	frontPort  = 9100
	hopPort    = 9200
)

// path is one set-up between clients and the server.
type path struct {
	name   string
	world  *world
	dir    string
	target string // where clients connect, in the inlet's namespace
	tag    string
	flags  []string
	files  []string // outside dir, removed at the end
}

// tagVar marks the processes of a path in their environment, so that nodes in the background are found.
const tagVar = "SALLYPORT_DISTANCE"

// newPath brings a path up. flags are for the nodes at its ends.
func newPath(ctx context.Context, name string, w *world, dir, program string, flags ...string) (p *path, err error) {
	p = &path{flags: flags, name: name, world: w, dir: filepath.Join(dir, name), target: fmt.Sprintf("%s:%d", outletAddr, serverPort)}
	p.tag = tagVar + "=" + p.dir
	if name == pathTCP {
		return p, nil
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	switch name {
	case pathPlain:
		err = p.haproxy()
	case pathNebula:
		err = p.nebula()
	case pathWireguard:
		err = p.wireguard()
	case pathOneLane:
		p.flags = append(p.flags, "--limits", `{"lanes": 1}`)
		err = p.story(ctx, program)
	default:
		err = p.story(ctx, program)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, p.wait(ctx)
}

// haproxy starts three in a row.
func (p *path) haproxy() error {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		if program = "/usr/sbin/haproxy"; !exists(program) {
			return fmt.Errorf("haproxy is not there (Debian package haproxy)")
		}
	}
	for _, hop := range []struct {
		role     string
		n        *wire.Namespace
		from, to string
	}{
		{"outlet", p.world.outlet, fmt.Sprintf("%s:%d", outletAddr, hopPort), fmt.Sprintf("%s:%d", outletAddr, serverPort)},
		{"relay", p.world.relay, fmt.Sprintf("%s:%d", relayAddr, hopPort), fmt.Sprintf("%s:%d", outletAddr, hopPort)},
		{"inlet", p.world.inlet, fmt.Sprintf("127.0.0.1:%d", frontPort), fmt.Sprintf("%s:%d", relayAddr, hopPort)},
	} {
		conf := filepath.Join(p.dir, hop.role+".cfg")
		text := fmt.Sprintf("global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 20s\n  timeout client 1h\n  timeout server 1h\n"+
			"listen l\n  bind %s\n  server s %s\n", hop.from, hop.to)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return err
		}
		if err := p.begin(hop.n, program, "-db", "-q", "-f", conf); err != nil {
			return err
		}
	}
	p.target = fmt.Sprintf("127.0.0.1:%d", frontPort)
	return nil
}

// begin starts a program of the path that stays in the foreground.
func (p *path) begin(n *wire.Namespace, program string, args ...string) error {
	return n.Do(func() error {
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), p.tag)
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() { _ = cmd.Wait() }()
		return nil
	})
}

// story starts three nodes with the commands that the reference and ours have in common. There is a channel between each node and the
// relay, and one from end to end inside the two.
func (p *path) story(ctx context.Context, program string) error {
	port := hopPort + 10
	front := frontPort + 10
	switch p.name {
	case pathRef:
		port, front = hopPort+20, frontPort+20
	case pathDirect:
		port, front = hopPort+30, frontPort+30
	case pathOneLane:
		port, front = hopPort+40, frontPort+40
	}
	rendezvous := fmt.Sprintf("%s:%d", relayAddr, port)
	environment := func(home string) []string {
		return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "OCKAM_HOME=" + home, "SALLYPORT_HOME=" + home, "LANG=C",
			"OCKAM_OPENTELEMETRY_EXPORT=false", "OCKAM_TELEMETRY_EXPORT=false", "OCKAM_DISABLE_UPGRADE_CHECK=true",
			"OCKAM_LOGGING=false", "NO_INPUT=true", "QUIET=true", "OCKAM_RENDEZVOUS_SERVER=" + rendezvous, p.tag}
	}
	do := func(n *wire.Namespace, role string, args ...string) error {
		return n.Do(func() error {
			home := filepath.Join(p.dir, role)
			cmd := exec.CommandContext(ctx, program, args...)
			cmd.Dir = p.dir
			cmd.Env = environment(home)
			// A node in the background keeps what its starter gave it: no pipes.
			out, err := os.CreateTemp(p.dir, "out")
			if err != nil {
				return err
			}
			defer out.Close()
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Run(); err != nil {
				text, _ := os.ReadFile(out.Name())
				return fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, bytes.TrimSpace(text))
			}
			return nil
		})
	}
	relay := fmt.Sprintf("/ip4/%s/tcp/%d", relayAddr, port)
	w := p.world
	p.target = fmt.Sprintf("127.0.0.1:%d", front)
	createNode := func(name string) []string {
		args := append([]string{"node", "create", name}, p.flags...)
		if p.name == pathDirect {
			args = append(args, "--udp", "--udp-listener-address", "0.0.0.0:0")
		}
		return args
	}
	inlet := []string{"tcp-inlet", "create", "--at", "green", "--from", p.target, "--to",
		relay + "/secure/api/service/forward_to_blue/secure/api/service/server"}
	if p.name == pathDirect {
		inlet = append(inlet, "--udp", "--no-tcp-fallback")
		if err := p.rendezvous(program, rendezvous, fmt.Sprintf("%s:%d", relayAddr, port+1), environment(filepath.Join(p.dir, "rendezvous"))); err != nil {
			return err
		}
	}
	for _, step := range []struct {
		n    *wire.Namespace
		role string
		args []string
	}{
		{w.relay, "relay", []string{"node", "create", "relay", "--tcp-listener-address", fmt.Sprintf("%s:%d", relayAddr, port)}},
		{w.outlet, "outlet", createNode("blue")},
		{w.outlet, "outlet", []string{"tcp-outlet", "create", "--at", "blue", "--from", "server", "--to", fmt.Sprintf("%s:%d", outletAddr, serverPort)}},
		{w.outlet, "outlet", []string{"relay", "create", "blue", "--at", relay + "/secure/api", "--to", "blue"}},
		{w.inlet, "inlet", createNode("green")},
		{w.inlet, "inlet", inlet},
	} {
		if err := do(step.n, step.role, step.args...); err != nil {
			return err
		}
	}
	return nil
}

// rendezvous starts the server on the relay's machine that tells nodes their public addresses.
func (p *path) rendezvous(program, at, health string, env []string) error {
	return p.world.relay.Do(func() error {
		cmd := exec.Command(program, "rendezvous", "create", "--udp", at, "--healthcheck", health)
		cmd.Env = env
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() { _ = cmd.Wait() }()
		return nil
	})
}

var errNoEnd = errors.New("the path does not reach its server")

// wait waits until a request comes back.
func (p *path) wait(ctx context.Context) error {
	for {
		_, err := p.firstByte(10 * time.Second)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w: %w", p.name, errNoEnd, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// dial connects a client.
func (p *path) dial(timeout time.Duration) (c *net.TCPConn, err error) {
	err = p.world.inlet.Do(func() error {
		raw, err := net.DialTimeout("tcp4", p.target, timeout)
		if err == nil {
			c = raw.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// pids returns the processes of the path.
func (p *path) pids() (list []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err == nil && bytes.Contains(append(env, 0), []byte(p.tag+"\x00")) {
			list = append(list, pid)
		}
	}
	return list
}

// resident is the memory of the path's processes together, in MiB, and the largest of them.
func (p *path) resident() (total float64) {
	for _, pid := range p.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if f := strings.Fields(string(b)); err == nil && len(f) > 1 {
			pages, _ := strconv.ParseFloat(f[1], 64)
			total += pages * float64(os.Getpagesize()) / (1 << 20)
		}
	}
	return total
}

// close ends the path's processes.
func (p *path) close() {
	signal := syscall.SIGTERM
	for begun := time.Now(); time.Since(begun) < 8*time.Second; time.Sleep(50 * time.Millisecond) {
		list := p.pids()
		if len(list) == 0 {
			break
		}
		if time.Since(begun) > 3*time.Second {
			signal = syscall.SIGKILL
		}
		for _, pid := range list {
			_ = syscall.Kill(pid, signal)
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // those that were left to us
		}
	}
	for _, f := range p.files {
		_ = os.Remove(f) // the program may have done so
	}
	_ = os.RemoveAll(p.dir)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
