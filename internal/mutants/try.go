package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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
	only     string // the names of the tests that are asked
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
	w, err := r.prepare(ctx, dir, lines[0], all)
	if err != nil {
		return t, err
	}
	known, err := openResults(r.finished, lines[0])
	if err != nil {
		return t, err
	}
	defer known.Close()
	for i, m := range all {
		if r.each > 0 && t.possible == r.each || ctx.Err() != nil {
			break
		}
		got, ok := known.of(m)
		if !ok {
			if got, err = w.outcome(ctx, numbered{m, i + 1}); err != nil {
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

// work is what a package's changes are tried with.
type work struct {
	run
	dir, pkgDir string
	program     string // the tests with all changes that can be built together
	alone       map[int]bool
	tests       []measured
}

// prepare builds the tests of a package with its changes, and runs each test by itself to see how long it takes and what it comes to.
func (r run) prepare(ctx context.Context, dir, pkgDir string, all []mutant) (*work, error) {
	w := &work{run: r, dir: dir, pkgDir: pkgDir, program: filepath.Join(dir, "all.test"), alone: map[int]bool{}}
	list := make([]numbered, len(all))
	for i, m := range all {
		list[i] = numbered{m, i + 1}
	}
	alone, err := buildAll(ctx, dir, pkgDir, w.program, list)
	if err != nil {
		return nil, err
	}
	for _, m := range alone {
		w.alone[m.number] = true
	}
	w.tests, err = w.measure(ctx)
	return w, err
}

// outcome says what the tests that come to a change make of it.
func (w *work) outcome(ctx context.Context, m numbered) (outcome, error) {
	program, env := w.program, envChange+"="+strconv.Itoa(m.number)
	comesTo := func(one measured) bool { return one.seen[m.number] }
	if w.alone[m.number] {
		overlay, err := overlayOf(w.dir, m.mutant)
		if err != nil {
			return 0, err
		}
		program, comesTo = filepath.Join(w.dir, "changed.test"), func(measured) bool { return true }
		if err := build(ctx, w.pkgDir, program, "-overlay", overlay); err != nil {
			return notBuilt, nil //nolint:nilerr // the change is what is wrong
		}
	}
	var first []string
	var took time.Duration
	for _, one := range w.tests {
		if one.took < quick && comesTo(one) {
			first, took = append(first, one.name), took+one.took
		}
	}
	if len(first) > 0 && !w.pass(ctx, program, "^("+strings.Join(first, "|")+")$", took, env) {
		return failed, nil
	}
	for _, one := range w.tests {
		if one.took >= quick && (w.longest == 0 || one.took <= w.longest) && comesTo(one) && !w.pass(ctx, program, "^"+one.name+"$", one.took, env) {
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
func (w *work) pass(ctx context.Context, program, tests string, took time.Duration, env string) bool {
	patience := 4*took + 10*time.Second
	ctx, cancel := context.WithTimeout(ctx, patience+5*time.Second) // the program's own limit comes first
	defer cancel()
	args := []string{"-test.run", tests, "-test.count=1", "-test.failfast", "-test.paniconexit0", "-test.timeout", patience.String()}
	if w.short {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(ctx, program, args...)
	// A property that a change breaks is no input to keep (pgregory.net/rapid).
	cmd.Dir, cmd.Env = w.pkgDir, append(os.Environ(), env, "RAPID_NOFAILFILE=true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what tests start ends with them
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	return err == nil
}

// measured is a test, how long it takes, and which changes it comes to.
type measured struct {
	name string
	took time.Duration
	seen map[int]bool
}

// measure runs every test by itself while nothing is changed, and returns those that pass, the quickest first.
func (w *work) measure(ctx context.Context) ([]measured, error) {
	cmd := exec.CommandContext(ctx, w.program, "-test.list", w.only)
	cmd.Dir = w.pkgDir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list tests: %w", err)
	}
	var list []measured
	for i, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") && !strings.HasPrefix(name, "Example") {
			continue // what a TestMain prints
		}
		began, path := time.Now(), filepath.Join(w.dir, fmt.Sprintf("seen%d", i))
		if !w.pass(ctx, w.program, "^"+name+"$", time.Minute, envSeen+"="+path) {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			fmt.Fprintf(os.Stderr, "left out, fails by itself: %s\n", name)
			continue
		}
		one := measured{name: name, took: time.Since(began)}
		if one.seen, err = seen(path); err != nil {
			return nil, err
		}
		list = append(list, one)
	}
	slices.SortStableFunc(list, func(a, b measured) int { return cmp.Compare(a.took, b.took) })
	return list, nil
}
