package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCLIDiskFull: on a disk without any room a node goes on, answers, and says what it cannot remember; after a kill it starts with what was
// remembered, and says that the disk is full; a new node does not start and leaves nothing; with room again everything is remembered.
func TestCLIDiskFull(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	p := ours(t)
	home := filepath.Join(p.dir, "state")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", home, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Skip("no right to mount a small disk: ", err)
	}
	t.Cleanup(func() { p.killAll(t); _ = unix.Unmount(home, unix.MNT_DETACH) })
	p.must(t, "node", "create", "n1")
	p.must(t, "tcp-outlet", "create", "db", "--to", "9", "--at", "n1")
	filler := filepath.Join(home, "filler")
	fill := func() {
		t.Helper()
		f, err := os.OpenFile(filler, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 512))
		}
	}
	names := func() string {
		t.Helper()
		return strings.Join(strings.Fields(p.must(t, "tcp-outlet", "list", "--at", "n1", "--jq", ".[].from")), " ")
	}
	fill()
	if got := names(); got != `"/service/db"` {
		t.Errorf("on a full disk: %s", got)
	}
	for want, args := range map[string][]string{
		"not remembered for the next start": {"tcp-outlet", "create", "two", "--to", "9", "--at", "n1"},
		"comes back at the next start":      {"tcp-outlet", "delete", "db", "--at", "n1", "--yes"},
	} {
		if o := p.runWith(t, "", nil, args...); o.code == 0 || !strings.Contains(o.stderr, want) {
			t.Errorf("%v: exit code %d: %s", args, o.code, o.stderr)
		}
	}
	for round := range 3 {
		pid, err := strconv.Atoi(strings.TrimSpace(p.must(t, "node", "show", "n1", "--jq", ".pid")))
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		for !strings.Contains(p.runWith(t, "", nil, "node", "list", "--output", "json").stdout, `"stopped"`) {
			continue
		}
		fill() // what the last round gave up
		o := p.runWith(t, "", nil, "node", "start", "n1")
		if o.code != 0 || !strings.Contains(o.stderr, "is full") {
			t.Fatalf("start %d: exit code %d: %s", round, o.code, o.stderr)
		}
		if got := names(); got != `"/service/db"` {
			t.Errorf("after start %d: %s", round, got)
		}
	}
	if o := p.runWith(t, "", nil, "node", "create", "n2"); o.code == 0 || !strings.Contains(o.stderr, "no space left") {
		t.Errorf("a new node: exit code %d: %s", o.code, o.stderr)
	}
	if _, err := os.Stat(filepath.Join(home, "nodes", "n2")); err == nil {
		t.Error("it left a directory")
	}
	err := filepath.WalkDir(home, func(path string, e os.DirEntry, err error) error {
		if err == nil && (strings.Contains(path, ".tmp") || strings.Contains(path, ".new-")) {
			t.Errorf("half-written: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p.must(t, "tcp-outlet", "create", "three", "--to", "9", "--at", "n1")
	p.must(t, "node", "stop", "n1")
	p.must(t, "node", "start", "n1")
	if got := names(); got != `"/service/db" "/service/three"` {
		t.Errorf("with room again: %s", got)
	}
}
