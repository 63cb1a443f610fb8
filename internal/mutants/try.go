package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// try makes changes to a package, one after the other, and runs its tests with each.
func try(ctx context.Context, pkg string, chance *rand.Rand, most int, wanted func(mutant) bool) (tally, error) {
	t, began := tally{pkg: pkg}, time.Now()
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
			if wanted(m) {
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
	before := time.Now()
	if got, text := runTests(ctx, pkg, "", 10*time.Minute); got != passed {
		return t, fmt.Errorf("the tests fail before anything was changed:\n%s", text)
	}
	patience := 3*time.Since(before) + 10*time.Second
	for _, m := range all {
		if most > 0 && t.possible == most || ctx.Err() != nil {
			break
		}
		overlay, err := overlayOf(dir, m)
		if err != nil {
			return t, err
		}
		got, _ := runTests(ctx, pkg, overlay, patience)
		if got == notBuilt || ctx.Err() != nil {
			continue
		}
		t.possible++
		if got == failed {
			t.noticed++
		} else {
			t.missed = append(t.missed, m)
		}
		fmt.Fprintf(os.Stderr, "\r%s: %d of %d noticed", pkg, t.noticed, t.possible)
	}
	fmt.Fprintln(os.Stderr)
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

// runTests runs a package's tests, with an overlay unless that is empty. Running out of patience is a failure.
func runTests(ctx context.Context, pkg, overlay string, patience time.Duration) (outcome, string) {
	ctx, cancel := context.WithTimeout(ctx, patience+time.Minute) // beyond go test's own: the build takes some of it
	defer cancel()
	args := []string{"test", "-count=1", "-failfast", "-vet=off", "-timeout", patience.String()}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
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
