// Package visible makes texts of others harmless to a terminal.
package visible

import "strings"

// Text returns s with what steers a terminal, or turns the direction of writing, replaced by U+FFFD, and so is what is not UTF-8. Ends of lines and tabs stay.
func Text(s string) string {
	if !strings.ContainsFunc(s, steers) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if steers(r) {
			return '\ufffd'
		}
		return r
	}, s)
}

// steers reports whether r is a control character of any kind: C0 with escape, DEL, C1 with its one-character CSI, or a mark of bidirectional text.
// What is not UTF-8 comes as U+FFFD.
func steers(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < ' ', r >= 0x7f && r <= 0x9f, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == '\ufffd':
		return true
	}
	return false
}
