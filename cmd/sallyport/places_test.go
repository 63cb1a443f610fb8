package main

import "testing"

// TestCLIPlaces: how many connections inlets and outlets may have, and how many of them one member, is taken by the command line and shown; numbers with which nobody could
// connect are refused.
func TestCLIPlaces(t *testing.T) {
	t.Parallel()
	p := ours(t)
	p.must(t, "node", "create", "n1")
	p.must(t, "tcp-outlet", "create", "svc", "--to", freePort(t), "--max-connections", "5", "--max-connections-per-member", "2")
	p.must(t, "tcp-inlet", "create", "in", "--to", "/service/svc", "--max-connections", "1", "--no-connection-wait")
	p.must(t, "udp-outlet", "create", "dns", "--to", freePort(t), "--max-flows-per-member", "3")
	for _, noun := range []string{"tcp-outlet", "tcp-inlet"} {
		name := map[string]string{"tcp-outlet": "svc", "tcp-inlet": "in"}[noun]
		want := map[string]string{"tcp-outlet": "5\n2", "tcp-inlet": "1\nnull"}[noun]
		if got := p.must(t, noun, "show", name, "--jq", ".max_connections, .max_connections_per_member"); got != want {
			t.Errorf("%s: shown are %q, want %q", noun, got, want)
		}
	}
	for _, wrong := range [][]string{
		{"tcp-outlet", "--max-connections", "0"}, {"tcp-outlet", "--max-connections-per-member", "0"}, {"tcp-inlet", "--max-connections", "0"},
		{"tcp-inlet", "--max-connections", "1048577"}, {"udp-outlet", "--max-flows-per-member", "0"}, {"udp-outlet", "--max-flows", "65537"}, {"kafka-outlet", "--max-connections-per-member", "0"},
	} {
		args := append([]string{wrong[0], "create", "wrong"}, wrong[1:]...)
		if wrong[0] != "kafka-outlet" {
			args = append(args, "--to", "9")
		}
		if o := p.runWith(t, "", nil, args...); o.code != exitUsage {
			t.Errorf("%v: %d %s", args, o.code, o.stderr)
		}
	}
}
