package main

import (
	"strings"
	"testing"
)

// TestIdentityInAnotherVault: a node works with any identity of its user, whichever vault has the keys, also after it was started again.
func TestIdentityInAnotherVault(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	p.must(t, "identity", "create", "i1")
	p.must(t, "vault", "create", "v2")
	p.must(t, "vault", "create", "v3", "--path", p.dir+"/elsewhere")
	i2, i3 := p.must(t, "identity", "create", "i2", "--vault", "v2"), p.must(t, "identity", "create", "i3", "--vault", "v3")
	p.must(t, "node", "create", "n1", "--identity", "i1", "--tcp-listener-address", "127.0.0.1:"+freePort(t))
	p.must(t, "node", "create", "n2", "--identity", "i2")
	p.must(t, "secure-channel-listener", "create", "l", "--at", "n1", "--identity", "i2")
	p.must(t, "secure-channel-listener", "create", "only3", "--at", "n1", "--identity", "i1", "--authorized", i3)
	p.must(t, "tcp-outlet", "create", "--at", "n1", "--to", echoServer(t, "0"))
	check := func(when string) {
		t.Helper()
		// The listener proves to be i2, and nobody else.
		p.must(t, "secure-channel", "create", "--from", "n2", "--to", "/node/n1/service/l", "--authorized", i2)
		p.fails(t, "authorized", "secure-channel", "create", "--from", "n2", "--to", "/node/n1/service/l", "--authorized", i3)
		// Who opens the channel is i3, from a node of another identity in another vault.
		p.must(t, "secure-channel", "create", "--from", "n2", "--to", "/node/n1/service/only3", "--identity", "i3")
		p.fails(t, "", "secure-channel", "create", "--from", "n2", "--to", "/node/n1/service/only3", "--timeout", "3s")
		if out := p.must(t, "message", "send", "hi", "--from", "n2", "--identity", "i3", "--to", "/node/n1/secure/only3/service/uppercase"); out != "HI" {
			t.Errorf("%s: %q", when, out)
		}
		if out := p.must(t, "message", "send", "hi", "--identity", "i3", "--to", "/node/n1/secure/only3/service/uppercase"); out != "HI" {
			t.Errorf("%s: without a node: %q", when, out)
		}
	}
	check("at first")
	port := freePort(t)
	p.must(t, "tcp-inlet", "create", "--at", "n2", "--from", port, "--identity", "i3", "--to", "/node/n1/secure/api/service/outlet")
	eventuallyExchange(t, "an inlet", port)
	for _, n := range []string{"n1", "n2"} {
		p.must(t, "node", "stop", n)
		p.must(t, "node", "start", n)
	}
	check("after a restart")
	eventuallyExchange(t, "an inlet after a restart", port)
	// An identity made while the node runs, in a vault made then.
	p.must(t, "identity", "create", "late", "--vault", "v4")
	p.must(t, "secure-channel-listener", "create", "late", "--at", "n1", "--identity", "late")
	if out := p.must(t, "message", "send", "hi", "--to", "/node/n1/secure/late/service/uppercase"); out != "HI" {
		t.Errorf("%q", out)
	}
	if log := p.must(t, "node", "logs", "n1"); strings.Contains(log, "does not hold") {
		t.Error(log)
	}
}
