package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/await"
)

// state is the path of a file of the program's state.
func (p *program) state(elem ...string) string {
	return filepath.Join(append([]string{p.dir, "state"}, elem...)...)
}

// overwrite makes a file's content, whatever was there.
func overwrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBrokenNodeAmongOthers: a node whose record is broken or gone keeps nobody from the others, does not run twice, and can be deleted.
func TestBrokenNodeAmongOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	for name, breakIt := range map[string]func(t *testing.T, p *program){
		"broken": func(t *testing.T, p *program) { overwrite(t, p.state("nodes", "n2", "node.json"), "x") },
		"gone": func(t *testing.T, p *program) {
			if err := os.Remove(p.state("nodes", "n2", "node.json")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := ours(t)
			p.must(t, "identity", "create", "mine")
			p.must(t, "identity", "create", "other")
			for _, node := range []string{"n1", "n2", "n3"} {
				p.must(t, "node", "create", node)
			}
			running := len(p.processes())
			breakIt(t, p)
			for _, args := range [][]string{{"node", "list", "--jq", ".[].node_name"}, {"status", "--jq", ".nodes[].name"}} {
				o := p.runWith(t, "", nil, args...)
				if names := strings.Fields(strings.ReplaceAll(o.stdout, `"`, "")); o.code != exitOK || strings.Join(names, " ") != "n1 n3" || !strings.Contains(o.stderr, "n2") {
					t.Errorf("%v: exit code %d, %q, %q", args, o.code, o.stdout, o.stderr)
				}
			}
			if o := p.runWith(t, "", nil, "doctor", "--output", "json"); o.code != exitDiffers || !strings.Contains(o.stdout, `"node n2"`) || !strings.Contains(o.stdout, `"node n3, resources"`) {
				t.Errorf("the doctor: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
			}
			p.fails(t, "n2", "identity", "delete", "other", "--yes")
			p.fails(t, "n2", "node", "show", "n2")
			p.fails(t, "n2", "node", "create", "n2")
			if now := len(p.processes()); now != running {
				t.Errorf("%d processes, there were %d", now, running)
			}
			if out := p.must(t, "node", "show", "n1", "--jq", ".status"); !strings.Contains(out, "running") {
				t.Errorf("n1 is %s", out)
			}
			p.must(t, "node", "stop", "n1")
			p.must(t, "node", "start", "n1")
			p.must(t, "node", "delete", "n1", "--yes")
			if name == "broken" {
				p.must(t, "node", "delete", "n2", "--yes")
			} else {
				p.must(t, "node", "delete", "--all", "--yes")
				if out := p.must(t, "node", "list"); strings.TrimSpace(out) != "[]" {
					t.Errorf("nodes %s", out)
				}
				running--
			}
			await.True(t, "processes end", func() bool { return len(p.processes()) == running-2 })
			p.must(t, "node", "create", "n2")
			p.must(t, "identity", "delete", "other", "--yes")
		})
	}
}

// TestBrokenDefaultNode: with a broken file of which node is the default all nodes can be used by name, and choosing another default mends it.
func TestBrokenDefaultNode(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	for _, node := range []string{"n1", "n2"} {
		p.must(t, "node", "create", node)
	}
	overwrite(t, p.state("nodes.json"), "x")
	if o := p.runWith(t, "", nil, "node", "list", "--jq", ".[].node_name"); o.code != exitOK || !strings.Contains(o.stdout, "n2") || !strings.Contains(o.stderr, "nodes.json") {
		t.Errorf("exit code %d, %s%s", o.code, o.stdout, o.stderr)
	}
	p.must(t, "node", "show", "n1")
	p.must(t, "node", "stop", "n1")
	p.must(t, "node", "start", "n1")
	p.must(t, "tcp-outlet", "create", "--at", "n1", "--to", "127.0.0.1:1")
	p.fails(t, "nodes.json", "node", "show")
	p.must(t, "node", "create", "n3")
	p.must(t, "node", "delete", "n1", "--yes")
	p.must(t, "node", "default", "n2")
	p.must(t, "node", "show")
	p.must(t, "node", "delete", "--all", "--yes")
}

