package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestElsewhere: a test that is said to play the examples of a command runs that command.
func TestElsewhere(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]string{} // what the strings of each test say
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			var words []string
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						words = append(words, strings.Fields(text)...)
					}
				}
				return true
			})
			said[f.Name.Name] = " " + strings.Join(words, " ") + " "
		}
	}
	for command, test := range elsewhere {
		if cmd, rest, err := testRoot().Find(strings.Fields(command)[1:]); err != nil || len(rest) > 0 || !cmd.HasExample() {
			t.Errorf("%s has no examples", command)
		}
		if text, ok := said[test]; !ok {
			t.Errorf("%s: there is no %s", command, test)
		} else if !strings.Contains(text, " "+command+" ") {
			t.Errorf("%s does not run %s", test, command)
		}
	}
}
