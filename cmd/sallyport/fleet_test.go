package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/servers"
)

// secretKeys are the private keys in the plain vaults of a machine.
func (s *shell) secretKeys(machine string) (keys [][]byte) {
	s.t.Helper()
	files, _ := filepath.Glob(filepath.Join(s.dir, machine, "vaults", "default", "*"))
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && len(b) == 32 {
			keys = append(keys, b)
		}
	}
	if len(keys) == 0 {
		s.t.Fatalf("the machine %s has no keys", machine)
	}
	return keys
}

// hasNone looks for secrets in all files of a machine, raw and in the encodings that a program would use.
func (s *shell) hasNone(machine string, secrets [][]byte) {
	s.t.Helper()
	read := 0
	err := filepath.WalkDir(filepath.Join(s.dir, machine), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		read++
		for _, secret := range secrets {
			for _, text := range [][]byte{secret, []byte(hex.EncodeToString(secret)), []byte(strings.ToUpper(hex.EncodeToString(secret))),
				[]byte(base64.StdEncoding.EncodeToString(secret)), []byte(base64.URLEncoding.EncodeToString(secret))} {
				if bytes.Contains(b, text) {
					s.t.Errorf("%s has a key of the project's first machine", path)
				}
			}
		}
		return nil
	})
	if err != nil || read < 5 {
		s.t.Fatalf("%d files of the machine %s were read: %v", read, machine, err)
	}
}

// TestRelayNode: a ticket makes another machine a relay of the project, once. That machine proves to be the project's node without the project's key, goes on while the
// first one is down, and ends when it is deleted.
func TestRelayNode(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	s.apart()
	s.at("relay", "sallyport project relay-node ticket --lifetime 2h > two.ticket")
	port := freePort(t)
	create := "sallyport relay-node create two.ticket --name two --port " + port
	if out := s.refusedAt("two", "sallyport project enroll two.ticket"); !strings.Contains(out, "ticket") {
		t.Errorf("a ticket for a node, used by a member: %s", out)
	}
	s.at("authority", "sallyport project ticket > member.ticket")
	if out := s.refusedAt("two", "sallyport relay-node create member.ticket"); !strings.Contains(out, "project relay-node ticket") {
		t.Errorf("a ticket for a member, used for a node: %s", out)
	}
	s.at("two", create)
	if out := s.refusedAt("three", "sallyport relay-node create two.ticket --name three --port "+freePort(t)); !strings.Contains(out, "used up or too old") {
		t.Errorf("the ticket a second time: %s", out)
	}
	if out := s.refusedAt("two", create); !strings.Contains(out, "already running") {
		t.Errorf("created twice: %s", out)
	}
	list := s.at("relay", "sallyport project relay-node list --jq '.[].route'")
	if want := `"/ip4/127.0.0.1/tcp/` + port + `/service/api"`; strings.TrimSpace(list) != want {
		t.Errorf("listed: %s, want %s", list, want)
	}
	for _, at := range []string{"two", "authority"} { // only the first machine keeps the list
		if out := s.refusedAt(at, "sallyport project relay-node ticket"); at == "authority" && !strings.Contains(out, "has the primary key") {
			t.Errorf("at %s: %s", at, out)
		}
	}
	if routes := s.at("relay", "sallyport project show --jq '.access_routes[]'"); strings.TrimSpace(routes) != strings.TrimSpace(list) {
		t.Errorf("the project, and so its tickets, have %s", routes)
	}
	s.hasNone("two", s.secretKeys("relay"))

	// Members accept it as the project's node, also while the first one is down.
	project := strings.Trim(strings.TrimSpace(s.at("relay", "sallyport project show --jq .identity")), `"`)
	s.at("member", "sallyport node create m")
	channel := "sallyport secure-channel create --from m --to /ip4/127.0.0.1/tcp/" + port + "/service/api --authorized " + project
	s.at("member", channel)
	s.at("relay", "sallyport node stop relay-partners")
	s.at("member", channel)
	s.at("relay", "sallyport node start relay-partners")

	// It starts again by itself with what its machine has.
	s.at("two", "sallyport node stop relay-node-two; sallyport node start relay-node-two")
	s.at("member", channel)

	s.at("relay", "sallyport project relay-node delete two --yes")
	if out := s.refusedAt("relay", "sallyport project relay-node delete two --yes"); !strings.Contains(out, "no relay node two") {
		t.Errorf("deleted twice: %s", out)
	}
	s.awaits("two", "sallyport node show relay-node-two --jq .status", `"stopped"`)
	if out := s.refusedAt("two", "sallyport node start relay-node-two"); !strings.Contains(out, "no relay of the project any more") {
		t.Errorf("started after it was deleted: %s", out)
	}
	s.refusedAt("member", channel)
}

