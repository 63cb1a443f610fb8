package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// names lists the rows.
func names(w io.Writer) {
	for _, r := range slices.Concat(rooms...) {
		number, what := "-", r.attack
		if r.number != 0 {
			number = fmt.Sprint(r.number)
		}
		if r.run == nil {
			what += " (" + r.proof + ")"
		}
		if r.long {
			what += " (long)"
		}
		fmt.Fprintf(w, "%2s  %-20s %s\n", number, r.name, what)
	}
}

// table writes the table, as Markdown.
func table(w io.Writer, results []result) {
	fmt.Fprintln(w, "| row | attack | promised | seen | neighbour | peak memory of the nodes | |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	for _, r := range results {
		name, held, seen := r.name, "held", r.seen
		if r.number != 0 {
			name = fmt.Sprintf("%d %s", r.number, r.name)
		}
		neighbour := r.neighbour.String()
		switch {
		case r.err != nil:
			held = "**BROKEN**"
			seen = strings.TrimSpace(seen + " " + r.err.Error())
		case r.run == nil && r.proof != "":
			held, seen, neighbour = "by test", r.proof, ""
		}
		if r.pause < 0 {
			neighbour = "attacked too"
		}
		cells := []string{name, r.attack, r.promised, seen, neighbour, strings.Join(r.memory, ", "), held}
		for i, c := range cells {
			cells[i] = strings.ReplaceAll(strings.ReplaceAll(c, "\n", " "), "|", "\\|")
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
}

// report is what a neighbour had.
type report struct {
	before, during float64 // bytes a second
	longest        time.Duration
	errors         int
	firstError     error
	bytes          int64
	took           time.Duration // of the attack
	tps            float64       // pgbench's
	tpsSeconds     int           // in how many seconds they were counted
}

// lost is how much less of the stream there was, in percent.
func (r report) lost() float64 {
	if r.before <= 0 {
		return 0
	}
	return max(0, 100*(1-r.during/r.before))
}

func (r report) String() string {
	text := fmt.Sprintf("%d MB whole, %.0f %% lost, longest wait %d ms, %d errors", r.bytes>>20, r.lost(), r.longest.Milliseconds(), r.errors)
	if r.tpsSeconds > 0 {
		text += fmt.Sprintf(", pgbench %.0f of %d tps", r.tps, pgRate)
	}
	return text
}

// fault says what the neighbour of a row must not have seen.
func (r report) fault(of row) error {
	switch {
	case r.errors > 0:
		return fmt.Errorf("the neighbour had %d errors, first: %w", r.errors, r.firstError)
	case r.longest > of.pause:
		return fmt.Errorf("%w: the neighbour waited %v for an answer, at most %v are allowed", errSlow, r.longest, of.pause)
	case r.bytes == 0 && r.took > 2*time.Second:
		return fmt.Errorf("the neighbour got nothing through")
	case of.loss > 0 && r.lost() > of.loss:
		return fmt.Errorf("%w: the neighbour lost %.0f %% of its stream", errSlow, r.lost())
	}
	return nil
}
