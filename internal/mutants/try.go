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
	"slices"
	"strings"
	"syscall"
	"time"
)

// run is what is asked of the tool.
type run struct {
	each     int // changes of each package; 0: all
	seed     uint64
	short    bool          // go test -short
	longest  time.Duration // tests that take longer are not asked; 0: all are
	wanted   func(mutant) bool
	finished string // a file of what became of changes, for a later run to go on with; none when empty
}

// quick is how long a test may take to be asked together with others before the rest.
const quick = 300 * time.Millisecond

// try makes changes to a package, one after the other, and runs those of its tests with each that come to the change.
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
	tests, err := r.measure(ctx, dir, lines[0])
	if err != nil {
		return t, err
	}
	known, err := openResults(r.finished, lines[0])
	if err != nil {
		return t, err
	}
	defer known.Close()
	for _, m := range all {
		if r.each > 0 && t.possible == r.each || ctx.Err() != nil {
			break
		}
		got, ok := known.of(m)
		if !ok {
			if got, err = r.outcome(ctx, dir, lines[0], m, tests); err != nil {
				return t, err
			}
			if ctx.Err() != nil {
				break
			}
			if err := known.add(m, got); err != nil {
				return t, err
			}
		}
		if got == notBuilt {
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

// outcome says what the tests that come to a change make of it.
func (r run) outcome(ctx context.Context, dir, pkgDir string, m mutant, tests []measured) (outcome, error) {
	overlay, err := overlayOf(dir, m)
	if err != nil {
		return 0, err
	}
	program := filepath.Join(dir, "changed.test")
	if err := build(ctx, pkgDir, program, "-overlay", overlay); err != nil {
		return notBuilt, nil //nolint:nilerr // the change is what is wrong
	}
	var first []string
	var took time.Duration
	for _, one := range tests {
		if one.took < quick && one.runs(m) {
			first, took = append(first, one.name), took+one.took
		}
	}
	if len(first) > 0 && !r.pass(ctx, pkgDir, program, "^("+strings.Join(first, "|")+")$", took) {
		return failed, nil
	}
	for _, one := range tests {
		if one.took >= quick && (r.longest == 0 || one.took <= r.longest) && one.runs(m) && !r.pass(ctx, pkgDir, program, "^"+one.name+"$", one.took) {
			return failed, nil
		}
	}
	return passed, nil
}

// overlayOf writes the changed file and what tells the compiler of it.
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

// build makes the program of a package's tests.
func build(ctx context.Context, pkgDir, program string, more ...string) error {
	args := append([]string{"test", "-c", "-p", "1", "-vet=off", "-o", program}, more...)
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = pkgDir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// pass runs tests of a program. They fail when they take longer than four times what they took before and 10 s.
func (r run) pass(ctx context.Context, pkgDir, program, tests string, took time.Duration, more ...string) bool {
	patience := 4*took + 10*time.Second
	ctx, cancel := context.WithTimeout(ctx, patience+5*time.Second) // the program's own limit comes first
	defer cancel()
	args := append([]string{"-test.run", tests, "-test.count=1", "-test.failfast", "-test.paniconexit0", "-test.timeout", patience.String()}, more...)
	if r.short {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = pkgDir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what tests start ends with them
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd.Run() == nil
}

// measured is a test, how long it takes, and where it comes to.
type measured struct {
	name string
	took time.Duration
	runs func(mutant) bool
}

// measure runs every test of a package by itself, and returns those that pass, the quickest first.
func (r run) measure(ctx context.Context, dir, pkgDir string) ([]measured, error) {
	program, profile := filepath.Join(dir, "whole.test"), filepath.Join(dir, "coverage")
	if err := build(ctx, pkgDir, program, "-cover"); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "-test.list", "^(Test|Fuzz|Example)")
	cmd.Dir = pkgDir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list tests: %w", err)
	}
	itself := startsItself(pkgDir)
	var list []measured
	for _, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") && !strings.HasPrefix(name, "Example") {
			continue // what a TestMain prints
		}
		began := time.Now()
		if !r.pass(ctx, pkgDir, program, "^"+name+"$", time.Minute, "-test.coverprofile", profile) {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			fmt.Fprintf(os.Stderr, "left out, fails by itself: %s\n", name)
			continue
		}
		one := measured{name: name, took: time.Since(began)}
		if one.runs, err = readCoverage(profile); err != nil {
			return nil, err
		}
		if itself[name] {
			one.runs = func(mutant) bool { return true }
		}
		list = append(list, one)
	}
	slices.SortStableFunc(list, func(a, b measured) int { return int(a.took - b.took) })
	return list, nil
}

// startsItself returns the tests of a directory in files that start processes of their own program: the profile says nothing of what those come to.
func startsItself(dir string) map[string]bool {
	names := map[string]bool{}
	files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("os.Args[0]")) && !bytes.Contains(text, []byte("os.Executable()")) {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "func Test"); ok {
				name, _, _ := strings.Cut(rest, "(")
				names["Test"+name] = true
			}
		}
	}
	return names
}

// readCoverage reads a profile of go test and returns which changes are at a place that the tests come to.
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
