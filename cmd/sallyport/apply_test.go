package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"
)

// write writes a file into the working directory.
func (p *program) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// openConn is an open connection through an inlet to an echo server.
type openConn struct {
	net.Conn
	lines *bufio.Reader
}

func connect(t *testing.T, port string) *openConn {
	t.Helper()
	var c net.Conn
	var err error
	for end := time.Now().Add(90 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if c, err = net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			o := &openConn{c, bufio.NewReader(c)}
			if err = o.ping(); err == nil {
				t.Cleanup(func() { _ = c.Close() })
				return o
			}
			_ = c.Close()
		}
	}
	t.Fatalf("no connection through port %s: %v", port, err)
	return nil
}

// ping sends a line and reads it back.
func (o *openConn) ping() error {
	_ = o.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := o.Write([]byte("ping\n")); err != nil {
		return err
	}
	line, err := o.lines.ReadString('\n')
	if err == nil && line != "ping\n" {
		err = fmt.Errorf("%q came back", line)
	}
	return err
}

// applyCLI runs apply and returns its exit code and what it printed, without notes.
func (p *program) apply(t *testing.T, args ...string) (int, string) {
	t.Helper()
	o := p.runWith(t, "", nil, append([]string{"apply"}, args...)...)
	if o.code != exitOK && o.code != exitDiffers {
		return o.code, strings.TrimSpace(o.stdout + o.stderr)
	}
	return o.code, strings.TrimSpace(o.stdout)
}

const boxText = `name: box
tcp-outlets:
  svc: {to: "127.0.0.1:$ECHO", allow: '(= subject.identifier "$ID")'}
  other: {to: 127.0.0.1:9}
tcp-inlets:
  in: {from: "127.0.0.1:$IN", to: /node/box/secure/api/service/svc, allow: '(= subject.identifier "$ID")'}
  second: {from: "127.0.0.1:$SECOND", to: /node/box/secure/api/service/svc}
relays:
  blue: {at: /node/box/secure/api}
policies:
- {resource-type: relay, allow: '(= subject.x "1")'}
`

