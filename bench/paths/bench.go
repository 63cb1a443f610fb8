package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bench runs the chosen probes over the chosen paths.
type bench struct {
	dir      string
	d        durations
	servers  *servers
	paths    []maker
	probes   []probe
	live     map[string]*instance
	broken   map[string]bool // paths that did not start in this run
	starts   int
	medium   bool   // leave out what mediumSkips says
	fewer    bool   // fewer points in curves and sweeps
	program  string // ours
	profiles string // directory of profiles, empty for none
	result   *result
	keep     func() error             // is called when there is more in result
	took     map[string]time.Duration // by probe, starts of paths among it
}

func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// missing returns the first of the tools that is not installed.
func missing(tools []tool) (tool, bool) {
	for _, t := range tools {
		if t == toolPG {
			if _, err := pgBin(); err != nil {
				return t, true
			}
			continue
		}
		if _, err := lookTool(t.program); err != nil {
			return t, true
		}
	}
	return tool{}, false
}

// usable drops the paths and probes whose programs are missing, with a line for
// each.
func (b *bench) usable(reference, ours, before string) {
	var paths []maker
	for _, m := range b.paths {
		switch {
		case m.name == pathRef || m.name == pathRefOpen:
			if err := checkProgram(reference); err != nil {
				b.skip(m.name, fmt.Sprintf("the reference is not installed (--reference): %v", err))
				continue
			}
		case m.name == pathBefore:
			if before == "" {
				continue // nobody asked for it
			}
			if err := checkProgram(before); err != nil {
				b.skip(m.name, fmt.Sprintf("--before: %v", err))
				continue
			}
		case strings.HasPrefix(m.name, pathOurs):
			if err := checkProgram(ours); err != nil {
				b.skip(m.name, fmt.Sprintf("give the program with --sallyport PATH: %v", err))
				continue
			}
		}
		if t, no := missing(m.needs); no {
			b.skip(m.name, fmt.Sprintf("%s is missing: install the package %s", t.program, t.pkg))
			continue
		}
		paths = append(paths, m)
	}
	var use []probe
	for _, p := range b.probes {
		if p.name == probeProfile && b.profiles == "" {
			continue
		}
		if t, no := missing(p.needs); no {
			b.skip(p.name, fmt.Sprintf("%s is missing: install the package %s", t.program, t.pkg))
			continue
		}
		use = append(use, p)
	}
	b.paths, b.probes = paths, use
}

func (b *bench) skip(what, why string) {
	logf("skipped %s: %s", what, why)
	b.result.Skipped[what] = why
}

// runAll measures everything in the runs from first to before end. Within a run each probe visits path
// after path, and each run begins with another path, so that a slow spell of the
// machine does not fall on one path alone. Paths start afresh in every run.
func (b *bench) runAll(ctx context.Context, first, end int) error {
	defer b.stopPaths()
	have := func(program string) bool {
		if program == toolPG.program { // its start takes long
			return slices.ContainsFunc(b.probes, func(p probe) bool { return slices.Contains(p.needs, toolPG) })
		}
		_, err := lookTool(program)
		return err == nil
	}
	var err error
	if b.servers, err = startServers(ctx, filepath.Join(b.dir, "servers"), have); err != nil {
		return fmt.Errorf("servers: %w", err)
	}
	defer b.servers.stop()
	b.withoutServers()
	return b.runOver(ctx, first, end)
}

// withoutServers drops the probes whose server does not run, with a line for each.
func (b *bench) withoutServers() {
	b.probes = slices.DeleteFunc(b.probes, func(p probe) bool {
		for _, t := range p.needs {
			if why, down := b.servers.down[t.program]; down {
				b.skip(p.name, fmt.Sprintf("%s does not run: %s", t.program, why))
				return true
			}
		}
		return false
	})
}

// runOver is runAll while the servers run. keep is called after each measurement, so that what was measured outlives whatever happens.
func (b *bench) runOver(ctx context.Context, first, end int) error {
	for n := first; n < end; n++ {
		b.stopPaths()
		b.broken = map[string]bool{}
		order := rotate(b.paths, n)
		for _, p := range b.probes {
			for _, m := range order {
				start := time.Now()
				b.measure(ctx, n, p, m)
				b.took[p.name] += time.Since(start)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if err := b.keep(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func rotate[T any](s []T, n int) []T {
	if len(s) == 0 {
		return nil
	}
	n %= len(s)
	return append(append([]T{}, s[n:]...), s[:n]...)
}

// measure runs one probe on one path. A path that fails is stopped, so that the
// next probe finds a fresh one.
func (b *bench) measure(ctx context.Context, n int, p probe, m maker) {
	if b.broken[m.name] || b.medium && mediumSkips(p.name, m.name) {
		return
	}
	i, err := b.path(ctx, m)
	if err != nil {
		b.broken[m.name] = true
		if ctx.Err() != nil {
			return // interrupted, not failed
		}
		b.fail(n, m.name, "start", err)
		return
	}
	if p.skip != nil && p.skip(i) {
		return
	}
	// No probe takes longer than its parts together; this catches a hang.
	limit := 3*time.Minute + 4*(b.d.bulk+b.d.load+b.d.stall) + 40*b.d.curve
	pctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	s, err := p.run(pctx, b, i)
	if dead := i.alive(); dead != nil {
		err = errors.Join(dead, err)
	}
	if err != nil {
		if ctx.Err() == nil {
			b.fail(n, m.name, p.name, err)
		}
		b.drop(m.name)
		return
	}
	b.result.add(m.name, s)
	logf("run %d  %-9s %-19s %s  (%.1f s)", n+1, p.name, m.name, s, time.Since(start).Seconds())
}

// logTimes tells how long each probe took on all paths.
func (b *bench) logTimes() {
	var all time.Duration
	parts := make([]string, 0, len(b.probes))
	for _, p := range b.probes {
		all += b.took[p.name]
		parts = append(parts, fmt.Sprintf("%s %.0f", p.name, b.took[p.name].Seconds()))
	}
	logf("seconds: %s; together %.0f", strings.Join(parts, ", "), all.Seconds())
}

func (b *bench) fail(n int, path, what string, err error) {
	why := oneLine(err)
	logf("run %d  %-9s %-19s FAILED: %s", n+1, what, path, why)
	b.result.Errors = append(b.result.Errors, fmt.Sprintf("run %d, %s, %s: %s", n+1, path, what, why))
}

// oneLine is the first line of an error, and how many more there are: a thousand connections may fail one by one.
func oneLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	if len(lines) == 1 {
		return lines[0]
	}
	return fmt.Sprintf("%s (and %d lines more)", lines[0], len(lines)-1)
}

// path returns the running instance of a path, and starts one if need be.
func (b *bench) path(ctx context.Context, m maker) (*instance, error) {
	if i := b.live[m.name]; i != nil {
		return i, nil
	}
	b.starts++
	i, err := startPath(ctx, m, filepath.Join(b.dir, fmt.Sprintf("%s-%d", m.name, b.starts)), b.servers.ports)
	if err != nil {
		return nil, err
	}
	b.live[m.name] = i
	return i, nil
}

func (b *bench) drop(name string) {
	if i := b.live[name]; i != nil {
		i.stop()
		delete(b.live, name)
	}
}

func (b *bench) stopPaths() {
	for name := range b.live {
		b.drop(name)
	}
}
