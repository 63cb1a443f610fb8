package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What `make small` may make for a processor, in bytes: the figure of today, and a little room.
const (
	smallAMD64 = 14 << 20
	smallARM   = 13 << 20
)

// absentHere are commands that a small program is built without, and absentParts what it refuses of those it has.
var (
	absentHere = map[string]string{
		"sallyport kafka-inlet create": "Kafka", "sallyport kafka-producer create": "Kafka", "sallyport influxdb-outlet create --to 8086 --fixed-token t": "InfluxDB", "sallyport lease create": "InfluxDB",
		"sallyport authority create --project-identifier p": "authorities", "sallyport project create partners": "authorities", "sallyport backup x --passphrase-file y": "backups",
		"sallyport restore x": "backups", "sallyport bench db": "bench", "sallyport receipts verify x": "receipts", "sallyport manpages": "manual pages", "sallyport schema": "schemas",
		"sallyport relay-node create x": "fleets", "sallyport project authority-node ticket": "fleets",
	}
	absentParts = map[string]string{
		"sallyport node show box --jq .name": "--jq", "sallyport vault create --tpm t": "TPM", `sallyport node create --configuration 'name: other'`: "YAML",
		`sallyport node create web --listener wss://127.0.0.1:0/ --acme '{"domains": ["relay.example.com"]}' --foreground`: "ACME",
	}
)

// presentHere are what a small program does, each after those above it, at a node `box` with a relay and an outlet, and what has to be in the answer.
var presentHere = []struct{ line, want string }{
	{"sallyport status", "box"},
	{"sallyport doctor", ""},
	{"sallyport node list", "box"},
	{"sallyport tcp-outlet list", "outlet"},
	{"sallyport relay list", "postgres"},
	{"sallyport policy list", "tcp-outlet"},
	{"sallyport message send --timeout 60s --to /project/partners/service/echo hello", "hello"},
	{`sallyport node create --configuration '{"name": "web", "listener": "ws://127.0.0.1:0/portal", "tcp-outlet": {"to": "5000"}}' && sallyport node show web --output json`, `"Ws"`},
	{"sallyport secure-channel create --from box --to /node/web/service/api", "/service/"},
	{"sallyport message send hello --to /node/web/secure/api/service/echo", "hello"},
	{"sallyport udp-outlet create dns --to 53 --at web && sallyport udp-inlet create dns-in --from 127.0.0.1:0 --to /node/web/secure/api/service/dns --at box && sallyport udp-inlet list", "dns-in"},
	{"sallyport ping /node/web/secure/api --count 1 --at box", ""},
	{"sallyport trace /node/web/secure/api --at box", "channel"},
	{"sallyport node stop web && sallyport node start web && sallyport tcp-outlet list --at web", "5000"},
	{"sallyport node upgrade box && sallyport relay list", "postgres"},
	{"sallyport project ticket --help", "ticket"},
	{"sallyport identity create other && sallyport vault list", "default"},
	{"sallyport worker list --at box", "echo"},
	{"sallyport version", ""},
	{"sallyport completion bash", "sallyport"},
	{"sallyport node delete web --yes", ""},
}

// TestReachSmallBuild: the program that is built with the tag small is as small as it is said to be, enrols, carries a connection over a relay, does what it is for, and says what it
// was built without.
func TestReachSmallBuild(t *testing.T) {
	if testing.Short() || os.Getenv("SALLYPORT_SMALL") == "" {
		t.Skip("SALLYPORT_SMALL names no program: make test-reach builds it")
	}
	small := os.Getenv("SALLYPORT_SMALL")
	for _, p := range []struct {
		path, of string
		most     int64
	}{{small, "amd64", smallAMD64}, {os.Getenv("SALLYPORT_SMALL_ARM"), "arm", smallARM}} {
		if p.path == "" {
			continue // it is not built each time
		}
		info, err := os.Stat(p.path)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("the small program for %s has %.1f MiB", p.of, float64(info.Size())/(1<<20))
		if info.Size() > p.most {
			t.Errorf("%d bytes for %s, more than %d", info.Size(), p.of, p.most)
		}
	}
	s := newShell(t)
	s.smallPortal(small)
	home := "SALLYPORT_HOME=" + filepath.Join(s.dir, "bank")
	for line, want := range absentHere {
		if o := s.run(line, home); o.code != exitUsage && o.code != 2 || !strings.Contains(o.stderr, "built without ") || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: exit code %d, %s%s", line, o.code, o.stdout, o.stderr)
		}
	}
	for line, want := range absentParts {
		if o := s.run(line, home); o.code == 0 || !strings.Contains(o.stderr, "built without "+want) {
			t.Errorf("%s: exit code %d, %s%s", line, o.code, o.stdout, o.stderr)
		}
	}
	for _, c := range presentHere {
		if o := s.run(c.line, home); o.code != 0 || !strings.Contains(o.stdout+o.stderr, c.want) {
			t.Errorf("%s: exit code %d, %s%s", c.line, o.code, o.stdout, o.stderr)
		}
	}
}
