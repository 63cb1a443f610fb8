package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/bench/report"
)

// serveOne runs the util service's connection handler on a port of its own.
func serveOne(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = serveUtilConn(c) // ends when the test closes its side
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestUtilService(t *testing.T) {
	port := serveOne(t)
	ctx := t.Context()
	conns, err := openIdle(ctx, port, 50)
	if err != nil || len(conns) != 50 {
		t.Fatalf("%d connections, %v", len(conns), err)
	}
	for _, c := range conns {
		c.Close()
	}
	c, err := dialUtil(ctx, port, cmdPour, 100_001)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	total, buf := 0, make([]byte, 4096)
	for err == nil {
		var n int
		n, err = c.Read(buf)
		total += n
	}
	if total != 100_001 {
		t.Errorf("%d bytes poured, want 100001", total)
	}
	r, err := startReaders(ctx, port, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer r.stop()
	if rate, err := r.rate(ctx, 50*time.Millisecond); err != nil || rate <= 0 {
		t.Errorf("rate %v, %v", rate, err)
	}
}

func TestDialUtilGivesUp(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") // accepts, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if c, err := dialUtil(ctx, l.Addr().(*net.TCPAddr).Port, cmdIdle, 0); err == nil {
		c.Close()
		t.Error("no error from a server that is silent")
	}
}

// Processes are found by tag and by descent, and all of them end.
func TestProcessesAndEnd(t *testing.T) {
	dir := t.TempDir()
	sh, err := lookTool("sh")
	if err != nil {
		t.Skip("no shell")
	}
	// The shell's child loses its tag, as sshd's sessions do.
	p, err := spawn(roleRelay, dir+"/log", childEnv(dir, tagVar+"="+dir+"/"+roleRelay), sh,
		"-c", "env -u "+tagVar+" sleep 60 & wait")
	if err != nil {
		t.Fatal(err)
	}
	defer endAll(dir, []*proc{p})
	var pids []int
	for range 100 {
		if pids = processes(dir, []*proc{p})[roleRelay]; len(pids) == 2 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if len(pids) != 2 || !slices.Contains(pids, p.cmd.Process.Pid) {
		t.Fatalf("found %v", pids)
	}
	if m, err := memory(pids); err != nil || m.rss <= 0 || m.pss <= 0 || m.pss > m.rss || m.own <= 0 || m.own > m.rss {
		t.Errorf("memory %+v, %v", m, err)
	}
	endAll(dir, []*proc{p})
	if left := processes(dir, []*proc{p}); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestRunIsBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	sh, err := lookTool("sh")
	if err != nil {
		t.Skip("no shell")
	}
	dir := t.TempDir()
	if _, err := run(ctx, dir, childEnv(dir), sh, "-c", "sleep 600 & sleep 600"); err == nil {
		t.Error("no error")
	}
	if time.Since(start) > time.Minute {
		t.Error("not stopped in time")
	}
	out, err := run(t.Context(), dir, childEnv(dir), sh, "-c", "echo out; echo err >&2")
	if err != nil || out != "out\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestChoose(t *testing.T) {
	all := []string{"a", "b", "c"}
	id := func(s string) string { return s }
	if got, err := choose(all, "c,a", id); err != nil || !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"d", "a,a", "a,"} {
		if _, err := choose(all, bad, id); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
	if got := rotate(all, 4); !slices.Equal(got, []string{"b", "c", "a"}) {
		t.Errorf("rotate: %v", got)
	}
}

func TestMissingProgramSkips(t *testing.T) {
	b := &bench{result: newResult(nil),
		paths:  []maker{{name: pathDirect}, {name: "x", needs: []tool{{"no-such-program-here", "its-package"}}}, {name: pathOurs}, {name: pathRef}},
		probes: []probe{{name: "p"}, {name: "q", needs: []tool{{"no-such-program-here", "q-package"}}}}}
	b.usable("/does/not/exist", "", "")
	if len(b.paths) != 1 || b.paths[0].name != pathDirect || len(b.probes) != 1 {
		t.Errorf("left: %d paths, %d probes", len(b.paths), len(b.probes))
	}
	checkErr(t, errorOf(b.result.Skipped["x"]), "its-package")
	checkErr(t, errorOf(b.result.Skipped["q"]), "q-package")
	checkErr(t, errorOf(b.result.Skipped[pathOurs]), "--sallyport")
	checkErr(t, errorOf(b.result.Skipped[pathRef]), "--reference")
}

// TestServerThatFails: what needs a server that did not start is left out, with the reason; all else is measured.
func TestServerThatFails(t *testing.T) {
	b := &bench{result: newResult(nil), servers: &servers{down: map[string]string{toolNginx.program: "its port is taken"}},
		probes: []probe{{name: "p", needs: []tool{toolRedis}}, {name: "q", needs: []tool{toolAb, toolNginx}}, {name: "r"}}}
	b.withoutServers()
	if len(b.probes) != 2 || b.probes[0].name != "p" || b.probes[1].name != "r" {
		t.Errorf("left: %v", b.probes)
	}
	checkErr(t, errorOf(b.result.Skipped["q"]), "its port is taken")
}

// TestVersionLine: a version is a line with a figure, on either output, without colours.
func TestVersionLine(t *testing.T) {
	if got := versionLine(t.Context(), t.TempDir(), "/bin/sh", "-c", `echo starting; printf '\033[1mprogram 5.68\033[0m of Debian\n' >&2; echo 7`); got != "program 5.68 of Debian" {
		t.Errorf("%q", got)
	}
	if got := versionLine(t.Context(), t.TempDir(), "/no/such/program"); got != "" {
		t.Errorf("%q", got)
	}
}

// TestOneLine: a failed measurement is one line, however many connections failed.
func TestOneLine(t *testing.T) {
	if got := oneLine(errors.New("reset")); got != "reset" {
		t.Error(got)
	}
	if got := oneLine(errors.Join(errors.New("reset"), errors.New("refused"), errors.New("gone"))); got != "reset (and 2 lines more)" {
		t.Error(got)
	}
}

type textError string

func (e textError) Error() string { return string(e) }

func errorOf(s string) error { return textError(s) }

func TestDeadNodeIsNoticed(t *testing.T) {
	i := &instance{name: "x", dir: t.TempDir()}
	if err := i.spawn(roleRelay, "sleep", "60"); err != nil {
		t.Fatal(err)
	}
	defer i.stop()
	i.roles = []string{roleRelay}
	if err := i.alive(); err != nil {
		t.Errorf("a running node: %v", err)
	}
	if err := i.procs[0].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-i.procs[0].done
	checkErr(t, i.alive(), "the relay has ended")
	// One of two processes of a role counts too, and says how it ended.
	i.roles = nil
	checkErr(t, i.alive(), "signal: killed")
}

// TestParallel: all are done, so many at a time at most; the first error of each worker ends it, and that of having enough is no error.
func TestParallel(t *testing.T) {
	var running, most, done atomic.Int64
	if err := parallel(3, 50, func(int) error {
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		done.Add(1)
		return nil
	}); err != nil || done.Load() != 50 || most.Load() > 3 {
		t.Errorf("%v, %d done, %d at a time", err, done.Load(), most.Load())
	}
	err := parallel(4, 1000, func(k int) error {
		if k == 17 {
			return errors.New("broken")
		}
		if k > 20 {
			return errEnough
		}
		return nil
	})
	if got := withoutEnough(err); got == nil || got.Error() != "broken" {
		t.Errorf("%v of %v", got, err)
	}
	if err := withoutEnough(parallel(4, 10, func(int) error { return errEnough })); err != nil {
		t.Error(err)
	}
	if err := parallel(4, 0, func(int) error { return errors.New("nothing to do") }); err != nil {
		t.Error(err)
	}
}

// TestUtilEcho: the util service sends back what comes, after its answer to the command.
func TestUtilEcho(t *testing.T) {
	here, there := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serveUtilConn(there) }()
	for _, text := range []string{string(cmdEcho), "a", "bc"} {
		if _, err := here.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(here, got); err != nil || string(got) != text {
			t.Fatalf("%q for %q: %v", got, text, err)
		}
	}
	here.Close()
	if err := <-ended; err == nil {
		t.Error("it ended without a word")
	}
}

// TestMedium: the medium form has its own windows, leaves out no path and no kind of measurement as a whole, and excludes the short one.
func TestMedium(t *testing.T) {
	o, err := parseFlags([]string{"--medium", "--stall", "4s"})
	if err != nil {
		t.Fatal(err)
	}
	if d := o.durations(); d.bulk != mediumDurations.bulk || d.stall != 4*time.Second || d.window > d.stall/2 {
		t.Errorf("durations %+v", d)
	}
	for _, p := range probes {
		if !slices.ContainsFunc(allPaths, func(path string) bool { return !mediumSkips(p.name, path) }) {
			t.Errorf("%s is measured on no path", p.name)
		}
	}
	for _, path := range curvePaths {
		if !slices.Contains(allPaths, path) || mediumSkips("load-http", path) {
			t.Errorf("%s has no curve", path)
		}
	}
	if !mediumSkips("load-http", pathSSH) || mediumSkips("load-echo", pathSSH) || !mediumSkips("stall", pathOursWS) || mediumSkips("up", pathOursWS) {
		t.Error("a medium run leaves out something else than it says")
	}
	for _, bad := range [][]string{{"--medium", "--short"}, {"--add"}} {
		if _, err := parseFlags(bad); err == nil {
			t.Errorf("%v: accepted", bad)
		}
	}
}

// TestAddTo: runs are added to a file that is there; one that is not is begun; one that cannot be read is no reason to write over it.
func TestAddTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.json")
	o, err := parseFlags([]string{"--add", "--json", file})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := o.earlier(); r != nil || err != nil {
		t.Errorf("no file: %v, %v", r, err)
	}
	measured := newResult(nil)
	measured.Paths = []string{pathPlain}
	measured.add(pathPlain, sample{"ping": 1})
	measured.finish()
	if err := writeJSON(file, measured); err != nil {
		t.Fatal(err)
	}
	if r, err := o.earlier(); r == nil || err != nil {
		t.Errorf("a file: %v, %v", r, err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.earlier(); err == nil {
		t.Error("a damaged file is taken for none")
	}
}

// TestMostOpen: with 20,000 files our nodes have 10,000 connections, and a proxy that joins sockets nearly as many.
func TestMostOpen(t *testing.T) {
	if ours, plain := mostOpen(pathOurs, 20_000), mostOpen(pathPlain, 20_000); ours < 10_000 || plain >= 10_000 || plain < 9_000 {
		t.Errorf("ours %d, plain %d", ours, plain)
	}
}

// TestKept: what is measured is in the file after each measurement, with the runs before; these count once, whatever comes after, and keep their figures.
func TestKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.json")
	before := newResult(nil)
	before.Paths = []string{pathPlain}
	before.add(pathPlain, sample{"ping": 1})
	if err := writeJSON(file, before); err != nil {
		t.Fatal(err)
	}
	earlier, err := (&options{add: true, json: file}).earlier()
	if err != nil {
		t.Fatal(err)
	}
	util, run := serveOne(t), 0
	b := &bench{dir: t.TempDir(), servers: &servers{}, result: newResult(nil), took: map[string]time.Duration{}, live: map[string]*instance{}}
	b.paths = []maker{{name: pathDirect, start: func(_ context.Context, i *instance) error {
		i.front = map[string]int{svcUtil: util}
		return nil
	}}}
	b.keep = func() error {
		all, err := b.result.after(earlier)
		if err != nil {
			return err
		}
		return writeJSON(file, all)
	}
	b.result.Paths = []string{pathDirect}
	stop := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	next := probe{name: "one", run: func(context.Context, *bench, *instance) (sample, error) {
		if run++; run > 1 {
			r, err := report.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Samples["ping"]; !slices.Equal(got[pathPlain], []float64{1}) || !slices.Equal(got[pathDirect], []float64{2}) || r.Medians["ping"][pathDirect] != 2 {
				t.Errorf("after the first measurement the file has %v", got)
			}
			cancel(stop)
			return nil, ctx.Err()
		}
		return sample{"ping": 2}, nil
	}}
	b.probes = []probe{next, next}
	defer b.stopPaths()
	if err := b.runOver(ctx, 0, 1); !errors.Is(err, stop) {
		t.Errorf("the run ends with %v", err)
	}
	if len(before.Samples["ping"]) != 1 || len(b.result.Errors) != 0 {
		t.Errorf("runs before %v, errors %v", before.Samples, b.result.Errors)
	}
}
