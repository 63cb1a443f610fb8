package main

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestNodeUpgradeEndsWhatIsLeft: a connection that cannot be carried is reset at both ends long before the hold is over, both ends write a record of it that
// says why, and the command has told the reason of each.
func TestNodeUpgradeEndsWhatIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	s := newShell(t)
	targets := make(chan net.Conn, 8)
	target := serveOn(t, listenAt(t, "0"), func(c net.Conn) {
		targets <- c
		<-t.Context().Done()
	})
	headers, local, brief := freePort(t), freePort(t), freePort(t)
	s.must(`
		sallyport node create out --records out.jsonl
		sallyport tcp-outlet create db --at out --hold 10m --to ` + target + `
		sallyport node create in --records in.jsonl
		sallyport tcp-outlet create near --at in --to ` + target + `
		sallyport tcp-inlet create headers --at in --from ` + headers + ` --to /node/out/secure/api/service/db --hold 10m --http-header 'X-Who: me'
		sallyport tcp-inlet create local --at in --from ` + local + ` --to /service/near
		sallyport tcp-inlet create brief --at in --from ` + brief + ` --to /node/out/secure/api/service/db --hold 0s`)
	var ends []net.Conn
	for _, port := range []string{headers, local, brief} {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, c)
		select {
		case c := <-targets:
			b := make([]byte, 4096)
			_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
			if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "GET") {
				t.Fatalf("the target reads %q, %v", b[:n], err)
			}
			ends = append(ends, c)
		case <-time.After(90 * time.Second):
			t.Fatal("the target was not connected")
		}
	}
	out := s.run("sallyport node upgrade in --drain 0s --output json")
	if out.code != 0 {
		t.Fatalf("exit code %d, %s", out.code, out.stderr)
	}
	for _, why := range []string{"the bytes are changed on the way (HTTP headers)", "there is no secure channel to the other end", "one of the ends does not hold it (--hold 0)"} {
		if !strings.Contains(strings.ReplaceAll(out.stdout, " ", ""), strings.ReplaceAll(`"`+why+`":1`, " ", "")) {
			t.Errorf("%q is not said of what was reset, but\n%s", why, out.stdout)
		}
	}
	for i, c := range ends {
		_ = c.SetReadDeadline(time.Now().Add(90 * time.Second))
		if n, err := c.Read(make([]byte, 4096)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s, %s: read %d, %v", []string{"headers", "local", "brief"}[i/2], []string{"client", "target"}[i%2], n, err)
		}
	}
	type record struct {
		Portal  string `json:"portal"`
		Outcome string `json:"outcome"`
		By      string `json:"ended_by"`
	}
	for file, want := range map[string][]record{
		"in.jsonl":  {{"headers", "portal_stopped", "inlet"}, {"local", "portal_stopped", "inlet"}, {"near", "portal_stopped", ""}, {"brief", "portal_stopped", "inlet"}},
		"out.jsonl": {{"db", "portal_stopped", "inlet"}, {"db", "portal_stopped", "inlet"}},
	} {
		var got []record
		eventually(t, "records in "+file, func() bool {
			got = nil
			b, _ := os.ReadFile(filepath.Join(s.dir, file))
			for line := range strings.Lines(string(b)) {
				var r record
				if json.Unmarshal([]byte(line), &r) == nil {
					got = append(got, r)
				}
			}
			return len(got) >= len(want)
		})
		for _, w := range want {
			found := 0
			for _, g := range got {
				if g.Portal == w.Portal && g.Outcome == w.Outcome && (w.By == "" || g.By == w.By) {
					found++
				}
			}
			if found == 0 || len(got) != len(want) {
				t.Errorf("%s: no %+v in %+v", file, w, got)
			}
		}
	}
}
