package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// at precedes a line that is typed on another machine: a state directory of its own.
func (s *shell) at(machine, lines string) string {
	s.t.Helper()
	return s.must(lines, "SALLYPORT_HOME="+filepath.Join(s.dir, machine))
}

// refusedAt runs a line on a machine that must fail, and returns what it says.
func (s *shell) refusedAt(machine, line string) string {
	s.t.Helper()
	o := s.run(line, "SALLYPORT_HOME="+filepath.Join(s.dir, machine))
	if o.code == 0 {
		s.t.Errorf("at %s: %s succeeds:\n%s", machine, line, o.stdout)
	}
	return o.stdout + o.stderr
}

// apart makes a project whose authority and relay are on machines of their own, and returns where the relay's status is.
func (s *shell) apart() (status string) {
	s.t.Helper()
	authority, relay, status := freePort(s.t), freePort(s.t), "127.0.0.1:"+freePort(s.t)
	s.at("authority", "sallyport project create partners --authority-only --authority-port "+authority+" > partners.authority")
	s.at("relay", fmt.Sprintf(`sallyport project create partners --relay-only --relay-port %s --relay-status %s --authority-identity "$(cat partners.authority)" \
		--authority-route /ip4/127.0.0.1/tcp/%s/service/api > partners.json`, relay, status, authority))
	s.at("authority", "sallyport project import --project-file partners.json")
	return status
}

// until waits for a line to print something.
func (s *shell) awaits(machine, line, what string) {
	s.t.Helper()
	var o outcome
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if o = s.run(line, "SALLYPORT_HOME="+filepath.Join(s.dir, machine)); strings.Contains(o.stdout+o.stderr, what) {
			return
		}
	}
	s.t.Fatalf("at %s: %s does not say %q:\n%s%s", machine, line, what, o.stdout, o.stderr)
}

// TestTrustApart: the story with the authority and the relay on machines of their own. The relay's machine has nothing that makes members, the
// authority's passes nothing on, and who is deleted at the one is cut off at the other.
func TestTrustApart(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	status := s.apart()
	s.at("authority", "sallyport project ticket --relay postgres > bank.ticket; sallyport project ticket > analysis.ticket")
	target, port := echoServer(t, "0"), freePort(t)
	s.at("bank", "sallyport project enroll bank.ticket; sallyport tcp-outlet create --to "+target+"; sallyport relay create postgres")
	s.at("analysis", "sallyport project enroll analysis.ticket; sallyport tcp-inlet create --from "+port+" --via postgres")
	works(t, "authority and relay apart", port)

	if nodes := s.at("relay", "sallyport node list --jq '.[].node_name'"); strings.TrimSpace(nodes) != `"relay-partners"` {
		t.Errorf("the relay's machine runs %s", nodes)
	}
	if nodes := s.at("authority", "sallyport node list --jq '.[].node_name'"); strings.TrimSpace(nodes) != `"authority-partners"` {
		t.Errorf("the authority's machine runs %s", nodes)
	}
	for _, line := range []string{"sallyport project ticket", "sallyport project ticket --identity relay-partners", "sallyport project-member list --identity relay-partners",
		"sallyport project-member add --identity relay-partners --relay '*' $(sallyport identity show relay-partners)"} {
		s.refusedAt("relay", line)
	}

	// Open connections and new ones do without the authority for as long as credentials live.
	c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	says := func() error {
		_ = c.SetDeadline(time.Now().Add(90 * time.Second))
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 5))
		return err
	}
	if err := says(); err != nil {
		t.Fatal(err)
	}
	s.at("authority", "sallyport node stop authority-partners")
	if err := says(); err != nil {
		t.Errorf("without the authority: %v", err)
	}
	works(t, "without the authority", port)
	s.at("authority", "sallyport node start authority-partners")
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if strings.Contains(get(t, http.DefaultClient, "http://"+status+"/metrics", nil), `sallyport_authority_reachable{state="up"} 1`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the relay does not find the authority again")
		}
	}

	s.at("authority", "sallyport project-member delete --yes "+strings.TrimSpace(s.at("bank", "sallyport identity show")))
	began := time.Now()
	if err := says(); err == nil {
		err = says()
		for ; err == nil && time.Since(began) < time.Minute; err = says() {
			time.Sleep(10 * time.Millisecond)
		}
		if err == nil {
			t.Error("the connection of a deleted member goes on")
		}
	}
	t.Logf("a deleted member's open connection ended after %.3f s", time.Since(began).Seconds())
	s.awaits("bank", "sallyport relay list --output json", `"down"`)
	refused(t, "the bank is no member", port)
}

