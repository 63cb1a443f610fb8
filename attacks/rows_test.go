package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestRows: names are unique, all that could once be done has a row, and the tests that stand for a row are there.
func TestRows(t *testing.T) {
	names, numbers := map[string]bool{}, map[int]bool{}
	for _, r := range slices.Concat(rooms...) {
		if names[r.name] {
			t.Errorf("two rows are called %s", r.name)
		}
		names[r.name], numbers[r.number] = true, true
		if r.attack == "" || r.promised == "" || (r.run == nil) == (r.proof == "") {
			t.Errorf("%s: attack %q, promised %q, proof %q", r.name, r.attack, r.promised, r.proof)
		}
		for _, room := range strings.Split(r.proof, "; ") {
			if r.proof != "" {
				proves(t, r.name, room)
			}
		}
	}
	for n := 1; n <= 30; n++ {
		if !numbers[n] {
			t.Errorf("nothing is done about %d", n)
		}
	}
}

// proves checks that a package, of this module, has the tests: "package: TestA, TestB".
func proves(t *testing.T, row, text string) {
	dir, tests, ok := strings.Cut(text, ": ")
	if !ok {
		t.Errorf("%s: proof %q", row, text)
		return
	}
	files, _ := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
	var source strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	for _, test := range strings.Split(tests, ", ") {
		if !regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(test) + `\(`).MatchString(source.String()) {
			t.Errorf("%s: %s has no %s", row, dir, test)
		}
	}
}

// TestLenient: what the loosest of servers might take for the header is found, wherever it is.
func TestLenient(t *testing.T) {
	for raw, want := range map[string]bool{
		"GET / HTTP/1.1\r\nX-Who: alice\r\n\r\n":                  false,
		"GET / HTTP/1.1\r\nX-Who: alice\r\nx_who :bob\r\n\r\n":    true,
		"GET / HTTP/1.1\r\nA: b\rX-WHO:\tbob\r\n\r\n":             true,
		"GET / HTTP/1.1\r\nA: b\x00X-Who: bob\r\n\r\n":            true,
		"GET / HTTP/1.1\r\n\vX-Who: bob\r\nX-Who: alice\r\n\r\n":  true,
		"GET / HTTP/1.1\r\nX-Whom: bob\r\nX-Who: alice\r\n\r\n":   false,
		"GET /?X-Who:bob HTTP/1.1\r\nX-Who: alice\r\nA: \r\n\r\n": false,
	} {
		if got := lenient(raw) != ""; got != want {
			t.Errorf("%q: %v", raw, got)
		}
	}
}
