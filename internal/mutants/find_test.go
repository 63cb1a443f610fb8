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

// TestNoChange: hints of how much memory, log records, blanks and what go vet refuses are left alone; what stands beside them is not.
func TestNoChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sample.go")
	text := "package sample\n\nfunc f(n int) {\n\tx := make([]int, 0, n+1)\n\ty := make(map[int]int, n+1)\n\tx = slices.Grow(x, n+1)\n\tlog.Warn(\"no\", n+1)\n\t_ = y\n\tdefer cancel()\n\tlog.Close()\n}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := find(path)
	if err != nil || len(list) != 2 || !strings.HasSuffix(list[0].String(), "x = slices.Grow(x, n+1)") || !strings.HasSuffix(list[1].String(), "log.Close()") {
		t.Errorf("%v, %v", list, err)
	}
}

// TestErrorLines: where the compiler found an error is known, with a column or without.
func TestErrorLines(t *testing.T) {
	said := "# sallyport/node\n../t/all_a.go:205: string does not satisfy interface{~int}\n./all_b.go:7:12: undefined: x\nnote: no.go: nothing\n\tall_c.go:9: further\n"
	want := []string{"../t/all_a.go:205", "./all_b.go:7"}
	var got []string
	for _, m := range errorLine.FindAllStringSubmatch(said, -1) {
		got = append(got, m[1]+":"+m[2])
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%q", got)
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

// TestOutcomes: what the tests of a small module say of every change of it, and which tests are asked.
func TestOutcomes(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module sample\n\ngo 1.26\n",
		"a.go": `package sample

func Even(n int) bool { return n%2 == 0 }

func Small(n int) (out string) {
	if n < 10 && n > 0 {
		out = "small" + mark(n)
	}
	return out
}

func mark(n int) string {
	defer note()
	return string(rune('a' + n - 1))
}

func note() {}

func Never(n int) int {
	if n > 3 {
		return n - 1
	}
	return n
}
`,
		"a_test.go": `package sample

import (
	"os"
	"testing"
)

func TestEven(t *testing.T) {
	if !Even(2) || os.Getenv("RAPID_NOFAILFILE") != "true" {
		t.Fatal()
	}
}

func TestSmall(t *testing.T) {
	for n, want := range map[int]string{0: "", 1: "smalla", 9: "smalli", 10: ""} {
		if got := Small(n); got != want {
			t.Fatal(n, got)
		}
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path, ctx := filepath.Join(dir, "a.go"), context.Background()
	all, err := find(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := (run{only: "."}).prepare(ctx, t.TempDir(), dir, all)
	if err != nil || len(w.tests) != 2 {
		t.Fatalf("%+v, %v", w, err)
	}
	want := map[string]outcome{
		"!= for ==: n%2 == 0": failed, "condition negated: n < 10 && n > 0": failed, "|| for &&: n < 10 && n > 0": failed, "<= for <: n < 10": failed,
		">= for >: n > 0": failed, "left out: out = \"small\" + mark(n)": failed, "- for +: \"small\" + mark(n)": notBuilt, "left out: defer note()": passed,
		"+ for -: 'a' + n - 1": failed, "- for +: 'a' + n": failed, "condition negated: n > 3": passed, ">= for >: n > 3": passed, "+ for -: n - 1": passed,
	}
	for i, m := range all {
		got, err := w.outcome(ctx, numbered{m, i + 1})
		if expected, ok := want[m.what]; err != nil || !ok && !strings.Contains(m.what, "\"") || ok && got != expected {
			t.Errorf("%s: outcome %d, %v", m, got, err)
		}
		delete(want, m.what)
		for _, one := range w.tests {
			if come := one.seen[i+1]; come != (m.line == 3 && one.name == "TestEven" || m.line > 3 && m.line < 18 && one.name == "TestSmall") && !w.alone[i+1] {
				t.Errorf("%s comes to %s: %v", one.name, m, come)
			}
		}
	}
	delete(want, "- for +: \"small\" + mark(n)") // not made: a text has no difference
	if len(want) != 0 {
		t.Errorf("not tried: %v", want)
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

// TestListed: what a run has listed is tried again, wherever it stands by now, and nothing else.
func TestListed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "listed")
	if err := os.WriteFile(path, []byte("left out, fails by itself: TestX\nnot noticed: /a/b/c.go:12: >= for >: a > b\n  package  changes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	listed, err := readListed(path)
	if err != nil {
		t.Fatal(err)
	}
	for m, want := range map[mutant]bool{
		{file: "/x/c.go", line: 15, what: ">= for >: a > b"}: true, {file: "/x/d.go", line: 12, what: ">= for >: a > b"}: false, {file: "/x/c.go", line: 12, what: "<= for <: a > b"}: false,
	} {
		if listed(m) != want {
			t.Errorf("%s: %v", m, !want)
		}
	}
	if all, err := readListed(""); err != nil || !all(mutant{}) {
		t.Error("without a list not all are tried")
	}
	if _, err := readListed(path + "no"); err == nil {
		t.Error("a list that is not there")
	}
}
