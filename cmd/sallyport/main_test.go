package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/freeport"
)

// asProgram makes the test binary behave as the program itself: the tests run real processes without building one.
const asProgram = "SALLYPORT_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main() // exits
	}
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) { // most of these tests wait for other processes most of the time
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	os.Exit(m.Run())
}

// program is a command line program in a state directory of its own.
type program struct {
	path string
	dir  string // holds everything the program writes; also its working directory
	env  []string
	// patience is how long a command may take; two minutes if it is zero.
	patience time.Duration
}

// outcome is what one command did.
type outcome struct {
	code           int
	stdout, stderr string
}

// ours is the program under test with a fresh state directory. Its processes end with the test.
func ours(t *testing.T) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return newProgram(t, self, asProgram+"=1")
}

func newProgram(t *testing.T, path string, env ...string) *program {
	t.Helper()
	// Not t.TempDir: the name of a Unix socket below it must stay shorter than 108 bytes.
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	p := &program{path: path, dir: dir, env: append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "OCKAM_HOME=" + filepath.Join(dir, "state"), "PAGER=cat",
		"OCKAM_OPENTELEMETRY_EXPORT=false", "OCKAM_TELEMETRY_EXPORT=false", "OCKAM_DISABLE_UPGRADE_CHECK=true",
		"GORACE=atexit_sleep_ms=0", // under -race each process would otherwise take a second to end
	}, env...)}
	t.Cleanup(func() {
		p.killAll(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

// runWith runs one command line to its end.
func (p *program) runWith(t *testing.T, stdin string, env []string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(p.patience, 2*time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Dir, cmd.Env = p.dir, append(append([]string{}, p.env...), env...)
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 5 * time.Second                                          // a node in the background must not hold the pipes
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // it then says where it is
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("%s %q does not end\n%s\n%s%s", filepath.Base(p.path), args, out.String(), errs.String(), p.stacks())
	case err != nil && !errors.As(err, &exit):
		t.Fatalf("%s %q: %v", filepath.Base(p.path), args, err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// stacks makes the nodes that run say where they are, which ends them, and returns their logs.
func (p *program) stacks() string {
	for _, pid := range p.processes() {
		_ = syscall.Kill(pid, syscall.SIGQUIT)
	}
	time.Sleep(time.Second)
	text := ""
	logs, _ := filepath.Glob(filepath.Join(p.dir, "*/nodes/*/stdout*.log"))
	for _, log := range logs {
		b, _ := os.ReadFile(log)
		text += "--- " + log + "\n" + string(b)
	}
	return text
}

// processes finds the processes that run with p's state directory, by their environment.
func (p *program) processes() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err == nil && bytes.Contains(environ, []byte("OCKAM_HOME="+p.dir+"/")) {
			found = append(found, pid)
		}
	}
	return found
}

// killAll ends what still runs in p's state directory, and waits until it has ended.
func (p *program) killAll(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left := p.processes()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("processes %v do not end", left)
			return
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

var freePort = freeport.For
