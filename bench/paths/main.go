// Command paths compares whole paths: client, inlet, relay, outlet and server as
// separate processes on the loopback interface. The same clients and servers are put
// at the ends of each path; what differs is what lies between: nothing, three plain
// proxies, TLS, SSH, the reference implementation, and Sallyport.
//
// See bench/README.md for what is measured and how to read it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sallyport/bench/report"
)

// options are the command line.
type options struct {
	paths, metrics        string
	reference, sallyport  string
	before                string
	runs                  int
	short, medium, add    bool
	timeout               time.Duration
	json, svg, html       string
	profiles              string
	check, record         string
	bulk, load, stallTime time.Duration
	curve                 time.Duration
	conns                 int
	utilServer            string
}

func parseFlags(args []string) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("paths", flag.ContinueOnError)
	f.StringVar(&o.paths, "paths", "", "paths to measure, separated by commas (default all): "+strings.Join(allPaths, ","))
	f.StringVar(&o.metrics, "metrics", "", "measurements, separated by commas (default all): "+strings.Join(probeNames(), ","))
	home, _ := os.UserHomeDir() // without one the flag must be given
	f.StringVar(&o.reference, "reference", filepath.Join(home, ".cache/reference/bin/ockam"), "the reference's `program`")
	f.StringVar(&o.sallyport, "sallyport", "", "our `program`")
	f.StringVar(&o.before, "before", "", "another build of our `program`, as the path ours-before: two builds in turn")
	f.IntVar(&o.runs, "runs", 3, "how often everything is measured")
	f.BoolVar(&o.short, "short", false, "only plain and ours, the checked metrics and memory, in less than a minute")
	f.BoolVar(&o.medium, "medium", false, "everything with shorter windows, and curves and stalls only of the paths that compare programs: one run in 15 minutes")
	f.BoolVar(&o.add, "add", false, "add the runs to those that the file of --json has, if it is there and they are of the same machine and versions")
	f.DurationVar(&o.timeout, "timeout", 6*time.Hour, "limit for everything together")
	f.StringVar(&o.json, "json", "", "write every sample to this `file`, such as bench/results/paths.json")
	f.StringVar(&o.svg, "svg", "", "draw the medians into this `file`, such as bench/results/paths.svg")
	f.StringVar(&o.html, "html", "", "write a report to read into this `file`, such as docs/benchmark.html")
	f.StringVar(&o.profiles, "profiles", "", "with the measurement profile: write flame graphs and a table of where the time goes below this `directory`")
	f.StringVar(&o.check, "check", "", "fail if a ratio ours/plain is worse by more than a third than in this `file`")
	f.StringVar(&o.record, "record", "", "write the ratios ours/plain to this `file`")
	f.DurationVar(&o.bulk, "bulk", 0, "length of an iperf3 run, whole seconds (default 8s, short 1s)")
	f.DurationVar(&o.load, "load", 0, "length of a redis-benchmark or ab run (default 4s, short 0.6s)")
	f.DurationVar(&o.curve, "curve", 0, "length of one rate of a load curve (default 3s, short 500ms)")
	f.DurationVar(&o.stallTime, "stall", 0, "how long the stalled reader stays (default 20s, short 3s)")
	f.IntVar(&o.conns, "conns", 0, "number of idle connections (default 1000, short 300)")
	f.StringVar(&o.utilServer, "util-server", "", "internal: serve the util service on this port")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.runs < 1 {
		return nil, errors.New("--runs must be at least 1")
	}
	if o.short && o.medium {
		return nil, errors.New("--short and --medium: one of them")
	}
	if o.add && o.json == "" {
		return nil, errors.New("--add needs the file of --json")
	}
	if o.short {
		if o.paths == "" {
			o.paths = pathPlain + "," + pathOurs
		}
		if o.metrics == "" {
			o.metrics = "memory,up,down,ping,rate,pipeline,conns"
		}
		o.timeout = min(o.timeout, 10*time.Minute)
	}
	return o, nil
}

