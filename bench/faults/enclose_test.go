package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runVar makes the test's program the command.
const runVar = "SALLYPORT_FAULTS_RUN"

func TestMain(m *testing.M) {
	if os.Getenv(runVar) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// stat returns a process's name, parent and start; an empty name if there is none.
func stat(pid int) (name string, parent int, start string) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if err != nil || open < 0 || end < open {
		return "", 0, ""
	}
	f := strings.Fields(string(text[end+1:]))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return "", 0, ""
	}
	parent, _ = strconv.Atoi(f[1])
	return string(text[open+1 : end]), parent, f[19]
}

// descendants returns the starts of the processes that pid and those that it started have started, and whether one of them has a name.
func descendants(pid int, named string) (starts map[int]string, found bool) {
	parents, names := map[int]int{}, map[int]string{}
	starts = map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if p, err := strconv.Atoi(e.Name()); err == nil {
			names[p], parents[p], starts[p] = stat(p)
		}
	}
	for p := range starts {
		up := parents[p]
		for up > 1 && up != pid {
			up = parents[up]
		}
		if up != pid || names[p] == "" {
			delete(starts, p)
		} else {
			found = found || names[p] == named
		}
	}
	return starts, found
}

// TestNothingIsLeft ends runs while they start their servers, in several ways, and one whose nodes cannot be made: whatever they had started ends with them.
func TestNothingIsLeft(t *testing.T) {
	if _, err := os.Stat("/dev/net/tun"); err != nil || os.Geteuid() != 0 {
		t.Skip("root and /dev/net/tun are needed")
	}
	initdb, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if _, err := exec.LookPath("redis-server"); err != nil || len(initdb) == 0 {
		t.Skip("redis-server and PostgreSQL are needed")
	}
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL, 0} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the database has a user of its own
				t.Fatal(err)
			}
			var out bytes.Buffer
			cmd := exec.Command("/proc/self/exe", "--sallyport", "/bin/false", "--short")
			cmd.Env = append(os.Environ(), runVar+"=1", "TMPDIR="+dir)
			cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, 10*time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			var started map[int]string
			for begun := false; !begun; time.Sleep(time.Millisecond) {
				started, begun = descendants(cmd.Process.Pid, "redis-server")
				if name, _, _ := stat(cmd.Process.Pid); name == "" {
					break
				}
			}
			if s != 0 {
				_ = cmd.Process.Signal(s)
			}
			go func() { ended <- cmd.Wait() }()
			select {
			case err := <-ended:
				if err == nil {
					t.Error("it ended as if all were well")
				}
			case <-time.After(2 * time.Minute):
				_ = cmd.Process.Kill()
				t.Fatalf("it does not end: %s", out.Bytes())
			}
			if len(started) == 0 || bytes.Contains(out.Bytes(), []byte("panic")) {
				t.Errorf("it said %s", out.Bytes())
			}
			for pid, start := range started {
				for until := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
					name, _, now := stat(pid)
					if name == "" || now != start {
						break
					}
					if time.Now().After(until) {
						_ = syscall.Kill(pid, syscall.SIGKILL)
						t.Errorf("%s is left", name)
						break
					}
				}
			}
			if left, _ := os.ReadDir(dir); s != syscall.SIGKILL && len(left) > 0 {
				t.Errorf("%s is left", left[0].Name())
			}
		})
	}
}
