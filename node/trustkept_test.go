package node

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/node/admin"
	"sallyport/project"
	"sallyport/state"
)

// TestWhatIsKeptOfTrust: whom a node expects and who was revoked outlives a node whose resources do, and one within another program; a command keeps only whom it
// met, for all commands; another node nothing.
func TestWhatIsKeptOfTrust(t *testing.T) {
	dir, err := state.Open(t.TempDir())
	for _, name := range []string{"n", "other"} {
		if err == nil {
			_, err = dir.CreateNode(t.Context(), state.Node{Name: name})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	type trust interface {
		revocationStore
		pinStore
	}
	for what, c := range map[string]struct {
		home, again   Store
		revoked, pins bool
	}{
		"a node": {NewHome(dir, "n", true), NewHome(dir, "n", true), true, true}, "a node that keeps nothing": {NewHome(dir, "n", false), NewHome(dir, "n", true), false, false},
		"read by one that keeps nothing": {NewHome(dir, "n", true), NewHome(dir, "n", false), false, false},
		"a program":                      {NewClientHome(dir, "n"), NewClientHome(dir, "n"), true, true}, "another node": {NewHome(dir, "n", true), NewHome(dir, "other", true), false, false},
		"a command": {CommandHome(dir), CommandHome(dir), false, true}, "a command, and a node": {CommandHome(dir), NewHome(dir, "other", true), false, false},
	} {
		writes, reads := c.home.(trust), c.again.(trust)
		for _, name := range []string{"n", "other"} {
			if err := errors.Join(dir.PutRevoked(name, nil), dir.PutPins(name, nil), dir.PutCommandPins(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(writes.PutRevoked([]byte("revoked")), writes.PutPins([]byte("pins"))); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		revoked, err1 := reads.Revoked()
		pins, err2 := reads.Pins()
		if err1 != nil || err2 != nil || (string(revoked) == "revoked") != c.revoked || (len(revoked) > 0) != c.revoked || (string(pins) == "pins") != c.pins || (len(pins) > 0) != c.pins {
			t.Errorf("%s: %q, %v; %q, %v", what, revoked, err1, pins, err2)
		}
	}
}

// TestRoutesOfAProject: what is known of a project's further nodes, and of further authorities, is taken, and what is no route refused.
func TestRoutesOfAProject(t *testing.T) {
	p := newProject(t, 0)
	m := p.join(nil, "")
	p.know(m, m)
	stored, err := m.dir.Project("p")
	if err != nil {
		t.Fatal(err)
	}
	one, two := "/ip4/127.0.0.1/tcp/1/service/api", "/ip4/127.0.0.1/tcp/2/service/api"
	whole := changed(*stored.Project, func(r *project.Project) { r.AccessRoutes, r.AuthorityAccessRoutes = []string{one, two}, []string{two} })
	of, err := ProjectOf(&whole)
	if err != nil || len(of.Routes) != 2 || of.Routes[0].String() != one || of.Routes[1].String() != two {
		t.Errorf("%+v, %v", of, err)
	}
	trust, err := TrustOf(&whole)
	if err != nil || len(trust.Routes) != 1 || trust.Routes[0].String() != two || trust.Project != "p" || *trust.Authority != p.self {
		t.Errorf("%+v, %v", trust, err)
	}
	for what, change := range map[string]func(*project.Project){
		"access routes": func(r *project.Project) { r.AccessRoutes = []string{one, "nonsense"} }, "authority access routes": func(r *project.Project) { r.AuthorityAccessRoutes = []string{"nonsense"} },
	} {
		bad := changed(whole, change)
		if _, err := TrustOf(&bad); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestLearnedRoutesAreKept: what a node hears of further nodes and authorities is written into the project, each in its place, if it is new and a route; not by a
// node that keeps nothing.
func TestLearnedRoutesAreKept(t *testing.T) {
	p := newProject(t, 0)
	m := p.join(nil, "")
	p.know(m, m)
	root := t.TempDir()
	dir, err := state.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	known, err := m.dir.Project("p")
	if err == nil {
		err = dir.ImportProject(t.Context(), known.Project)
	}
	if err != nil {
		t.Fatal(err)
	}
	one, two := "/ip4/127.0.0.1/tcp/1/service/api", "/ip4/127.0.0.1/tcp/2/service/api"
	expect := func(what string, access, authorities []string) {
		t.Helper()
		s, err := dir.Project("p")
		if err != nil || !slices.Equal(s.Project.AccessRoutes, access) || !slices.Equal(s.Project.AuthorityAccessRoutes, authorities) || s.Project.AccessRoute != known.Project.AccessRoute {
			t.Errorf("%s: %v, %v, %v", what, s.Project.AccessRoutes, s.Project.AuthorityAccessRoutes, err)
		}
	}
	written := func() (last int64) {
		_ = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				if i, err := d.Info(); err == nil {
					last = max(last, i.ModTime().UnixNano())
				}
			}
			return nil
		})
		return last
	}
	home := NewHome(dir, "n", true).(routeStore)
	put := func(s Store, of routesOf, routes ...string) error {
		return s.(routeStore).PutRoutes(t.Context(), "p", of, routes)
	}
	if err := put(NewHome(dir, "n", false), projectRoutes, one); err != nil {
		t.Error(err)
	}
	expect("by a node that keeps nothing", nil, nil)
	for _, of := range []routesOf{projectRoutes, authorityRoutes} {
		if err := home.PutRoutes(t.Context(), "p", of, []string{one, two}[of:]); err != nil {
			t.Error(err)
		}
	}
	expect("both", []string{one, two}, []string{two})
	before := written()
	if err := home.PutRoutes(t.Context(), "p", projectRoutes, []string{one, two}); err != nil || written() != before {
		t.Errorf("the same again: %v, written %v", err, written() != before)
	}
	if err := home.PutRoutes(t.Context(), "p", projectRoutes, []string{"nonsense"}); err == nil {
		t.Error("what is no route")
	}
	expect("what is no route", []string{one, two}, []string{two})
	if err := home.PutRoutes(t.Context(), "none", projectRoutes, []string{one}); err == nil {
		t.Error("of no project")
	}
	if _, err := NewHome(dir, "n", true).Project(t.Context(), "none"); !errors.Is(err, admin.ErrNotFound) {
		t.Error(err)
	}
}
