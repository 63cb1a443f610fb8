package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// run is what is asked of the tool.
type run struct {
	each   int // changes of each package; 0: all
	seed   uint64
	short  bool // go test -short
	wanted func(mutant) bool
}

// try makes changes to a package, one after the other, and runs its tests with each.
func (r run) try(ctx context.Context, pkg string) (tally, error) {
	t, began, chance := tally{pkg: pkg}, time.Now(), rand.New(rand.NewPCG(r.seed, 0))
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}\n{{range .GoFiles}}{{.}}\n{{end}}", pkg).Output()
	if err != nil {
		return t, fmt.Errorf("go list: %w", err)
	}
	lines := strings.Fields(string(out))
	var all []mutant
	for _, path := range productionFiles(lines[0], lines[1:]) {
		found, err := find(path)
		if err != nil {
			return t, err
		}
		for _, m := range found {
			if r.wanted(m) {
				all = append(all, m)
			}
		}
	}
	chance.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return t, err
	}
	defer os.RemoveAll(dir)
	before, profile := time.Now(), filepath.Join(dir, "coverage")
	got, text := r.tests(ctx, pkg, 10*time.Minute, "-v", "-coverprofile", profile)
	if got != passed {
		return t, fmt.Errorf("the tests fail before anything was changed:\n%s", text)
	}
	quick := quickTests(text)
	runs, err := readCoverage(profile)
	if err != nil {
		return t, err
	}
	if startsItself(lines[0]) {
		runs = func(mutant) bool { return true }
	}
	patience := 3*time.Since(before) + 10*time.Second
	for _, m := range all {
		if r.each > 0 && t.possible == r.each || ctx.Err() != nil {
			break
		}
		overlay, err := overlayOf(dir, m)
		if err != nil {
			return t, err
		}
		var got outcome
		if !runs(m) { // no test comes there: only whether it can be built is asked
			got, _ = r.tests(ctx, pkg, patience, "-overlay", overlay, "-run", "^$")
		} else if got, _ = r.tests(ctx, pkg, patience, "-overlay", overlay, "-run", quick); got == passed {
			got, _ = r.tests(ctx, pkg, patience, "-overlay", overlay, "-skip", quick)
		}
		if got == notBuilt || ctx.Err() != nil {
			continue
		}
		t.possible++
		if got == failed {
			t.noticed++
		} else {
			fmt.Fprintf(os.Stderr, "not noticed: %s\n", m)
			t.missed = append(t.missed, m)
		}
	}
	t.took = time.Since(began)
	return t, nil
}

// overlayOf writes the changed file and what tells go test of it.
func overlayOf(dir string, m mutant) (string, error) {
	text, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {m.file: changed}})
	if err != nil {
		return "", err
	}
	return overlay, errors.Join(os.WriteFile(changed, m.apply(text), 0o600), os.WriteFile(overlay, list, 0o600))
}

type outcome int

const (
	passed outcome = iota
	failed
	notBuilt
)

// tests runs a package's tests. Running out of patience is a failure.
func (r run) tests(ctx context.Context, pkg string, patience time.Duration, more ...string) (outcome, string) {
	ctx, cancel := context.WithTimeout(ctx, patience+time.Minute) // beyond go test's own: the build takes some of it
	defer cancel()
	args := append([]string{"test", "-count=1", "-failfast", "-vet=off", "-timeout", patience.String()}, more...)
	if r.short {
		args = append(args, "-short")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the tests end with go test
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	switch text := string(out); {
	case err == nil:
		return passed, text
	case strings.Contains(text, "[build failed]") || strings.Contains(text, "[setup failed]"):
		return notBuilt, text
	default:
		return failed, text
	}
}

// startsItself reports whether the tests of a directory start processes of their own program: the profile says nothing of what those come to.
func startsItself(dir string) bool {
	tests, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	for _, path := range tests {
		if text, err := os.ReadFile(path); err == nil && (bytes.Contains(text, []byte("os.Args[0]")) || bytes.Contains(text, []byte("os.Executable()"))) {
			return true
		}
	}
	return false
}

// quickTests returns what chooses the tests that took less than half a second, from the output of go test -v. They are asked first.
func quickTests(output string) string {
	var names []string
	for line := range strings.Lines(output) {
		rest, ok := strings.CutPrefix(line, "--- PASS: ")
		name, took, found := strings.Cut(strings.TrimSpace(rest), " (")
		if seconds, err := strconv.ParseFloat(strings.TrimSuffix(took, "s)"), 64); ok && found && err == nil && seconds < 0.5 {
			names = append(names, name)
		}
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// readCoverage reads a profile of go test and returns which changes are at a place that some test comes to.
func readCoverage(path string) (func(mutant) bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	type block struct{ line, col, endLine, endCol, count int }
	blocks := map[string][]block{} // by file
	for line := range strings.Lines(string(text)) {
		name, rest, ok := strings.Cut(line, ":")
		if !ok || name == "mode" {
			continue
		}
		var b block
		var statements int
		if _, err := fmt.Sscanf(rest, "%d.%d,%d.%d %d %d", &b.line, &b.col, &b.endLine, &b.endCol, &statements, &b.count); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		blocks[filepath.Base(name)] = append(blocks[filepath.Base(name)], b)
	}
	return func(m mutant) bool {
		inside := false
		for _, b := range blocks[filepath.Base(m.file)] {
			begun := m.line > b.line || m.line == b.line && m.col >= b.col
			over := m.line > b.endLine || m.line == b.endLine && m.col >= b.endCol
			if begun && !over {
				if b.count > 0 {
					return true
				}
				inside = true
			}
		}
		return !inside // what is in no block, as a case's condition, may be come to
	}, nil
}
