package datagrams

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program is where TestMain built the program.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "datagrams")
	if err == nil {
		program = filepath.Join(dir, "sallyport")
		build := exec.Command("go", "build", "-C", filepath.Join("..", ".."), "-o", program, "./cmd/sallyport")
		build.Stderr = os.Stderr
		err = build.Run()
	}
	code := 1
	if err != nil {
		os.Stderr.WriteString("build the program: " + err.Error() + "\n")
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// story is three nodes on one machine, as they would be on three: a relay, one beside a server, one beside clients.
type story struct {
	t   *testing.T
	ctx context.Context
	env []string
}

func newStory(t *testing.T) *story {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	s := &story{t: t, ctx: ctx, env: append(os.Environ(), "SALLYPORT_HOME="+t.TempDir())}
	t.Cleanup(func() {
		defer cancel()
		out, err := s.command("reset", "--yes")
		if err != nil {
			t.Errorf("reset: %v\n%s", err, out)
		}
	})
	for _, name := range []string{"relay", "server", "client"} {
		s.do("node", "create", name, "--tcp-listener-address", "127.0.0.1:0", "--udp", "--udp-listener-address", "127.0.0.1:0")
	}
	s.do("relay", "create", "blue", "--at", "/node/relay/secure/api", "--to", "server")
	return s
}

func (s *story) command(args ...string) (string, error) {
	c := exec.CommandContext(s.ctx, program, args...)
	c.Env = s.env
	var complaint strings.Builder
	c.Stderr = &complaint
	out, err := c.Output()
	return string(out) + complaint.String(), err
}

// do runs a command that has to succeed, and returns what it prints as JSON.
func (s *story) do(args ...string) []byte {
	s.t.Helper()
	c := exec.CommandContext(s.ctx, program, append(args, "--output", "json")...)
	c.Env = s.env
	var complaint strings.Builder
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out, complaint.String())
	}
	return out
}

// portal makes an outlet to a server and an inlet that leads to it, through the relay or, with direct, never through it. It returns where clients send to.
func (s *story) portal(name, to string, direct bool) string {
	s.t.Helper()
	s.do("udp-outlet", "create", name, "--at", "server", "--to", to)
	args := []string{"udp-inlet", "create", name, "--at", "client", "--to", "/node/relay/secure/api/service/forward_to_blue/secure/api/service/" + name}
	if direct {
		args = append(args, "--udp", "--no-tcp-fallback", "--connection-wait", "60s")
	}
	var in struct {
		Bind  string `json:"bind_addr"`
		State string `json:"state"`
	}
	if err := json.Unmarshal(s.do(args...), &in); err != nil {
		s.t.Fatal(err)
	}
	for in.State != "up" {
		if err := json.Unmarshal(s.do("udp-inlet", "show", name, "--at", "client"), &in); err != nil {
			s.t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return in.Bind
}

// ways are those on which everything is tried.
var ways = map[string]bool{"over the relay": false, "over the direct path": true}