// TestBrokenFilesAreNotNothing: what is in a file that cannot be read is not said to be not there, and the doctor says which file it is.
func TestBrokenFilesAreNotNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	p.must(t, "identity", "create", "i1")
	for file, lines := range map[string][]string{
		"identities.json": {"identity show i1", "identity show", "identity delete i1 --yes", "identity delete --all --yes", "identity create i1"},
		"vaults.json":     {"vault show default", "vault show", "vault delete default --yes", "vault delete --all --yes", "vault move default --path x", "vault encrypt default --key-file x", "identity rotate i1 --vault default"},
		"projects.json": {"project show p", "project show", "project delete p --yes", "project information", "project ticket", "project ticket --project p", "relay create r",
			"tcp-inlet create --to x", "kafka-inlet create", "lease list"},
	} {
		t.Run(file, func(t *testing.T) {
			before, err := os.ReadFile(p.state(file))
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			overwrite(t, p.state(file), "x")
			for _, line := range lines {
				p.fails(t, file+" is broken", strings.Fields(line)...)
			}
			if o := p.runWith(t, "", nil, "doctor", "--jq", `.[] | select(.state == "fail") | .check + ": " + .detail`); o.code != exitDiffers ||
				!strings.Contains(o.stdout, strings.TrimSuffix(file, ".json")+": ") || !strings.Contains(o.stdout, file+" is broken") {
				t.Errorf("the doctor: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
			}
			if before == nil {
				err = os.Remove(p.state(file))
			} else {
				err = os.WriteFile(p.state(file), before, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
	p.fails(t, "no project with name nope", "project", "ticket", "--project", "nope")
}

// TestDeleteAllLeavesWhatIsInUse: with --all what cannot be deleted is told of, and the rest is deleted, as the reference does.
func TestDeleteAllLeavesWhatIsInUse(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	for _, name := range []string{"i1", "i2", "i3"} {
		p.must(t, "identity", "create", name)
	}
	p.must(t, "vault", "create", "z")
	p.must(t, "node", "create", "n1", "--identity", "i2")
	for _, c := range []struct{ kind, left, deleted, jq string }{
		{"identity", "i2", "i1i3", ".[].name"}, {"vault", "default", "z", ".[].vault.name"},
	} {
		o := p.runWith(t, "", nil, c.kind, "delete", "--all", "--yes")
		if o.code != exitOK || !strings.Contains(o.stderr, "! Failed to delete "+c.kind+" "+c.left) || strings.Join(strings.Fields(o.stdout), "") != c.deleted {
			t.Errorf("%s: exit code %d, %q, %q", c.kind, o.code, o.stdout, o.stderr)
		}
		if left := p.must(t, c.kind, "list", "--jq", c.jq); strings.Trim(left, `"`) != c.left {
			t.Errorf("%s: %s", c.kind, left)
		}
		p.fails(t, "in use", c.kind, "delete", c.left, "--yes")
	}
	for _, kind := range []string{"tcp-inlet", "tcp-outlet", "kafka-inlet", "relay"} { // there are none
		if out := p.must(t, kind, "delete", "--all", "--yes"); out != "[]" {
			t.Errorf("%s: %q", kind, out)
		}
	}
}

// TestNothingInAnEmptyHome: in an empty home scripts get an empty list, as from the reference.
func TestNothingInAnEmptyHome(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	for _, line := range []string{"vault show", "vault show v", "vault delete v -y", "vault delete --all -y", "identity delete i1 -y", "identity delete i1", "identity delete --all -y",
		"node show n", "node delete n -y", "node delete --all -y"} {
		if out := p.must(t, strings.Fields(line)...); out != "[]" {
			t.Errorf("%s: %q", line, out)
		}
	}
}
