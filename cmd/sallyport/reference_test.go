package main

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/recorded.json from what the reference and this program do")

// record is what is kept of a command line: what the reference does and, where that is a known difference, what is done here.
type record struct {
	Reference digest  `json:"reference"`
	Here      *digest `json:"here,omitempty"`
}

const recordedPath = "testdata/recorded.json"

// reference returns the path of the reference's program, or "".
func reference() string {
	if path := os.Getenv("REFERENCE"); path != "" {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	path := filepath.Join(home, ".cache/reference/bin/ockam")
	if _, err := exec.LookPath(path); err != nil {
		return ""
	}
	return path
}

func readRecorded(t *testing.T) map[string]record {
	t.Helper()
	b, err := os.ReadFile(recordedPath)
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[string]record{}
	if err := json.Unmarshal(b, &recorded); err != nil {
		t.Fatal(err)
	}
	return recorded
}

// difference is a line of testdata/differences.txt: a command line that does something else here, in which respects, and why.
type difference struct {
	aspects []string
	reason  string
}

func readDifferences(t *testing.T) map[string]difference {
	t.Helper()
	b, err := os.ReadFile("testdata/differences.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]difference{}
	for n, line := range strings.Split(string(b), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, " | ")
		if len(fields) != 4 || fields[3] == "" {
			t.Fatalf("differences.txt:%d: the form is: scenario | command | aspects | reason", n+1)
		}
		aspects := strings.Split(fields[2], ",")
		slices.Sort(aspects)
		out[fields[0]+" | "+fields[1]] = difference{aspects, fields[3]}
	}
	return out
}

// TestDifferencesDocumented compares testdata/differences.txt with what users are told.
func TestDifferencesDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	known, told := map[string]bool{}, map[string]bool{}
	for key := range readDifferences(t) {
		_, text, _ := strings.Cut(key, " | ")
		known[regexp.MustCompile(` #[0-9]+$`).ReplaceAllString(text, "")] = true
	}
	for _, line := range strings.Split(string(b), "\n") {
		cells := strings.Split(line, " | ")
		if len(cells) != 4 || !strings.HasPrefix(line, "| `") {
			continue
		}
		for _, quoted := range strings.Split(strings.TrimPrefix(cells[0], "| "), "<br>") {
			told[strings.Trim(quoted, "`")] = true
		}
	}
	for text := range known {
		if !told[text] {
			t.Errorf("docs/cli-differences.md lacks the command line `%s`", text)
		}
	}
	for text := range told {
		if !known[text] {
			t.Errorf("docs/cli-differences.md has the command line `%s`, which is not in testdata/differences.txt", text)
		}
	}
}

// judge compares what is done here with what the reference does, given the differences that are known.
func judge(t *testing.T, key string, theirs, here digest, known map[string]difference) {
	t.Helper()
	d := differing(theirs, here)
	slices.Sort(d)
	want := known[key].aspects
	switch {
	case slices.Equal(d, want):
	case len(d) == 0:
		t.Errorf("%s\n    does not differ any more in: %s. Take it out of testdata/differences.txt", key, strings.Join(want, ", "))
	default:
		t.Errorf("%s\n    differs in: %s\n%s", key, strings.Join(d, ", "), changes(theirs, here))
	}
}

// TestCLIAgainstReference runs every command line of the table through the reference and through this program.
func TestCLIAgainstReference(t *testing.T) {
	path := reference()
	if path == "" {
		t.Skip("the reference is not installed: set REFERENCE to its program (interop/install-reference builds it)")
	}
	if testing.Short() {
		t.Skip("-short")
	}
	names, scenarios := readTable(t)
	known := readDifferences(t)
	last := readRecorded(t)
	var mu sync.Mutex
	recorded := map[string]record{}
	parallel(t, names, func(t *testing.T, name string) {
		theirs := play(t, newProgram(t, path), scenarios[name])
		here := play(t, ours(t), scenarios[name])
		mu.Lock()
		defer mu.Unlock()
		for _, c := range scenarios[name] {
			if c.file != "" {
				continue
			}
			// What the reference says on standard error after success is sometimes lost as it ends: once recorded is enough.
			if before := last[c.key].Reference; before.Stderr && theirs[c.key].Exit == 0 && before.Stdout == theirs[c.key].Stdout {
				theirs[c.key] = before
			}
			judge(t, c.key, theirs[c.key], here[c.key], known)
			r := record{Reference: theirs[c.key]}
			if h := here[c.key]; h != r.Reference {
				r.Here = &h
			}
			recorded[c.key] = r
		}
	})
	if *update {
		b, err := json.MarshalIndent(recorded, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(recordedPath, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// parallel runs f for each scenario, and returns when all have ended.
func parallel(t *testing.T, names []string, f func(*testing.T, string)) {
	t.Run("scenarios", func(t *testing.T) {
		for _, name := range names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t, name)
			})
		}
	})
}

// TestCLIRecorded runs every command line of the table and compares with what the reference did when it was recorded. It needs
// no reference.
func TestCLIRecorded(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	recorded := readRecorded(t)
	names, scenarios := readTable(t)
	known := readDifferences(t)
	var count atomic.Int32
	parallel(t, names, func(t *testing.T, name string) {
		here := play(t, ours(t), scenarios[name])
		for _, c := range scenarios[name] {
			if c.file != "" {
				continue
			}
			count.Add(1)
			r, ok := recorded[c.key]
			if !ok {
				t.Errorf("%s is not recorded: go test -run TestCLIAgainstReference -update", c.key)
				continue
			}
			judge(t, c.key, r.Reference, here[c.key], known)
			if d := known[c.key]; r.Here != nil && *r.Here != here[c.key] && d.reason != "" {
				t.Errorf("%s\n    is a known difference (%s), but does something else than it did\n%s", c.key, d.reason, changes(*r.Here, here[c.key]))
			}
		}
	})
	if count.Load() < 150 {
		t.Errorf("the table has %d command lines, fewer than 150", count.Load())
	}
	for key := range known {
		if _, ok := recorded[key]; !ok {
			t.Errorf("testdata/differences.txt names a command line that is not in the table: %s", key)
		}
	}
}