// TestCLIApplyEdits applies one edit after the other while connections are open through two inlets: what --check says is done, nothing
// else is, doing it again is nothing, and no connection is lost.
func TestCLIApplyEdits(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	p.must(t, "identity", "create", "me")
	id := strings.TrimSpace(p.must(t, "identity", "show", "me", "--jq", ".identifier"))
	echo, in, second, taken := echoServer(t, "0"), freePort(t), freePort(t), freePort(t)
	p.env = append(p.env, "ECHO="+echo, "OTHER="+echoServer(t, "0"), "ID="+strings.Trim(id, `"`), "IN="+in, "SECOND="+second, "TAKEN="+taken)
	text := boxText
	p.write(t, "box.yaml", text)
	if code, out := p.apply(t, "box.yaml"); code != 0 || !strings.Contains(out, "+ node box") {
		t.Fatalf("exit code %d: %s", code, out)
	}
	conns := []*openConn{connect(t, in), connect(t, in), connect(t, second)}
	busy, err := net.Listen("tcp", "127.0.0.1:"+taken)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()

	table := tabwriter.NewWriter(os.Stdout, 2, 4, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "edit\t--check printed\tdone\topen connections lost")
	for _, edit := range []struct {
		what, from, to string
		check          string // what --check says, its lines joined
		applied        string // where it is not the same
	}{
		{what: "nothing"},
		{what: "a comment, the order of keys", from: "name: box\n", to: "# the box\nname: box\n"},
		{what: "outlet: allow, wider", from: `  svc: {to: "127.0.0.1:$ECHO", allow: '(= subject.identifier "$ID")'}`,
			to: `  svc: {to: "127.0.0.1:$ECHO", allow: '(or (= subject.identifier "$ID") (= subject.identifier "other"))'}`, check: "~ outlet svc: allow"},
		{what: "inlet: allow", from: `service/svc, allow: '(= subject.identifier "$ID")'}`, to: `service/svc, allow: '(or (= subject.identifier "$ID") (= subject.identifier "another"))'}`,
			check: "~ inlet in: allow"},
		{what: "another outlet", from: "  other: {to: 127.0.0.1:9}\n", to: "  other: {to: 127.0.0.1:9}\n  more: {to: 127.0.0.1:8}\n", check: "+ outlet more"},
		{what: "an outlet's target", from: "more: {to: 127.0.0.1:8}", to: "more: {to: 127.0.0.1:7}", check: "~ outlet more: to (closed and opened)"},
		{what: "the target of the outlet in use", from: `"127.0.0.1:$ECHO"`, to: `"127.0.0.1:$OTHER"`, check: "~ outlet svc: to (closed and opened)"},
		{what: "an outlet is taken out", from: "  more: {to: 127.0.0.1:7}\n", to: "", check: "- outlet more"},
		{what: "a policy", from: `(= subject.x "1")'}` + "\n", to: `(= subject.x "3")'}` + "\n", check: "~ policy relay: allow"},
		{what: "a policy is taken out", from: "policies:\n- {resource-type: relay, allow: '(= subject.x \"3\")'}\n", to: "", check: "- policy relay"},
		{what: "a relay is renamed", from: "  blue: {at", to: "  green: {at", check: "+ relay green; - relay blue"},
		{what: "log level", from: "name: box\n", to: "name: box\nlog-level: debug\n", check: "~ node box: log-level"},
		{what: "listening address", from: "name: box\n", to: "name: box\nlimits: {names: 5}\n", check: "~ node box: limits (at its next start)"},
		{what: "an inlet on a port that is taken", from: "relays:\n", to: "  third: {from: \"127.0.0.1:$TAKEN\", to: /node/box/secure/api/service/svc}\nrelays:\n",
			check: "+ inlet third", applied: "+ inlet third\n    not done: "},
		{what: "a secure channel listener", from: "relays:\n", to: "secure-channel-listeners: [front]\nrelays:\n", check: "+ secure channel listener front"},
		{what: "an inlet that is not used is moved", from: "  third: {from: \"127.0.0.1:$TAKEN\"", to: "  third: {from: \"127.0.0.1:0\"", check: "~ inlet third: from (closed and opened)"},
		{what: "an outlet's places", from: "other: {to: 127.0.0.1:9}", to: "other: {to: 127.0.0.1:9, max-connections: 7}", check: "~ outlet other: max-connections"},
		{what: "those of one member", from: "max-connections: 7}", to: "max-connections: 7, max-connections-per-member: 2}", check: "~ outlet other: max-connections-per-member"},
		{what: "an inlet's places", from: "  third: {", to: "  third: {max-connections: 90, ", check: "~ inlet third: max-connections"},
	} {
		if edit.from != "" {
			text = strings.Replace(text, edit.from, edit.to, 1)
		}
		p.write(t, "box.yaml", text)
		wantCode, printed := 0, "nothing to change at the node box"
		if edit.check != "" {
			wantCode, printed = exitDiffers, strings.ReplaceAll(edit.check, "; ", "\n")+"\nnothing was changed (--check)"
		}
		if code, out := p.apply(t, "box.yaml", "--check"); code != wantCode || out != printed {
			t.Errorf("%s: --check: exit code %d:\n%s\nwant %d:\n%s", edit.what, code, out, wantCode, printed)
		}
		want := strings.ReplaceAll(edit.check, "; ", "\n")
		code, out := p.apply(t, "box.yaml")
		switch {
		case edit.applied != "" && (code != exitSoftware || !strings.HasPrefix(out, edit.applied)):
			t.Errorf("%s: exit code %d:\n%s\nwant\n%s", edit.what, code, out, edit.applied)
		case edit.applied == "" && edit.check != "" && (code != 0 || firstWords(out) != want):
			t.Errorf("%s: exit code %d:\n%s\nwant\n%s", edit.what, code, out, want)
		case edit.check == "" && (code != 0 || out != printed):
			t.Errorf("%s: exit code %d:\n%s", edit.what, code, out)
		}
		if code, out := p.apply(t, "box.yaml"); code != 0 || !strings.HasPrefix(out, "nothing to change") {
			t.Errorf("%s: again: exit code %d:\n%s", edit.what, code, out)
		}
		lost := 0
		for i, c := range conns {
			if err := c.ping(); err != nil {
				lost++
				t.Errorf("%s: connection %d is lost: %v", edit.what, i, err)
			}
		}
		done := out
		if edit.check == "" {
			done = "nothing"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d of %d\n", edit.what, orNothing(edit.check), strings.ReplaceAll(done, "\n", "; "), lost, len(conns))
	}
	// New connections go where the file says.
	connect(t, in)
}

func orNothing(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

// firstWords leaves out how what was changed is now.
func firstWords(out string) string {
	var lines []string
	for _, line := range strings.Split(out, "\n") {
		if !strings.HasPrefix(line, "    ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func (p *program) outlets(t *testing.T, node string) string {
	t.Helper()
	return strings.Join(strings.Fields(strings.ReplaceAll(p.must(t, "tcp-outlet", "list", "--at", node, "--jq", ".[].from"), `"`, "")), " ")
}

// TestCLIApplyLife: applying twice is nothing, across stop, start, kill and create; what was made by hand is left alone; nothing is
// deleted because something exists or fails.
func TestCLIApplyLife(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	p.write(t, "f.yaml", "name: x\ntcp-outlets: {a: {to: 1}, b: {to: 2}}\n")
	create := func(when string) {
		t.Helper()
		if o := p.runWith(t, "", nil, "node", "create", "f.yaml"); o.code != 0 || strings.TrimSpace(o.stdout) != "x" {
			t.Fatalf("%s: exit code %d, printed %q\n%s", when, o.code, o.stdout, o.stderr)
		}
	}
	unchanged := func(when string) {
		t.Helper()
		if code, out := p.apply(t, "f.yaml"); code != 0 || !strings.HasPrefix(out, "nothing to change") {
			t.Errorf("%s: exit code %d: %s", when, code, out)
		}
	}
	create("first")
	unchanged("after create")
	create("while it runs")
	p.must(t, "node", "stop", "x")
	create("after stop")
	unchanged("after stop and create")
	p.must(t, "node", "stop", "x")
	p.must(t, "node", "start", "x")
	unchanged("after stop and start")
	pid := p.must(t, "node", "show", "x", "--jq", ".pid")
	var n int
	if _, err := fmt.Sscan(pid, &n); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(n, syscall.SIGKILL)
	for !strings.Contains(p.runWith(t, "", nil, "node", "list", "--output", "json").stdout, `"stopped"`) {
		time.Sleep(10 * time.Millisecond)
	}
	if code, out := p.apply(t, "f.yaml", "--check"); code != 0 {
		t.Errorf("check of a killed node: exit code %d: %s", code, out)
	}
	create("after kill")
	unchanged("after kill and create")

	// What was taken out while the node was stopped is not there when it comes back; what was made by hand is.
	p.must(t, "tcp-outlet", "create", "hand", "--to", "3", "--at", "x")
	p.must(t, "node", "stop", "x")
	p.write(t, "f.yaml", "name: x\ntcp-outlets: {a: {to: 1}}\n")
	if code, out := p.apply(t, "f.yaml", "--check"); code != exitDiffers || !strings.HasPrefix(out, "- tcp-outlet b\n") {
		t.Errorf("check of a stopped node: exit code %d: %s", code, out)
	}
	create("with one outlet less")
	if got := p.outlets(t, "x"); got != "/service/a /service/hand" {
		t.Errorf("outlets %s", got)
	}
	_, out := p.apply(t, "f.yaml")
	if !strings.Contains(out, "outlet hand: made by a command, left alone") {
		t.Errorf("%s", out)
	}
	if code, out := p.apply(t, "f.yaml", "--prune"); code != 0 || !strings.HasPrefix(out, "- outlet hand") {
		t.Errorf("exit code %d: %s", code, out)
	}
	// A mistake in a file changes nothing, and a node that was there stays.
	p.write(t, "f.yaml", "name: x\ntcp-outlets: {a: {to: nowhere at all}}\n")
	for _, args := range [][]string{{"node", "create", "f.yaml"}, {"apply", "f.yaml"}} {
		if o := p.runWith(t, "", nil, args...); o.code == 0 || !strings.Contains(o.stderr, "line 2, column 23") {
			t.Errorf("%q: exit code %d, %s", args, o.code, o.stderr)
		}
	}
	if got := p.outlets(t, "x"); got != "/service/a" {
		t.Errorf("outlets %s", got)
	}
	// A node that was not there before is deleted again, as in the reference.
	p.write(t, "g.yaml", "name: y\ntcp-outlets: {a: {to: nowhere at all}}\n")
	if o := p.runWith(t, "", nil, "node", "create", "g.yaml"); o.code == 0 || !strings.Contains(o.stderr, "g.yaml: line 2, column 23") {
		t.Errorf("exit code %d, %s", o.code, o.stderr)
	}
	if o := p.runWith(t, "", nil, "node", "show", "y"); o.code == 0 {
		t.Error("the node y is there")
	}
}

// TestCLIApplyFaults: all mistakes are told at once, with file, line, column, what was found and what would be right; nothing is done.
func TestCLIApplyFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	p.write(t, "e.yaml", `name: e
policys:
- {resource: db, allow: x}
tcp-outlets:
  db: {too: 1, allow: x}
`)
	p.write(t, "v.yaml", `name: e
tcp-outlets:
  db: {to: 70000, allow: '('}
tcp-inlets:
  web: {from: 5432, to: /nonsense/x}
relays:
  blue: {at: /node/nobody}
`)
	for file, want := range map[string][]string{
		"e.yaml": {`e.yaml: line 2, column 1: unknown key "policys"; did you mean "policy"?`, `e.yaml: line 5, column 8: tcp-outlet "db": unknown key "too"; did you mean "to"?`},
		"v.yaml": {"v.yaml: line 3, column 12: tcp-outlet \"db\"", "v.yaml: line 5, column 25: tcp-inlet \"web\"", "v.yaml: line 7, column "},
	} {
		for _, args := range [][]string{{"apply", file}, {"apply", file, "--check"}, {"node", "create", file}} {
			o := p.runWith(t, "", nil, args...)
			for _, text := range want {
				if o.code != exitSoftware || !strings.Contains(o.stderr, text) {
					t.Errorf("%q: exit code %d, lacks %q:\n%s", args, o.code, text, o.stderr)
				}
			}
			if list := p.must(t, "node", "list", "--jq", "length"); list != "0" && args[0] != "apply" {
				t.Errorf("%q left a node", args)
			}
		}
		p.runWith(t, "", nil, "node", "delete", "--all", "--yes")
	}
}

// TestCLIHangup: SIGHUP applies the file again; what is wrong with it is in the log and changes nothing.
func TestCLIHangup(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	p.write(t, "f.yaml", "name: x\ntcp-outlets: {a: {to: 1}}\n")
	p.must(t, "node", "create", "f.yaml")
	var pid int
	if _, err := fmt.Sscan(p.must(t, "node", "show", "x", "--jq", ".pid"), &pid); err != nil {
		t.Fatal(err)
	}
	hangup := func(text, want string) {
		t.Helper()
		p.write(t, "f.yaml", text)
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			log, err := os.ReadFile(p.must(t, "node", "logs", "x"))
			if err == nil && strings.Contains(string(log), want) {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("the log lacks %q: %s", want, log)
			}
		}
	}
	hangup("name: x\ntcp-outlets: {a: {to: 1}, b: {to: 2}}\n", `+ outlet b`)
	hangup("name: x\ntcp-outlet: {a: {to: 1}}\ntcp-outlts: {}\n", `f.yaml: line 3, column 1: unknown key`)
	if got := p.outlets(t, "x"); got != "/service/a /service/b" {
		t.Errorf("outlets %s", got)
	}
	hangup("name: x\ntcp-outlets: {b: {to: 2}}\n", `- outlet a`)
	if got := p.outlets(t, "x"); got != "/service/b" {
		t.Errorf("outlets %s", got)
	}
	// Without a file the last one is applied again.
	if code, out := p.apply(t, "--node", "x"); code != 0 || !strings.HasPrefix(out, "nothing to change at the node x") {
		t.Errorf("exit code %d: %s", code, out)
	}
	p.must(t, "node", "create", "plain")
	if code, out := p.apply(t, "--node", "plain"); code == 0 || !strings.Contains(out, "configuration file was applied") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// TestCLIApplyDirectory: a directory is its files together; what two of them set is a mistake.
func TestCLIApplyDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	if err := os.Mkdir(filepath.Join(p.dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.write(t, "d/1.yaml", "name: x\nlog-level: debug\ntcp-outlet: {a: {to: 1}}\n")
	p.write(t, "d/2.json", `{"tcp-outlet": {"b": {"to": 2}}}`)
	if code, out := p.apply(t, "d"); code != 0 || out != "+ node x\n+ outlet a\n+ outlet b" {
		t.Errorf("exit code %d: %s", code, out)
	}
	p.write(t, "d/3.yml", "log-level: info\ntcp-outlet: {a: {to: 3}}\n")
	if code, out := p.apply(t, "d"); code == 0 || !strings.Contains(out, "d/3.yml: line 1, column 12") || !strings.Contains(out, "log-level is set in d/1.yaml too") {
		t.Errorf("exit code %d: %s", code, out)
	}
	p.write(t, "d/3.yml", "tcp-outlet: {a: {to: 3}}\n")
	if code, out := p.apply(t, "d"); code == 0 || !strings.Contains(out, "d/3.yml: line 1, column 14") || !strings.Contains(out, "there is another of this name") {
		t.Errorf("exit code %d: %s", code, out)
	}
	p.write(t, "d/3.yml", "tcp-outlet: {c: {to: 3}}\n")
	if code, out := p.apply(t, "--node", "x"); code != 0 || out != "+ outlet c" {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// TestCLIForeground: a configuration in the foreground, as systemd runs it, comes back after each end, as the file says.
func TestCLIForeground(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	p.write(t, "f.yaml", "name: x\ntcp-outlets: {a: {to: 1}}\n")
	var before string
	for round := range 3 {
		node := p.startInForeground(t, "node", "create", "f.yaml", "--foreground")
		for end := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			o := p.runWith(t, "", nil, "tcp-outlet", "list", "--at", "x", "--jq", ".[].from")
			if o.code == 0 && strings.Contains(o.stdout, "/service/a") {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("round %d: %s%s", round, o.stdout, o.stderr)
			}
		}
		var shown struct {
			Route struct{ Verbose string } `json:"route"`
		}
		if err := json.Unmarshal([]byte(p.must(t, "node", "show", "x", "--output", "json")), &shown); err != nil {
			t.Fatal(err)
		}
		if before != "" && shown.Route.Verbose != before {
			t.Errorf("round %d: at %s, before at %s", round, shown.Route.Verbose, before)
		}
		before = shown.Route.Verbose
		_ = node.Process.Signal(syscall.SIGTERM)
		if err := node.Wait(); err != nil {
			log, _ := os.ReadFile(filepath.Join(p.dir, "foreground"))
			t.Errorf("round %d: %v\n%s", round, err, log)
		}
	}
}

// startInForeground starts a command that stays; its input is no terminal.
func (p *program) startInForeground(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(p.path, args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	log, err := os.Create(filepath.Join(p.dir, "foreground"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}
