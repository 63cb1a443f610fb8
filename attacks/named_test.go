package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestNamed: what the documents on security say is shown by a test, a file of tests, a row, or a target of make is there.
func TestNamed(t *testing.T) {
	tests := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(b), -1) {
			tests[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, r := range slices.Concat(rooms...) {
		rows[r.name] = true
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	target := regexp.MustCompile("`make ([a-z-]+)")
	quoted := regexp.MustCompile("`([^`\n]+)`")
	file := regexp.MustCompile(`^[a-z0-9/_.-]+/[a-z0-9_]+(_test)?\.go$`)
	for _, doc := range []string{"SECURITY.md", "docs/security.md", "docs/threat-model.md", "docs/limits.md", "docs/fuzzing.md", "ARCHITECTURE.md"} {
		b, err := os.ReadFile(filepath.Join("..", doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range named.FindAllString(string(b), -1) {
			if !tests[name] {
				t.Errorf("%s names %s, which is not there", doc, name)
			}
		}
		for _, m := range target.FindAllStringSubmatch(string(b), -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
				t.Errorf("%s names make %s, which is not there", doc, m[1])
			}
		}
		for _, m := range quoted.FindAllStringSubmatch(string(b), -1) {
			if file.MatchString(m[1]) {
				if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
					t.Errorf("%s names a file: %v", doc, err)
				}
			}
		}
	}
	// Each arrow has something that shows what holds; rows of the attack suite stand behind "row" or "rows" there.
	b, err := os.ReadFile("../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	arrows := 0
	for _, line := range strings.Split(string(b), "\n") {
		cells := strings.Split(line, " | ")
		if len(cells) != 6 || strings.HasPrefix(line, "| arrow") {
			continue
		}
		arrows++
		shown, list, _ := strings.Cut(strings.TrimSuffix(cells[5], " |"), "row")
		if !named.MatchString(shown) && list == "" {
			t.Errorf("nothing shows what holds for %s", cells[0])
		}
		for _, m := range quoted.FindAllStringSubmatch(list, -1) {
			if !rows[m[1]] {
				t.Errorf("the threat model names the row %s, which is not there", m[1])
			}
		}
	}
	if arrows < 10 {
		t.Errorf("%d arrows", arrows)
	}
	// In SECURITY.md they stand in brackets behind the command.
	if b, err = os.ReadFile("../SECURITY.md"); err != nil {
		t.Fatal(err)
	}
	lists := regexp.MustCompile("`make test-attacks` \\(([^)]*)\\)").FindAllStringSubmatch(string(b), -1)
	if len(lists) < 5 {
		t.Errorf("SECURITY.md names %d lists of rows", len(lists))
	}
	for _, list := range lists {
		for _, m := range quoted.FindAllStringSubmatch(list[1], -1) {
			if !rows[m[1]] {
				t.Errorf("SECURITY.md names the row %s, which is not there", m[1])
			}
		}
	}
}