// trap is a server that counts what it is sent.
func trap(t *testing.T) (port string, stolen *atomic.Int64) {
	t.Helper()
	stolen = &atomic.Int64{}
	return serveOn(t, listenAt(t, "0"), func(c net.Conn) {
		b := make([]byte, 1024)
		for {
			n, err := c.Read(b)
			stolen.Add(int64(n))
			if err != nil {
				return
			}
		}
	}), stolen
}

// TestTrustOperatorIsFirst: who runs authority and relay poses as the bank before a client has ever seen it. A client whose ticket says who the bank is
// sends it nothing, and serves when the bank is there.
func TestTrustOperatorIsFirst(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	s.at("operator", fmt.Sprintf("sallyport project create partners --authority-port %s --relay-port %s", freePort(t), freePort(t)))
	s.at("operator", "sallyport project ticket --identity admin --relay postgres > bank.ticket; sallyport project ticket --identity admin --relay '*' > operator.ticket")
	bank := strings.TrimSpace(s.at("bank", "sallyport project enroll bank.ticket > enrolled; sallyport identity show"))
	s.at("operator", "sallyport project ticket --identity admin --expects "+bank+" > expects.ticket; sallyport project ticket --identity admin > plain.ticket")

	server, stolen := trap(t)
	impostor := strings.TrimSpace(s.at("impostor", "sallyport project enroll operator.ticket > /dev/null; sallyport tcp-outlet create --to "+server+
		" > /dev/null; sallyport relay create postgres > /dev/null; sallyport identity show"))
	port, careless := freePort(t), freePort(t)
	s.at("client", "sallyport project enroll expects.ticket; sallyport tcp-inlet create db --from "+port+" --via postgres --connection-wait 1s || true")
	s.at("careless", "sallyport project enroll plain.ticket; sallyport tcp-inlet create db --from "+careless+" --via postgres")
	s.awaits("client", "sallyport tcp-inlet show db --output json", impostor)
	if text := s.at("client", "sallyport tcp-inlet show db --output json"); !strings.Contains(text, bank) || !strings.Contains(text, "--authorized") {
		t.Errorf("the inlet does not say whom it expects, and what to do: %s", text)
	}
	if text := s.refusedAt("client", "sallyport tcp-inlet accept db"); !strings.Contains(text, "ticket") {
		t.Errorf("accept says %s", text)
	}
	say := func(port string) {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 5*time.Second)
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte("password"))
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = c.Read(make([]byte, 1))
	}
	for range 3 {
		say(port)
	}
	if n := stolen.Load(); n != 0 {
		t.Errorf("the operator read %d bytes", n)
	}
	t.Logf("the operator read %d bytes", stolen.Load())
	for deadline := time.Now().Add(90 * time.Second); stolen.Load() == 0; say(careless) { // or the attack is none
		if time.Now().After(deadline) {
			t.Fatal("the operator does not read what a client sends that expects nobody: the attack does not work")
		}
	}

	s.at("impostor", "sallyport relay delete postgres --yes; sallyport node stop")
	s.at("bank", "sallyport tcp-outlet create --to "+echoServer(t, "0")+"; sallyport relay create postgres")
	works(t, "the bank is there", port)
	if text := s.at("client", "sallyport project show --output json"); !strings.Contains(text, bank) {
		t.Errorf("the project does not say who is expected: %s", text)
	}
	// A ticket that names nobody does not take the expectation away, one that names another replaces it.
	s.at("operator", "sallyport project ticket --identity admin > plain.ticket; sallyport project ticket --identity admin --expects "+impostor+" > other.ticket")
	s.at("client", "sallyport project enroll plain.ticket")
	if text := s.at("client", "sallyport project show --output json"); !strings.Contains(text, bank) {
		t.Errorf("a ticket that names nobody took the expectation away: %s", text)
	}
	s.at("client", "sallyport project enroll other.ticket")
	if text := s.at("client", "sallyport project show --output json"); strings.Contains(text, bank) || !strings.Contains(text, impostor) {
		t.Errorf("another ticket's expectation: %s", text)
	}
}

