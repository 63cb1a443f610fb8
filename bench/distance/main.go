// Command distance measures paths over distances: three namespaces in a row, joined by wires with delay, rate, queue and loss
// (bench/wire), and between them one plain TCP connection from end to end, three haproxy, the reference, and our three nodes. Clients and
// server are in this program. It needs root.
//
// distance wire --between A,B joins two namespaces that are there already.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type settings struct {
	sallyport, reference string
	paths                []string
	only                 string
	short, stall         bool
	runs                 int
	seconds              time.Duration
	json, svg            string
	loads, congestion    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == "wire" {
		err = standAlone(ctx, os.Args[2:])
	} else {
		err = run(ctx, os.Args[1:])
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "distance:", err)
		os.Exit(1)
	}
}

// moreRuns is how many runs are added at most before a check fails.
const moreRuns = 2

func run(ctx context.Context, args []string) error {
	var s settings
	var paths string
	home, _ := os.UserHomeDir()
	fs := flag.NewFlagSet("distance", flag.ContinueOnError)
	fs.StringVar(&s.sallyport, "sallyport", "bin/sallyport", "our program")
	fs.StringVar(&s.reference, "reference", filepath.Join(home, ".cache/reference/bin/ockam"), "the reference; left out where it is not there")
	fs.StringVar(&paths, "paths", "tcp,plain,reference,ours,direct", "paths to measure; one-lane, ours without lanes, and nebula and wireguard, tunnels, are known too")
	fs.StringVar(&s.only, "only", "", "scenarios to measure, separated by ; (NAME* for all that begin so)")
	fs.StringVar(&s.loads, "loads", "", "loads to put on them, separated by ; as they are named in the table")
	fs.StringVar(&s.congestion, "congestion", "", "TCP's congestion control on all machines, as cubic, reno or bbr; empty for the system's")
	fs.BoolVar(&s.short, "short", false, "two distances, a few loads; fails where ours is far behind the plain chain")
	fs.BoolVar(&s.stall, "stall", false, "only readers that do not read, on our path over 300 ms: memory and neighbours")
	fs.IntVar(&s.runs, "runs", 1, "how often; the table shows medians")
	fs.DurationVar(&s.seconds, "time", 5*time.Second, "how long each load is measured")
	fs.StringVar(&s.json, "json", "", "write all values to this file")
	fs.StringVar(&s.svg, "svg", "", "draw throughput over distance into this file")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	for _, p := range strings.Split(paths, ",") {
		if p == pathRef && !exists(s.reference) {
			fmt.Fprintln(os.Stderr, "the reference is not installed: left out")
			continue
		}
		s.paths = append(s.paths, p)
	}
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // nodes in the background are waited for here
	var err error
	if s.sallyport, err = filepath.Abs(s.sallyport); err != nil {
		return err
	}
	if s.stall {
		return stalled(ctx, s.sallyport)
	}
	t := &table{Paths: s.paths}
	err = s.measureAll(ctx, t)
	if len(t.Rows) == 0 {
		return err
	}
	return errors.Join(err, s.write(t)) // what was measured before something failed is not lost
}

// measureAll does all runs.
func (s *settings) measureAll(ctx context.Context, t *table) error {
	for k := range s.runs {
		if err := s.all(ctx, t, k); err != nil {
			return err
		}
	}
	// A slow spell of the machine may fall on one path alone. Before it counts, there are more runs, of which the median is taken.
	for k := s.runs; s.short && k < s.runs+moreRuns && t.check() != nil; k++ {
		fmt.Fprintf(os.Stderr, "%v\nonce more\n", t.check())
		if err := s.all(ctx, t, k); err != nil {
			return err
		}
	}
	if s.short {
		return t.check()
	}
	return nil
}

// write prints the table, and writes its values and the drawing where that was asked for.
func (s *settings) write(t *table) error {
	t.markdown(os.Stdout)
	if s.json != "" {
		b, err := json.MarshalIndent(t, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.json, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if s.svg != "" {
		if err := os.WriteFile(s.svg, []byte(t.svg()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// chosen returns the scenarios to measure.
func (s *settings) chosen() (list []scenario) {
	if s.short && s.only == "" {
		s.only = "10 ms;100 ms"
	}
	for _, sc := range scenarios() {
		if s.only == "" || slices.ContainsFunc(strings.Split(s.only, ";"), func(o string) bool {
			return sc.name == o || strings.HasSuffix(o, "*") && strings.HasPrefix(sc.name, o[:len(o)-1])
		}) {
			list = append(list, sc)
		}
	}
	return list
}

// loadsOf returns what is put on a path in a scenario.
func (s *settings) loadsOf(sc scenario) []load {
	var list []load
	switch {
	case s.loads != "":
		list = every()
	case s.short:
		list = []load{{down: 1}, {up: 1}, {down: 8, requests: true}}
	case sc.loss > 0 || sc.near > 0 || sc.jitter > 0 || sc.reorder > 0:
		list = []load{{}, {down: 1}, {up: 1}, {down: 8, requests: true}}
	case sc.rate < gbit:
		list = []load{{}, {down: 1, requests: true}, {up: 1, requests: true}, {down: 8, requests: true}}
	default:
		list = every()
	}
	if s.loads != "" {
		list = slices.DeleteFunc(list, func(l load) bool { return !slices.Contains(strings.Split(s.loads, ";"), l.String()) })
	}
	return list
}

// every is all loads.
func every() []load {
	return []load{{}, {down: 1}, {up: 1}, {down: 2}, {up: 2}, {down: 8}, {up: 8}, {down: 64}, {up: 64}, {down: 1, up: 1}, {down: 8, up: 8},
		{down: 1, requests: true}, {up: 1, requests: true}, {down: 8, requests: true}, {up: 8, requests: true}}
}

// all measures everything once.
func (s *settings) all(ctx context.Context, t *table, turn int) error {
	for _, sc := range s.chosen() {
		if err := s.measure(ctx, t, sc, turn); err != nil {
			return fmt.Errorf("%s: %w", sc.name, err)
		}
	}
	return nil
}

// measure brings all paths up over the same wires and puts each load on one after the other.
func (s *settings) measure(ctx context.Context, t *table, sc scenario, turn int) error {
	dir, err := os.MkdirTemp("", "distance")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w, err := newWorld(sc, s.congestion)
	if err != nil {
		return err
	}
	defer w.close()
	srv, err := newServer(w)
	if err != nil {
		return err
	}
	defer srv.ln.Close()
	var paths []*path
	for k := range s.paths { // each turn begins with another one
		name := s.paths[(k+turn)%len(s.paths)]
		program := s.sallyport
		if name == pathRef {
			program = s.reference
		}
		p, err := newPath(ctx, name, w, dir, program)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: left out: %v\n", sc.name, err)
			continue
		}
		defer p.close()
		paths = append(paths, p)
	}
	one := func(p *path, what string, f figures, err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s, %s, %s: %v\n", sc.name, what, p.name, err)
			return
		}
		fmt.Fprintf(os.Stderr, "%s, %s, %s: %+v\n", sc.name, what, p.name, f)
		t.addFigures(sc, what, p.name, f)
	}
	for _, l := range s.loadsOf(sc) {
		for _, p := range paths {
			f, err := p.measure(ctx, srv, sc, l, s.seconds)
			one(p, l.String(), f, err)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// What is still under way must not meet the next.
			time.Sleep(500*time.Millisecond + 2*sc.trip)
		}
	}
	for _, p := range paths {
		f, err := p.newConnections(9)
		one(p, "new connections", f, err)
	}
	return nil
}

// ownCPU is the processor time of this process so far, in seconds.
func ownCPU() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
