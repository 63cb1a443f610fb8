//go:build !small && !nopostgres

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/internal/servers"
)

// TestTrustStore: a running project moves from its file to PostgreSQL; a second authority with the same identity joins it there; who is blocked at the second is cut off by a relay
// that listens to the first; while the database is away tickets are refused with a reason, and then are made again. No password is anywhere but in its file.
func TestTrustStore(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	db := servers.StartPostgres(t)
	const secret = "owners-secret-password"
	if err := db.Execute("postgres", "CREATE ROLE owner LOGIN PASSWORD '"+secret+"'; CREATE SCHEMA sallyport AUTHORIZATION owner"); err != nil {
		t.Fatal(err)
	}
	s := newShell(t)
	writeSecret(t, filepath.Join(s.dir, "store.url"), db.PatientURL("owner", secret, "postgres", "search_path", "sallyport"))
	s.apart()
	s.at("authority", "sallyport project ticket --relay postgres > bank.ticket; sallyport project ticket > analysis.ticket; sallyport project ticket > late.ticket")
	target, port := echoServer(t, "0"), freePort(t)
	s.at("bank", "sallyport project enroll bank.ticket; sallyport tcp-outlet create --to "+target+"; sallyport relay create postgres")
	s.at("analysis", "sallyport project enroll analysis.ticket; sallyport tcp-inlet create --from "+port+" --via postgres")
	works(t, "before", port)

	move := "sallyport authority migrate --from authority/authority-partners.db --to @store.url"
	if text := s.refusedAt("authority", move); !strings.Contains(text, "in use") {
		t.Errorf("while the authority runs: %s", text)
	}
	described, err := os.ReadFile(filepath.Join(s.dir, "partners.json"))
	if err != nil {
		t.Fatal(err)
	}
	first := regexp.MustCompile(`"authority_access_route": *"[^"]*/tcp/(\d+)`).FindStringSubmatch(string(described))
	if first == nil {
		t.Fatalf("no route to the authority: %s", described)
	}
	s.at("authority", "sallyport node stop authority-partners > /dev/null")
	if text := s.at("authority", move+` --jq '"\(.members) members, \(.tickets) ticket"'`); !strings.Contains(text, "3 members, 1 ticket") {
		t.Errorf("moved: %s", text)
	}
	if text := s.refusedAt("authority", move); !strings.Contains(text, "not empty") {
		t.Errorf("moved again: %s", text)
	}
	if err := os.CopyFS(filepath.Join(s.dir, "second"), os.DirFS(filepath.Join(s.dir, "authority"))); err != nil {
		t.Fatal(err)
	}
	second := freePort(t)
	create := `sallyport authority create --project-identifier partners --identity authority-partners --trusted-identities "{\"$(sallyport identity show)\": {\"ockam-role\": \"enroller\"}}" --store @store.url -t `
	s.at("authority", create+"127.0.0.1:"+first[1]+" > /dev/null")
	if err := os.Chmod(filepath.Join(s.dir, "second"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.at("second", create+"127.0.0.1:"+second+" > /dev/null; sed 's#tcp/"+first[1]+"/#tcp/"+second+"/#' partners.json > second.json; sallyport project import --project-file second.json > /dev/null")
	if text := s.at("second", "sallyport node show authority-partners"); !strings.Contains(text, "postgres://127.0.0.1") || strings.Contains(text, secret) {
		t.Errorf("the second authority: %s", text)
	}
	works(t, "after the move", port)
	s.at("late", "sallyport project enroll late.ticket > /dev/null") // a ticket from before the move

	member := strings.TrimSpace(s.at("analysis", "sallyport identity show"))
	s.at("second", "sallyport project-member block "+member+" > /dev/null")
	began := time.Now()
	eventually(t, "the end of who is blocked at the second authority", func() bool { return exchange(port) != nil })

	t.Logf("cut off after %v", time.Since(began))
	db.Stop()
	began = time.Now()
	if text := s.refusedAt("authority", "sallyport project ticket"); !strings.Contains(text, "away") {
		t.Errorf("without the database: %s", text)
	}
	t.Logf("refused after %v", time.Since(began))
	if text := s.run("sallyport doctor", "SALLYPORT_HOME="+filepath.Join(s.dir, "authority")); !strings.Contains(text.stdout, "is away since") {
		t.Errorf("doctor: %s%s", text.stdout, text.stderr)
	}
	if err := db.Begin(); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	s.awaits("authority", "sallyport project ticket > made.ticket && echo done", "done")
	t.Logf("back after %v", time.Since(began))
	if text := s.refusedAt("authority", "sallyport authority create --project-identifier other --trusted-identities '{}' --store postgres://u:"+secret+"@h/d"); strings.Contains(text, secret) {
		t.Errorf("a password on the command line is repeated: %s", text)
	}
	if err := filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Base(path) == "store.url" {
			return nil
		}
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), secret) {
			t.Errorf("%s has the password", path)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestTrustRegistry: two relays of a project share names in PostgreSQL: what is registered at the one is reached through the other, also while the database is away.
func TestTrustRegistry(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	db := servers.StartPostgres(t)
	s := newShell(t)
	writeSecret(t, filepath.Join(s.dir, "registry.url"), db.PatientURL("", "", "postgres"))
	first, second, port := freePort(t), freePort(t), freePort(t)
	s.at("operator", "sallyport project create partners --authority-port "+freePort(t)+" --relay-port "+first+" --registry @registry.url > partners.json")
	s.at("operator", "sallyport project relay-node ticket > two.ticket; sallyport project ticket --relay postgres > bank.ticket; sallyport project ticket > analysis.ticket")
	file := filepath.Join(s.dir, "two.yaml")
	if err := os.WriteFile(file, []byte("relay-node: {ticket: two.ticket, name: two, port: "+second+", registry: '@registry.url'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.at("two", "sallyport run two.yaml")
	target := echoServer(t, "0")
	s.at("bank", "sallyport project enroll bank.ticket; sallyport tcp-outlet create --to "+target+"; sallyport relay create postgres --at /ip4/127.0.0.1/tcp/"+second+"/secure/api")
	s.at("analysis", "sallyport project enroll analysis.ticket; sallyport tcp-inlet create --from "+port+" --to /ip4/127.0.0.1/tcp/"+first+"/secure/api/service/forward_to_postgres/secure/api/service/outlet")
	works(t, "through the other relay", port)
	const where = ` --jq '.[] | select(.name == "postgres") | .members[] | "\(.state) \(.relay)"'`
	for machine, node := range map[string]string{"operator": "relay-partners", "two": "relay-node-two"} {
		s.awaits(machine, "sallyport relay list --served --to "+node+where, `"up /ip4/127.0.0.1/tcp/`+second+`"`)
		s.awaits(machine, "sallyport doctor", "1 are alive, and there is a way to 1")
	}
	s.awaits("two", "sallyport relay list --served --to relay-node-two", "/ip4/127.0.0.1/tcp/"+second)
	if err := db.Execute("postgres", `DO $$ BEGIN
		IF (SELECT count(*) FROM relay_nodes) <> 2 OR (SELECT count(*) FROM relay_members WHERE name = 'postgres') <> 1 THEN RAISE EXCEPTION 'not what was expected'; END IF; END $$`); err != nil {
		t.Error(err)
	}
	db.Stop()
	works(t, "without the database", port)
	s.awaits("operator", "sallyport doctor; true", "until it answers nobody can register a relay name that is new")
	s.awaits("operator", "sallyport node show relay-partners --jq .registry.store.state", `"away"`)
	if reason := s.at("operator", "sallyport node show relay-partners --jq .registry.store.reason"); strings.Contains(reason, "user") || !strings.Contains(reason, "connect") {
		t.Errorf("the registry is away, because %s", reason)
	}
	if err := db.Begin(); err != nil {
		t.Fatal(err)
	}
	works(t, "with the database again", port)
	s.awaits("operator", "sallyport node show relay-partners --jq .registry.store.state", `"up"`)
}

// TestTrustStoreUpgrade: an authority whose database is away lives on, and is not upgraded until it is back; a relay, which starts without its own, is.
func TestTrustStoreUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	db := servers.StartPostgres(t)
	p := ours(t)
	writeSecret(t, filepath.Join(p.dir, "store.url"), db.PatientURL("", "", "postgres"))
	p.must(t, "authority", "create", "--project-identifier", "p", "--trusted-identities", "{}", "--tcp-listener-address", "127.0.0.1:"+freePort(t), "--store", "@store.url")
	p.must(t, "node", "create", "relay", "--registry", "@store.url", "--registry-address", "/dnsaddr/localhost/tcp/4000")
	db.Stop()
	p.upgradeRefused(t, "authority-p", "the store is away")
	p.upgraded(t, "relay")
	back := away(t, filepath.Join(p.dir, "store.url"))
	p.upgradeRefused(t, "authority-p", "store.url")
	p.upgradeRefused(t, "relay", "store.url")
	back()
	if err := db.Begin(); err != nil {
		t.Fatal(err)
	}
	p.upgraded(t, "authority-p")
}
