// Command members measures what many members cost: it makes a project of real processes, enrols members through the library, each with an identity, a node, a credential and
// TCP connections of its own, has each register a name at the relay, and prints enrolments and renewals per second, CPU, memory and disk of authority and relays for each
// member, and how long it takes until all are back after the relays were killed at once.
//
//	go run ./bench/members -bin build/sallyport -n 100,300,1000,3000,10000 -json members.json -svg members.svg
//	go run ./bench/members -bin build/sallyport -n 2000 -relays 3 -outlets 2000 -inlets 5000
//
// Members live in child processes of this one, so that no process needs too many files.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/bench/report"
	"sallyport/internal/wholefile"
)

// options are the flags.
type options struct {
	bin                     string
	relays, outlets, inlets int
	share, width            int
	idle                    time.Duration
	postgres, goOn          bool
}

// fileLimit is how many open files this program and those that it starts ask for, if the system lets them.
const fileLimit = 1 << 17

// filesEach is how many files one member has open at most, with what it opens for a moment.
const filesEach = 14

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "build/sallyport", "the program")
	counts := flag.String("n", "100,1000", "how many members, a row for each")
	flag.IntVar(&o.relays, "relays", 1, "how many relay nodes; more than one share names in a PostgreSQL that is started for it")
	flag.BoolVar(&o.postgres, "postgres", false, "the authority keeps its members in PostgreSQL")
	flag.IntVar(&o.outlets, "outlets", 0, "how many outlets all members have together, each with a relay name (default: one each)")
	flag.IntVar(&o.inlets, "inlets", 0, "how many paths to outlets all members have together, as inlets have them")
	flag.IntVar(&o.share, "share", 500, "how many members a child process has at most")
	flag.IntVar(&o.width, "width", 32, "how many members enrol, register or renew at a time")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "for how long nothing is done, to see what members cost that are only there")
	out, svg := flag.String("json", "", "write figures to this file, into those that it has"), flag.String("svg", "", "draw them into this file")
	flag.BoolVar(&o.goOn, "continue", false, "leave out rows that the file of -json has whole, after an interruption")
	note := flag.String("note", "", "what else the machine did, for the JSON")
	child := flag.Bool("child", false, "of a child")
	flag.Parse()
	raiseFiles()
	var err error
	if *child {
		err = serve(os.Stdin, os.Stdout)
	} else {
		err = run(o, *counts, *out, *svg, *note)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "members:", err)
		os.Exit(1)
	}
}

// raiseFiles asks for as many open files as there may be.
func raiseFiles() {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil || l.Cur >= fileLimit {
		return
	}
	more := syscall.Rlimit{Cur: fileLimit, Max: max(l.Max, fileLimit)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more) != nil { // not without privileges
		more = syscall.Rlimit{Cur: l.Max, Max: l.Max}
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &more)
	}
}

// files is how many open files a process may have.
func files() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	return int(min(l.Cur, fileLimit))
}

func run(o options, counts, out, svg, note string) (err error) {
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	if o.share = min(o.share, (files()-200)/filesEach); o.share < 1 || o.width < 1 || o.relays < 1 {
		return errors.New("-share, -width and -relays must be at least 1, and a process must have a few hundred files")
	}
	var sizes []int
	for _, text := range strings.Split(counts, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-n %q: a number of members", text)
		}
		sizes = append(sizes, n)
	}
	return withRoom(slices.Max(sizes) > manyMembers || o.inlets > manyMembers, func(ctx context.Context) error { return rows(ctx, o, sizes, out, svg, note) })
}

// rows measures a row for each number of members.
func rows(ctx context.Context, o options, sizes []int, out, svg, note string) error {
	r := newResult(out, note)
	fmt.Printf("%s, %s\n", r.Machine, time.Now().UTC().Format(time.RFC3339))
	for _, n := range sizes {
		s := r.Section(section())
		if o.goOn && whole(s, o.path(n), float64(n)) {
			fmt.Printf("%d members, %s: measured before\n", n, o.path(n))
			continue
		}
		values, err := row(ctx, o, n, func(values map[string]float64) error {
			s.Set(o.path(n), float64(n), values)
			return write(r, out, "")
		})
		if ctx.Err() != nil {
			return fmt.Errorf("%d members: %w; -continue goes on with this row", n, ctx.Err())
		}
		if err != nil {
			return fmt.Errorf("%d members: %w", n, err)
		}
		fmt.Printf("%d members, %s\n", n, o.path(n))
		for _, m := range metrics {
			if v, ok := values[m.Key]; ok {
				fmt.Printf("  %-60s %10s %s\n", m.Title, report.Number(v), m.Unit)
			}
		}
		s.Set(o.path(n), float64(n), values)
		r.Load = load(r.Load)
		if err := write(r, out, svg); err != nil {
			return err
		}
	}
	return nil
}

