package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFirstCommandsAtOnce: commands that start together in an empty home share what is made at first use.
func TestFirstCommandsAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	for name, c := range map[string]struct {
		lines             []string
		nodes, identities int
	}{
		"portals and relays": {[]string{"tcp-outlet create --from a --to 127.0.0.1:1", "relay create r1 --at /ip4/127.0.0.1/tcp/1 --no-connection-wait", "tcp-outlet create --from b --to 127.0.0.1:1",
			"tcp-inlet create --to /ip4/127.0.0.1/tcp/1/service/x --no-connection-wait"}, 1, 1},
		"nodes with names":    {[]string{"node create n1", "node create n2", "node create n3", "node create n4"}, 4, 1},
		"nodes without names": {[]string{"node create", "node create", "node create", "node create"}, 4, 1},
		"one identity by name": {[]string{"identity create x", "identity create x", "node create n1 --identity x", "node create n2 --identity x",
			"authority create --identity x --project-identifier p --trusted-identities {} -t 127.0.0.1:0"}, 3, 1},
		"identities":             {[]string{"identity create", "identity create", "identity create", "identity create"}, 0, 4},
		"identities and a vault": {[]string{"identity create a --vault v", "identity create b --vault v", "identity create c --vault v"}, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := ours(t)
			ended := make(chan string, len(c.lines))
			for _, line := range c.lines {
				go func() {
					cmd := exec.Command(p.path, strings.Fields(line)...)
					cmd.Dir, cmd.Env = p.dir, p.env
					out, err := cmd.CombinedOutput()
					if err != nil {
						ended <- fmt.Sprintf("%s: %v\n%s", line, err, out)
						return
					}
					ended <- ""
				}()
			}
			for range c.lines {
				if failed := <-ended; failed != "" {
					t.Error(failed)
				}
			}
			count := func(jq string, args ...string) int {
				return len(strings.Fields(p.must(t, append(args, "--jq", jq)...)))
			}
			if n := count(".[].node_name", "node", "list"); n != c.nodes {
				t.Errorf("%d nodes, not %d", n, c.nodes)
			}
			if n := count(".[].identifier", "identity", "list"); n != c.identities {
				t.Errorf("%d identities, not %d", n, c.identities)
			}
		})
	}
}

// startForeground starts a program that ends with the test, in a shell that sets what comes before.
func (p *program) startForeground(t *testing.T, before string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", before + `exec "$0" "$@"`, p.path}, args...)...)
	cmd.Dir, cmd.Env = p.dir, p.env
	log, err := os.Create(filepath.Join(p.dir, "foreground"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// untilPrinted waits for a line of what startForeground started: a node prints its name when it is up.
func (p *program) untilPrinted(t *testing.T, line string) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		log, err := os.ReadFile(filepath.Join(p.dir, "foreground"))
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(strings.Split(string(log), "\n"), line) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not print %q\n%s", line, log)
		}
	}
}

func (p *program) untilRunning(t *testing.T, node string) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if o := p.runWith(t, "", nil, "node", "show", node, "--jq", ".status"); strings.Contains(o.stdout, "running") {
			return
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(p.dir, "foreground"))
			t.Fatalf("node %s does not run\n%s", node, log)
		}
	}
}

// TestNohup: signals that are ignored when a node starts do not end it; those that are not do.
func TestNohup(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	for name, c := range map[string]struct {
		before string
		stays  []syscall.Signal
		ends   syscall.Signal
	}{
		"nohup":                 {"trap '' HUP; ", []syscall.Signal{syscall.SIGHUP}, syscall.SIGINT},
		"a job in a shell's &":  {"trap '' INT QUIT; ", []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP}, syscall.SIGTERM},
		"both":                  {"trap '' HUP INT; ", []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGHUP}, syscall.SIGTERM},
		"without a terminal":    {"", []syscall.Signal{syscall.SIGHUP}, syscall.SIGINT}, // it reads its configuration again
		"an ordinary interrupt": {"", nil, syscall.SIGINT},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.ends == syscall.SIGINT && signal.Ignored(syscall.SIGINT) {
				t.Skip("the tests run in the background, where what they start ignores SIGINT")
			}
			p := ours(t)
			cmd := p.startForeground(t, c.before, "node", "create", "n1", "--foreground")
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			p.untilRunning(t, "n1")
			p.untilPrinted(t, "n1")
			for _, s := range c.stays {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			// A signal that it took would be seen in what it answers, or in that it does not.
			for range 3 {
				p.untilRunning(t, "n1")
			}
			select {
			case err := <-ended:
				t.Fatalf("it ended: %v", err)
			default:
			}
			if err := cmd.Process.Signal(c.ends); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("it did not end well: %v", err)
				}
			case <-time.After(90 * time.Second):
				t.Errorf("%v does not end it", c.ends)
				_ = cmd.Process.Kill()
			}
		})
	}
}

// TestNobodyReadsTheLog: a node in the foreground goes on when whoever read what it prints has gone, as with `node create --foreground | head -1`.
func TestNobodyReadsTheLog(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	cmd := exec.Command(p.path, "node", "create", "n1", "--foreground", "--verbose")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.env, w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	p.untilRunning(t, "n1")
	for _, name := range []string{"a", "b"} { // which it logs
		p.must(t, "tcp-outlet", "create", "--at", "n1", "--from", name, "--to", "127.0.0.1:1")
	}
	p.untilRunning(t, "n1")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it did not end well: %v", err)
		}
	case <-time.After(90 * time.Second):
		t.Error("it does not end")
		_ = cmd.Process.Kill()
	}
}

