package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sallyport/portal/influxdb/influxtest"
)

// What a screen holds.
const (
	helpLines     = 46
	helpLinesRoot = 75 // the list of all commands scrolls
	helpColumns   = 100
)

// oneExample are the commands of which a second example would say nothing new.
var oneExample = []string{
	"sallyport environment", "sallyport tcp-inlet accept", "sallyport udp-inlet accept", "sallyport project delete", "sallyport lease revoke", "sallyport project import", "sallyport reset", "sallyport secure-channel delete",
	"sallyport tcp-connection delete", "sallyport tcp-listener delete", "sallyport vault move",
}

// scenes prepare what examples speak of. The key is a noun, whose examples run one after the other in a directory of their own; or a
// command, for what must be there before its first example; or an example, for what must be there before that one. A line NAME=VALUE in
// the file `variables` is a variable of the examples that follow.
var scenes = map[string]string{
	"identity":                           `sallyport identity create first`,
	"node":                               ``,
	"sallyport node start":               `sallyport node stop n1; sallyport node default n1 || true`,
	"sallyport node default n1":          `sallyport node create other; sallyport node default other`,
	"sallyport node start n1":            `sallyport node stop n1`,
	"sallyport node stop n1":             `sallyport node start n1`,
	"sallyport node stop n1 --drain 30s": `sallyport node start n1`,
	"sallyport node ready":               `sallyport node start; sallyport node start n1`,
	"sallyport node upgrade":             `sallyport node start n1`,
	"sallyport node delete --all --yes":  `sallyport node create n3`,
	"authority":                          `sallyport identity create somebody; echo IDENTIFIER=$(sallyport identity show somebody) > variables`,
	"sallyport authority audit":          `sallyport reset --yes; rm variables; ` + projectScene,
	"sallyport authority audit verify":   `sallyport authority audit --output json > trail.jsonl; echo HASH=$(sallyport authority audit verify) > variables`,
	"sallyport project ticket show":      ticketScene,
	"sallyport project ticket revoke":    ticketScene,
	`sallyport project ticket revoke "$(cat bank.ticket)" --identity admin`: ticketScene,
	`sallyport project ticket --expects "$IDENTIFIER"`:                      `echo IDENTIFIER=$(sallyport identity show admin) > variables`,
	"credential":                          credentialScene,
	"sallyport project enroll ticket.txt": `sallyport reset --yes`,
	"sallyport project enroll http://127.0.0.1:8000/ticket.txt": `env -u SALLYPORT_HOME sallyport project ticket > ticket.txt; sallyport reset --yes`,
	"project-member": projectScene + `; sallyport identity create member; echo IDENTIFIER=$(sallyport identity show member) > variables`,
	"policy":         `sallyport node create n1; sallyport tcp-outlet create db --to 5432`,
	"tcp-outlet":     `sallyport node create n1`,
	"sallyport tcp-outlet delete --all --at n1 --yes": `sallyport tcp-outlet create --to 5432`,
	"tcp-inlet":                  portalScene,
	"sallyport tcp-inlet accept": `sallyport tcp-inlet create db-in --to db --via blue --connection-wait 10s`,
	"sallyport tcp-inlet delete --all --at n2 --yes": `sallyport tcp-inlet create --no-connection-wait`,
	"udp-outlet": `sallyport node create n1`,
	"sallyport udp-outlet delete --all --at n1 --yes": `sallyport udp-outlet create --to 53`,
	"udp-inlet":                  portalScene + `; sallyport udp-outlet create dns --to 53 --at n1; sallyport udp-outlet create game --to 27016 --at n1`,
	"sallyport udp-inlet accept": `sallyport udp-inlet create dns-in --to dns --via blue --connection-wait 10s`,
	"sallyport udp-inlet delete --all --at n2 --yes": `sallyport udp-inlet create --no-connection-wait`,
	"kafka-inlet":  portalScene,
	"kafka-outlet": `sallyport node create n1; sallyport node create n2; sallyport node create n3`,
	"sallyport kafka-outlet delete --all --at n1 --yes": `sallyport kafka-outlet create --at n1`,
	"relay": portalScene + `; sallyport relay delete --all --at n1 --yes; sallyport node default n1 || true`,
	"sallyport relay create blue --at /node/n2/secure/api --to n1": `sallyport relay delete blue --yes`,
	"sallyport relay delete --all --at n1 --yes":                   `sallyport relay create blue`,
	"message":                 `sallyport node create n1`,
	"secure-channel":          `sallyport node create n1; sallyport node create n2; echo CHANNEL=$(sallyport secure-channel create --from n2 --to /node/n1/service/api) > variables`,
	"secure-channel-listener": `sallyport node create n1; echo IDENTIFIER=$(sallyport identity show) > variables`,
	"service":                 `sallyport node create n1`,
	"worker":                  `sallyport node create n1`,
	"vault":                   `umask 077; head -c 32 /dev/urandom > vault.key; echo secret > passphrase`,
	"influxdb-outlet":         `sallyport node create n1; echo TOKEN=all-access > variables`,
	"influxdb-inlet":          influxScene,
	"lease":                   influxScene + `; echo LEASES=/project/partners/service/forward_to_blue/secure/api/service/metrics_lease_manager >> variables`,
	"sallyport lease revoke":  leaseScene,
	"sallyport lease show":    leaseScene,
	"sallyport tcp-inlet create --from tls://127.0.0.1:8443 --to db --via blue \\\n    --tls-certificate-provider /service/tls_certificate_provider": `
		sallyport service start tls_certificate_provider --certificate fullchain.pem --key privkey.pem`,
	"sallyport rendezvous get-my-address": `sallyport rendezvous create --udp 127.0.0.1:4002 --healthcheck 127.0.0.1:4003 > /dev/null 2>&1 &
 		until sallyport rendezvous get-my-address 127.0.0.1:4002 > /dev/null 2>&1; do sleep 0.05; done`,
	"tcp-connection": `sallyport node create n1; sallyport node create n0 --tcp-listener-address 127.0.0.1:4000`,
	"tcp-listener":   `sallyport node create n1`,
	"apply":          "printf 'name: n1\ntcp-outlets: {db: {to: 5432}}\n' > box.yaml; sallyport node create box.yaml",
	"run":            "printf 'nodes: [r1]\ntcp-outlets: {db: {to: $PORT, at: r1}}\n' > portal.yaml",
	"reset":          `sallyport node create n1`,
	"doctor":         `sallyport node create n1`,
	"events":         `sallyport node create n1`,
	"top":            `sallyport node create n1`,
	"ping":           probeScene,
	"trace":          probeScene,
	"bench":          probeScene,
	"receipts":       `sallyport identity create a; sallyport identity create b; sallyport node create n1 --identity a --receipts --records analysis.jsonl; sallyport node create n2 --identity b --receipts --records bank.jsonl`,
	"backup":         backupScene,
	"restore":        backupScene + `; sallyport backup box.backup --passphrase-file passphrase; sallyport reset --yes`,
	"flow-control": `sallyport node create n1; sallyport tcp-outlet create db --to 5432; sallyport tcp-listener create 4500
		echo FLOW=$(sallyport tcp-listener show 127.0.0.1:4500 --jq .flow_control_id | tr -d '"') > variables`,
	"sallyport tcp-connection delete": `echo CONNECTION=$(sallyport tcp-connection create --from n1 --to 127.0.0.1:4000) > variables`,
	`sallyport authority create -t 0.0.0.0:4000 --project-identifier p2 \
    --trusted-identities "{\"$IDENTIFIER\": {\"ockam-role\": \"enroller\"}}"`: `sallyport node stop authority-p1`,
	"sallyport project create partners --authority-only --host " + authorityHost + " > authority.txt": `sallyport reset --yes`,
	"sallyport project enroll": `mkdir member
		echo TICKET=$(sallyport project ticket) > variables
		sallyport project ticket > ticket.txt
		echo SALLYPORT_HOME=$HOME/member >> variables`,
	"sallyport project import": `rm -f variables; sallyport project information --output json > project.json; sallyport project delete partners --yes`,
}