// path is what a row is called: what the members are at.
func (o *options) path(n int) string {
	name := "ours"
	if o.relays > 1 {
		name += fmt.Sprintf(", %d relays", o.relays)
	}
	if o.postgres {
		name += ", PostgreSQL"
	}
	if o.inlets > 0 {
		name += fmt.Sprintf(", %d outlets, %d inlets", o.outletsOf(n), o.inlets)
	}
	return name
}

// whole reports whether a row was measured to its end.
func whole(s *report.Section, path string, n float64) bool {
	for _, p := range s.Points {
		if p.Path == path && p.X == n {
			return len(p.Values[last]) > 0
		}
	}
	return false
}

func (o *options) outletsOf(n int) int {
	if o.outlets == 0 {
		return n
	}
	return o.outlets
}

// newResult reads what a file has, if it is there.
func newResult(out, note string) *report.Result {
	if out != "" {
		if r, err := report.Read(out); err == nil {
			return r
		}
	}
	machine := fmt.Sprintf("%d processors", runtime.NumCPU())
	if note != "" {
		machine += ", " + note
	}
	return &report.Result{When: time.Now().UTC(), Machine: machine, Arguments: os.Args[1:], Load: load("")}
}

// load adds the machine's load average to those before.
func load(before string) string {
	b, _ := os.ReadFile("/proc/loadavg")
	now, _, _ := strings.Cut(string(b), " ")
	if before == "" {
		return now
	}
	return before + ", " + now
}

func write(r *report.Result, out, svg string) error {
	s := r.Section(section())
	s.Y = metrics
	r.Paths = s.Paths()
	if out != "" {
		b, err := json.MarshalIndent(r, "", " ")
		if err == nil {
			err = wholefile.Write(out, filepath.Base(out)+".*", 0o644, func(w io.Writer) error { // who interrupts this keeps what was there
				_, err := w.Write(append(b, '\n'))
				return err
			})
		}
		if err != nil {
			return err
		}
	}
	if svg == "" {
		return nil
	}
	return os.WriteFile(svg, s.SVG(), 0o644)
}

func section() report.Section {
	return report.Section{
		Key: "members", Title: "Members", X: report.Axis{Title: "members", Log: true}, Y: metrics,
		Note: "Each has an identity, a credential, a channel to the authority and one to a relay, and a relay name; all on one machine.",
	}
}

// last is the figure that a row gets last.
const last = "retries"

// metrics are the figures of a row.
var metrics = []report.Metric{
	{Key: "enrolled", Title: "Enrolments", Unit: "1/s", Higher: true},
	{Key: "registered", Title: "Relay names registered", Unit: "1/s", Higher: true},
	{Key: "renewed", Title: "Credentials renewed", Unit: "1/s", Higher: true},
	{Key: "authority_enrol", Title: "Authority: CPU of an enrolment", Unit: "ms"},
	{Key: "authority_renew", Title: "Authority: CPU of a renewal", Unit: "ms"},
	{Key: "authority_memory", Title: "Authority: memory of a member", Unit: "KiB"},
	{Key: "authority_disk", Title: "Authority: disk of a member", Unit: "KiB"},
	{Key: "authority_idle", Title: "Authority: CPU of a member that is only there", Unit: "ms/min"},
	{Key: "relay_register", Title: "Relays: CPU until a member is registered", Unit: "ms"},
	{Key: "relay_memory", Title: "Relays: memory of a member", Unit: "KiB"},
	{Key: "relay_idle", Title: "Relays: CPU of a member that is only there", Unit: "ms/min"},
	{Key: "scrape", Title: "Metrics of a relay, one scrape", Unit: "ms"},
	{Key: "back", Title: "All back after the relays were killed", Unit: "s"},
	{Key: "handshakes", Title: "Most handshakes at the relays meanwhile", Unit: "1/s"},
	{Key: "inlets_back", Title: "All inlets answer after the relays were killed", Unit: "s"},
	{Key: last, Title: "Attempts that failed and were repeated", Unit: ""},
}
