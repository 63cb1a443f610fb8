// Package surface lists what packages export, as text that a diff of is a list of what changed for others.
package surface

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/printer"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// Of returns a line for each exported constant, variable, function, method, type, field of a struct and method of an interface of the package in dir,
// as it is built for the platform ctx, sorted. Each line begins with the word package and its name.
func Of(ctx *build.Context, dir, name string) ([]string, error) {
	p, err := ctx.ImportDir(dir, 0)
	if err != nil {
		return nil, err
	}
	l := &list{prefix: name + ": ", files: token.NewFileSet()}
	for _, file := range p.GoFiles {
		f, err := parser.ParseFile(l.files, filepath.Join(dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			l.declaration(d)
		}
	}
	slices.Sort(l.lines)
	return l.lines, nil
}

type list struct {
	prefix string
	files  *token.FileSet
	lines  []string
}

func (l *list) add(format string, args ...any) {
	l.lines = append(l.lines, l.prefix+fmt.Sprintf(format, args...))
}

// text prints a node on one line, without comments.
func (l *list) text(node any) string {
	var b bytes.Buffer
	if err := printer.Fprint(&b, l.files, node); err != nil {
		panic(err) // it was parsed
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func (l *list) declaration(d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d.Recv.List[0].Type))) {
			l.add("%s", l.text(&ast.FuncDecl{Recv: d.Recv, Name: d.Name, Type: d.Type}))
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.ValueSpec:
				l.values(d.Tok, s)
			case *ast.TypeSpec:
				if s.Name.IsExported() {
					l.typ(s)
				}
			}
		}
	}
}

func receiver(e ast.Expr) string {
	for {
		switch t := e.(type) {
		case *ast.StarExpr:
			e = t.X
		case *ast.IndexExpr:
			e = t.X
		case *ast.Ident:
			return t.Name
		default:
			return ""
		}
	}
}

// values lists constants with their values, as others' programs have them compiled in, and variables without.
func (l *list) values(tok token.Token, s *ast.ValueSpec) {
	for i, name := range s.Names {
		if !name.IsExported() {
			continue
		}
		line := tok.String() + " " + name.Name
		if s.Type != nil {
			line += " " + l.text(s.Type)
		}
		if tok == token.CONST && i < len(s.Values) {
			line += " = " + l.text(s.Values[i])
		}
		l.add("%s", line)
	}
}

func (l *list) typ(s *ast.TypeSpec) {
	head := "type " + s.Name.Name
	if s.TypeParams != nil {
		var names []string
		for _, f := range s.TypeParams.List {
			for _, n := range f.Names {
				names = append(names, n.Name+" "+l.text(f.Type))
			}
		}
		head += "[" + strings.Join(names, ", ") + "]"
	}
	if s.Assign.IsValid() {
		head += " ="
	}
	switch t := s.Type.(type) {
	case *ast.StructType:
		l.add("%s struct", head)
		for _, f := range t.Fields.List {
			typ := l.text(f.Type)
			for _, n := range f.Names {
				if n.IsExported() {
					l.add("%s.%s %s", s.Name.Name, n.Name, typ)
				}
			}
			if len(f.Names) == 0 && ast.IsExported(receiver(f.Type)) {
				l.add("%s embeds %s", s.Name.Name, typ)
			}
		}
	case *ast.InterfaceType:
		l.add("%s interface", head)
		for _, f := range t.Methods.List {
			if len(f.Names) == 0 {
				l.add("%s embeds %s", s.Name.Name, l.text(f.Type))
			}
			for _, n := range f.Names {
				l.add("%s.%s%s", s.Name.Name, n.Name, strings.TrimPrefix(l.text(f.Type), "func"))
			}
		}
	default:
		l.add("%s %s", head, l.text(s.Type))
	}
}
