// Command attacks shows what strangers, members, slow readers, hostile relays and broken machines can do to a node and to its neighbours.
// Each row is an attack by a client of its own on whole processes of sallyport, while a neighbour uses the same relay: the table says
// what was promised, what was seen, what the neighbour lost and how much memory each node took.
//
// A row is a value. Rows lie in rooms, one file for each kind of attack: room_NAME.go has the list and what its rows run.
package main

import (
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
	"time"
)

// rooms are all rows, in the order of the table.
var rooms = [][]row{relayRows, readerRows, channelRows, frameRows, floodRows, authorityRows, pathRows, crashRows, hostileRows, httpRows, insideRows}

func main() {
	var o options
	flag.BoolVar(&o.short, "short", false, "leave out what takes long")
	flag.StringVar(&o.row, "row", "", "the rows with these names, or whose number it is, with commas between")
	flag.StringVar(&o.binary, "sallyport", "bin/sallyport", "the program to attack")
	flag.BoolVar(&o.verbose, "v", false, "show what nodes log")
	flag.BoolVar(&o.race, "race-nodes", false, "build nodes with the race detector, and fail on what it reports")
	flag.DurationVar(&o.soak, "soak", -1, "how long to attack one stage again and again at the end (default: 30m, nothing if short or with --row)")
	list := flag.Bool("list", false, "name the rows, and the tests that stand for what cannot be seen from outside")
	flag.Parse()
	if *list {
		names(os.Stdout)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ok, err := attackAll(ctx, o)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	case !ok:
		os.Exit(1)
	}
}

// options are those of the command line.
type options struct {
	binary, row          string
	short, verbose, race bool
	soak                 time.Duration
}

// chosen returns the rows to run.
func (o options) chosen() ([]row, error) {
	var list []row
	names := strings.Split(o.row, ",")
	for _, r := range slices.Concat(rooms...) {
		if o.row != "" && (slices.Contains(names, r.name) || slices.Contains(names, fmt.Sprint(r.number))) || o.row == "" && !(o.short && r.long) {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no row is called %q; --list names them", o.row)
	}
	return list, nil
}

// attackAll runs the chosen rows and writes the table; ok is false if one did not hold.
func attackAll(ctx context.Context, o options) (ok bool, err error) {
	list, err := o.chosen()
	if err != nil {
		return false, err
	}
	if o.soak < 0 {
		o.soak = 0
		if !o.short && o.row == "" {
			o.soak = 30 * time.Minute
		}
	}
	s, err := newSuite(ctx, o)
	if err != nil {
		return false, err
	}
	defer s.close()
	var results []result
	for _, r := range list {
		fmt.Fprintf(os.Stderr, "%s ...\n", r.name)
		res := s.perform(ctx, r)
		// A machine that does something else for a moment is slow once; a node that the attack reaches is slow each time.
		for tries := 1; errors.Is(res.err, errSlow) && tries < slowTries && ctx.Err() == nil; tries++ {
			fmt.Fprintf(os.Stderr, "%s: %s: once more\n", r.name, res.verdict())
			res = s.perform(ctx, r)
		}
		results = append(results, res)
		fmt.Fprintf(os.Stderr, "%s: %s (%.1f s)\n", r.name, res.verdict(), res.took.Seconds())
		if ctx.Err() != nil {
			break
		}
	}
	if o.soak > 0 && ctx.Err() == nil {
		results = append(results, s.soak(ctx, list, o.soak))
	}
	table(os.Stdout, results)
	ok = true
	for _, r := range results {
		if r.err != nil { // said again at the end, where one looks first
			fmt.Fprintf(os.Stderr, "%s: %s\n", r.name, r.verdict())
			ok = false
		}
	}
	return ok, nil
}

// suite is what all rows of a run have together.
type suite struct {
	options
	dir      string
	database *database // nil where PostgreSQL is not installed
	shared   *stage    // for rows that leave their stage as it was
}

func newSuite(ctx context.Context, o options) (s *suite, err error) {
	s = &suite{options: o}
	if s.binary, err = filepath.Abs(o.binary); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "attacks-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := os.Chmod(s.dir, 0o711); err != nil { // the database has a user of its own
		return nil, err
	}
	if o.race {
		if s.binary, err = buildRace(ctx, s.dir); err != nil {
			return nil, err
		}
	}
	if s.database, err = startDatabase(ctx, s.dir); err != nil {
		fmt.Fprintf(os.Stderr, "without pgbench: %v\n", err)
	}
	return s, nil
}

func (s *suite) close() {
	if s.shared != nil {
		s.shared.close()
	}
	if s.database != nil {
		s.database.close()
	}
	_ = os.RemoveAll(s.dir)
}