const (
	probeScene = `sallyport node create n1; sallyport node create n2; sallyport node default n2; sallyport tcp-outlet create db --to 5432 --at n1
		sallyport tcp-inlet create db-in --from 15432 --to /node/n1/secure/api/service/db --at n2`
	ticketScene     = `sallyport project ticket --identity admin > bank.ticket; echo REFERENCE=$(sallyport project ticket list --identity admin --jq '.[0].reference' | tr -d '"') > variables`
	projectScene    = `sallyport project create partners`
	credentialScene = `sallyport identity create admin; sallyport identity create member; sallyport node create n1
		echo IDENTIFIER=$(sallyport identity show member) > variables
		echo ISSUER=$(sallyport identity show admin) >> variables
		sallyport credential issue --as admin --for $(sallyport identity show) --encoding hex > m.credential
		echo CREDENTIAL=$(cat m.credential) >> variables`
	portalScene = projectScene + `; sallyport project ticket --relay '*' > ticket; export SALLYPORT_HOME=$HOME/member
		echo SALLYPORT_HOME=$SALLYPORT_HOME > variables; sallyport project enroll ticket
		sallyport node create n2; sallyport node create n1; sallyport tcp-outlet create db --to 5432 --at n1
		sallyport tcp-outlet create outlet --to 5432 --at n1; sallyport relay create blue --to n1`
	influxScene = portalScene + `; sallyport influxdb-outlet create metrics --to 8086 --at n1 --org-id o --all-access-token all-access \
		--leased-token-permissions '[]' --leased-token-expires-in 1h`
	backupScene = `umask 077; sallyport node create n1; echo secret > passphrase; head -c 32 /dev/urandom > backup.key`
	leaseScene  = `echo ID=$(sallyport lease list --at "$LEASES" --jq '.[0].id' | tr -d '"') >> variables`
)

