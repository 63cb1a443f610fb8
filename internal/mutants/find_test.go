package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
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

// TestCoverage: what no test comes to is known; what a profile does not say is not.
func TestCoverage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profile")
	if err := os.WriteFile(path, []byte("mode: set\nsample/a.go:3.10,5.20 2 1\nsample/a.go:5.20,7.3 1 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runs, err := readCoverage(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		line, col int
		want      bool
	}{{3, 9, true}, {3, 10, true}, {5, 19, true}, {5, 20, false}, {6, 1, false}, {7, 2, false}, {7, 3, true}} {
		if runs(mutant{file: "/x/a.go", line: c.line, col: c.col}) != c.want {
			t.Errorf("%d.%d: want %v", c.line, c.col, c.want)
		}
	}
	if !runs(mutant{file: "/x/b.go", line: 6}) {
		t.Error("another file is taken for one that no test comes to")
	}
}

// TestNoChange: hints of how much memory, log records and blanks are left alone; what stands beside them is not.
func TestNoChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sample.go")
	text := "package sample\n\nfunc f(n int) {\n\tx := make([]int, 0, n+1)\n\ty := make(map[int]int, n+1)\n\tx = slices.Grow(x, n+1)\n\tlog.Warn(\"no\", n+1)\n\t_ = y\n\tlog.Close()\n}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := find(path)
	if err != nil || len(list) != 2 || !strings.HasSuffix(list[0].String(), "x = slices.Grow(x, n+1)") || !strings.HasSuffix(list[1].String(), "log.Close()") {
		t.Errorf("%v, %v", list, err)
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
		"a_test.go": "package sample\n\nimport \"testing\"\n\nfunc TestEven(t *testing.T) {\n\tif !Even(2) {\n\t\tt.Fatal()\n\t}\n}\n\nfunc TestNothing(*testing.T) {}\n",
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
		tests, err := (run{}).measure(context.Background(), t.TempDir(), dir)
		if err != nil || len(tests) != 2 {
			t.Fatalf("%v, %v", tests, err)
		}
		m := mutant{file: path, line: 3, col: 32, start: at, end: at + len(c.from), with: c.to}
		if got, err := (run{}).outcome(context.Background(), t.TempDir(), dir, m, tests); got != c.want || err != nil {
			t.Errorf("%s: outcome %d, %v", name, got, err)
		}
		if c.want != failed {
			continue
		}
		for _, one := range tests { // who comes there says so, and nobody else is asked
			if got, err := (run{}).outcome(context.Background(), t.TempDir(), dir, m, []measured{one}); (got == failed) != (one.name == "TestEven") || err != nil {
				t.Errorf("%s alone: outcome %d, %v", one.name, got, err)
			}
		}
	}
}

// TestFinished: what a run found is known to the next one, until the package is another.
func TestFinished(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(t.TempDir(), "finished")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "a.go"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	one, other := mutant{file: "a.go", line: 3, what: "|| for &&: a && b"}, mutant{file: "a.go", line: 4, what: "|| for &&: a && b"}
	open := func() (outcome, bool) {
		t.Helper()
		r, err := openResults(path, dir)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, ok := r.of(other); ok {
			t.Error("another line's is known")
		}
		got, ok := r.of(one)
		if !ok {
			if err := r.add(one, failed); err != nil {
				t.Fatal(err)
			}
		}
		return got, ok
	}
	for _, c := range []struct {
		text  string
		known bool
	}{{"package a", false}, {"package a", true}, {"package a\n", false}, {"package a\n", true}} {
		write(c.text)
		if got, ok := open(); ok != c.known || ok && got != failed {
			t.Errorf("%q: %v %v", c.text, got, ok)
		}
	}
}
