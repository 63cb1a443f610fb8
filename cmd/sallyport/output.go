package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"sallyport/internal/visible"
)

// result is what a command has to say, in the forms it can say it.
type result struct {
	// human is for a person at a terminal.
	human string
	// machine is the value alone, for a pipe; empty if there is none.
	machine string
	// json is for --output json; nil prints nothing there, as in the reference.
	json any
}

// print writes r to standard output. A terminal gets the human form, a pipe the machine form, else JSON, else the human form,
// without a line end (docs/protocol/03 §7.3).
func (a *app) print(r result) error {
	if a.output == "json" || (a.jq != "" || a.compact) && !a.outputGiven {
		if r.json == nil {
			return nil
		}
		return a.printJSON(r.json)
	}
	switch {
	case a.stdoutTTY:
		text := r.human
		if text == "" {
			text = r.machine
		}
		if text == "" && r.json != nil {
			return a.printJSON(r.json)
		}
		_, err := fmt.Fprintln(a.stdout, forTerminal(strings.TrimRight(text, "\n")))
		return err
	case r.machine != "":
		_, err := io.WriteString(a.stdout, r.machine)
		return err
	case r.json != nil:
		text, err := encodeJSON(r.json, false)
		if err == nil {
			_, err = io.WriteString(a.stdout, text)
		}
		return err
	default:
		_, err := io.WriteString(a.stdout, forTerminal(r.human))
		return err
	}
}

// ownMarks are what color makes of the marks of this program.
var ownMarks = regexp.MustCompile("\x1b\\[(?:1|2|31|32|33)m(?:✔|!|x|ok  |warn|FAIL)\x1b\\[0m")

// forTerminal returns a text for people in which nothing steers a terminal but the colors of this program's own marks: peers have a part in many texts.
func forTerminal(text string) string {
	var b strings.Builder
	at := 0
	for _, m := range ownMarks.FindAllStringIndex(text, -1) {
		b.WriteString(visible.Text(text[at:m[0]]) + text[m[0]:m[1]])
		at = m[1]
	}
	return b.String() + visible.Text(text[at:])
}

// printJSON writes v, through --jq if given, pretty unless --compact-output.
func (a *app) printJSON(v any) error {
	text, err := encodeJSON(v, a.compact)
	if err != nil {
		return err
	}
	if a.jq != "" {
		if text, err = a.filter(v); err != nil {
			return err
		}
	}
	if a.stdoutTTY {
		text += "\n"
	}
	_, err = io.WriteString(a.stdout, text)
	return err
}

func encodeJSON(v any, compact bool) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if !compact {
		e.SetIndent("", "  ")
	}
	if err := e.Encode(v); err != nil {
		return "", fmt.Errorf("encode JSON: %w", err)
	}
	text := strings.TrimSuffix(b.String(), "\n")
	if !strings.ContainsFunc(text, isC1) {
		return text, nil
	}
	b.Reset()
	for _, r := range text { // in strings, where package json leaves them
		if isC1(r) {
			fmt.Fprintf(&b, "\\u%04x", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String(), nil
}

// isC1 reports whether r is a control character that JSON may have as it is.
func isC1(r rune) bool { return r >= 0x7f && r <= 0x9f }

// table lays rows out in aligned columns under a header.
func table(header []string, rows [][]string) string {
	width := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range append([][]string{header}, rows...) {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}

// fields lays name and value pairs out in two aligned columns.
func fields(pairs ...string) string {
	width := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		width = max(width, utf8.RuneCountInString(pairs[i]))
	}
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		b.WriteString(pairs[i] + strings.Repeat(" ", width-utf8.RuneCountInString(pairs[i])+2) + pairs[i+1] + "\n")
	}
	return b.String()
}