// TestResetOfBrokenState: reset gets out of any broken state: it stops the nodes whose records are broken or gone, and deletes the rest.
func TestResetOfBrokenState(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	state := func(p *program, elem ...string) string {
		return filepath.Join(append([]string{p.dir, "state"}, elem...)...)
	}
	garbage := func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("{garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, breakIt := range map[string]func(t *testing.T, p *program){
		"nodes.json": func(t *testing.T, p *program) { garbage(t, state(p, "nodes.json")) },
		"node.json":  func(t *testing.T, p *program) { garbage(t, state(p, "nodes", "n1", "node.json")) },
		"node.json of a later version": func(t *testing.T, p *program) {
			os.WriteFile(state(p, "nodes", "n1", "node.json"), []byte(`{"version":99}`), 0o600)
		},
		"no node.json": func(t *testing.T, p *program) { os.Remove(state(p, "nodes", "n1", "node.json")) },
		"no node.json and no socket": func(t *testing.T, p *program) {
			os.Remove(state(p, "nodes", "n1", "node.json"))
			os.Remove(state(p, "nodes", "n1", "admin.sock"))
		},
		"a node's directory is gone":      func(t *testing.T, p *program) { os.RemoveAll(state(p, "nodes", "n1")) },
		"all nodes' directories are gone": func(t *testing.T, p *program) { os.RemoveAll(state(p, "nodes")) },
		"vaults.json":                     func(t *testing.T, p *program) { garbage(t, state(p, "vaults.json")) },
		"identities.json and projects.json": func(t *testing.T, p *program) {
			garbage(t, state(p, "identities.json"))
			garbage(t, state(p, "projects.json"))
		},
		"node.json is a directory": func(t *testing.T, p *program) {
			os.Remove(state(p, "nodes", "n1", "node.json"))
			os.Mkdir(state(p, "nodes", "n1", "node.json"), 0o700)
		},
		"files are empty": func(t *testing.T, p *program) {
			for _, file := range []string{"nodes.json", "identities.json", "vaults.json", "nodes/n1/node.json"} {
				os.Truncate(state(p, file), 0)
			}
		},
		"directories for files": func(t *testing.T, p *program) {
			for _, file := range []string{"nodes.json", "vaults.json", "lock"} {
				os.Remove(state(p, file))
				os.MkdirAll(state(p, file, "x"), 0o700)
			}
		},
		"pipes for files": func(t *testing.T, p *program) {
			for _, file := range []string{"nodes.json", "identities.json", "vaults.json", "lock", "nodes/n1/node.json"} {
				os.Remove(state(p, file))
				if err := syscall.Mkfifo(state(p, file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		},
		"a file for the nodes": func(t *testing.T, p *program) {
			os.RemoveAll(state(p, "nodes"))
			garbage(t, state(p, "nodes"))
		},
		"the process is another program's": func(t *testing.T, p *program) {
			path := state(p, "nodes", "n1", "node.json")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text = regexp.MustCompile(`"pid": \d+`).ReplaceAll(text, fmt.Appendf(nil, `"pid": %d`, os.Getpid()))
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"strange things among the nodes": func(t *testing.T, p *program) {
			garbage(t, state(p, "nodes", "file"))
			os.Mkdir(state(p, "nodes", "a b"), 0o700)
			garbage(t, filepath.Join(p.dir, "node.json")) // beside the state: it has to stay
			os.Symlink(p.dir, state(p, "nodes", "link"))
			os.Symlink("n1", state(p, "nodes", "other"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := ours(t)
			p.must(t, "node", "create", "n1")
			p.must(t, "authority", "create", "--project-identifier", "p", "--trusted-identities", "{}", "-t", "127.0.0.1:0")
			cmd := p.startForeground(t, "", "node", "create", "n2", "--foreground")
			go func() { _ = cmd.Wait() }()
			p.untilRunning(t, "n2")
			breakIt(t, p)
			if o := p.runWith(t, "", nil, "reset", "--yes"); o.code != 0 {
				t.Errorf("exit code %d: %s%s", o.code, o.stdout, o.stderr)
			}
			for deadline := time.Now().Add(90 * time.Second); len(p.processes()) > 0 && time.Now().Before(deadline); {
				time.Sleep(10 * time.Millisecond)
			}
			if left := p.processes(); len(left) > 0 {
				t.Errorf("processes %v still run", left)
			}
			if left, _ := filepath.Glob(state(p, "*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			if _, err := os.Stat(filepath.Join(p.dir, "node.json")); err != nil && name == "strange things among the nodes" {
				t.Errorf("what is not of the state was deleted: %v", err)
			}
			p.must(t, "node", "create", "n1") // and all can be used again
		})
	}
	t.Run("what cannot be deleted is said", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root can delete everything")
		}
		p := ours(t)
		p.must(t, "node", "create", "n1")
		if err := os.Chmod(state(p, "nodes"), 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(state(p, "nodes"), 0o700)
		o := p.runWith(t, "", nil, "reset", "--yes")
		if o.code == 0 || !strings.Contains(o.stderr, "nodes/n1") {
			t.Errorf("exit code %d: %s", o.code, o.stderr)
		}
		if _, err := os.Stat(state(p, "identities.json")); err == nil {
			t.Error("the rest was not deleted")
		}
	})
}