// elsewhere are commands whose examples need other machines or a database, with the tests that play them.
var elsewhere = map[string]string{
	"sallyport authority migrate":             "TestTrustStore",
	"sallyport authority-node create":         "TestAuthorityNode",
	"sallyport project authority-node ticket": "TestAuthorityNode",
	"sallyport project authority-node delete": "TestAuthorityNode",
	"sallyport relay-node create":             "TestRelayNode",
	"sallyport project relay-node delete":     "TestRelayNode",
}

// endless are examples that run until they are interrupted, with a word of their output after which that is done.
var endless = map[string]string{
	"sallyport authority audit --follow --output json":                              "authority_started",
	`tail -f "$(sallyport node logs n1)"`:                                           "node started",
	"sallyport rendezvous create":                                                   "listen=0.0.0.0:4000",
	"sallyport rendezvous create --udp 127.0.0.1:4002 --healthcheck 127.0.0.1:4003": "listen=127.0.0.1:4002",
}

// example is an example of a command's help.
type example struct{ command, line string }

// examples are those of a command. A line that is indented further belongs to the one before.
func examplesOf(cmd *cobra.Command) []example {
	var list []example
	for line := range strings.Lines(cmd.Example) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "   ") && len(list) > 0 {
			list[len(list)-1].line += "\n" + line
		} else {
			list = append(list, example{cmd.CommandPath(), strings.TrimPrefix(line, "  ")})
		}
	}
	return list
}

// offered are the commands that a person is shown, in the order in which their examples run: what creates comes first, what deletes last.
func offered(cmd *cobra.Command) []*cobra.Command {
	rank := func(c *cobra.Command) int {
		switch c.Name() {
		case "create", "add", "issue", "start":
			return 0
		case "delete":
			return 2
		}
		return 1
	}
	list := []*cobra.Command{cmd}
	subs := slices.Clone(cmd.Commands())
	slices.SortStableFunc(subs, func(a, b *cobra.Command) int { return rank(a) - rank(b) })
	for _, sub := range subs {
		if !sub.Hidden && sub.Name() != "help" {
			list = append(list, offered(sub)...)
		}
	}
	return list
}

func testRoot() *cobra.Command {
	return newRoot(&app{stdout: io.Discard, stderr: io.Discard})
}

// TestCLIHelp: help fits a screen and shows how a command is used.
func TestCLIHelp(t *testing.T) {
	for _, cmd := range offered(testRoot()) {
		path := cmd.CommandPath()
		var help bytes.Buffer
		cmd.SetOut(&help)
		if err := cmd.Help(); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		limit := helpLines
		if cmd == cmd.Root() {
			limit = helpLinesRoot
		}
		if n := strings.Count(help.String(), "\n"); n > limit {
			t.Errorf("%s --help has %d lines, more than %d", path, n, limit)
		}
		for line := range strings.Lines(help.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > helpColumns {
				t.Errorf("%s --help has a line of %d columns: %s", path, n, line)
			}
		}
		wanted := 2
		if slices.Contains(oneExample, path) {
			wanted = 1
		}
		if got := len(examplesOf(cmd)); !cmd.HasSubCommands() && got < wanted {
			t.Errorf("%s --help has %d examples, fewer than %d", path, got, wanted)
		}
		for _, e := range examplesOf(cmd) {
			if cmd != cmd.Root() && !strings.Contains(e.line, path) {
				t.Errorf("the example %q does not show %s", e.line, path)
			}
		}
	}
}

