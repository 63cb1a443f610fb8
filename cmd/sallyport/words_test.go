package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestWordsThatScriptsLookFor: messages of the reference that a script could look for are found here too.
func TestWordsThatScriptsLookFor(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	i1, i2 := p.must(t, "identity", "create", "i1"), p.must(t, "identity", "create", "i2")
	p.must(t, "node", "create", "n1")
	config := filepath.Join(p.dir, "c.yaml")
	if err := os.WriteFile(config, []byte("name: nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cred := p.must(t, "credential", "issue", "--as", "i1", "--for", i2, "--encoding", "hex")
	for _, c := range []struct {
		exit  int
		words string
		args  []string
	}{
		{70, "The identity named 'i1' is already the default", []string{"identity", "default", "i1"}},
		{70, "The node 'n1' is already the default", []string{"node", "default", "n1"}},
		{70, "because this is the default vault", []string{"vault", "move", "default", "--path", p.dir + "/moved"}},
		{70, "The vault nope was not found", []string{"vault", "move", "nope", "--path", p.dir + "/moved"}},
		{70, "Empty value for variable 'MY_VAR'", []string{"node", "create", config, "--variable", "MY_VAR="}},
		{70, "Empty value for variable 'MY_VAR'", []string{"node", "create", "--configuration", "name: ny", "--variable", "MY_VAR="}},
		{70, "Credential is not verified", []string{"credential", "store", "--issuer", i2, "--credential", cred, "--scope", "s"}},
		{0, "Credential is not verified", []string{"credential", "verify", "--issuer", i2, "--credential", cred}},
		{0, "Credential is not verified", []string{"credential", "verify", "--issuer", i1, "--credential", "zz"}},
		{64, "invalid value '(((' for '--allow <POLICY_EXPRESSION>'", []string{"policy", "create", "--resource", "x", "--allow", "((("}},
		{64, `invalid value '(= subject.a "b' for '--allow <POLICY_EXPRESSION>'`, []string{"tcp-outlet", "create", "--to", "5", "--allow", `(= subject.a "b`}},
		{64, "invalid value '' for '--allow <POLICY_EXPRESSION>'", []string{"policy", "create", "--resource", "x", "--allow", ""}},
		{64, "invalid value '(= a' for '--allow-consumer <POLICY_EXPRESSION>'", []string{"kafka-inlet", "create", "--to", "/service/x", "--allow-consumer", "(= a"}},
		{64, "invalid value '' for '--allow-producer <POLICY_EXPRESSION>'", []string{"kafka-inlet", "create", "--to", "/service/x", "--allow-producer", ""}},
		{64, "enroll", []string{"space", "create", "x"}},
		{70, "enroll", []string{"relay", "create", "r"}},
		{70, "The relay nope was not found", []string{"relay", "show", "nope"}},
		{70, "There is no node with name nope", []string{"node", "show", "nope"}},
	} {
		o := p.runWith(t, "", nil, c.args...)
		if o.code != c.exit || !strings.Contains(o.stdout+o.stderr, c.words) {
			t.Errorf("%q: exit code %d, wanted %d and %q\n%s%s", c.args, o.code, c.exit, c.words, o.stdout, o.stderr)
		}
	}
	empty := ours(t)
	for _, args := range [][]string{{"tcp-inlet", "list"}, {"relay", "list"}, {"service", "list"}, {"node", "logs"}, {"relay", "show", "x"}} {
		if o := empty.runWith(t, "", nil, args...); o.code != exitSoftware || !strings.Contains(o.stderr, "There is no default node") {
			t.Errorf("%q in an empty home: %+v", args, o)
		}
	}
	for _, args := range [][]string{{"project", "ticket", "list"}, {"project-member", "list"}, {"authority", "audit"}, {"lease", "list"}, {"project", "ticket"},
		{"project-member", "block", "I" + strings.Repeat("0", 64)}} {
		if o := empty.runWith(t, "", nil, args...); o.code != exitSoftware || !strings.Contains(o.stderr, "There is no default project") {
			t.Errorf("%q in an empty home: %+v", args, o)
		}
	}
	if o := empty.runWith(t, "", nil, "project-member", "list", "--project", "nope"); o.code != exitSoftware || !strings.Contains(o.stderr, "nope") {
		t.Errorf("members of a project that is not known: %+v", o)
	}
	if o := empty.runWith(t, "", nil, "identity", "show"); o.code != exitSoftware || !strings.Contains(o.stderr, "No default identifier found") {
		t.Errorf("identity show in an empty home: %+v", o)
	}
	if made, _ := filepath.Glob(filepath.Join(empty.dir, "state", "*")); len(made) > 0 {
		t.Errorf("looking made %v", made)
	}
}

// TestWhereNodesLog: a node in the background logs to a file of the reference's name; one in the foreground leaves no file, and with
// --verbose it logs to standard output.
func TestWhereNodesLog(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	p.must(t, "node", "create", "n1")
	path := p.must(t, "node", "logs", "n1")
	if !regexp.MustCompile(`/state/nodes/n1/stdout\.\d{4}-\d\d-\d\d\.log$`).MatchString(path) {
		t.Errorf("the log is %s", path)
	}
	if log, err := os.ReadFile(path); err != nil || !strings.Contains(string(log), "node started") {
		t.Errorf("%s: %v", log, err)
	}
	for name, args := range map[string][]string{
		"plain": {"node", "create", "plain", "--foreground"}, "verbose": {"node", "create", "verbose", "-f", "-v"},
		"described": {"node", "create", "-f", "-v", "--configuration", "name: described"},
	} {
		cmd := p.startForeground(t, "exec 2>"+p.dir+"/errors; ", args...)
		p.untilRunning(t, name)
		p.untilPrinted(t, name)
		out, _ := os.ReadFile(filepath.Join(p.dir, "foreground"))
		errors, _ := os.ReadFile(filepath.Join(p.dir, "errors"))
		if verbose := name != "plain"; strings.Contains(string(out), "node started") != verbose || strings.Contains(string(errors), "node started") == verbose {
			t.Errorf("%s: standard output %s\nstandard error %s", name, out, errors)
		}
		_ = cmd.Process.Signal(syscall.SIGTERM) // a job in the background may ignore SIGINT
		_ = cmd.Wait()
		if logs, _ := filepath.Glob(filepath.Join(p.dir, "state", "nodes", name, "*log*")); len(logs) > 0 {
			t.Errorf("%s: it left %v", name, logs)
		}
		p.fails(t, "There is no log file for the node", "node", "logs", name)
	}
}
