//go:build !small

package config

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// badTexts are configurations that must be refused; testdata/errors.golden holds what is said about them.
var badTexts = []struct {
	name, text string
	mode       Mode
}{
	{"undefined variable", "name: n\nrelay:\n  r: {to: $NOPE}\n", NodeCreate},
	{"empty variable", "relay: ${EMPTY}", Run},
	{"variable in a default section", "variables:\n  A:\n", Run},
	{"nested variable", "variables: {A: {B: c}}", Run},
	{"variable name", "variables: {1A: c}", Run},
	{"variables are a list", "variables: [A]", Run},
	{"unclosed variable", "relay: ${A\nname: }", Run},
	{"bad reference", "a: b\nrelay: ${A.B}", Run},
	{"unclosed bracket", "relay: r\nnodes: [a, b\n", Run},
	{"unclosed quote", "relay: r\nnodes: \"a\n", Run},
	{"bad indentation", "tcp-outlet:\n  db:\n    to: 1\n   at: n\n", Run},
	{"tab", "tcp-outlet:\n\tdb: x\n", Run},
	{"duplicate key", "relay: a\nname: n\nrelay: b\n", Run},
	{"duplicate section", "tcp_outlets: a\ntcp-outlets: b\n", Run},
	{"duplicate option", "relay:\n  r:\n    relay_address: a\n    relay-address: b\n", Run},
	{"scalar document", "just text", Run},
	{"two documents", "relay: a\n---\nrelay: b\n", Run},
	{"unknown alias", "relay: *x", Run},
	{"self alias", "relay: &x [*x]", Run},
	{"tag", "relay: !secret x", Run},
	{"policy without options", "policies: p", Run},
	{"named policy", "policies:\n  p: {allow: x}\n", Run},
	{"list in a list", "nodes: [[a]]", Run},
	{"null in a list", "nodes: [a, ~]", Run},
	{"map option", "tcp-outlets:\n  db:\n    to: 1\n    x: {y: z}\n", Run},
	{"map in a list option", "tcp-inlet:\n  i:\n    http-header:\n      - Host: x\n", Run},
	{"option without value", "tcp-outlets:\n  db:\n    to:\n    at: n\n", Run},
	{"option name", "tcp-outlets:\n  db:\n    --to: 1\n", Run},
	{"zero byte", "tcp-outlets: {to: \"a\\0b\"}", Run},
	{"name like an option", "relay: -x", Run},
	{"name with a blank", "nodes:\n  my node:\n    identity: i\n", Run},
	{"name is a list", "name: [a]", NodeCreate},
	{"node key is a list", "name: a\nidentity: [a]", NodeCreate},
	{"node key is a map", "name: a\nidentity: {b: c}", NodeCreate},
	{"ticket is a list", "ticket: [abc]", NodeCreate},
	{"secret in the excerpt", "name: a\nticket: S3CRET\nrelay: [", NodeCreate},
	{"secret of a variable", "variables: {EMPTY2: x}\nname: a\nrelay: {$SECRET: , --x: $SECRET}", NodeCreate},
	{"secret in a block", "ticket: >-\n  S3CRET\n  S3CRET\x01\n", NodeCreate},
	{"after a long value", "relay: {$SECRET: { $SECRET : 1, --x: 2}}", NodeCreate},
	{"long line", "relay: {a: " + strings.Repeat("x", 300) + ", --b: c}", Run},
	{"control character", "relay: a\x01b", Run},
	{"invalid UTF-8", "name: x\nrelay: a\xff", Run},
	{"merge of a scalar", "relay:\n  r:\n    <<: 5\n", Run},
}

func badOptions() Options {
	return Options{Lookup: env(map[string]string{"EMPTY": "", "SECRET": "S3CRET-VALUE"})}
}

