package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestFirstLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"\n  \n x failed\nmore":   "x failed",
		"\x1b[38;5;8mgrey\x1b[0m": "grey",
		strings.Repeat("a", 300):  strings.Repeat("a", 160) + "..",
	} {
		if got := firstLine([]byte(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// script makes a box whose program is a shell script.
func script(t *testing.T, text string) *box {
	t.Helper()
	root := t.TempDir()
	procs, err := newProcesses(root)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := newBox(procs, root, "seat", program{name: "ours", path: path}, "EXTRA=1", "QUIET=false")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		procs.close()
		goleak.VerifyNone(t)
	})
	return b
}

func TestCLI(t *testing.T) {
	b := script(t, `case $1 in
say) echo " $OCKAM_HOME $EXTRA $QUIET $2 " ;;
fail) echo; echo "  no such thing" >&2; exit 70 ;;
esac`)
	out, err := b.cli(context.Background(), "say", "hello")
	if want := b.home + " 1 false hello"; err != nil || out != want {
		t.Errorf("got %q, %v, want %q", out, err, want)
	}
	_, err = b.cli(context.Background(), "fail", "--flag", "x")
	var failure *cliError
	if !errors.As(err, &failure) || failure.code != 70 || failure.text != "no such thing" || failure.command != "seat(ours) fail" {
		t.Errorf("got %#v", err)
	}
	left, _ := filepath.Glob(filepath.Join(b.home, ".std*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestCLITimeout(t *testing.T) {
	b := script(t, "exec sleep 600")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := b.cli(ctx, "hang"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("took %s", took)
	}
}

// A command that leaves a process in the background returns, and the process is
// found and killed later by its state directory, and by nothing else.
func TestBackgroundProcessesAreFound(t *testing.T) {
	b := script(t, "sleep 60 & echo $!")
	stranger := exec.Command("sleep", "60")
	stranger.Env = []string{"OCKAM_HOME=" + b.home + "-else"}
	if err := b.procs.start(stranger); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stranger.Process.Kill()
		b.procs.wait(stranger)
	}()
	if _, err := b.cli(context.Background(), "start"); err != nil {
		t.Fatal(err)
	}
	if n := b.procs.killUnder(b.home); n != 1 {
		t.Errorf("killed %d processes, want 1", n)
	}
	if !alive(stranger.Process.Pid) {
		t.Error("a process with another state directory was killed")
	}
	if n := b.procs.killUnder(b.home); n != 0 {
		t.Errorf("%d more the second time", n)
	}
}

func TestKillNode(t *testing.T) {
	b := script(t, `case $1 in
create) sleep 60 & echo $! > $HOME/pid ;;
node) echo "[{\"node_name\": \"other\", \"pid\": 1}, {\"node_name\": \"n\", \"pid\": $(cat $HOME/pid)}]" ;;
esac`)
	if _, err := b.cli(context.Background(), "create"); err != nil {
		t.Fatal(err)
	}
	pid, err := b.nodePID(context.Background(), "n")
	if err != nil || !alive(pid) {
		t.Fatalf("pid %d, %v", pid, err)
	}
	if err := b.killNode(context.Background(), "n"); err != nil {
		t.Fatal(err)
	}
	if alive(pid) {
		t.Error("it is still there")
	}
	// The number may by now belong to somebody else, who must not be harmed.
	if err := os.WriteFile(filepath.Join(b.home, "pid"), []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.killNode(context.Background(), "n"); err == nil || !strings.Contains(err.Error(), "does not use") {
		t.Errorf("a process of somebody else: %v", err)
	}
}

func TestFindTrouble(t *testing.T) {
	log := strings.Join([]string{
		"DEBUG Connection to peer '1' was closed; dropping stream. unexpected end of file x",
		"ERROR Error encountered during '0#uppercase' message handling: bad (source location: y)",
		"DEBUG Connection to peer '2' was closed; dropping stream. unexpected type break at position 0",
		"INFO fine",
	}, "\n")
	found := findTrouble(log)
	if len(found) != 2 || !strings.HasSuffix(found[0], "bad (") || !strings.Contains(found[1], "type break") {
		t.Errorf("got %q", found)
	}
	if got := findTrouble(string(bytes.Repeat([]byte("quiet\n"), 3))); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}
