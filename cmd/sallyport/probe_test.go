package main

import (
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sallyport/bench/load"
	"sallyport/node/admin"
)

// TestCLITrace: a way is gone hop by hop, and the hop that fails is named: an outlet that is not there, nobody registered, a port of another
// program, a port of nobody, a name that there is not.
func TestCLITrace(t *testing.T) {
	t.Parallel()
	p := ours(t)
	p.must(t, "node", "create", "n1")
	p.must(t, "node", "create", "n2")
	p.must(t, "tcp-outlet", "create", "db", "--at", "n1", "--to", echoServer(t, "0"))
	p.must(t, "relay", "create", "blue", "--at", "/node/n2/secure/api", "--to", "n1")
	p.must(t, "node", "default", "n2")
	p.must(t, "tcp-inlet", "create", "in", "--from", freePort(t), "--to", "/node/n2/secure/api/service/forward_to_blue/secure/api/service/db")
	var probe admin.Probe
	if err := json.Unmarshal([]byte(p.must(t, "trace", "in", "--output", "json")), &probe); err != nil {
		t.Fatal(err)
	}
	kinds := ""
	for _, h := range probe.Hops {
		kinds += h.Kind + " "
		if h.Kind == "channel" && (len(h.RoundTripsMS) != 3 || !strings.HasPrefix(h.Peer, "I")) {
			t.Errorf("%+v", h)
		}
	}
	if kinds != "tcp channel relay channel outlet " || !probe.OK() {
		t.Errorf("%s: %+v", kinds, probe)
	}
	other := serveOn(t, listenAt(t, "0"), func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) // it is silent
	for _, k := range []struct{ route, hop, hint string }{
		{"/node/n1/secure/api/service/nosuch", "hop 3, outlet nosuch: there is no outlet nosuch", "tcp-outlet list"},
		{"/node/n2/secure/api/service/forward_to_red/secure/api", "hop 3, relay red: nobody is registered under the name red", "relay list"},
		{"/ip4/127.0.0.1/tcp/" + other + "/secure/api", "hop 2, channel", "another program's port"},
		{"/ip4/127.0.0.1/tcp/" + freePort(t) + "/secure/api", "hop 1, tcp", "nobody listens there"},
	} {
		o := p.runWith(t, "", nil, "trace", k.route)
		if o.code != exitSoftware || !strings.Contains(strings.ToLower(o.stderr), k.hop) || !strings.Contains(o.stderr, k.hint) {
			t.Errorf("%s: %d %s", k.route, o.code, o.stderr)
		}
	}
	if o := p.runWith(t, "", nil, "ping", "in", "--count", "4"); o.code != exitOK || !strings.Contains(o.stdout, "4 sent, 4 answered") {
		t.Errorf("%d %s%s", o.code, o.stdout, o.stderr)
	}
	for _, span := range []string{"200ms", "5s", "60s"} { // on a busy machine nothing may come back in less
		o := p.runWith(t, "", nil, "bench", "in", "--time", span)
		if o.code == exitOK && strings.Contains(o.stdout, "iB/s") {
			break
		}
		if o.code != exitOK || span == "60s" {
			t.Fatalf("%d %s%s", o.code, o.stdout, o.stderr)
		}
	}
	// Requests through the inlet to its target, which echoes: all are answered, what another target would say is told, and flags without --send have no meaning.
	var offered load.Result
	if err := json.Unmarshal([]byte(p.must(t, "bench", "in", "--send", "echo", "--rate", "200", "--time", "300ms", "--output", "json")), &offered); err != nil {
		t.Fatal(err)
	}
	if offered.Due == 0 || offered.Answered != offered.Due || offered.Latency.Count != offered.Due || offered.Latency.P50 <= 0 {
		t.Errorf("%+v", offered)
	}
	if o := p.runWith(t, "", nil, "bench", "in", "--send", "redis", "--time", "100ms"); o.code != exitSoftware || !strings.Contains(o.stderr, "had no good answer") || !strings.Contains(o.stderr, "PONG") {
		t.Errorf("%d %s%s", o.code, o.stdout, o.stderr)
	}
	for _, wrong := range [][]string{{"--rate", "5"}, {"--send", "ftp"}, {"--send", "echo", "--rate", "0"}, {"--send", "http", "--path", "x"}, {"--send", "echo", "--connections", "0"}} {
		if o := p.runWith(t, "", nil, append([]string{"bench", "in"}, wrong...)...); o.code != exitUsage {
			t.Errorf("%v: %d %s", wrong, o.code, o.stderr)
		}
	}
	if o := p.runWith(t, "", nil, "ping", "nosuch"); o.code != exitSoftware || !strings.Contains(o.stderr, "no inlet nosuch") {
		t.Errorf("%d %s", o.code, o.stderr)
	}
}

// TestCLIDoctor: a machine in order has no fault; a key that others may read, a port that is another program's and a path that is down are found, each with what to do.
func TestCLIDoctor(t *testing.T) {
	t.Parallel()
	p := ours(t)
	p.must(t, "node", "create", "n1")
	p.must(t, "node", "create", "n2", "--tcp-listener-address", "127.0.0.1:"+freePort(t))
	if o := p.runWith(t, "", nil, "doctor", "--output", "json"); o.code != exitOK || strings.Contains(o.stdout, `"fail"`) {
		t.Errorf("%d %s%s", o.code, o.stdout, o.stderr)
	}
	at := p.must(t, "node", "show", "n2", "--jq", ".transports[0].socket_addr")
	p.must(t, "node", "stop", "n2")
	ln, err := net.Listen("tcp", strings.Trim(at, `"`))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p.must(t, "tcp-inlet", "create", "in", "--at", "n1", "--from", freePort(t), "--to", "/ip4/127.0.0.1/tcp/"+freePort(t)+"/secure/api/service/db", "--no-connection-wait")
	want := []string{"its address " + strings.Trim(at, `"`) + " is taken", "ss -ltnp", "tcp-inlet in: down", "sallyport trace in --at n1"}
	for end := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		o := p.runWith(t, "", nil, "doctor")
		missing := ""
		for _, text := range want {
			if !strings.Contains(o.stdout, text) {
				missing = text
			}
		}
		if o.code == exitDiffers && missing == "" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d, %q is missing: %s%s", o.code, missing, o.stdout, o.stderr)
		}
	}
	if o := p.runWith(t, "", nil, "events", "--at", "n1", "--level", "warn"); !strings.Contains(o.stdout, "not connected") {
		t.Errorf("%d %s%s", o.code, o.stdout, o.stderr)
	}
	if o := p.runWith(t, "", nil, "top", "--at", "n1", "--count", "1", "--every", "100ms"); o.code != exitOK || !strings.Contains(o.stdout, "nearest limit") || !strings.Contains(o.stdout, "DOWN") {
		t.Errorf("%d %s%s", o.code, o.stdout, o.stderr)
	}
}
