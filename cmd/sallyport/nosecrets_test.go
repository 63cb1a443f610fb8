package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/project"
)

// TestCLINoSecrets plays a story at debug level, with what goes wrong in it, and looks for every secret in all that the nodes say: logs, records, metrics,
// pages, events, what commands print of them. Secrets are the keys of all identities, the codes of tickets, used and not, the passphrase of a vault, the status token, and
// the password of a proxy. (Those of running connections: TestNoResumptionSecrets.)
func TestCLINoSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	s.env = append(s.env, "SALLYPORT_LOG_LEVEL=debug")
	secrets := map[string][]byte{"the passphrase": []byte("correct-horse-battery"), "the status token": []byte("token-0123456789abcdef"), "the proxy's password": []byte("proxy-hunter2-word")}
	for name, file := range map[string]string{"the passphrase": "pass", "the status token": "token"} {
		if err := os.WriteFile(filepath.Join(s.dir, file), secrets[name], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	relay := s.apart()
	bank, analysis := "127.0.0.1:"+freePort(t), "127.0.0.1:"+freePort(t)
	s.at("authority", "sallyport project ticket --relay postgres > bank.ticket; sallyport project ticket --attribute company=analysis > analysis.ticket; sallyport project ticket > unused.ticket")
	port, dead := freePort(t), freePort(t)
	s.at("bank", "sallyport vault create locked --passphrase-file pass; sallyport identity create teller --vault locked; sallyport project enroll bank.ticket; "+
		"sallyport node create bank --receipts --status-token token --status-endpoint "+bank+"; sallyport node create teller --identity teller --no-status-endpoint; "+
		"sallyport tcp-outlet create db --at bank --to "+echoServer(t, "0")+" --allow company=analysis; sallyport tcp-outlet create closed --at bank --to "+dead+"; sallyport relay create postgres --to bank")
	s.at("analysis", "sallyport project enroll analysis.ticket; sallyport node create analysis --status-endpoint "+analysis+
		" --receipts; sallyport tcp-inlet create db-in --at analysis --from "+port+" --to db --via postgres --tell-client")
	works(t, "the story", port)
	// What goes wrong: a ticket used again, a proxy that is not there, a target that refuses, a member that is taken back, a relay that dies.
	s.refusedAt("stranger", "sallyport project enroll bank.ticket")
	s.at("analysis", "sallyport node create far --no-status-endpoint --proxy http://someone:proxy-hunter2-word@127.0.0.1:"+dead+
		"; sallyport tcp-inlet create lost --at far --from "+freePort(t)+" --to db --via postgres --no-connection-wait || true")
	s.at("analysis", "sallyport tcp-inlet create refused-in --at analysis --from "+freePort(t)+" --to closed --via postgres --no-connection-wait; sallyport node upgrade analysis || true; sallyport bench db-in --at analysis --time 100ms || true")
	s.at("relay", "kill -9 $(sallyport node show relay-partners --jq .pid); sallyport node start relay-partners")
	works(t, "after the relay was killed", port)

	keys := 0
	for _, machine := range []string{"authority", "relay", "bank", "analysis"} {
		files, _ := filepath.Glob(filepath.Join(s.dir, machine, "vaults", "default", "*"))
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && len(b) == 32 {
				secrets["a key of "+machine+", "+filepath.Base(f)[:16]] = b
				keys++
			}
		}
	}
	if keys < 4 {
		t.Errorf("%d keys were found", keys)
	}
	for _, name := range []string{"bank", "analysis", "unused"} {
		ticket, err := os.ReadFile(filepath.Join(s.dir, name+".ticket"))
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := project.ParseTicket(string(bytes.TrimSpace(ticket)))
		if err != nil {
			t.Fatal(err)
		}
		secrets["the code of "+name+"'s ticket"] = parsed.Code[:]
		secrets[name+"'s ticket"] = bytes.TrimSpace(ticket)
	}

	said := map[string]string{}
	get := func(at, path, token string) string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/openmetrics-text")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s of %s: %s %v", path, at, resp.Status, err)
		}
		return string(b)
	}
	for at, token := range map[string]string{relay: "", bank: string(secrets["the status token"]), analysis: ""} {
		for _, path := range []string{"/metrics", "/show", "/page/now", "/page/past", "/"} {
			said[path+" of "+at] = get(at, path, token)
		}
	}
	for _, machine := range []string{"authority", "relay", "bank", "analysis"} {
		nodes := strings.Fields(strings.ReplaceAll(s.at(machine, "sallyport node list --jq '.[].node_name'"), `"`, ""))
		for _, node := range nodes {
			for _, line := range []string{"events --output json --at", "node show --output json", "tcp-inlet list --output json --at", "top --count 1 --output json --at"} {
				said[machine+": "+line+" "+node] = s.at(machine, "sallyport "+line+" "+node)
			}
		}
		said[machine+": status"], said[machine+": doctor"] = s.at(machine, "sallyport status"), s.at(machine, "sallyport doctor --output json || true")
	}
	recorded := false
	for end := time.Now().Add(40 * time.Second); !recorded && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		b, _ := os.ReadFile(filepath.Join(s.dir, "bank", "nodes", "bank", recordsName))
		recorded = bytes.Contains(b, []byte(`"outcome"`))
	}
	debug := 0
	err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (strings.Contains(d.Name(), ".log") || strings.HasPrefix(d.Name(), recordsName)) {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			said[path] = string(b)
			debug += strings.Count(string(b), "DEBUG")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if debug < 10 || !recorded {
		t.Errorf("%d lines at debug level, records %v: the test sees nothing", debug, recorded)
	}
	for whose, secret := range secrets {
		for _, shape := range []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)), base64.RawStdEncoding.EncodeToString(secret),
			base64.RawURLEncoding.EncodeToString(secret), fmt.Sprint(secret), fmt.Sprintf("%q", secret)} {
			for where, text := range said {
				if strings.Contains(text, shape) {
					t.Errorf("%s is in %s", whose, where)
				}
			}
		}
	}
	t.Logf("%d secrets, each in 7 shapes, in %d texts: none", len(secrets), len(said))
}
