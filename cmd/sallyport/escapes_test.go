package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestForTerminal: the colors of our own marks pass, others' do not.
func TestForTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[32m✔\x1b[0m Created\n": "\x1b[32m✔\x1b[0m Created\n", "\x1b[31mx\x1b[0m a\x1b[2Jb": "\x1b[31mx\x1b[0m a\ufffd[2Jb",
		"\x1b[32mhello\x1b[0m": "\ufffd[32mhello\ufffd[0m", "\x1b[31mx\x1b[1mx": "\ufffd[31mx\ufffd[1mx",
	} {
		if got := forTerminal(in); got != want {
			t.Errorf("%q: %q, not %q", in, got, want)
		}
	}
	for _, v := range []any{"\u009b2J\x7f", map[string]string{"\u0080": "\x1b"}} {
		text, err := encodeJSON(v, true)
		if err != nil || strings.ContainsFunc(text, isC1) || strings.Contains(text, "\x1b") {
			t.Errorf("%q %v", text, err)
		}
		var back any
		if err := json.Unmarshal([]byte(text), &back); err != nil {
			t.Error(err)
		}
	}
}

// TestCLIEscapes: a member whose attribute steers terminals, and an outlet whose target does, are shown everywhere without that: on terminals, in logs,
// in records, on the page.
func TestCLIEscapes(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	s.apart()
	status := "127.0.0.1:" + freePort(t)
	const evil = "\x1b[2J\x1b]0;owned\x07\u009b31m\u202eevil" // clears the screen, sets the title, colors, turns the direction
	if err := os.WriteFile(filepath.Join(s.dir, "evil"), []byte(evil), 0o600); err != nil {
		t.Fatal(err)
	}
	s.at("authority", `sallyport project ticket --relay postgres > bank.ticket; sallyport project ticket --attribute company=analysis --attribute "note=$(cat evil)" > analysis.ticket`)
	port := freePort(t)
	s.at("bank", "sallyport project enroll bank.ticket; sallyport node create bank --log-level debug --status-endpoint "+status+
		"; sallyport tcp-outlet create db --at bank --to "+echoServer(t, "0")+" --allow company=analysis; sallyport relay create postgres --to bank")
	s.at("analysis", "sallyport project enroll analysis.ticket; sallyport node create analysis --log-level debug; sallyport tcp-inlet create db-in --at analysis --from "+
		port+" --to db --via postgres --tell-client")
	works(t, "the story", port)
	harmless := func(where, text string) {
		t.Helper()
		for _, bad := range []string{"\x1b", "\u009b", "\u202e", "\x07"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q in it:\n%q", where, bad, text)
			}
		}
	}
	seen := false
	for _, machine := range []string{"authority", "relay", "bank", "analysis"} {
		for _, line := range []string{"sallyport status", "sallyport top --count 1", "sallyport events", "sallyport doctor || true", "sallyport project-member list || true",
			"sallyport credential list", "sallyport events --output json"} {
			text := strings.NewReplacer("\x1b[32mok  \x1b[0m", "", "\x1b[33mwarn\x1b[0m", "", "\x1b[31mFAIL\x1b[0m", "").Replace(s.onTerminal(machine, line+"; echo .")) // what prints nothing leaves nothing to read
			harmless(machine+": "+line, text)
			seen = seen || strings.Contains(text, "evil")
		}
	}
	if !seen {
		t.Error("no command shows the attribute: the test sees nothing")
	}
	var record []byte
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end) && !bytes.Contains(record, []byte("evil")); time.Sleep(50 * time.Millisecond) {
		record, _ = os.ReadFile(filepath.Join(s.dir, "bank", "nodes", "bank", recordsName))
	}
	if !bytes.Contains(record, []byte("evil")) {
		t.Errorf("no record has the attribute: %s", record)
	}
	if strings.Contains(string(record), "\x1b") || strings.Contains(string(record), "\u009b") {
		t.Errorf("%q", record)
	}
	for _, file := range logsBelow(t, s.dir) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		harmless(file, string(b))
	}
	page := s.must("curl -sS --max-time 10 http://" + status + "/page/now")
	for _, bad := range []string{"\x1b", "\x07"} { // the page itself shows the others as what they are
		if strings.Contains(page, bad) {
			t.Errorf("the page's answer has %q", bad)
		}
	}
}

// logsBelow lists the logs of nodes in a directory.
func logsBelow(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(d.Name(), ".log") {
			list = append(list, path)
		}
		return nil
	})
	if err != nil || len(list) == 0 {
		t.Fatalf("no logs below %s: %v", dir, err)
	}
	return list
}
