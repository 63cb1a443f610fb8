// Command notices prints the licences of what is linked into a program: those of Go and of each module, as whoever passes the program on has to.
//
//	go run ./packaging/notices PROGRAM
package main

import (
	"bufio"
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"sort"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: notices PROGRAM")
		os.Exit(2)
	}
	out := bufio.NewWriter(os.Stdout)
	err := write(out, os.Args[1])
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

// write writes a heading and the licence files of Go and of every module that the program was built from, in the order of their names.
func write(out io.Writer, program string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	fmt.Fprintln(out, "The program contains the following, under these licences.")
	if err := licences(out, "Go "+info.GoVersion, strings.TrimSpace(string(root))); err != nil {
		return err
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		dir, err := directory(m)
		if err == nil {
			err = licences(out, m.Path+" "+m.Version, dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// directory returns where the module cache has a module.
func directory(m *debug.Module) (string, error) {
	b, err := exec.Command("go", "mod", "download", "-json", m.Path+"@"+m.Version).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", m.Path, err)
	}
	var is struct{ Dir string }
	if err := json.Unmarshal(b, &is); err != nil {
		return "", fmt.Errorf("%s: %w", m.Path, err)
	}
	return is.Dir, nil
}

// licences writes the files in a directory that are named as licences are. None is an error: what has no licence may not be passed on.
func licences(out io.Writer, what, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var names []string
	for _, e := range entries {
		for _, start := range []string{"LICEN", "COPYING", "NOTICE", "PATENTS"} {
			if e.Type().IsRegular() && strings.HasPrefix(strings.ToUpper(e.Name()), start) && !strings.HasSuffix(e.Name(), ".go") {
				names = append(names, e.Name())
			}
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("%s: no licence in %s", what, dir)
	}
	sort.Strings(names)
	fmt.Fprintf(out, "\n%s\n%s\n", strings.Repeat("=", 78), what)
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "\n%s\n\n%s\n", name, bytes.TrimSpace(b))
	}
	return nil
}
