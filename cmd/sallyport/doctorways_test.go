package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"sallyport/internal/servers"
	"sallyport/node/admin"
	"sallyport/project"
	"sallyport/state"
)

// TestDoctorsWays: a relay is looked for as each node that uses the project goes there: through the proxies of its record, else those of the environment.
func TestDoctorsWays(t *testing.T) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"} {
		t.Setenv(name, "")
	}
	answers := "http://" + servers.Listen(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		}
	})
	refuses := "http://127.0.0.1:" + freePort(t)
	for name, c := range map[string]struct {
		environment string
		nodes       []state.Node
		want        []string // of the relay: state, check and a part of what is said
	}{
		"no node":         {answers, nil, []string{"ok|relay of project p|through the proxy " + answers}},
		"of the record":   {refuses, []state.Node{{Name: "n", Options: state.NodeOptions{Proxies: []string{answers}}}}, []string{"ok|relay of project p|through the proxy " + answers}},
		"a broken one":    {answers, []state.Node{{Name: "n", Options: state.NodeOptions{Proxies: []string{refuses}}}}, []string{"fail|relay of project p|proxy " + refuses}},
		"an empty record": {answers, []state.Node{{Name: "n"}}, []string{"ok|relay of project p|through the proxy " + answers}},
		"several": {refuses, []state.Node{
			{Name: "a", Options: state.NodeOptions{Proxies: []string{answers}}}, {Name: "b", Options: state.NodeOptions{Proxies: []string{answers}, Project: "p"}},
			{Name: "c", Options: state.NodeOptions{Proxies: []string{refuses}}}, {Name: "d", Options: state.NodeOptions{Project: "other", Proxies: []string{"nothing://"}}}, {Name: "e", IsAuthority: true},
		}, []string{"ok|relay of project p, from node a and 1 more|through the proxy " + answers, "fail|relay of project p, from node c|proxy " + refuses}},
	} {
		t.Setenv(proxyVariable, c.environment)
		dir, err := state.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []*project.Project{{ID: "1", Name: "p", SpaceName: "s", SpaceID: "s", AccessRoute: "/dnsaddr/relay.invalid/tcp/443/service/api"}, {ID: "2", Name: "other", SpaceName: "s", SpaceID: "s"}} {
			if err := dir.PutProject(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range c.nodes {
			if _, err := dir.CreateNode(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		d := &doctor{}
		d.projects(t.Context(), dir)
		if len(d.list) != len(c.want) {
			t.Errorf("%s: %+v", name, d.list)
			continue
		}
		for i, f := range d.list {
			if w := strings.Split(c.want[i], "|"); f.State != w[0] || f.Check != w[1] || !strings.Contains(f.Detail, w[2]) {
				t.Errorf("%s: %+v, want %s", name, f, c.want[i])
			}
		}
	}
}

// TestAdviceOnProxies: what a proxy refuses is not looked for among this user's nodes.
func TestAdviceOnProxies(t *testing.T) {
	for text, proxied := range map[string]bool{
		`proxy socks5://127.0.0.1:1080 to relay.example:443: it answered "connection refused"`:                       true,
		"proxy http://proxy.example:3128 to relay.example:443: dial tcp 127.0.0.1:3128: connect: connection refused": true,
		"asking: proxy https://proxy.example:443 to relay.example:443: lookup proxy.example: no such host":           true,
		"dial tcp 127.0.0.1:3128: connect: connection refused":                                                       false,
	} {
		for what, advice := range map[string]string{"command": adviceFor(text), "hop": hopHint(admin.Hop{Kind: "tcp", Error: text})} {
			if strings.Contains(advice, "HTTPS_PROXY") != proxied || advice == "" {
				t.Errorf("%s: %s: %s", what, text, advice)
			}
		}
	}
}
