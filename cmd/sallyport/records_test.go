package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCLIRecords: both ends of a portal leave records, signed if that is asked for, that agree; what was changed afterwards is found.
func TestCLIRecords(t *testing.T) {
	t.Parallel()
	p := ours(t)
	p.must(t, "identity", "create", "a")
	p.must(t, "identity", "create", "b")
	near := filepath.Join(t.TempDir(), "near.jsonl")
	p.must(t, "node", "create", "n1", "--identity", "a", "--receipts", "--records", near)
	p.must(t, "node", "create", "n2", "--identity", "b", "--receipts")
	far := filepath.Join(p.dir, "state", "nodes", "n2", recordsName)
	p.must(t, "tcp-outlet", "create", "--at", "n2", "--to", echoServer(t, "0"))
	port := freePort(t)
	p.must(t, "tcp-inlet", "create", "in", "--at", "n1", "--from", port, "--to", "/node/n2/secure/api/service/outlet", "--tell-client")
	eventuallyExchange(t, "portal", port)
	var said struct {
		Files []struct {
			Records, Unsigned int
			Identity          string
		}
		Comparison struct {
			Agreed      int
			Differences []any
		}
	}
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		o := p.runWith(t, "", nil, "receipts", "verify", near, far, "--output", "json")
		if o.code == exitOK && json.Unmarshal([]byte(o.stdout), &said) == nil && said.Comparison.Agreed > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d %s%s", o.code, o.stdout, o.stderr)
		}
	}
	for i, name := range []string{"a", "b"} {
		if id := strings.TrimSpace(p.must(t, "identity", "show", name)); said.Files[i].Identity != id {
			t.Errorf("%s signed, not %s", said.Files[i].Identity, id)
		}
	}
	b, err := os.ReadFile(far)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"client":"127.0.0.1:`) || !strings.Contains(string(b), `"end":"outlet","portal":"outlet"`) {
		t.Errorf("%s", b)
	}
	changed := filepath.Join(t.TempDir(), "changed.jsonl")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(b), `"ended_by":"`, `"ended_by":"x`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := p.runWith(t, "", nil, "receipts", "verify", changed); o.code != exitSoftware || !strings.Contains(o.stderr, "line 2: record 1, or one before it, was changed") {
		t.Errorf("%d %s%s", o.code, o.stdout, o.stderr)
	}
	if o := p.runWith(t, "", nil, "node", "create", "n3", "--receipts", "--records", "log"); o.code == exitOK || !strings.Contains(o.stderr, "needs a file") {
		t.Errorf("%d %s", o.code, o.stderr)
	}
	if o := p.runWith(t, "", nil, "node", "create", "n3", "--records", filepath.Join(t.TempDir(), "no", "such", "r.jsonl")); o.code != exitSoftware || !strings.Contains(o.stderr, "--records") {
		t.Errorf("%d %s", o.code, o.stderr)
	}
}
