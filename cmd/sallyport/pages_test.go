//go:build !small

package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// call runs a command line inside the test.
func call(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot(newApp(strings.NewReader(""), &out, &errs))
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return out.String()
}

// TestPages checks that every command that help shows has a page in each form, and that nothing in a manual page is taken for a request.
func TestPages(t *testing.T) {
	dir := t.TempDir()
	call(t, "manpages", "--dir", filepath.Join(dir, "plain"), "-n")
	call(t, "manpages", "--dir", filepath.Join(dir, "packed"))
	call(t, "markdown", "--dir", filepath.Join(dir, "markdown"))
	pages := 0
	root := newRoot(newApp(strings.NewReader(""), io.Discard, io.Discard))
	root.InitDefaultHelpCmd()
	walk(root, func(c *cobra.Command) {
		if hidden(c) {
			return
		}
		pages++
		plain, err := os.ReadFile(filepath.Join(dir, "plain", pageName(c)+".1"))
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(dir, "packed", pageName(c)+".1.gz"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		if packed, err := io.ReadAll(z); err != nil || !bytes.Equal(packed, plain) {
			t.Errorf("%s: the compressed page is another one (%v)", c.CommandPath(), err)
		}
		for _, line := range strings.Split(string(plain), "\n") {
			if strings.HasPrefix(line, ".") && !strings.HasPrefix(line, ".TH ") && !strings.HasPrefix(line, ".SH ") && !strings.HasPrefix(line, ".B ") &&
				line != ".TP" && line != ".nf" && line != ".fi" {
				t.Errorf("%s: %q is a request by accident", c.CommandPath(), line)
			}
		}
		markdown, err := os.ReadFile(filepath.Join(dir, "markdown", pageName(c)+".md"))
		if err != nil || !strings.Contains(string(markdown), c.Short) {
			t.Errorf("%s: %q, %v", c.CommandPath(), markdown, err)
		}
		for _, name := range []string{"--dir", "--allow"} {
			if c.LocalFlags().Lookup(name[2:]) != nil && (!strings.Contains(string(plain), roff(name)) || !strings.Contains(string(markdown), name)) {
				t.Errorf("%s: no %s in its pages", c.CommandPath(), name)
			}
		}
	})
	for _, form := range []string{"plain", "packed", "markdown"} {
		list, err := os.ReadDir(filepath.Join(dir, form))
		if err != nil || len(list) != pages {
			t.Errorf("%s: %d pages for %d commands (%v)", form, len(list), pages, err)
		}
	}
	if got := roff(".TH a-b\\\n'x"); got != "\\&.TH a\\-b\\e\n\\&'x" {
		t.Errorf("roff: %q", got)
	}
}

// TestSuggestions checks that a misspelt command or flag is answered with the right one.
func TestSuggestions(t *testing.T) {
	for line, want := range map[string]string{
		"nod list":                       "'node'",
		"node crate n1":                  "'create'",
		"tcp-inlt create":                "'tcp-inlet'",
		"tcp-outlet create --form x":     "'--from'",
		"node create --tcp-listener-adr": "'--tcp-listener-address'",
		"node list --outptu json":        "'--output'",
		"policy create --alow x":         "'--allow'",
	} {
		root := newRoot(newApp(strings.NewReader(""), io.Discard, io.Discard))
		root.SetArgs(strings.Fields(line))
		if err := root.Execute(); err == nil || !strings.Contains(hintOf(err), want) {
			t.Errorf("%s: %v, hint %q; want %s", line, err, hintOf(err), want)
		}
	}
}