// TestMembersHearOfRelays: members that were connected before hear at once of a relay that has come, also when it is a delegate that they are connected to, and of one that has gone, and keep that.
func TestMembersHearOfRelays(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	s.apart()
	s.at("authority", "sallyport project ticket --relay postgres > bank.ticket; sallyport project ticket > analysis.ticket")
	s.at("bank", "sallyport project enroll bank.ticket; sallyport tcp-outlet create --to "+freePort(t)+"; sallyport relay create postgres")
	s.at("analysis", "sallyport project enroll analysis.ticket; sallyport tcp-inlet create --from "+freePort(t)+" --via postgres")
	know := func(count string) {
		t.Helper()
		for _, machine := range []string{"bank", "analysis"} {
			s.awaits(machine, "sallyport project show --jq '.access_routes | length'", count)
		}
	}
	s.awaits("bank", "sallyport relay list --output json", `"up"`)
	for n, name := range []string{"two", "three"} {
		s.at("relay", "sallyport project relay-node ticket > "+name+".ticket")
		s.at(name, "sallyport relay-node create "+name+".ticket --name "+name+" --port "+freePort(t))
		know(fmt.Sprint(n + 1))
	}
	s.at("relay", "sallyport project relay-node delete three --yes")
	know("1")
	// Over another relay, whose list is the keeper's as it is told of it.
	s.at("relay", "kill -9 $(sallyport node show relay-partners --jq .pid)")
	s.awaits("bank", "sallyport relay list --output json", `"up"`)
	s.at("relay", "sallyport node start relay-partners; sallyport project relay-node ticket > four.ticket")
	s.at("four", "sallyport relay-node create four.ticket --name four --port "+freePort(t))
	know("2")
}

// TestRelayNodesChangeOver: members hear of a second relay from the first. When either is killed, open connections go on over the other, without a byte lost, and
// new ones are taken.
func TestRelayNodesChangeOver(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	s.apart()
	s.at("relay", "sallyport project relay-node ticket > two.ticket")
	s.at("two", "sallyport relay-node create two.ticket --name two --port "+freePort(t))
	s.at("authority", "sallyport project ticket --relay postgres > bank.ticket; sallyport project ticket > analysis.ticket")
	target, port := echoServer(t, "0"), freePort(t)
	s.at("bank", "sallyport project enroll bank.ticket; sallyport tcp-outlet create --to "+target+"; sallyport relay create postgres")
	s.at("analysis", "sallyport project enroll analysis.ticket; sallyport tcp-inlet create --from "+port+" --via postgres")
	works(t, "at the start", port)
	for _, machine := range []string{"bank", "analysis"} {
		s.awaits(machine, "sallyport project show --jq '.access_routes | length'", "1")
	}
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := 0
	says := func() {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		for range 10 {
			line := fmt.Sprintf("line %08d\n", sent)
			if _, err := io.WriteString(c, line); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(line))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != line {
				t.Fatalf("sent %q, back came %q: %v", line, got, err)
			}
			sent++
		}
	}
	says()
	for _, round := range []struct{ machine, node string }{{"relay", "relay-partners"}, {"two", "relay-node-two"}, {"relay", "relay-partners"}} {
		s.at(round.machine, "kill -9 $(sallyport node show "+round.node+" --jq .pid)")
		began := time.Now()
		says()
		took := time.Since(began)
		t.Logf("%s killed: the open connection went on after %.1f s", round.machine, took.Seconds())
		works(t, round.machine+" killed: a new connection", port)
		s.at(round.machine, "sallyport node start "+round.node)
	}
}

// succeeds runs lines again until they succeed: a database that is slow is one that is away, for which an authority refuses within 2 s.
func (s *shell) succeeds(machine string, lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		s.awaits(machine, line+" && echo it has succeeded", "it has succeeded")
	}
}

