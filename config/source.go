package config

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// Error is a mistake in a configuration. Positions refer to the text as written, before variables are expanded.
type Error struct {
	Line    int    // from 1
	Column  int    // in characters, from 1
	Msg     string // what is wrong, one line
	Excerpt string // the lines around it with a caret, values of secret keys hidden; each line ends with "\n"
}

// Error returns the position, the message and the excerpt, on several lines.
func (e *Error) Error() string {
	return fmt.Sprintf("line %d, column %d: %s\n%s", e.Line, e.Column, e.Msg, strings.TrimRight(e.Excerpt, "\n"))
}

// Errors are several mistakes, in the order of their positions.
type Errors []*Error

// Error returns all of them, one after the other.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, one := range e {
		texts[i] = one.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap lets errors.As find the first.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i, one := range e {
		list[i] = one
	}
	return list
}

// Joined makes one error of several; nil of none.
func Joined(list []*Error) error {
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	}
	slices.SortStableFunc(list, func(a, b *Error) int { return cmp.Or(a.Line-b.Line, a.Column-b.Column) })
	return Errors(list)
}

// position is a place in the expanded text, both from 1, column in characters.
type position struct{ line, column int }

// splice says that the expanded text from byte out on comes from the written text from byte in on. Inside the value of a
// variable (fixed), every byte comes from the same place: the reference to the variable.
type splice struct {
	out, in int
	fixed   bool
}

// source is a configuration text, as written and expanded, with the map between both.
type source struct {
	written  []byte
	expanded []byte
	splices  []splice // ascending in out, never empty
	lines    []int    // start of every line of expanded
	breaks   []int    // start of every line of written

	// last is the place that was last looked up: looking up all entries of one long line must not start over each time.
	last struct {
		position
		at int
	}

	hidden map[string]string // values of variables to keep out of messages, with their names
}

func newSource(text []byte) (*source, error) {
	if len(text) > MaxText {
		return nil, &Error{Line: 1, Column: 1, Msg: fmt.Sprintf("the configuration has %d bytes, more than %d", len(text), MaxText)}
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	// One kind of line end, so that the parser's line count and ours agree.
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("\r"), []byte("\n"))
	s := &source{written: text, breaks: lineStarts(text), hidden: map[string]string{}}
	s.setExpanded(text, []splice{{}})
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 {
			return nil, s.errorAtByte(i, "the text is not valid UTF-8")
		}
		if r < ' ' && r != '\n' && r != '\t' {
			return nil, s.errorAtByte(i, fmt.Sprintf("control character %#U", r))
		}
		i += n
	}
	return s, nil
}

func (s *source) setExpanded(text []byte, splices []splice) {
	s.expanded, s.splices = text, splices
	s.lines = lineStarts(text)
	s.last.position, s.last.at = position{}, 0
}

