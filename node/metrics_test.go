package node

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/node/resource"
)

// scrape returns what a node's status address says of its metrics.
func (m *member) scrape(at, accept string) string {
	m.t.Helper()
	req, err := http.NewRequestWithContext(within(m.t), http.MethodGet, "http://"+at+"/metrics", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		m.t.Fatalf("%s, %v: %s", resp.Status, err, b)
	}
	return string(b)
}

// families returns the kind of every metric of ours in a scrape.
func families(text string) map[string]string {
	list := map[string]string{}
	for _, f := range regexp.MustCompile(`(?m)^# TYPE (sallyport_\w+) (\w+)$`).FindAllStringSubmatch(text, -1) {
		list[f[1]] = f[2]
	}
	return list
}

// TestMetricsAreListed: docs/metrics.md has every metric of a node, with its kind, and no other; what a node serves is clean for promtool.
func TestMetricsAreListed(t *testing.T) {
	doc, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(sallyport_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(doc), -1) {
		listed[row[1]] = row[2]
	}
	source := map[string]bool{}
	files, _ := os.ReadDir(".")
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "metrics") && !strings.HasSuffix(f.Name(), "_test.go") {
			b, _ := os.ReadFile(f.Name())
			for _, d := range regexp.MustCompile(`= desc\("(\w+)"`).FindAllStringSubmatch(string(b), -1) {
				source["sallyport_"+d[1]] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(source)) {
		if listed[name] == "" {
			t.Errorf("%s is not in docs/metrics.md", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if !source[name] {
			t.Errorf("%s is in docs/metrics.md, and there is no such metric", name)
		}
	}
	server := echoServer(t)
	outlet, inlet := newMember(t), newMember(t)
	ctx := within(t)
	if _, err := outlet.CreateOutlet(ctx, resource.Outlet{Name: "db", To: server}); err != nil {
		t.Fatal(err)
	}
	in, err := inlet.CreateInlet(ctx, resource.Inlet{Alias: "in", From: "127.0.0.1:0", To: outlet.route() + "/secure/api/service/db"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", in.Bind)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	for _, k := range []struct {
		m    *member
		want []string
	}{
		{inlet, []string{`sallyport_portal_bytes_total{direction="in",kind="inlet",portal="in"} 5`, `sallyport_portal_setup_seconds_count{kind="inlet",portal="in"} 1`,
			`sallyport_path_up{kind="inlet",name="in"} 1`, `sallyport_portal_connections{kind="inlet",portal="in"} 0`,
			`sallyport_portal_connections_ended_total{kind="inlet",portal="in",reason="closed"} 1`, `sallyport_headroom_ratio{resource="memory"}`}},
		{outlet, []string{`sallyport_portal_bytes_total{direction="out",kind="outlet",portal="db"} 5`, `sallyport_portal_target_dial_seconds_count{portal="db"} 1`,
			`sallyport_loop_busy_seconds_total{shard="0"}`, `sallyport_secure_channel_handshake_seconds_count{role="responder"} 1`}},
	} {
		at, err := k.m.ServeStatus(ctx, "127.0.0.1:0", false)
		if err != nil {
			t.Fatal(err)
		}
		var text string
		eventually(t, func() error {
			text = k.m.scrape(at, "text/plain")
			for _, want := range k.want {
				if !strings.Contains(text, want) {
					return fmt.Errorf("no %s in\n%s", want, text)
				}
			}
			return nil
		})
		for name, kind := range families(text) {
			if listed[name] != kind {
				t.Errorf("%s is a %s, listed as %q", name, kind, listed[name])
			}
		}
		for _, value := range regexp.MustCompile(`(?m)^sallyport_\w+\{.*(?:reason|kind|state|event|result|outcome)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
			if !regexp.MustCompile(`^[a-z0-9_-]+$`).MatchString(value[1]) {
				t.Errorf("a label that is not a word: %s", value[0])
			}
		}
		if open := k.m.scrape(at, "application/openmetrics-text; version=1.0.0"); !strings.HasSuffix(open, "# EOF\n") || !regexp.MustCompile(`setup_seconds_bucket\{.*# \{id="[0-9a-f]{32}"\}`).MatchString(open) {
			t.Error("no OpenMetrics, or no exemplar in it")
		}
		if promtool, err := exec.LookPath("promtool"); err == nil {
			check := exec.Command(promtool, "check", "metrics")
			check.Stdin = strings.NewReader(text)
			out, err := check.CombinedOutput()
			if ours := regexp.MustCompile(`(?m)^sallyport_.*$`).FindAll(out, -1); err != nil && len(ours) > 0 {
				t.Errorf("promtool: %v: %s", err, bytes.Join(ours, []byte("\n")))
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
