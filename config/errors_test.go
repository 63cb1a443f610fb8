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

// TestTicketLikeAnOption: a ticket that begins with a dash would be taken for an option of `project enroll`.
func TestTicketLikeAnOption(t *testing.T) {
	for _, ticket := range []string{"-x", "--identity=admin", " -x", `"-"`, `"a\0b"`} {
		if plan, err := Load(NodeCreate, []byte("name: a\nticket: "+ticket+"\n"), badOptions()); err == nil {
			t.Errorf("%q is taken as the ticket %q", ticket, plan.Ticket)
		}
	}
	if plan, err := Load(NodeCreate, []byte("name: a\nticket: a-x\n"), badOptions()); err != nil || plan.Ticket != "a-x" {
		t.Errorf("%v", err)
	}
}
