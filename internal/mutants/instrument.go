package main

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// One program has all changes, each behind a switch, so that it is built once: the environment says which change is made. Whether the program
// comes to a change is written to a file, so a test is known to come there also through a process that it starts.

//go:embed switch.go.txt
var switchSource string

// What the program is told, by the environment.
const (
	envChange = "MUTANTS_CHANGE" // the number of the change that is made, from 1
	envSeen   = "MUTANTS_SEEN"   // the file for the numbers of those that the program comes to
)

// numbered is a change with its switch.
type numbered struct {
	mutant
	number int
}

// instrumented returns the text of a file with all changes, each behind its switch. No line is added.
func instrumented(text []byte, list []numbered) []byte {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b numbered) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to), cmp.Compare(a.kind, b.kind))
	})
	return render(text, 0, len(text), list)
}

// render returns a part of a text with those changes, outer ones first.
func render(text []byte, from, to int, list []numbered) (out []byte) {
	for len(list) > 0 {
		m := list[0]
		inside := 1
		for inside < len(list) && list[inside].to <= m.to {
			inside++
		}
		within := func(from, to int) []byte {
			return render(text, from, to, slices.DeleteFunc(slices.Clone(list[1:inside]), func(o numbered) bool { return o.from < from || o.to > to }))
		}
		whole := within(m.from, m.to)
		out = append(out, text[from:m.from]...)
		switch m.kind {
		case negated:
			out = fmt.Appendf(out, "(mutant_(%d) != (%s))", m.number, whole)
		case swapped:
			out = fmt.Appendf(out, "(mutant_(%d) && (%s%s%s) || !mutant_(%d) && (%s))", m.number, text[m.from:m.start], m.with, text[m.end:m.to], m.number, whole)
		case summed:
			out = fmt.Appendf(out, "mutantSum_(%d, %t, %s, %s)", m.number, m.with == "-", within(m.from, m.start), within(m.end, m.to))
		case returns:
			out = fmt.Appendf(out, "(mutant_(%d) != %s)", m.number, text[m.from:m.to])
		case leftOut:
			out = fmt.Appendf(out, "if !mutant_(%d) { %s }", m.number, whole)
		}
		from, list = m.to, list[inside:]
	}
	return append(out, text[from:to]...)
}

// errorLine is how the compiler says where an error is; of some it does not say the column.
var errorLine = regexp.MustCompile(`(?m)^(\S+\.go):(\d+)(?::\d+)?: `)

// buildAll builds the tests of a package with all changes of a list that can be built together. The others are returned: they are built one
// by one.
func buildAll(ctx context.Context, dir, pkgDir, program string, list []numbered) (alone []numbered, err error) {
	for {
		if err := instrument(dir, pkgDir, list); err != nil {
			return nil, err
		}
		err := build(ctx, pkgDir, program, "-overlay", filepath.Join(dir, "all.json"), "-gcflags=-e")
		if err == nil || ctx.Err() != nil {
			return alone, err
		}
		lines := map[string]bool{}
		for _, m := range errorLine.FindAllStringSubmatch(err.Error(), -1) {
			lines[strings.TrimPrefix(filepath.Base(m[1]), "all_")+":"+m[2]] = true
		}
		first := len(alone)
		for _, only := range []func(kind) bool{func(k kind) bool { return k == summed }, func(kind) bool { return true }} {
			list = slices.DeleteFunc(list, func(m numbered) bool {
				out := only(m.kind) && lines[filepath.Base(m.file)+":"+strconv.Itoa(m.line)]
				if out {
					alone = append(alone, m)
				}
				return out
			})
			if len(alone) > first {
				break
			}
		}
		if len(alone) == first {
			return nil, fmt.Errorf("the changes cannot be built together: %w", err)
		}
	}
}

// instrument writes the changed files, the switches, and what tells the compiler of them.
func instrument(dir, pkgDir string, list []numbered) error {
	files := map[string][]numbered{}
	for _, m := range list {
		files[m.file] = append(files[m.file], m)
	}
	pkg, replace := "", map[string]string{}
	for path, of := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if pkg == "" {
			if m := regexp.MustCompile(`(?m)^package (\w+)`).FindSubmatch(text); m != nil {
				pkg = string(m[1])
			}
		}
		changed := filepath.Join(dir, "all_"+filepath.Base(path))
		if err := os.WriteFile(changed, instrumented(text, of), 0o600); err != nil {
			return err
		}
		replace[path] = changed
	}
	switches := filepath.Join(dir, "switch.go")
	if err := os.WriteFile(switches, []byte("package "+pkg+"\n"+switchSource), 0o600); err != nil {
		return err
	}
	if pkg != "" {
		replace[filepath.Join(pkgDir, "zz_mutants_switch.go")] = switches
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "all.json"), overlay, 0o600)
}

// seen reads which changes a program came to.
func seen(path string) (map[int]bool, error) {
	raw, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	numbers := map[int]bool{}
	for i := 0; i+3 < len(raw); i += 4 {
		numbers[int(raw[i])|int(raw[i+1])<<8|int(raw[i+2])<<16|int(raw[i+3])<<24] = true
	}
	return numbers, nil
}