func (o *options) durations() durations {
	d := fullDurations
	switch {
	case o.short:
		d = shortDurations
	case o.medium:
		d = mediumDurations
	}
	if o.bulk > 0 {
		d.bulk = o.bulk
	}
	if o.load > 0 {
		d.load = o.load
	}
	if o.curve > 0 {
		d.curve = o.curve
	}
	if o.stallTime > 0 {
		d.stall = o.stallTime
		d.window = min(d.window, d.stall/2)
	}
	if o.conns > 0 {
		d.idle = o.conns
	}
	return d
}

func probeNames() []string {
	names := make([]string, len(probes))
	for i, p := range probes {
		names[i] = p.name
	}
	return names
}

// choose keeps the elements whose names are in the list, in their own order; an
// empty list keeps all.
func choose[T any](all []T, list string, name func(T) string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	wanted := strings.Split(list, ",")
	var out []T
	for _, e := range all {
		if i := slices.Index(wanted, name(e)); i >= 0 {
			out = append(out, e)
			wanted = slices.Delete(wanted, i, i+1)
		}
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("unknown or repeated name %q", wanted[0])
	}
	return out, nil
}

// readings are the commands that measure nothing.
func readings(args []string) (done bool, err error) {
	switch {
	case len(args) == 2 && args[0] == "report":
		r, err := report.Read(args[1])
		if err != nil {
			return true, err
		}
		page, err := report.HTML(r)
		if err != nil {
			return true, err
		}
		_, err = os.Stdout.Write(page)
		return true, err
	case len(args) == 2 && args[0] == "draw":
		r, err := report.Read(args[1])
		if err != nil {
			return true, err
		}
		_, err = fmt.Print((&result{Result: *r}).svg())
		return true, err
	case len(args) == 3 && args[0] == "compare":
		a, err := report.Read(args[1])
		if err != nil {
			return true, err
		}
		b, err := report.Read(args[2])
		if err != nil {
			return true, err
		}
		_, err = fmt.Print(report.Compare(a, b))
		return true, err
	case len(args) > 2 && args[0] == "merge":
		all := &report.Result{}
		for n, file := range args[1:] {
			r, err := report.Read(file)
			if err == nil && n > 0 {
				err = all.Merge(r)
			} else if err == nil {
				all = r
			}
			if err != nil {
				return true, err
			}
		}
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return true, err
		}
		_, err = os.Stdout.Write(append(b, '\n'))
		return true, err
	case len(args) > 0 && slices.Contains([]string{"report", "draw", "compare", "merge"}, args[0]):
		return true, errors.New("usage: paths report RESULT.json >REPORT.html | paths draw RESULT.json >MEDIANS.svg | paths compare A.json B.json | paths merge A.json B.json... >ALL.json")
	}
	return false, nil
}

func main() {
	if done, err := readings(os.Args[1:]); done {
		if err != nil {
			logf("paths: %v", err)
			os.Exit(1)
		}
		return
	}
	o, err := parseFlags(os.Args[1:])
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(0)
		}
		logf("paths: %v", err)
		os.Exit(2)
	}
	if o.utilServer != "" {
		logf("paths: util service: %v", serveUtil(o.utilServer))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = compareAll(ctx, o)
	interrupted := ctx.Err() != nil
	stop()
	if interrupted {
		if err != nil {
			logf("paths: interrupted: %s", oneLine(err))
		}
		os.Exit(130)
	}
	if err != nil {
		logf("paths: %v", err)
		os.Exit(1)
	}
}

// moreRuns is how many runs are added at most, two at a time, before a check fails.
const moreRuns = 4

