package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// relaysHost is a name of two addresses in this test.
const relaysHost = "relays.example.com"

// TestRelaysBehindOneName: two relays have one name with an address for each. Members begin with one or the other, by their identity, and with one killed all reach the
// other one.
func TestRelaysBehindOneName(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	if !alone(t, "4001") {
		return
	}
	hosts, err := os.OpenFile("/etc/hosts", os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(hosts, "127.0.0.2 %[1]s\n127.0.0.3 %[1]s\n", relaysHost)
	}
	if err != nil {
		t.Skipf("no name can be given to this machine: %v", err)
	}
	_ = hosts.Close()
	s := newShell(t)
	s.at("relay", "sallyport project create partners --authority-port 4000 --relay-port 4001 --host 127.0.0.2 --relay-status 127.0.0.1:9002 > partners.json")
	s.at("relay", "sallyport project relay-node ticket > two.ticket")
	s.at("two", "sallyport relay-node create two.ticket --name two --host 127.0.0.3 --port 4001 --status 127.0.0.1:9003")
	s.at("relay", "sallyport project ticket --usage-count 6 > member.ticket")
	said, err := os.ReadFile(filepath.Join(s.dir, "member.ticket"))
	if err != nil {
		t.Fatal(err)
	}
	// What a ticket would say that was made where the project's relay has that name.
	byName := strings.Replace(string(said), "/ip4/127.0.0.2/tcp/4001/", "/dnsaddr/"+relaysHost+"/tcp/4001/", 1)
	if at := strings.Index(byName, ",relay="); at >= 0 {
		byName = byName[:at] + "\n" // no other route than the name
	}
	if byName == string(said) || !strings.Contains(byName, relaysHost) {
		t.Fatalf("the ticket has another form: %s", said)
	}
	if err := os.WriteFile(filepath.Join(s.dir, "name.ticket"), []byte(byName), 0o600); err != nil {
		t.Fatal(err)
	}
	send := func(member string) {
		t.Helper()
		if out := s.at(member, "sallyport message send --timeout 60s --to /project/partners/service/echo hello"); strings.TrimSpace(out) != "hello" {
			t.Errorf("%s: %s", member, out)
		}
	}
	opened := func(port string) int {
		t.Helper()
		n, err := strconv.Atoi(strings.TrimSpace(s.must("curl -s http://127.0.0.1:" + port + "/metrics | sed -n 's/^sallyport_secure_channel_handshake_seconds_count{role=\"responder\"} //p'")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	members := []string{"m1", "m2", "m3", "m4", "m5", "m6"}
	for _, member := range members {
		s.at(member, "sallyport project enroll name.ticket")
		id := strings.TrimSpace(s.at(member, "sallyport identity show"))
		score := func(address string) []byte {
			sum := sha256.Sum256([]byte(id + "\x00" + address))
			return sum[:]
		}
		port := "9002"
		if bytes.Compare(score("127.0.0.3"), score("127.0.0.2")) < 0 {
			port = "9003"
		}
		before := opened(port)
		send(member)
		if opened(port) <= before {
			t.Errorf("%s, %s: it does not begin with the relay whose status is at port %s", member, id, port)
		}
	}
	s.at("relay", "kill -9 $(sallyport node show relay-partners --jq .pid)")
	for _, member := range members {
		send(member)
	}
}