// TestAuthorityNode: a second authority behind the same identity, with the same members in PostgreSQL and without the primary key. Members hear of it; with the first one
// killed tickets are redeemed, credentials fetched and members taken back.
func TestAuthorityNode(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	db := servers.StartPostgres(t)
	s := newShell(t)
	s.env = append(s.env, storeVariable+"="+db.URL("", "", "postgres"))
	one, two := freePort(t), freePort(t)
	s.at("authority", `sallyport identity create admin
		sallyport authority create --project-identifier partners --trusted-identities "{\"$(sallyport identity show admin)\": {\"ockam-role\": \"enroller\"}}" -t 127.0.0.1:`+one)
	history := strings.TrimSpace(s.at("authority", "sallyport identity show authority-partners --full --encoding hex"))
	s.at("relay", "sallyport project create partners --relay-only --relay-port "+freePort(t)+" --authority-identity "+history+
		" --authority-route /ip4/127.0.0.1/tcp/"+one+"/service/api > partners.json")
	s.at("authority", "sallyport project import --project-file partners.json; sallyport project authority-node ticket > two.ticket")
	if out := s.refusedAt("two", "sallyport relay-node create two.ticket"); !strings.Contains(out, "authority-node create") {
		t.Errorf("a ticket for an authority, used for a relay: %s", out)
	}
	s.at("two", "sallyport authority-node create two.ticket --name two --port "+two)
	s.hasNone("two", s.secretKeys("authority"))
	if out := s.refusedAt("two", "sallyport project authority-node ticket"); strings.Contains(out, "node_code") {
		t.Errorf("the second authority made a ticket: %s", out)
	}

	s.succeeds("authority", "sallyport project ticket --identity admin --relay postgres > bank.ticket", "sallyport project ticket --identity admin > analysis.ticket",
		"sallyport project ticket --identity admin > late.ticket")
	target, port := echoServer(t, "0"), freePort(t)
	s.succeeds("bank", "sallyport project enroll bank.ticket")
	s.succeeds("analysis", "sallyport project enroll analysis.ticket")
	s.at("bank", "sallyport tcp-outlet create --to "+target+"; sallyport relay create postgres")
	s.at("analysis", "sallyport tcp-inlet create --from "+port+" --via postgres")
	works(t, "with both", port)
	s.awaits("bank", "sallyport project show --jq '.authority_access_routes | length'", "1")

	s.at("authority", "kill -9 $(sallyport node show authority-partners --jq .pid)")
	s.succeeds("late", "sallyport project enroll late.ticket")
	if out := s.refusedAt("later", "sallyport project enroll late.ticket"); out == "" {
		t.Error("a ticket was used twice")
	}
	s.succeeds("authority", "sallyport project-member list --identity admin")
	works(t, "with the second", port)
	gone := strings.TrimSpace(s.at("late", "sallyport identity show"))
	s.succeeds("authority", "sallyport project-member delete --identity admin --yes "+gone)
	s.refusedAt("late", "sallyport project enroll")
	s.succeeds("authority", "sallyport node start authority-partners")
	s.at("authority", "sallyport project authority-node delete two --yes")
}

// TestSignInAtSecondAuthority: with the first authority killed a person signs in at the second one, which has the same provider.
func TestSignInAtSecondAuthority(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	db := servers.StartPostgres(t)
	issuer := oidcProvider(t)
	s := newShell(t)
	writeSecret(t, filepath.Join(s.dir, "secret"), "secret\n")
	s.env = append(s.env, storeVariable+"="+db.PatientURL("", "", "postgres"))
	provider := " --oidc-issuer " + issuer + " --oidc-client-id sallyport --oidc-client-secret-file secret --oidc-scope email --oidc-claim email"
	s.at("operator", "sallyport project create partners --authority-port "+freePort(t)+" --relay-port "+freePort(t)+provider)
	s.at("operator", "sallyport project authority-node ticket > two.ticket")
	if out := s.refusedAt("two", "sallyport authority-node create two.ticket --oidc-client-id x"); !strings.Contains(out, "oidc-issuer") {
		t.Errorf("a client without a provider: %s", out)
	}
	s.at("two", "sallyport authority-node create two.ticket --name two --port "+freePort(t)+provider)
	s.awaits("operator", "sallyport project show --jq '.authority_access_routes | length'", "1")
	s.at("operator", "sallyport project information --output json > partners.json; kill -9 $(sallyport node show authority-partners --jq .pid)")
	o := s.signIn(issuer, "alice", "test-user@localhost", "allowed")
	if o.code != 0 || !strings.Contains(o.stdout, `"email": "test-user@zitadel.ch"`) {
		t.Fatalf("signed in: exit code %d\n%s", o.code, o.stdout)
	}
}
