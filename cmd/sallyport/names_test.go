package main

import (
	"net"
	"testing"
	"time"
)

// echoAt answers every connection to an address with what it sends, and returns the port.
func echoAt(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("no %s here: %v", address, err)
	}
	return serveOn(t, l, briefEcho)
}

// eventuallyExchange uses an inlet until its path is there.
func eventuallyExchange(t *testing.T, what, port string) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = exchange(port); err == nil {
			return
		}
	}
	t.Errorf("%s: %v", what, err)
}

// TestMyServerListensOnIPv6Localhost: `localhost` reaches a server, a node or a relay at ::1 as well as one at 127.0.0.1, with a dot at its end
// too.
func TestMyServerListensOnIPv6Localhost(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	v6, v4 := echoAt(t, "[::1]:0"), echoAt(t, "127.0.0.1:0")
	node6 := freePort(t)
	p.must(t, "node", "create", "n6", "--tcp-listener-address", "[::1]:"+node6)
	p.must(t, "node", "create", "n1")
	for name, to := range map[string]string{"v6": "localhost:" + v6, "v4": "localhost:" + v4, "dot6": "localhost.:" + v6, "dot4": "localhost.:" + v4} {
		p.must(t, "tcp-outlet", "create", "--at", "n6", "--from", name, "--to", to)
		for _, host := range []string{"localhost", "localhost."} {
			port := freePort(t)
			p.must(t, "tcp-inlet", "create", "--at", "n1", "--from", port, "--to", "/dnsaddr/"+host+"/tcp/"+node6+"/secure/api/service/"+name)
			eventuallyExchange(t, to+" over "+host, port)
		}
	}
	if out := p.must(t, "message", "send", "hello", "--to", "/dnsaddr/localhost./tcp/"+node6+"/secure/api/service/uppercase"); out != "HELLO" {
		t.Errorf("%q", out)
	}
}