// onTerminal runs a line on a machine whose standard output is a terminal, and returns what that shows.
func (s *shell) onTerminal(machine, line string) string {
	s.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		s.t.Skipf("no terminals here: %v", err)
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	o := s.run(fmt.Sprintf("{ %s; } > /dev/pts/%d", line, number), "SALLYPORT_HOME="+filepath.Join(s.dir, machine))
	if o.code != 0 {
		s.t.Fatalf("%s: exit code %d\n%s", line, o.code, o.stderr)
	}
	shown := make([]byte, 64<<10) // what was written is there when the command has ended
	n, err := unix.Read(int(master.Fd()), shown)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(shown[:n])
}

// TestTrustEnrolledIsPrinted: at enrolment a member is told what others need to know it by.
func TestTrustEnrolledIsPrinted(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	s.at("operator", fmt.Sprintf("sallyport project create partners --authority-port %s --relay-port %s", freePort(t), freePort(t)))
	s.at("operator", "sallyport project ticket --identity admin > m.ticket; sallyport project ticket --identity admin --relay blue > bank.ticket")
	text := s.onTerminal("member", "sallyport project enroll m.ticket")
	_, policy, _ := strings.Cut(text, "--allow '")
	policy, _, _ = strings.Cut(policy, "'")
	member := strings.TrimSpace(s.at("member", "sallyport identity show"))
	if !strings.Contains(policy, member) {
		t.Fatalf("no policy to paste:\n%s", text)
	}
	port, other := freePort(t), freePort(t)
	s.at("bank", "sallyport project enroll bank.ticket; sallyport tcp-outlet create --to "+echoServer(t, "0")+" --allow '"+policy+"'; sallyport relay create blue")
	s.at("member", "sallyport tcp-inlet create --from "+port+" --via blue")
	works(t, "the one that the policy names", port)
	s.at("operator", "sallyport project ticket --identity admin > m.ticket")
	s.at("other", "sallyport project enroll m.ticket; sallyport tcp-inlet create --from "+other+" --via blue --no-connection-wait")
	refused(t, "another member", other)
}

// TestTrustReferenceReadsExpects: the reference enrolls with a ticket that says who is expected, in each of its forms.
func TestTrustReferenceReadsExpects(t *testing.T) {
	path := reference()
	if path == "" {
		t.Skip("the reference is not installed: interop/install-reference")
	}
	t.Parallel()
	s := newShell(t)
	s.at("operator", fmt.Sprintf("sallyport project create partners --authority-port %s --relay-port %s", freePort(t), freePort(t)))
	id := strings.TrimSpace(s.at("operator", "sallyport identity show admin"))
	for _, form := range []string{"", "--hex", "--output json", "--legacy"} {
		s.at("operator", fmt.Sprintf("sallyport project ticket --identity admin --expects %s --expects %s %s > form.ticket", id, strings.Replace(id, "I0", "I1", 1), form))
		theirs := newProgram(t, path)
		if o := theirs.runWith(t, "", nil, "project", "enroll", strings.TrimSpace(s.must("cat form.ticket"))); o.code != 0 {
			t.Errorf("the reference does not enroll with a ticket %s: exit code %d\n%s%s", form, o.code, o.stdout, o.stderr)
		}
		s.at("operator", fmt.Sprintf("sallyport project ticket --identity admin --expects %s %s > form.ticket", id, form))
		s.at("ours"+strings.ReplaceAll(form, " ", ""), "sallyport project enroll form.ticket; sallyport project show --output json | grep -q "+id)
	}
}

