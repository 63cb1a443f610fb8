// Command attacks shows what strangers, members, slow readers and broken machines can do to a node and to its neighbours. Each row is an
// attack by a client of its own on whole processes of sallyport, while a neighbour uses the same relay: the table says what was
// promised, what was seen, what the neighbour lost and how much memory each node took.
//
// One row is one small file, row_NAME.go, which adds itself to rows.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// row is one attack.
type row struct {
	name     string
	attack   string // what is done
	promised string // what must be so
	long     bool   // left out of a short run
	stage    stageOptions
	// pause is the longest time that the neighbour may wait for an answer; default 2 s. Negative: the neighbour's node is attacked, and
	// not measured.
	pause time.Duration
	run   func(ctx context.Context, s *stage) (seen string, err error)
}

var rows []row

func main() {
	short := flag.Bool("short", false, "leave out what takes long")
	only := flag.String("only", "", "rows whose name has this in it")
	binary := flag.String("sallyport", "bin/sallyport", "the program to attack")
	verbose := flag.Bool("v", false, "show what nodes log")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var results []result
	for _, r := range rows {
		if *short && r.long || !strings.Contains(r.name, *only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s ...\n", r.name)
		res := perform(ctx, *binary, r, *verbose)
		results = append(results, res)
		fmt.Fprintf(os.Stderr, "%s: %s\n", r.name, res.verdict())
		if ctx.Err() != nil {
			break
		}
	}
	table(os.Stdout, results)
	for _, res := range results {
		if res.err != nil {
			stop()
			os.Exit(1) //nolint:gocritic // nothing is left to be done
		}
	}
	if len(results) == 0 {
		fmt.Fprintln(os.Stderr, "no row has such a name")
		stop()
		os.Exit(2)
	}
}

// result is what came of a row.
type result struct {
	row
	seen      string
	err       error
	neighbour report
	memory    []string
	took      time.Duration
}

func (r result) verdict() string {
	if r.err != nil {
		return "BROKEN: " + r.err.Error()
	}
	return "held: " + r.seen
}

// perform sets the stage, lets the neighbour run, attacks, and looks.
func perform(ctx context.Context, binary string, r row, verbose bool) (res result) {
	res.row = r
	began := time.Now()
	defer func() { res.took = time.Since(began) }()
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	s, err := newStage(ctx, binary, r.stage, verbose)
	if err != nil {
		res.err = fmt.Errorf("stage: %w", err)
		return res
	}
	defer s.close()
	n, err := newNeighbour(s)
	if err != nil {
		res.err = fmt.Errorf("neighbour: %w", err)
		return res
	}
	defer n.stop()
	if err := n.begin(ctx); err != nil {
		res.err = err
		return res
	}
	res.seen, res.err = r.run(ctx, s)
	res.neighbour = n.stop()
	res.memory = s.memory()
	allowed := r.pause
	if allowed == 0 {
		allowed = 2 * time.Second
	}
	if res.err == nil && r.pause >= 0 {
		res.err = res.neighbour.fault(allowed)
	}
	return res
}
