package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// results is a file of what became of changes, so that a run that was cut short is gone on with. The file is of one state of a
// package's directory: with another state it begins anew. The zero value keeps nothing.
type results struct {
	file  *os.File
	known map[string]outcome
}

// openResults reads the file at a path and opens it for more. There is none when the path is empty.
func openResults(path, pkgDir string) (*results, error) {
	r := &results{known: map[string]outcome{}}
	if path == "" {
		return r, nil
	}
	names, err := filepath.Glob(filepath.Join(pkgDir, "*.go"))
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
	}
	head := fmt.Sprintf("%s %x\n", pkgDir, sum.Sum(nil))
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	rest, same := strings.CutPrefix(string(text), head)
	if !same {
		rest = ""
		if err := os.WriteFile(path, []byte(head), 0o600); err != nil {
			return nil, err
		}
	}
	for line := range strings.Lines(rest) {
		var got outcome
		number, key, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if _, err := fmt.Sscan(number, &got); ok && err == nil {
			r.known[key] = got
		}
	}
	r.file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	return r, err
}

func key(m mutant) string { return fmt.Sprintf("%s:%d:%d %s", m.file, m.line, m.col, m.what) }

func (r *results) of(m mutant) (outcome, bool) {
	got, ok := r.known[key(m)]
	return got, ok
}

func (r *results) add(m mutant, got outcome) error {
	if r.file == nil {
		return nil
	}
	_, err := fmt.Fprintf(r.file, "%d %s\n", got, key(m))
	return err
}

// Close closes the file, if there is one.
func (r *results) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
