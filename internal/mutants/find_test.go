package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const sample = `package sample

const limit = 3 + 4

func small(n int) bool {
	if n < limit && n > 0 {
		count++
		return true
	}
	note("no")
	return false
}
`

// TestFind: every kind of change is found, with its line, and makes the text that it says.
func TestFind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sample.go")
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := find(path)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"6: condition negated: n < limit && n > 0": "if !(n < limit && n > 0) {", "6: || for &&: n < limit && n > 0": "if n < limit || n > 0 {",
		"6: <= for <: n < limit": "if n <= limit && n > 0 {", "6: >= for >: n > 0": "if n < limit && n >= 0 {",
		"7: left out: count++": "{\n\t\t\n\t\treturn true", "8: returns false": "return false\n\t}", "10: left out: note(\"no\")": "}\n\t\n\treturn false", "11: returns true": "return true\n}\n",
	}
	for _, m := range list {
		_, name, _ := strings.Cut(m.String(), "sample.go:")
		made, ok := want[name]
		if changed := string(m.apply([]byte(sample))); !ok || !strings.Contains(changed, made) || changed == sample {
			t.Errorf("%s makes\n%s", name, changed)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("not found: %s", name)
	}
}

func TestParseLines(t *testing.T) {
	wanted, err := parseLines("3,5-7")
	if err != nil {
		t.Fatal(err)
	}
	for line := range 10 {
		if want := line == 3 || line >= 5 && line <= 7; wanted(line) != want {
			t.Errorf("line %d: %v", line, !want)
		}
	}
	for _, bad := range []string{"x", "3-", "7-5", "1,,2"} {
		if _, err := parseLines(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestOutcomes: what the tests of a small module say of it, whole, changed, and broken.
func TestOutcomes(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module sample\n", "a.go": "package sample\n\nfunc Even(n int) bool { return n%2 == 0 }\n",
		"a_test.go": "package sample\n\nimport \"testing\"\n\nfunc TestEven(t *testing.T) {\n\tif !Even(2) {\n\t\tt.Fatal()\n\t}\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	path := filepath.Join(dir, "a.go")
	for name, c := range map[string]struct {
		from, to string
		want     outcome
	}{"whole": {"==", "==", passed}, "changed": {"==", "!=", failed}, "broken": {"==", "=!=", notBuilt}} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := strings.Index(string(text), c.from)
		overlay, err := overlayOf(t.TempDir(), mutant{file: path, start: at, end: at + len(c.from), with: c.to})
		if err != nil {
			t.Fatal(err)
		}
		if got, text := (run{}).tests(context.Background(), ".", time.Minute, "-overlay", overlay); got != c.want {
			t.Errorf("%s: outcome %d\n%s", name, got, text)
		}
	}
}
