package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCLILogRotates: the log of a node in the background makes way for a new one, and no more files are kept than are wanted.
func TestCLILogRotates(t *testing.T) {
	p := ours(t)
	p.env = append(p.env, "OCKAM_LOG_MAX_SIZE_MB=1", "OCKAM_LOG_MAX_FILES=3")
	if o := p.runWith(t, "", nil, "node", "create", "n1"); o.code != 0 {
		t.Fatal(o)
	}
	path := p.runWith(t, "", nil, "node", "logs", "n1").stdout
	// What is nearly full becomes so at the next start.
	full := []byte(strings.Repeat("x", 1<<20-10) + "\n")
	for i, name := range []string{".2", ".1", ""} {
		if err := os.WriteFile(path+name, append(full, byte('0'+i)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.runWith(t, "", nil, "node", "stop", "n1")
	if o := p.runWith(t, "", nil, "node", "start", "n1"); o.code != 0 {
		t.Fatal(o)
	}
	found, err := filepath.Glob(path + "*")
	if err != nil || len(found) != 3 {
		t.Errorf("files %q, %v; want 3", found, err)
	}
	now, err := os.ReadFile(path)
	if err != nil || len(now) > 1<<19 || !strings.Contains(string(now), "node start") {
		t.Errorf("the log has %d bytes: %.200q, %v", len(now), now, err)
	}
	before, err := os.ReadFile(path + ".2")
	if err != nil || len(before) == 0 || before[len(full)] != '1' {
		t.Errorf("the oldest log is another one: %v", err)
	}
	if o := p.runWith(t, "", []string{"OCKAM_LOG_MAX_FILES=0"}, "node", "create", "n2"); o.code != exitSoftware || !strings.Contains(o.stderr, "OCKAM_LOG_MAX_FILES") {
		t.Errorf("a bad limit: %+v", o)
	}
}

// TestLogOfTheNextDay: a node that runs for days has a log for each, and no more of them than are wanted.
func TestLogOfTheNextDay(t *testing.T) {
	dir := t.TempDir()
	day := time.Date(2026, 2, 27, 23, 59, 0, 0, time.UTC)
	stderr, err := unix.Dup(2)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Dup3(stderr, 2, 0); _ = unix.Close(stderr) }()
	l := &logFile{dir: dir, path: filepath.Join(dir, logName(day)), max: 1 << 20, keep: 3, now: func() time.Time { return day }}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if _, err := fmt.Fprintf(l, "record %d\n", i); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(l.path, day, day); err != nil {
			t.Fatal(err)
		}
		day = day.Add(24 * time.Hour)
	}
	found, _ := filepath.Glob(filepath.Join(dir, "*"))
	want := []string{"stdout.2026-03-02.log", "stdout.2026-03-03.log", "stdout.2026-03-04.log"}
	if len(found) != 3 {
		t.Fatalf("logs %v", found)
	}
	for i, path := range found {
		text, _ := os.ReadFile(path)
		if filepath.Base(path) != want[i] || string(text) != fmt.Sprintf("record %d\n", i+3) {
			t.Errorf("%s: %q", path, text)
		}
	}
	if logs := logsIn(dir); logs[0] != found[2] {
		t.Errorf("the latest log is %s", logs[0])
	}
}