func TestErrorTexts(t *testing.T) {
	var got strings.Builder
	for _, bad := range badTexts {
		_, err := Load(bad.mode, []byte(bad.text), badOptions())
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: got %v, want an *Error", bad.name, err)
			continue
		}
		if strings.Contains(err.Error(), "S3CRET") {
			t.Errorf("%s: the error shows a secret: %v", bad.name, err)
		}
		fmt.Fprintf(&got, "== %s\n%v\n", bad.name, err)
	}
	const golden = "testdata/errors.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("error texts differ from %s (go test -update rewrites it):\n%s", golden, got.String())
	}
}

// TestLimits feeds texts made to exhaust memory, stack or time.
func TestLimits(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'h'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.Repeat(fmt.Sprintf("*%c,", c-1), 10))
	}
	maps := "a: &a {"
	for i := range 10 {
		maps += fmt.Sprintf("k%d: x, ", i)
	}
	maps += "}\n"
	for c := 'b'; c <= 'h'; c++ {
		maps += fmt.Sprintf("%c: &%c {", c, c)
		for i := range 10 {
			maps += fmt.Sprintf("k%d: *%c, ", i, c-1)
		}
		maps += "}\n"
	}
	tests := []struct{ name, text, want string }{
		{"too long", strings.Repeat("#", MaxText+1), "more than"},
		{"variables too long", "variables: {A: " + strings.Repeat("x", 1000) + "}\nrelay: " + strings.Repeat("$A", 2000), "with its variables"},
		{"brackets", "a: " + strings.Repeat("[", 5_000), "nested more than"},
		{"braces", strings.Repeat("{a: ", 5_000), "nested more than"},
		{"dashes", strings.Repeat("- ", 5_000), "nested more than"},
		{"tags", "a: " + strings.Repeat("!!x ", 10_000), ""},
		{"anchors", "a: " + strings.Repeat("&x ", 10_000) + "1", ""},
		{"explicit keys", strings.Repeat("? ", 10_000), ""},
		{"indentation", func() string {
			var b strings.Builder
			for i := range 300 {
				b.WriteString(strings.Repeat(" ", i) + "a:\n")
			}
			return b.String()
		}(), "nested more than"},
		{"too many entries", "nodes:\n" + strings.Repeat("- n\n", 30_000), "too large"},
		{"long name", "nodes: \"" + strings.Repeat("\\n", 10_000) + "\"", " …"},
		{"alias bomb", bomb, "too many values"},
		{"alias bomb of maps", maps, "too many values"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			_, err := Load(Run, []byte(tt.text), Options{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.200v, want %q", err, tt.want)
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// TestTicketLikeAnOption: a ticket that begins with a dash would be taken for an option of `project enroll`, an empty one for none.
func TestTicketLikeAnOption(t *testing.T) {
	for _, ticket := range []string{"-x", "--identity=admin", " -x", `"-"`, `"a\0b"`, `""`, `" "`, "|\n"} {
		if plan, err := Load(NodeCreate, []byte("name: a\nticket: "+ticket+"\n"), badOptions()); err == nil {
			t.Errorf("%q is taken as the ticket %q", ticket, plan.Ticket)
		}
	}
	if plan, err := Load(NodeCreate, []byte("name: a\nticket: a-x\n"), badOptions()); err != nil || plan.Ticket != "a-x" {
		t.Errorf("%v", err)
	}
}

// TestWhereItIsWritten: a place behind a variable is that of the file, one in its value is where the variable stands.
func TestWhereItIsWritten(t *testing.T) {
	s, err := newSource([]byte("x: ${V}y\nz: $W w\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.expand(env(map[string]string{"V": "1234567890", "W": "a\nb"})); err != nil {
		t.Fatal(err)
	}
	if string(s.expanded) != "x: 1234567890y\nz: a\nb w\n" {
		t.Fatalf("%q", s.expanded)
	}
	for _, c := range []struct{ line, column, at, of int }{
		{1, 1, 0, 1}, {1, 3, 2, 1}, {1, 4, 3, 1}, {1, 9, 3, 1}, {1, 13, 3, 1}, {1, 14, 7, 1}, {1, 15, 8, 1}, {1, 99, 8, 1},
		{2, 1, 9, 2}, {2, 4, 12, 2}, {3, 1, 12, 2}, {3, 2, 14, 2}, {3, 3, 15, 2}, {0, 0, 0, 1}, {99, 1, 17, 3},
	} {
		if at, line := s.writtenByte(position{c.line, c.column}), s.line(position{c.line, c.column}); at != c.at || line != c.of {
			t.Errorf("%d:%d is byte %d of line %d, want %d of %d", c.line, c.column, at, line, c.at, c.of)
		}
	}
}

// TestHashInALine: a line that is only a comment is left alone, what stands behind something else is not.
func TestHashInALine(t *testing.T) {
	for text, want := range map[string]string{
		"a: 'x #$E'": "a: 'x #v'", "a: b # $E": "a: b # v", "# $E\na: $E": "# $E\na: v", " \t# $E": " \t# $E", "a: 1\n  # $E\n": "a: 1\n  # $E\n",
		"$E # $E": "v # v", "$E": "v", "\n  ": "\n  ", "#": "#",
	} {
		s, err := newSource([]byte(text))
		if err == nil {
			err = s.expand(env(map[string]string{"E": "v"}))
		}
		if err != nil || string(s.expanded) != want {
			t.Errorf("%q: %q, %v", text, s.expanded, err)
		}
	}
}

// TestErrorsInOrder: mistakes are told in the order in which they stand in the file.
func TestErrorsInOrder(t *testing.T) {
	list := []*Error{{Line: 2, Column: 1, Msg: "c"}, {Line: 1, Column: 7, Msg: "b"}, {Line: 1, Column: 2, Msg: "a"}, {Line: 10, Column: 1, Msg: "d"}}
	text := Joined(list).Error()
	last := -1
	for _, msg := range []string{": a", ": b", ": c", ": d"} {
		at := strings.Index(text, msg)
		if at <= last {
			t.Fatalf("out of order: %q", text)
		}
		last = at
	}
	if Joined(nil) != nil || Joined(list[:1]) != error(list[0]) {
		t.Error("one, or none, is made a list")
	}
}

// TestSecretsAreHiddenFromEightOn: a value of eight characters may be a secret, and does not stand in a message.
func TestSecretsAreHiddenFromEightOn(t *testing.T) {
	s := &source{hidden: map[string]string{}}
	s.hide("A", "12345678")
	s.hide("B", "1234567")
	s.hide("C", "12345678-and-more")
	if got := s.scrub("<12345678> <1234567> <12345678-and-more>"); strings.Contains(got, "12345678") || !strings.Contains(got, "<1234567>") || strings.Contains(got, "more") {
		t.Errorf("%q", got)
	}
}

// TestMarks: as many anchors and tags as the bound, and not one more.
func TestMarks(t *testing.T) {
	for n, good := range map[int]bool{maxMarks: true, maxMarks + 1: false} {
		text := "relay: [" + strings.Repeat("!!str r, ", n) + "]\n"
		_, err := Load(Run, []byte(text), Options{})
		if over := err != nil && strings.Contains(err.Error(), "anchors, aliases"); over == good {
			t.Errorf("%d marks: %v", n, err)
		}
	}
}

// TestNumbersInJSON: what JSON has as a number stays one, what only YAML has becomes text.
func TestNumbersInJSON(t *testing.T) {
	for text, want := range map[string]string{
		"[1, 1.5, -2]": `[1,1.5,-2]`, "[0o17, .5, 010, 1_000]": `["0o17",".5","010","1_000"]`, `["1", 'true']`: `["1","true"]`,
		"[true, null, abc]": `[true,null,"abc"]`, "{a: 1, b: [x]}": `{"a":1,"b":["x"]}`,
	} {
		s, err := newSource([]byte("x: " + text))
		if err != nil {
			t.Fatal(err)
		}
		v, err := parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(v.appendJSON(nil)); got != `{"x":`+want+"}" {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
