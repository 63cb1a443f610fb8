package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// check is the result of one named test.
type check struct {
	Name    string  `json:"name"`
	Passed  bool    `json:"passed"`
	Seconds float64 `json:"seconds"`
	Note    string  `json:"note,omitempty"`   // a measurement, when there is one
	Reason  string  `json:"reason,omitempty"` // why it failed
}

// comboResult is what happened in one of the sixteen combinations.
type comboResult struct {
	Number  int       `json:"number"`
	Seats   [4]string `json:"seats"` // authority, relay, outlet, inlet
	Passed  bool      `json:"passed"`
	Seconds float64   `json:"seconds"`
	Checks  []check   `json:"checks"`
}

// rowResult is one check of the further rows.
type rowResult struct {
	Group       string `json:"group"`
	Orientation string `json:"orientation"`
	check
}

// report is all that the driver found, in the form written by --json.
type report struct {
	Ours         string        `json:"ours"`
	Reference    string        `json:"reference"`
	Started      time.Time     `json:"started"`
	Seconds      float64       `json:"seconds"`
	Quick        bool          `json:"quick"`
	Combinations []comboResult `json:"combinations"`
	Rows         []rowResult   `json:"rows"`
}

// comboChecks are the columns of the combination table, in the order of the story.
var comboChecks = [...]string{"setup", "psql", "select", "tpcb", "upload", "download"}

// firstReason gives the first failure, "check: reason", or the empty text.
func firstReason(checks []check) string {
	for _, c := range checks {
		if !c.Passed {
			return c.Name + ": " + c.Reason
		}
	}
	return ""
}

// cell is a result in a column: seconds when passed, FAIL when not, - when not run.
func cell(checks []check, name string) string {
	for _, c := range checks {
		switch {
		case c.Name != name:
		case !c.Passed:
			return "FAIL"
		default:
			return fmt.Sprintf("%.1fs", c.Seconds)
		}
	}
	return "-"
}

// printTable writes rows of cells, each column as wide as its widest cell. The
// first row is the heading. Trailing blanks are left out.
func printTable(w io.Writer, rows [][]string) {
	var width []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for n, row := range rows {
		var line strings.Builder
		for i, c := range row {
			line.WriteString(c + strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
		if n == 0 {
			total := 0
			for _, x := range width {
				total += x + 2
			}
			fmt.Fprintln(w, strings.Repeat("-", max(total-2, 0)))
		}
	}
}

// printCombinations writes the table of the story and its "N of M" line.
func printCombinations(w io.Writer, results []comboResult) {
	head := append([]string{"#", "authority", "relay", "outlet", "inlet"}, comboChecks[:]...)
	rows := [][]string{append(head, "total", "result")}
	passed := 0
	for _, r := range results {
		row := append([]string{fmt.Sprint(r.Number)}, r.Seats[:]...)
		for _, name := range comboChecks {
			row = append(row, cell(r.Checks, name))
		}
		result := "pass"
		if r.Passed {
			passed++
		} else {
			result = "FAIL " + firstReason(r.Checks)
		}
		rows = append(rows, append(row, fmt.Sprintf("%.1fs", r.Seconds), result))
	}
	printTable(w, rows)
	fmt.Fprintf(w, "\n%d of %d\n", passed, len(results))
}

// printRows writes the table of the further rows and how many passed.
func printRows(w io.Writer, results []rowResult) {
	rows := [][]string{{"group", "a->b", "check", "seconds", "result"}}
	passed := 0
	for _, r := range results {
		result := "pass"
		if r.Note != "" {
			result += " (" + r.Note + ")"
		}
		if r.Passed {
			passed++
		} else {
			result = "FAIL " + r.Reason
		}
		rows = append(rows, []string{r.Group, r.Orientation, r.Name, fmt.Sprintf("%.1f", r.Seconds), result})
	}
	printTable(w, rows)
	fmt.Fprintf(w, "\n%d of %d further checks\n", passed, len(results))
}

// failed counts what did not pass.
func (r *report) failed() int {
	n := 0
	for _, c := range r.Combinations {
		if !c.Passed {
			n++
		}
	}
	for _, c := range r.Rows {
		if !c.Passed {
			n++
		}
	}
	return n
}

// writeJSON stores the report in a file.
func (r *report) writeJSON(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
