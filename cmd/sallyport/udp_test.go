package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rendezvousServer runs `rendezvous create` until the test ends, and returns where it answers.
func (p *program) rendezvousServer(t *testing.T) string {
	t.Helper()
	at, health := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, p.path, "rendezvous", "create", "--udp", at, "--healthcheck", health)
	cmd.Dir, cmd.Env = p.dir, p.env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		answer, err := http.Get("http://" + health)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return at
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the rendezvous server is not well: %v", err)
		}
	}
}

// must runs a command line that has to succeed, and returns its standard output.
func (p *program) must(t *testing.T, args ...string) string {
	t.Helper()
	o := p.runWith(t, "", nil, args...)
	if o.code != 0 {
		t.Fatalf("%q: exit code %d\n%s%s", args, o.code, o.stdout, o.stderr)
	}
	return strings.TrimSpace(o.stdout)
}

// fails runs a command line that has to fail with a word of explanation.
func (p *program) fails(t *testing.T, word string, args ...string) {
	t.Helper()
	if o := p.runWith(t, "", nil, args...); o.code == 0 || !strings.Contains(o.stdout+o.stderr, word) {
		t.Errorf("%q: exit code %d, wanted an error that speaks of %q\n%s%s", args, o.code, word, o.stdout, o.stderr)
	}
}

// TestCLIUDP sends messages over UDP and makes portals through punctures, between nodes that are programs of their own.
func TestCLIUDP(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	p.must(t, "node", "create", "plain")
	p.fails(t, "OCKAM_RENDEZVOUS_SERVER", "rendezvous", "get-my-address")
	p.fails(t, "192.0.2.1", "rendezvous", "create", "--udp", "192.0.2.1:0")
	p.fails(t, "node create --udp", "tcp-inlet", "create", "--at", "plain", "--to", "/service/x", "--udp")
	p.must(t, "node", "create", "lonely", "--udp")
	p.fails(t, "OCKAM_UDP_MAX_ON_THE_WIRE_PACKET_SIZE", "--env", "OCKAM_UDP_MAX_ON_THE_WIRE_PACKET_SIZE=1", "message", "send", "x", "--to", "/service/echo")

	server := p.rendezvousServer(t)
	p.env = append(p.env, "OCKAM_RENDEZVOUS_SERVER="+server)
	if out := p.must(t, "rendezvous", "get-my-address"); !strings.HasPrefix(out, "127.0.0.1:") {
		t.Errorf("public address %q", out)
	}
	at := "127.0.0.1:" + freePort(t)
	file := filepath.Join(p.dir, "n1.yaml")
	text := fmt.Sprintf("name: n1\nudp: true\nudp-listener-address: %s\ntcp-outlet: {db: {to: %s}}\n", at, echoServer(t, "0"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.must(t, "node", "create", file)
	p.must(t, "node", "create", "n2", "--udp")
	if out := p.must(t, "node", "show", "n1", "--jq", `.transports[] | select(.type == "Udp") | .socket_addr`); strings.Trim(out, `"`) != at {
		t.Errorf("node show: UDP at %s, want %s", out, at)
	}
	_, port, _ := strings.Cut(at, ":")
	long := strings.Repeat("0123456789abcdef", 400)
	for _, route := range []string{"/ip4/127.0.0.1/udp/" + port, "/dnsaddr/localhost/udp/" + port + "/secure/api"} {
		for _, message := range []string{"hello", long} {
			for _, from := range [][]string{nil, {"--from", "plain"}} {
				if out := p.must(t, append([]string{"message", "send", message, "--to", route + "/service/uppercase"}, from...)...); out != strings.ToUpper(message) {
					t.Errorf("%s %q: %.100q", route, from, out)
				}
			}
		}
	}
	p.must(t, "secure-channel", "create", "--from", "plain", "--to", "/ip4/127.0.0.1/udp/"+port+"/service/api")
	p.fails(t, "one transport", "message", "send", "x", "--to", "/ip4/127.0.0.1/udp/"+port+"/ip4/127.0.0.1/udp/"+port+"/service/echo")

	direct, main := freePort(t), freePort(t)
	p.must(t, "tcp-inlet", "create", "direct", "--at", "n2", "--from", direct, "--to", "/node/n1/secure/api/service/db", "--udp", "--no-tcp-fallback")
	works(t, "through a puncture", direct)
	log := p.must(t, "node", "logs", "n2")
	if b, err := os.ReadFile(log); err != nil || !strings.Contains(string(b), "puncture open") {
		t.Errorf("%s does not say that a puncture is open (%v)", log, err)
	}
	// What has no UDP is reached over the main path, unless that is not wanted.
	p.must(t, "tcp-outlet", "create", "--at", "plain", "--to", echoServer(t, "0"))
	p.must(t, "tcp-inlet", "create", "main", "--at", "n2", "--from", main, "--to", "/node/plain/secure/api/service/outlet", "--udp")
	works(t, "over the main path", main)
	strict := freePort(t)
	out := p.must(t, "tcp-inlet", "create", "strict", "--at", "n2", "--from", strict, "--to", "/node/plain/secure/api/service/outlet", "--udp", "--no-tcp-fallback",
		"--connection-wait", "200ms", "--output", "json", "--jq", ".status")
	if strings.Trim(out, `"`) != "Down" {
		t.Errorf("an inlet without a way is %s", out)
	}
	if exchange(strict) == nil {
		t.Error("--no-tcp-fallback fell back")
	}
	// All comes back after a restart.
	for _, n := range []string{"n1", "n2"} {
		p.must(t, "node", "stop", n)
	}
	for _, n := range []string{"n1", "n2"} {
		p.must(t, "node", "start", n)
	}
	works(t, "through a puncture after a restart", direct)
	if out := p.must(t, "message", "send", "again", "--to", "/ip4/127.0.0.1/udp/"+port+"/service/uppercase"); out != "AGAIN" {
		t.Errorf("after a restart: %q", out)
	}
}
