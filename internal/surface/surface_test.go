package surface

import (
	"flag"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/surface.txt")

// public are the packages that are for other modules (docs/library.md).
var public = []string{
	"client", "crypto/channel", "crypto/identity", "crypto/vault", "limits", "policy", "portal/httpheader", "portal/proxyproto", "proxy",
	"routing/multiaddr",
}

// platform is one for all machines, so that the listing is the same on each.
func platform() *build.Context {
	ctx := build.Default
	ctx.GOOS, ctx.GOARCH, ctx.CgoEnabled, ctx.BuildTags = "linux", "amd64", false, nil
	return &ctx
}

// TestSurface: what packages for others export is what is written down. Whoever changes it says so.
func TestSurface(t *testing.T) {
	var now []string
	for _, name := range public {
		lines, err := Of(platform(), filepath.Join("..", "..", name), name)
		if err != nil {
			t.Fatal(err)
		}
		now = append(now, lines...)
	}
	const file = "testdata/surface.txt"
	if *update {
		if err := os.WriteFile(file, []byte(strings.Join(now, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if gone, come := compare(strings.Split(strings.TrimSpace(string(b)), "\n"), now); len(gone)+len(come) > 0 {
		t.Errorf("what other modules see has changed; what is gone or different breaks them.\n%s%sIf that is meant: go test ./internal/surface -update, and a line in CHANGELOG.md.",
			mark("gone: ", gone), mark("new:  ", come))
	}
}

func mark(word string, lines []string) (out string) {
	for _, l := range lines {
		out += word + l + "\n"
	}
	return out
}

// compare returns the lines of before that are not in now, and the other way round.
func compare(before, now []string) (gone, come []string) {
	for _, l := range before {
		if !slices.Contains(now, l) {
			gone = append(gone, l)
		}
	}
	for _, l := range now {
		if !slices.Contains(before, l) {
			come = append(come, l)
		}
	}
	return gone, come
}

// TestExamples: a package for others says what it is for and shows it in an example that is run.
func TestExamples(t *testing.T) {
	for _, name := range public {
		p, err := platform().ImportDir(filepath.Join("..", "..", name), build.ImportComment)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Doc) == 0 {
			t.Errorf("%s has no package comment", name)
		}
		found := false
		for _, file := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				e, ok := d.(*ast.FuncDecl)
				if !ok || !strings.HasPrefix(e.Name.Name, "Example") {
					continue
				}
				for _, c := range f.Comments {
					found = found || c.Pos() > e.Pos() && c.End() < e.End() && strings.HasPrefix(strings.ToLower(c.Text()), "output:")
				}
			}
		}
		if !found && name != "client" { // a client needs a project; its examples compile, and those of docs/library.md and examples are run
			t.Errorf("%s has no example with an output", name)
		}
	}
}

// TestOf: what a listing has, and what it leaves out.
func TestOf(t *testing.T) {
	dir := t.TempDir()
	source := `package p

const A, b = 1, 2
var V int
type T struct { X, y int; Z func() error; *E }
type E struct{}
type I interface { M(int) string; hidden() }
type u struct { X int }
type G[K comparable] struct { K K }
func (t *T) Do(a, b int) (n int, err error) { return 0, nil }
func (u) Do() {}
func (g *G[K]) Get() K { return g.K }
func F(x ...string) {}
func f() {}
`
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Of(platform(), dir, "p")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"p: G.K K", "p: I.M(int) string", "p: I.hidden()", "p: T embeds *E", "p: T.X int", "p: T.Z func() error", "p: const A = 1", "p: func (g *G[K]) Get() K",
		"p: func (t *T) Do(a, b int) (n int, err error)", "p: func F(x ...string)", "p: type E struct", "p: type G[K comparable] struct", "p: type I interface",
		"p: type T struct", "p: var V int",
	}
	if gone, come := compare(want, got); len(gone)+len(come) > 0 {
		t.Errorf("%s%s", mark("not there: ", gone), mark("not wanted: ", come))
	}
}
