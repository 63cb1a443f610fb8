package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// driver is what all tests share.
type driver struct {
	ours, reference program
	root            string
	procs           *processes
	pg              *postgres
	xfer            *transferServer
	quick, keep     bool
	agreement       string // file of policy rows
	groups          []string
	result          report
}

func main() { os.Exit(run()) }

func run() int {
	home, _ := os.UserHomeDir()
	d := &driver{}
	ours := flag.String("ours", "bin/sallyport", "our program")
	reference := flag.String("reference", filepath.Join(home, ".cache/reference/bin/ockam"), "the reference")
	only := flag.String("only", "", "combinations to run, such as 3 or 1-4,16 (default all; with --rows alone: none)")
	rows := flag.Bool("rows", false, "run the further rows instead of the combinations (with --only: both)")
	all := flag.Bool("all", false, "run all combinations and all further rows")
	group := flag.String("group", "", "with --rows: only the groups whose names begin so, separated by commas")
	list := flag.Bool("list", false, "list combinations and groups, run nothing")
	jsonFile := flag.String("json", "", "write the report to this file as JSON")
	flag.BoolVar(&d.quick, "quick", false, "shorter pgbench runs, transfers of 16 MiB")
	flag.BoolVar(&d.keep, "keep", false, "keep the state directories (the processes are killed)")
	flag.StringVar(&d.agreement, "policies", "policy/testdata/agreement.json", "policy rows")
	flag.Parse()
	if flag.NArg() > 0 {
		return complain(fmt.Errorf("unexpected argument %q", flag.Arg(0)))
	}
	for _, p := range []struct {
		path *string
		name string
		into *program
	}{{ours, "ours", &d.ours}, {reference, "reference", &d.reference}} {
		path, err := filepath.Abs(*p.path)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil && !*list {
			return complain(fmt.Errorf("the program for %q is missing: %w", p.name, err))
		}
		*p.into = program{name: p.name, path: path}
	}
	d.reference.quirks = true
	d.ours.quirks = sameFile(d.ours.path, d.reference.path)
	chosen := map[int]bool{}
	switch {
	case *only != "":
		var err error
		if chosen, err = parseNumbers(*only, 16); err != nil {
			return complain(fmt.Errorf("--only: %w", err))
		}
	case *all || !*rows:
		chosen, _ = parseNumbers("1-16", 16)
	}
	if *group != "" {
		d.groups = strings.Split(*group, ",")
	}
	if *list {
		d.list()
		return 0
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := d.open(ctx); err != nil {
		d.close()
		return complain(err)
	}
	d.result.Started = time.Now().UTC()
	d.result.Ours, d.result.Reference, d.result.Quick = d.ours.path, d.reference.path, d.quick
	if len(chosen) > 0 {
		d.runCombinations(ctx, chosen)
	}
	if *rows || *all {
		d.runRows(ctx)
	}
	d.close()
	d.result.Seconds = time.Since(d.result.Started).Seconds()
	return d.finish(ctx, *jsonFile)
}

// finish prints the tables, writes the report and gives the exit code.
func (d *driver) finish(ctx context.Context, jsonFile string) int {
	if len(d.result.Combinations) > 0 {
		fmt.Println()
		printCombinations(os.Stdout, d.result.Combinations)
	}
	if len(d.result.Rows) > 0 {
		fmt.Println()
		printRows(os.Stdout, d.result.Rows)
	}
	fmt.Printf("%.0f seconds\n", d.result.Seconds)
	if jsonFile != "" {
		if err := d.result.writeJSON(jsonFile); err != nil {
			return complain(err)
		}
	}
	if ctx.Err() != nil {
		return complain(fmt.Errorf("interrupted"))
	}
	if len(d.result.Combinations)+len(d.result.Rows) == 0 {
		return complain(fmt.Errorf("nothing was run: no group has this name"))
	}
	if d.result.failed() > 0 {
		return 1
	}
	return 0
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "interop:", err)
	return 1
}

func (d *driver) list() {
	for _, c := range combinations(d.ours, d.reference) {
		fmt.Printf("%2d  authority %-9s  relay %-9s  outlet %-9s  inlet %-9s\n", c.number,
			c.seats.authority.name, c.seats.relay.name, c.seats.outlet.name, c.seats.inlet.name)
	}
	for _, g := range rowGroups {
		fmt.Printf("%-12s %s\n", g.name, g.about)
	}
}

// open makes the work directory and starts the servers behind the outlets.
func (d *driver) open(ctx context.Context) error {
	root, err := os.MkdirTemp("", "interop")
	if err != nil {
		return err
	}
	d.root = root
	// The database server runs as another user and must be able to reach its directory.
	if err := os.Chmod(root, 0o711); err != nil {
		return err
	}
	if d.procs, err = newProcesses(root); err != nil {
		return err
	}
	if d.pg, err = startPostgres(ctx, d.procs, root); err != nil {
		return err
	}
	d.xfer, err = startTransferServer()
	return err
}

// close ends all that was started. It is safe on a driver that is half open.
func (d *driver) close() {
	if d.procs != nil {
		d.procs.killUnder(d.root)
	}
	if d.xfer != nil {
		d.xfer.close()
	}
	if d.pg != nil {
		d.pg.stop()
	}
	if d.procs != nil {
		d.procs.close()
	}
	switch {
	case d.root == "":
	case d.keep:
		fmt.Println("state directories kept in", d.root)
	default:
		os.RemoveAll(d.root)
	}
}

// measure runs one test and makes a check of it.
func measure(name string, test func() (note string, err error)) check {
	begin := time.Now()
	note, err := test()
	c := check{Name: name, Passed: err == nil, Seconds: time.Since(begin).Seconds(), Note: note}
	if err != nil {
		c.Reason = err.Error()
	}
	return c
}
