package monitoring

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/internal/freeport"
	"sallyport/internal/servers"
)

// tool returns where a program of Prometheus is.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (Debian's package prometheus)", name)
	}
	return path
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// TestRules: the rules are valid, every alert fires when it should and not before, and has a heading in the documents.
func TestRules(t *testing.T) {
	doc, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	alerts := regexp.MustCompile(`(?m)- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1)
	for _, a := range alerts {
		if !strings.Contains(string(doc), "### "+a[1]+"\n") || !strings.Contains(string(rules), "docs/operating.md#"+strings.ToLower(a[1])) {
			t.Errorf("%s is not in the documents", a[1])
		}
		if !regexp.MustCompile(`alertname: ` + a[1] + `\n\s+exp_alerts:\n\s+- exp_labels`).Match(tests) {
			t.Errorf("no test lets %s fire", a[1])
		}
	}
	if len(alerts) < 10 {
		t.Errorf("%d alerts", len(alerts))
	}
	promtool := tool(t, "promtool")
	run(t, promtool, "check", "rules", "alerts.yml", "recording.yml")
	run(t, promtool, "test", "rules", "alerts_test.yml")
}

// queries are those of the dashboard by panel, and the names of the recording rules.
func queries(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	for _, p := range d.Panels {
		for i, q := range p.Targets {
			list[fmt.Sprintf("%s %d", p.Title, i)] = strings.NewReplacer("$__rate_interval", "20s", "$instance", ".*").Replace(q.Expr)
		}
	}
	rules, err := os.ReadFile("recording.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range regexp.MustCompile(`- record: (\S+)`).FindAllStringSubmatch(string(rules), -1) {
		list[r[1]] = r[1]
	}
	return list
}

// story runs a project with a bank and analysts who use a portal, and returns the status addresses.
func story(t *testing.T) (targets []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "mon")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "sallyport")
	run(t, "go", "build", "-o", program, "../cmd/sallyport")
	at := func(party string, args ...string) string {
		t.Helper()
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "SALLYPORT_HOME="+filepath.Join(dir, party))
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s%s", party, args, err, out, errs.String())
		}
		return string(out)
	}
	t.Cleanup(func() {
		for _, party := range []string{"analysis", "bank", "admin"} {
			at(party, "reset", "--yes")
		}
		_ = os.RemoveAll(dir)
	})
	server := servers.Listen(t, servers.Echo)
	for range 3 {
		targets = append(targets, "127.0.0.1:"+freeport.For(t))
	}
	at("admin", "project", "create", "partners", "--authority-port", freeport.For(t), "--relay-port", freeport.For(t), "--relay-status", targets[0])
	enroll := func(party string, args ...string) {
		ticket := filepath.Join(dir, party+".ticket")
		if err := os.WriteFile(ticket, []byte(at("admin", append([]string{"project", "ticket"}, args...)...)), 0o600); err != nil {
			t.Fatal(err)
		}
		at(party, "project", "enroll", ticket)
	}
	enroll("bank", "--relay", "db")
	enroll("analysis")
	at("bank", "node", "create", "bank", "--status-endpoint", targets[1])
	at("bank", "tcp-outlet", "create", "--at", "bank", "--to", server)
	at("bank", "tcp-outlet", "create", "nobody", "--at", "bank", "--to", "127.0.0.1:1")
	at("bank", "relay", "create", "db", "--to", "bank")
	at("analysis", "node", "create", "analysis", "--status-endpoint", targets[2])
	ports := []string{freeport.For(t), freeport.For(t)}
	at("analysis", "tcp-inlet", "create", "--at", "analysis", "--from", ports[0], "--via", "db")
	at("analysis", "tcp-inlet", "create", "--at", "analysis", "--from", ports[1], "--to", "nobody", "--via", "db")
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	for _, port := range ports {
		go func() {
			for ctx.Err() == nil {
				if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
					_ = c.SetDeadline(time.Now().Add(5 * time.Second))
					_, _ = c.Write(make([]byte, 1000))
					_, _ = io.ReadFull(c, make([]byte, 1000))
					_ = c.Close()
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
	}
	return targets
}

// TestQueries: every query of the dashboard, and every recording rule, returns data of a portal that is in use, from a real Prometheus.
func TestQueries(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a portal and Prometheus for half a minute")
	}
	prometheus := tool(t, "prometheus")
	targets := story(t)
	dir := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q, %q]\nscrape_configs:\n- job_name: sallyport\n  static_configs:\n  - targets: [%s]\n",
		filepath.Join(here, "alerts.yml"), filepath.Join(here, "recording.yml"), strings.Join(targets, ", "))
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	at := "127.0.0.1:" + freeport.For(t)
	cmd := exec.Command(prometheus, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at, "--log.level=warn")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	left := queries(t)
	last := map[string]string{}
	for end := time.Now().Add(90 * time.Second); len(left) > 0; time.Sleep(time.Second) {
		for name, q := range left {
			n, err := ask(at, q)
			if err == nil && n > 0 {
				delete(left, name)
			}
			last[name] = fmt.Sprintf("%d series, %v: %s", n, err, q)
		}
		if time.Now().After(end) {
			for name := range left {
				t.Errorf("%s: %s", name, last[name])
			}
			return
		}
	}
}

// ask returns how many series a query has.
func ask(at, query string) (int, error) {
	resp, err := http.Get("http://" + at + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []any }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, fmt.Errorf("%s", answer.Error)
	}
	return len(answer.Data.Result), nil
}
