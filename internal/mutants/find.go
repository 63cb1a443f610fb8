package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mutant is one change to one file.
type mutant struct {
	file       string // path
	line, col  int
	what       string
	start, end int // bytes of the file that are replaced
	with       string
	kind       kind
	from, to   int // bytes of the expression or statement that is changed
}

// kind is what a mutant changes.
type kind uint8

const (
	negated kind = iota // the truth of a condition
	swapped             // one operator for another, of truth values or comparisons
	summed              // a sum for a difference, or the other way round
	returns             // a truth value that is returned
	leftOut             // a statement
)

func (m mutant) String() string { return fmt.Sprintf("%s:%d: %s", m.file, m.line, m.what) }

// apply returns the changed text of the file.
func (m mutant) apply(text []byte) []byte {
	return bytes.Join([][]byte{text[:m.start], []byte(m.with), text[m.end:]}, nil)
}

// swaps are operators that stand for one another.
var swaps = map[token.Token]token.Token{
	token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR, token.EQL: token.NEQ, token.NEQ: token.EQL,
	token.LAND: token.LOR, token.LOR: token.LAND, token.ADD: token.SUB, token.SUB: token.ADD,
}

// find returns the changes that can be made to a file.
func find(path string) ([]mutant, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var list []mutant
	add := func(k kind, of ast.Node, from, to token.Pos, with, what string) {
		start, end := set.Position(from), set.Position(to)
		list = append(list, mutant{
			file: path, line: start.Line, col: start.Column, what: what, start: start.Offset, end: end.Offset, with: with,
			kind: k, from: set.Position(of.Pos()).Offset, to: set.Position(of.End()).Offset,
		})
	}
	source := func(n ast.Node) string {
		return string(text[set.Position(n.Pos()).Offset:set.Position(n.End()).Offset])
	}
	conditions := map[ast.Expr]bool{} // == for != would make the same program again
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			return n.Tok == token.VAR // a constant's change is seldom a decision
		case *ast.CallExpr:
			return !isHint(n) && !isLog(n)
		case *ast.IfStmt:
			conditions[n.Cond] = true
			add(negated, n.Cond, n.Cond.Pos(), n.Cond.End(), "!("+source(n.Cond)+")", "condition negated: "+short(source(n.Cond)))
		case *ast.BinaryExpr:
			if with, ok := swaps[n.Op]; ok && !strings.Contains(source(n), `"`) && !(conditions[n] && (n.Op == token.EQL || n.Op == token.NEQ)) {
				k := swapped
				if n.Op == token.ADD || n.Op == token.SUB {
					k = summed
				}
				add(k, n, n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), with.String(), fmt.Sprintf("%s for %s: %s", with, n.Op, short(source(n))))
			}
		case *ast.ReturnStmt:
			for _, r := range n.Results {
				if id, ok := r.(*ast.Ident); ok && (id.Name == "true" || id.Name == "false") {
					other := strconv.FormatBool(id.Name != "true")
					add(returns, id, id.Pos(), id.End(), other, "returns "+other)
				}
			}
		case *ast.BlockStmt:
			for _, s := range n.List {
				switch s := s.(type) {
				case *ast.ExprStmt:
					if call, ok := s.X.(*ast.CallExpr); !ok || !isLog(call) {
						add(leftOut, s, s.Pos(), s.End(), "", "left out: "+short(source(s)))
					}
				case *ast.DeferStmt:
					if source(s.Call) != "cancel()" { // go vet refuses a context's cancel that is not called (lostcancel)
						add(leftOut, s, s.Pos(), s.End(), "", "left out: "+short(source(s)))
					}
				case *ast.IncDecStmt:
					add(leftOut, s, s.Pos(), s.End(), "", "left out: "+short(source(s)))
				case *ast.AssignStmt:
					if s.Tok != token.DEFINE && !isNothing(s) {
						add(leftOut, s, s.Pos(), s.End(), "", "left out: "+short(source(s)))
					}
				}
			}
		}
		return true
	})
	return list, nil
}

// isHint reports whether a call's numbers say how much memory to take beforehand: another number makes the same program.
func isHint(call *ast.CallExpr) bool {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		if f.Name != "make" || len(call.Args) == 0 {
			return false
		}
		_, isMap := call.Args[0].(*ast.MapType)
		return isMap || len(call.Args) == 3
	case *ast.SelectorExpr:
		return f.Sel.Name == "Grow"
	}
	return false
}

// isLog reports whether a call writes a record to a log: its text is for people.
func isLog(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	switch f.Sel.Name {
	case "Debug", "Info", "Warn", "Error", "DebugContext", "InfoContext", "WarnContext", "ErrorContext":
		return len(call.Args) > 0
	}
	return false
}

// isNothing reports whether a statement only says that a name is meant to be unused.
func isNothing(s *ast.AssignStmt) bool {
	to, isName := s.Lhs[0].(*ast.Ident)
	if _, isCall := s.Rhs[0].(*ast.CallExpr); isCall {
		return false
	}
	return len(s.Lhs) == 1 && isName && to.Name == "_"
}

// short is the first line of a text, not too long.
func short(text string) string {
	line, _, more := strings.Cut(text, "\n")
	if len(line) > 70 {
		line, more = line[:70], true
	}
	if more {
		line += " …"
	}
	return line
}

// productionFiles returns the files of a directory that are built here and are no tests.
func productionFiles(dir string, names []string) []string {
	var out []string
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || bytes.HasPrefix(text, []byte("// Code generated")) {
			continue
		}
		if formatted, err := format.Source(text); err == nil && len(formatted) > 0 {
			out = append(out, filepath.Join(dir, name))
		}
	}
	return out
}

// parseLines reads 10,20-30; the empty text means all lines.
func parseLines(text string) (func(line int) bool, error) {
	if text == "" {
		return func(int) bool { return true }, nil
	}
	wanted := map[int]bool{}
	for _, part := range strings.Split(text, ",") {
		first, last, found := strings.Cut(part, "-")
		if !found {
			last = first
		}
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || a > b || b-a > 1<<20 {
			return nil, fmt.Errorf("-lines: %q is neither a line nor a range of lines such as 10-20", part)
		}
		for ; a <= b; a++ {
			wanted[a] = true
		}
	}
	return func(line int) bool { return wanted[line] }, nil
}