func lineStarts(text []byte) []int {
	starts := []int{0}
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// writtenByte returns where in the written text a position of the expanded text comes from. Positions outside the text, which
// the parser reports for some errors at its end, are moved to the nearest one inside.
func (s *source) writtenByte(p position) int {
	line := min(max(p.line, 1), len(s.lines))
	at, end := s.lines[line-1], len(s.expanded)
	if line < len(s.lines) {
		end = s.lines[line] - 1
	}
	c := 1
	if s.last.line == line && s.last.column <= p.column {
		c, at = s.last.column, s.last.at
	}
	for ; c < p.column && at < end; c++ {
		_, n := utf8.DecodeRune(s.expanded[at:])
		at += n
	}
	s.last.position, s.last.at = position{line, c}, at
	i := sort.Search(len(s.splices), func(i int) bool { return s.splices[i].out > at }) - 1
	sp := s.splices[max(i, 0)]
	if sp.fixed {
		return sp.in
	}
	return min(sp.in+at-sp.out, len(s.written))
}

// line returns the line in the written text of a position of the expanded text.
func (s *source) line(p position) int {
	at := s.writtenByte(p)
	return sort.Search(len(s.breaks), func(i int) bool { return s.breaks[i] > at })
}

func (s *source) errorf(p position, format string, args ...any) *Error {
	return s.errorAtByte(s.writtenByte(p), s.scrub(fmt.Sprintf(format, args...)))
}

// minSecret is the shortest value that scrub replaces: shorter ones are no secrets, and occur in messages by chance.
const minSecret = 8

// hide registers the value of a variable for scrub.
func (s *source) hide(name, value string) {
	if len(value) >= minSecret {
		s.hidden[value] = name
	}
}

// scrub puts the names of variables in place of their values.
func (s *source) scrub(msg string) string {
	// Longest first: a value may contain another.
	for _, value := range slices.SortedFunc(maps.Keys(s.hidden), func(a, b string) int {
		return cmp.Or(len(b)-len(a), strings.Compare(a, b))
	}) {
		msg = strings.ReplaceAll(msg, value, "${"+s.hidden[value]+"}")
	}
	return msg
}

// maxMessage bounds a message in bytes; it may quote a name from the text.
const maxMessage = 300

// errorAtByte makes an error for byte at of the written text.
func (s *source) errorAtByte(at int, msg string) *Error {
	if len(msg) > maxMessage {
		msg = strings.ToValidUTF8(msg[:maxMessage], "") + " …"
	}
	before := s.written[:at]
	line := 1 + bytes.Count(before, []byte("\n"))
	start := bytes.LastIndexByte(before, '\n') + 1
	e := &Error{Line: line, Column: 1 + utf8.RuneCount(s.written[start:at]), Msg: msg}
	var b strings.Builder
	if line > 1 {
		prev := bytes.LastIndexByte(s.written[:start-1], '\n') + 1
		text, _ := excerptLine(string(s.written[prev:start-1]), 1)
		if s.inSecret(prev) {
			text = "<hidden>"
		}
		fmt.Fprintf(&b, "%6d | %s\n", line-1, text)
	}
	this := s.written[start:]
	if i := bytes.IndexByte(this, '\n'); i >= 0 {
		this = this[:i]
	}
	text, caret := excerptLine(string(this), e.Column)
	if s.inSecret(start) {
		text, caret = "<hidden>", 1
	}
	fmt.Fprintf(&b, ">%5d | %s\n         %s^\n", line, text, strings.Repeat(" ", caret-1))
	e.Excerpt = b.String()
	return e
}

// secretValue matches a key whose value must not be printed, up to the end of its line.
var secretValue = regexp.MustCompile(`(?i)((?:ticket|token|secret|password)["']?\s*:\s*).+`)

// secretBlock matches the line of such a key whose value is on the lines below.
var secretBlock = regexp.MustCompile(`(?i)(?:ticket|token|secret|password)["']?\s*:\s*(?:[|>][-+0-9]*)?\s*$`)

// inSecret reports whether the line starting at byte start of the written text is part of a secret value that began above it.
func (s *source) inSecret(start int) bool {
	indent := indentOf(s.written[start:])
	for start > 0 {
		end := start - 1
		start = bytes.LastIndexByte(s.written[:end], '\n') + 1
		line := s.written[start:end]
		if in := indentOf(line); in < indent && in < len(line) {
			return secretBlock.Match(line)
		}
	}
	return false
}

// indentOf returns the number of blanks at the start of a text.
func indentOf(text []byte) int { return len(text) - len(bytes.TrimLeft(text, " ")) }

// excerptWidth is the longest printed piece of a line, in characters.
const excerptWidth = 96

// excerptLine prepares a line for printing: secrets hidden, invalid bytes and tabs replaced, long lines cut around column. It
// returns the column's place in the result.
func excerptLine(text string, column int) (string, int) {
	runes := []rune(strings.ToValidUTF8(text, "\uFFFD"))
	for i, r := range runes {
		if r < ' ' || r == 0x7f {
			runes[i] = ' '
		}
	}
	// Hide before cutting: a cut may separate the key from its value.
	runes = []rune(secretValue.ReplaceAllString(string(runes), "${1}<hidden>"))
	column = min(column, len(runes)+1)
	if from := column - excerptWidth*2/3; len(runes) > excerptWidth && from > 0 {
		runes = append([]rune("… "), runes[from:]...)
		column = column - from + 2
	}
	if len(runes) > excerptWidth {
		runes = append(runes[:excerptWidth:excerptWidth], []rune(" …")...)
	}
	return string(runes), column
}