// compareAll measures and reports. What was measured before an error is reported
// all the same.
func compareAll(ctx context.Context, o *options) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not finished within %s", o.timeout))
	defer cancel()
	earlier, err := o.earlier()
	if err != nil {
		return err
	}
	raiseFileLimit()
	adoptOrphans()
	reference, sallyport, before := absolute(o.reference), absolute(o.sallyport), absolute(o.before)
	b := &bench{d: o.durations(), medium: o.medium, fewer: o.short || o.medium, program: sallyport, profiles: o.profiles, live: map[string]*instance{}, took: map[string]time.Duration{}, result: newResult(os.Args[1:])}
	if b.paths, err = choose(makers(reference, sallyport, before), o.paths, func(m maker) string { return m.name }); err != nil {
		return fmt.Errorf("--paths: %w", err)
	}
	if b.probes, err = choose(probes, o.metrics, func(p probe) string { return p.name }); err != nil {
		return fmt.Errorf("--metrics: %w", err)
	}
	b.usable(reference, sallyport, before)
	if len(b.paths) == 0 || len(b.probes) == 0 {
		return errors.New("nothing left to measure")
	}
	if b.dir, err = os.MkdirTemp("", "paths"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	for _, m := range b.paths {
		b.result.Paths = append(b.result.Paths, m.name)
	}
	b.describe(ctx, reference, sallyport)
	b.keep = func() error {
		if o.json == "" || !b.result.measured() {
			return nil
		}
		all, err := b.result.after(earlier)
		if err != nil {
			return err
		}
		return writeJSON(o.json, all)
	}
	if _, err := b.result.after(earlier); err != nil {
		return fmt.Errorf("--add to %s: %w", o.json, err)
	}
	runErr := b.runAll(ctx, 0, o.runs)
	if runErr != nil {
		b.result.Errors = append(b.result.Errors, "it ended before all was measured: "+oneLine(runErr))
	}
	b.result.Load += " before, " + loadAverage() + " after"
	b.result.finish()
	// A slow spell of the machine may fall on one path alone. Before a ratio counts as worse, there are more runs.
	for runs := o.runs; runErr == nil && runs < o.runs+moreRuns && o.check != "" && b.result.checkFile(o.check) != nil; runs += 2 {
		logf("a ratio is worse than the recorded one: two more runs")
		runErr = b.runAll(ctx, runs, runs+2)
		b.result.finish()
	}
	fmt.Print(b.result.table())
	b.logTimes()
	if earlier != nil {
		if b.result, err = b.result.after(earlier); err != nil {
			return errors.Join(runErr, err)
		}
		fmt.Print("\nWith the runs before:\n\n", b.result.table())
	}
	return errors.Join(runErr, b.result.deliver(o))
}

// earlier reads the file with the runs to which those of now are added; nil if there is none.
func (o *options) earlier() ([]byte, error) {
	if !o.add {
		return nil, nil
	}
	b, err := os.ReadFile(o.json)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		_, err = report.Parse(b)
	}
	return b, err
}

// deliver writes the files that were asked for and does the check.
func (r *result) deliver(o *options) error {
	if !r.measured() {
		if o.profiles != "" && len(r.Errors) == 0 && len(r.Skipped) == 0 { // profiles are files of their own
			return nil
		}
		return errors.New("nothing was measured")
	}
	var errs []error
	if o.json != "" {
		errs = append(errs, writeJSON(o.json, r))
	}
	if o.html != "" {
		page, err := report.HTML(&r.Result)
		if err == nil {
			err = writeFile(o.html, page)
		}
		errs = append(errs, err)
	}
	if o.svg != "" {
		errs = append(errs, writeFile(o.svg, []byte(r.svg())))
	}
	if o.record != "" {
		errs = append(errs, r.writeRecord(o.record))
	}
	if o.check != "" {
		errs = append(errs, r.checkFile(o.check))
	}
	// CI must not pass because something was left out.
	if n := len(r.Errors) + len(r.Skipped); (o.short || o.check != "") && n > 0 {
		errs = append(errs, fmt.Errorf("%d measurements failed or were skipped", n))
	}
	return errors.Join(errs...)
}

// absolute makes a path independent of the working directory, which differs for
// the children.
func absolute(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// wantedFiles is enough for 10,000 connections through any program: a proxy has two descriptors for each.
const wantedFiles = 65536

// fileLimit is how many files a process may have open.
func fileLimit() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, wantedFiles))
}

// raiseFileLimit lets this process and its children open as many files as the
// machine allows. The default of many machines, 1024, is less than the idle
// connections need; where raising fails, the measurement will say so.
func raiseFileLimit() {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err == nil {
		if more := (syscall.Rlimit{Cur: wantedFiles, Max: wantedFiles}); l.Max < wantedFiles && syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) == nil {
			return // root may
		}
		l.Cur = l.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			logf("limit of open files: %v", err)
		}
	}
}
