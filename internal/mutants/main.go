// Command mutants changes production code, one line at a time, and sees whether the package's tests notice.
//
//	go run ./internal/mutants [flags] PACKAGE...
//
// A change is a condition negated or moved by one, `and` for `or`, a truth value returned the other way round, a sum for a difference, or a
// statement left out. The tree is not touched: go test gets the changed file as an overlay. A change that does not compile does not
// count; one that makes the tests run longer than four times as long as before, and 10 s, has been noticed. What is not noticed is listed, and lacks a
// test or does not matter. The program is built once with all changes, each behind a switch. Each test is run by itself first, and asked only of changes
// that it comes to, the quickest tests first.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	var r run
	flag.IntVar(&r.each, "n", 40, "changes tried of each package, chosen at random; 0 tries all")
	flag.Uint64Var(&r.seed, "seed", 1, "what chooses them")
	flag.BoolVar(&r.short, "short", false, "the tests are run with -short")
	flag.DurationVar(&r.longest, "longest", 0, "tests that take longer are not asked; 0 asks all")
	flag.StringVar(&r.finished, "finished", "", "a file of what became of changes: a run that was cut short goes on with it, one package at a time")
	file := flag.String("file", "", "only in files whose name has this in it")
	lines := flag.String("lines", "", "only in these lines, as 10,20-30")
	again := flag.String("again", "", "only the changes that a former run has listed in this file as not noticed: are they by the tests of now?")
	flag.StringVar(&r.only, "run", "^(Test|Fuzz|Example)", "only the tests of these names")
	least := flag.Float64("least", 0, "fail when a smaller share, in percent, is noticed in any package")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	wanted, err := parseLines(*lines)
	if err != nil || flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, cmp.Or(err, errors.New("usage: mutants [flags] PACKAGE [PACKAGE]")))
		os.Exit(2)
	}
	listed, err := readListed(*again)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	r.wanted = func(m mutant) bool { return strings.Contains(m.file, *file) && wanted(m.line) && listed(m) }
	var table []tally
	for _, pkg := range flag.Args() {
		t, err := r.try(ctx, pkg)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", pkg, err)
			os.Exit(1)
		}
		table = append(table, t)
		if ctx.Err() != nil {
			break
		}
	}
	if !printTable(table, *least) {
		os.Exit(1)
	}
}

// readListed reads the changes that a run has listed; the empty path means all changes. A change is known by its file's name and what it is: lines move.
func readListed(path string) (func(mutant) bool, error) {
	if path == "" {
		return func(mutant) bool { return true }, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "not noticed: "); ok {
			place, what, _ := strings.Cut(rest, ": ")
			name, _, _ := strings.Cut(filepath.Base(place), ":")
			listed[name+" "+what] = true
		}
	}
	return func(m mutant) bool { return listed[filepath.Base(m.file)+" "+m.what] }, nil
}

// tally is what became of the changes to one package.
type tally struct {
	pkg               string
	noticed, possible int
	missed            []mutant
	took              time.Duration
}

func (t tally) share() float64 {
	if t.possible == 0 {
		return 100
	}
	return 100 * float64(t.noticed) / float64(t.possible)
}

// printTable writes the table, and what was not noticed. It reports whether every package has its least share.
func printTable(table []tally, least float64) bool {
	enough := true
	for _, t := range table {
		slices.SortFunc(t.missed, func(a, b mutant) int { return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line)) })
		for _, m := range t.missed {
			fmt.Printf("not noticed: %s\n", m)
		}
		enough = enough && t.share() >= least
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "package\tchanges\tnoticed\tnot\tshare\ttime\t")
	for _, t := range table {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%.0f %%\t%s\t\n", t.pkg, t.possible, t.noticed, len(t.missed), t.share(), t.took.Round(time.Second))
	}
	_ = w.Flush()
	return enough
}
