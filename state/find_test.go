package state

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

// TestBehind: who listens at a socket is found, and nobody where nobody does.
func TestBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if p, ok := behind(path); ok {
		t.Errorf("process %d listens at no socket", p.PID)
	}
	ln, err := net.Listen("unix", path)
	must(t, err)
	me, err := CurrentProcess()
	must(t, err)
	if p, ok := behind(path); !ok || p != me {
		t.Errorf("%+v, %v; want %+v", p, ok, me)
	}
	must(t, ln.Close())
	must(t, os.WriteFile(path, nil, 0o600))
	if p, ok := behind(path); ok {
		t.Errorf("process %d listens at a file", p.PID)
	}
}

// TestFindRunning leaves out the caller, and what only looks at a node's files.
func TestFindRunning(t *testing.T) {
	d := open(t)
	me, err := CurrentProcess()
	must(t, err)
	_, err = d.CreateNode(t.Context(), Node{Name: "n1", Process: me})
	must(t, err)
	log, err := os.Create(d.file("nodes", "n1", "stdout.2026-01-01.log"))
	must(t, err)
	defer log.Close()
	if found := d.FindRunning(); len(found) != 0 {
		t.Errorf("found %+v", found)
	}
	if startsNode(os.Getpid()) {
		t.Error("a test is taken for a node")
	}
	for path, want := range map[string]string{
		d.file("nodes", "n1", "stdout.2026-01-01.log"): "n1", d.file("nodes", "n1", "admin.sock"): "n1", d.file("authority-p.db"): "",
	} {
		if name, ok := d.nodeOf(path); !ok || name != want {
			t.Errorf("%s is of %q, %v", path, name, ok)
		}
	}
	for _, path := range []string{"/tmp/x", d.file("identities.json"), d.Path() + "x/nodes/n1/y"} {
		if name, ok := d.nodeOf(path); ok {
			t.Errorf("%s is of node %q", path, name)
		}
	}
}
