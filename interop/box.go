package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// commandTimeout bounds a single command of either program. Creating an inlet
// towards a dead node is the slowest one that is expected to end by itself.
const commandTimeout = 45 * time.Second

// box is one machine of the story: a program and its state directory.
type box struct {
	program program
	home    string
	env     []string // added to the environment of every command
	procs   *processes
}

// newBox makes the state directory of a seat.
func newBox(procs *processes, dir, name string, p program, env ...string) (*box, error) {
	home := filepath.Join(dir, name)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	return &box{program: p, home: home, env: env, procs: procs}, nil
}

// environment is what a command sees. HOME points into the state directory
// too, so that no program ever touches the user's own state.
func (b *box) environment() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + b.home,
		"OCKAM_HOME=" + b.home,
		"OCKAM_OPENTELEMETRY_EXPORT=false",
		"OCKAM_TELEMETRY_EXPORT=false",
		"OCKAM_DISABLE_UPGRADE_CHECK=true",
		"OCKAM_LOGGING=false",
		"QUIET=true",
	}
	return append(env, b.env...) // later entries win
}

// cliError is a command that ended with another code than 0.
type cliError struct {
	command string
	code    int
	text    string // first telling line of what it printed
}

func (e *cliError) Error() string {
	return fmt.Sprintf("%s: exit %d: %s", e.command, e.code, e.text)
}

// cli runs one command and returns what it printed on standard output, trimmed.
//
// Output goes to files and not to pipes: a node that stays in the background
// may keep its descriptors open, and must not keep the driver waiting.
func (b *box) cli(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	stdout, err := os.CreateTemp(b.home, ".stdout")
	if err != nil {
		return "", err
	}
	defer os.Remove(stdout.Name())
	defer stdout.Close()
	stderr, err := os.CreateTemp(b.home, ".stderr")
	if err != nil {
		return "", err
	}
	defer os.Remove(stderr.Name())
	defer stderr.Close()

	cmd := exec.CommandContext(ctx, b.program.path, args...)
	cmd.Env = b.environment()
	cmd.Dir = b.home
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGKILL) }
	err = b.procs.run(cmd)
	out, _ := os.ReadFile(stdout.Name())
	if err == nil {
		return strings.TrimSpace(string(out)), nil
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: %w", shortCommand(b, args), ctx.Err())
	}
	errText, _ := os.ReadFile(stderr.Name())
	code := -1
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	text := firstLine(errText)
	if text == "" {
		text = firstLine(out)
	}
	if code == -1 && text == "" {
		text = err.Error()
	}
	return "", &cliError{shortCommand(b, args), code, text}
}

// shortCommand names a command without its long arguments.
func shortCommand(b *box, args []string) string {
	words := []string{filepath.Base(b.home) + "(" + b.program.name + ")"}
	for _, a := range args {
		if len(words) == 4 || strings.HasPrefix(a, "-") {
			break
		}
		if len(a) > 24 {
			a = a[:24] + ".."
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

var colour = regexp.MustCompile("\x1b\\[[0-9;]*m")

// firstLine gives the first line with something to read in it, without colour codes.
func firstLine(text []byte) string {
	for line := range bytes.Lines(colour.ReplaceAll(text, nil)) {
		if s := strings.TrimSpace(string(line)); s != "" {
			if len(s) > 160 {
				s = s[:160] + ".."
			}
			return s
		}
	}
	return ""
}

// nodePID asks the program for the process of one of its nodes.
func (b *box) nodePID(ctx context.Context, node string) (int, error) {
	out, err := b.cli(ctx, "node", "list", "--output", "json")
	if err != nil {
		return 0, err
	}
	var nodes []struct {
		Name string `json:"node_name"`
		PID  int    `json:"pid"`
	}
	if err := json.Unmarshal([]byte(out), &nodes); err != nil {
		return 0, fmt.Errorf("node list: %w", err)
	}
	for _, n := range nodes {
		if n.Name == node && n.PID > 1 {
			return n.PID, nil
		}
	}
	return 0, fmt.Errorf("node %s of %s has no process", node, filepath.Base(b.home))
}

var tcpPort = regexp.MustCompile(`/tcp/([0-9]+)`)

// nodePort asks the program where one of its nodes listens.
func (b *box) nodePort(ctx context.Context, node string) (int, error) {
	out, err := b.cli(ctx, "node", "show", node, "--output", "json")
	if err != nil {
		return 0, err
	}
	found := tcpPort.FindStringSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("node show %s names no TCP port", node)
	}
	return strconv.Atoi(found[1])
}

// killNode kills a node without letting it say goodbye, and waits until it is gone.
func (b *box) killNode(ctx context.Context, node string) error {
	pid, err := b.nodePID(ctx, node)
	if err != nil {
		return err
	}
	if !belongsTo(pid, b.home) {
		return fmt.Errorf("process %d of node %s does not use %s", pid, node, b.home)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill node %s: %w", node, err)
	}
	for range 100 {
		if !alive(pid) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("process %d of node %s survived SIGKILL", pid, node)
}

// outletExists says whether a node has an outlet of this name. Programs that
// bring their portals back after a restart need no second "create".
func (b *box) outletExists(ctx context.Context, node, name string) bool {
	out, err := b.cli(ctx, "tcp-outlet", "list", "--at", node, "--output", "json")
	return err == nil && strings.Contains(out, "/service/"+name+`"`)
}

// relayExists says whether a node has a relay of this name, connected or not.
func (b *box) relayExists(ctx context.Context, node, name string) bool {
	out, err := b.cli(ctx, "relay", "list", "--to", node, "--output", "json")
	var relays []struct {
		Name string `json:"name"`
	}
	if err != nil || json.Unmarshal([]byte(out), &relays) != nil {
		return false
	}
	for _, r := range relays {
		if r.Name == name {
			return true
		}
	}
	return false
}

// logs reads every log file of the nodes in this box.
func (b *box) logs() (string, error) {
	var all strings.Builder
	err := filepath.WalkDir(filepath.Join(b.home, "nodes"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(d.Name(), "log") {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	return all.String(), err
}
