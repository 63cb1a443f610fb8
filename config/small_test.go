//go:build small

package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// TestJSON: a program without YAML reads the same configuration from JSON.
func TestJSON(t *testing.T) {
	p := mustLoad(t, NodeCreate, ` {"variables": {"PORT": 5432}, "name": "box", "small": true, "identity": null,
	"tcp-outlets": {"db": {"to": "$PORT", "allow": "a", "tls": true}},
	"relays": ["one", "two"], "tcp-inlet": {"from": 0.50}}`, Options{Lookup: env(nil)})
	if want := []string{"box", "--small"}; !slices.Equal(p.Node, want) {
		t.Errorf("the node's arguments are %q, want %q", p.Node, want)
	}
	want := []string{"3: relay create one --to box", "3: relay create two --to box", "2: tcp-outlet create db --to 5432 --allow a --tls --at box", "3: tcp-inlet create --from 0.50 --at box"}
	if got := lines(p); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if p := mustLoad(t, NodeCreate, " \n", Options{}); len(p.Invocations) != 0 {
		t.Errorf("of nothing: %q", lines(p))
	}
}

// TestNotJSON: what is wrong is said, and where.
func TestNotJSON(t *testing.T) {
	for text, want := range map[string]struct {
		line, column int
		msg          string
	}{
		"name: box\n":                       {1, 1, "built without YAML"},
		"[1]":                               {1, 1, "built without YAML"},
		`{"name": "box"} {}`:                {1, 17, "a second document"},
		"{\"name\": \"é\",\n  \"name\": 1}": {2, 3, `key "name" again, first on line 1`},
		"{\"name\": \"é\", oops}":           {1, 15, "this is not JSON"},
		"{\"name\":\n":                      {2, 1, "ends too early"},
		`{"": 1}`:                           {1, 2, "non-empty"},
		`{"relays": ` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}": {1, 44, "nested more than 32"},
		`{"relays": [` + strings.Repeat("1,", maxTokens) + "1]}":                  {1, 40007, "too large"},
		`{"relays": ` + strings.Repeat("[", 100_000):                              {1, 44, "nested more than 32"},
	} {
		_, err := Load(NodeCreate, []byte(text), Options{Lookup: env(nil)})
		var e *Error
		if !errors.As(err, &e) || e.Line != want.line || e.Column != want.column || !strings.Contains(e.Msg, want.msg) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}
