package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// table writes the table, as Markdown.
func table(w io.Writer, results []result) {
	fmt.Fprintln(w, "| row | attack | promised | seen | neighbour | memory of the nodes | |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	for _, r := range results {
		held, seen := "held", r.seen
		if r.err != nil {
			held = "**BROKEN**"
			seen = strings.TrimSpace(seen + " " + r.err.Error())
		}
		neighbour := r.neighbour.String()
		if r.pause < 0 {
			neighbour = "attacked too"
		}
		cells := []string{r.name, r.attack, r.promised, seen, neighbour, strings.Join(r.memory, ", "), held}
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
}

func (r report) String() string {
	lost := 0.0
	if r.before > 0 {
		lost = max(0, 100*(1-r.during/r.before))
	}
	return fmt.Sprintf("%d MB whole, %.0f %% slower, longest wait %d ms, %d errors", r.bytes>>20, lost, r.longest.Milliseconds(), r.errors)
}

// fault says what the neighbour must not have seen.
func (r report) fault(longest time.Duration) error {
	switch {
	case r.errors > 0:
		return fmt.Errorf("the neighbour had %d errors, first: %w", r.errors, r.firstError)
	case r.longest > longest:
		return fmt.Errorf("the neighbour waited %v for an answer, at most %v are allowed", r.longest, longest)
	case r.bytes == 0:
		return fmt.Errorf("the neighbour got nothing through")
	}
	return nil
}