// TestTrustAccountAuthority: who another authority says administers the project is an administrator of the project's authority, ours and the reference's
// alike; with --enforce-admin-checks nobody else makes enrollers. Both refuse and allow the same, with the same words.
func TestTrustAccountAuthority(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	said := map[string]map[string]string{}
	programs := map[string]*program{"ours": ours(t)}
	if path := reference(); path != "" {
		programs["reference"] = newProgram(t, path)
	}
	for name, authority := range programs {
		for _, enforce := range []bool{false, true} {
			s := newShell(t)
			port, status := freePort(t), freePort(t)
			s.must(`for i in account admin other enroller; do sallyport identity create $i; done; sallyport node create n1 --no-status-endpoint`)
			id := func(who string) string { return strings.TrimSpace(s.must("sallyport identity show " + who)) }
			account := strings.TrimSpace(s.must("sallyport identity show account --full --encoding hex"))
			args := []string{"authority", "create", "--project-identifier", "p1", "--identity", "made", "--account-authority", account, "-t", "127.0.0.1:" + port,
				"--trusted-identities", fmt.Sprintf(`{"%s": {"ockam-role": "enroller"}}`, id("enroller"))}
			if name == "ours" {
				args = append(args, "--status-endpoint", "127.0.0.1:"+status)
			}
			if enforce {
				args = append(args, "--enforce-admin-checks")
			}
			if o := authority.runWith(t, "", nil, args...); o.code != 0 {
				t.Fatalf("%s: %s%s", name, o.stdout, o.stderr)
			}
			history := authority.runWith(t, "", nil, "identity", "show", "made", "--full", "--encoding", "hex")
			if history.code != 0 {
				t.Fatalf("%s: --identity made nothing: %s", name, history.stderr)
			}
			// Credentials of the account authority: for this project, for another one, and one that has expired.
			store := func(who, attributes, ttl string) {
				t.Helper()
				s.must(fmt.Sprintf(`sallyport credential issue --as account --for %s %s --ttl %s --encoding hex > c
					sallyport credential store --at n1 --issuer %s --credential-path c --scope project-admin-p1`, id(who), attributes, ttl, id("account")))
			}
			store("admin", "--attribute project=p1", "1h")
			store("other", "--attribute project=p2", "1h")
			way := fmt.Sprintf(" --authority-route /ip4/127.0.0.1/tcp/%s/service/api --authority-identity %s --credential-scope project-admin-p1", port, strings.TrimSpace(history.stdout))
			// project ticket wants a project to write into the ticket.
			s.must(fmt.Sprintf(`sallyport project import --project-file /dev/stdin <<X
{"id":"p1","name":"p1","space_name":"s","space_id":"s","access_route":"/ip4/127.0.0.1/tcp/1/service/api","users":[],"user_roles":[],
"identity":"%s","project_change_history":"%s","authority_access_route":"/ip4/127.0.0.1/tcp/%s/service/api","authority_identity":"%s"}
X`, id("account"), account, port, strings.TrimSpace(history.stdout)))
			tried := map[string]string{}
			for _, who := range []string{"admin", "other", "enroller"} {
				for what, flags := range map[string]string{"a ticket": "", "an enroller's ticket": "--enroller"} {
					t.Log(name, enforce, who, what)
					o := s.run("sallyport project ticket --no-retry --identity " + who + " " + flags + way)
					answer := "yes"
					if o.code != 0 {
						answer = o.stdout + o.stderr
						if _, text, found := strings.Cut(answer, "403"); found { // what the authority said
							answer = text
						}
						answer, _, _ = strings.Cut(answer, "\n")
					}
					tried[who+" "+what] = answer
				}
			}
			for key, want := range map[string]bool{"admin a ticket": true, "admin an enroller's ticket": true, "other a ticket": false, "other an enroller's ticket": false,
				"enroller a ticket": true, "enroller an enroller's ticket": !enforce} {
				if (tried[key] == "yes") != want {
					t.Errorf("%s, enforce %v: %s: %s", name, enforce, key, tried[key])
				}
			}
			said[fmt.Sprint(name, enforce)] = tried
			if o := authority.runWith(t, "", nil, "node", "delete", "--all", "--yes"); o.code != 0 {
				t.Errorf("%s: %s", name, o.stderr)
			}
		}
	}
	for _, bad := range []string{"zz", "8182", "I635f253feba21ef944931e60351c60100b31d2c733eaf98c40888592e90d46fb"} {
		for name, p := range programs {
			if o := p.runWith(t, "", nil, "authority", "create", "--account-authority", bad, "--project-identifier", "p0", "--trusted-identities", "{}"); o.code != 64 {
				t.Errorf("%s takes %s for an account authority: exit code %d", name, bad, o.code)
			}
		}
	}
	for _, enforce := range []bool{false, true} {
		ours, theirs := said[fmt.Sprint("ours", enforce)], said[fmt.Sprint("reference", enforce)]
		for key, text := range theirs {
			if ours[key] != text {
				t.Errorf("enforce %v: %s: the reference says %q, ours %q", enforce, key, text, ours[key])
			}
		}
	}
}