// TestCLIExamples: every example of every command's help works as it stands.
func TestCLIExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("runs all examples of the help")
	}
	t.Parallel()
	if !alone(t, "4000", "4001", "4002", "4003", "4500", "8000", "8080", "8086", "8443", "9092", "15432", "18086", "19092", "28086") {
		return
	}
	influxtest.New(t, "127.0.0.1:8086")
	files := serveFiles(t, "127.0.0.1:8000")
	root := testRoot()
	nouns := [][]*cobra.Command{{root}}
	for _, cmd := range root.Commands() {
		if list := offered(cmd); !cmd.Hidden && cmd.Name() != "help" {
			nouns = append(nouns, list)
		}
	}
	used := map[string]bool{}
	for _, commands := range nouns {
		t.Run(commands[0].Name(), func(t *testing.T) {
			began := time.Now()
			s := newShell(t)
			files.Store(&s.dir)
			scene := func(key string) {
				if script := scenes[key]; script != "" && !used[key] {
					s.must(script)
				}
				used[key] = true
			}
			scene(commands[0].Name())
			for _, cmd := range commands {
				if cmd.HasParent() && cmd.Parent().HasParent() {
					scene(cmd.CommandPath())
				}
				if test := elsewhere[cmd.CommandPath()]; test != "" {
					t.Logf("%s: see %s", cmd.CommandPath(), test)
					continue
				}
				for _, e := range examplesOf(cmd) {
					scene(e.line)
					if word := endless[e.line]; word != "" {
						s.until(e.line, word)
						continue
					}
					o := s.run(e.line)
					if o.code != 0 || strings.Contains(o.stdout+o.stderr, "Down") {
						t.Errorf("%s --help: %s\nexit code %d\n%s%s", e.command, e.line, o.code, o.stdout, o.stderr)
					}
				}
			}
			t.Logf("%.1f s", time.Since(began).Seconds())
		})
	}
	for key := range scenes {
		if whole := !strings.Contains(flag.Lookup("test.run").Value.String(), "/"); whole && !used[key] {
			t.Errorf("nothing plays the scene %q", key)
		}
	}
}

// serveFiles serves the files of the directory that the result names.
func serveFiles(t *testing.T, at string) *atomic.Pointer[string] {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var dir atomic.Pointer[string]
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.FileServer(http.Dir(*dir.Load())).ServeHTTP(w, r) }))
	}()
	return &dir
}

// shell runs lines as a person types them: `sallyport` is the program under test, in a directory of its own.
type shell struct {
	*program
	t *testing.T
}

func newShell(t *testing.T) *shell {
	t.Helper()
	p := ours(t)
	bin := filepath.Join(p.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(p.path, filepath.Join(bin, "sallyport")); err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, filepath.Join(p.dir, "fullchain.pem"), filepath.Join(p.dir, "privkey.pem"))
	p.path = "/bin/sh"
	// A program with the race detector waits for a second at its end unless it is told not to.
	p.env = append(p.env, "PATH="+bin+":"+os.Getenv("PATH"), "TMPDIR="+p.dir, "GORACE=atexit_sleep_ms=0")
	return &shell{p, t}
}

// script precedes a line with the variables that were written down.
func (s *shell) script(line string) string {
	return "set -u; if [ -e variables ]; then set -a; . ./variables; set +a; fi\n" + line
}

func (s *shell) run(line string, env ...string) outcome {
	s.t.Helper()
	return s.runWith(s.t, "", env, "-c", s.script(line))
}

// must runs lines all of which have to succeed.
func (s *shell) must(lines string, env ...string) string {
	s.t.Helper()
	o := s.run("set -e\n"+lines, env...)
	if o.code != 0 {
		s.t.Fatalf("%s\nexit code %d\n%s%s", lines, o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// until runs a line that does not end by itself, until it has printed a word.
func (s *shell) until(line, word string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.path, "-c", s.script("exec "+line))
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	var seen []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(seen, []byte(word)) {
		n, err := out.Read(buf)
		seen = append(seen, buf[:n]...)
		if err != nil {
			s.t.Errorf("%s ended, or ran for too long, without saying %q: %s", line, word, seen)
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}
