package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// oidcProvider builds and starts a real provider of OpenID Connect, and returns its issuer. Where it cannot be built the test is skipped.
func oidcProvider(t *testing.T) (issuer string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "provider")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = filepath.Join("..", "..", "authority", "oidc", "_provider")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("the provider cannot be built here: %v\n%s", err, out)
	}
	port := freePort(t)
	provider := exec.Command(path)
	provider.Env = append(os.Environ(), "PORT="+port)
	provider.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := provider.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = provider.Process.Kill()
		_ = provider.Wait()
	})
	issuer = "http://localhost:" + port + "/"
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(issuer + ".well-known/openid-configuration")
		if err == nil {
			_ = resp.Body.Close()
			return issuer
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// browser is what a person does with a code: opens the page, logs in, allows or denies.
func browser(t *testing.T, issuer, code, user, action string) {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar, Timeout: 90 * time.Second}
	resp, err := client.PostForm(issuer+"device/login", url.Values{"user_code": {code}, "username": {user}, "password": {"verysecure"}})
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !strings.Contains(string(page), "sallyport") {
		t.Fatalf("the provider does not ask: %s", page)
	}
	resp, err = client.Get(issuer + "device/confirm?action=" + action)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
}

var userCodePattern = regexp.MustCompile(`enter the code (\S+)`)

// signIn enrolls a machine by signing in as a user, who allows or denies it.
func (s *shell) signIn(issuer, machine, user, action string) outcome {
	s.t.Helper()
	s.at(machine, "sallyport project import --project-file partners.json")
	said := filepath.Join(s.dir, machine+".said")
	done := make(chan outcome, 1)
	go func() {
		done <- s.run("sallyport project enroll --oidc 2> "+said+" || { cat "+said+"; exit 1; }", "SALLYPORT_HOME="+filepath.Join(s.dir, machine))
	}()
	for {
		select {
		case o := <-done:
			return o
		case <-time.After(50 * time.Millisecond):
		}
		text, _ := os.ReadFile(said)
		if m := userCodePattern.FindStringSubmatch(string(text)); m != nil && action != "" {
			browser(s.t, issuer, m[1], user, action)
			action = ""
		}
	}
}

// TestTrustSignInEnds: who signed in is a member for --oidc-lifetime: then open connections end and new ones are refused, until the person has signed in again.
func TestTrustSignInEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	issuer := oidcProvider(t)
	s := newShell(t)
	writeSecret(t, filepath.Join(s.dir, "secret"), "secret\n")
	for _, line := range []string{"--relay-only --authority-identity x --authority-route y --oidc-issuer " + issuer, "--oidc-client-id x", "--oidc-issuer " + issuer} {
		if text := s.refusedAt("operator", "sallyport project create partners "+line); !strings.Contains(text, "oidc") {
			t.Errorf("%s: %s", line, text)
		}
	}
	s.at("operator", fmt.Sprintf(`sallyport project create partners --authority-port %s --relay-port %s --oidc-issuer %s --oidc-client-id sallyport \
		--oidc-client-secret-file secret --oidc-scope email --oidc-claim email --oidc-lifetime 1m > /dev/null
		sallyport project information --output json > partners.json; sallyport project ticket --identity admin --relay db > bank.ticket`, freePort(t), freePort(t), issuer))
	s.at("bank", "sallyport project enroll bank.ticket; sallyport tcp-outlet create --to "+patientEcho(t)+` --allow '(= subject.email "test-user@zitadel.ch")'; sallyport relay create db`)
	if o := s.signIn(issuer, "alice", "test-user@localhost", "allowed"); o.code != 0 {
		t.Fatalf("exit code %d\n%s", o.code, o.stdout)
	}
	signedIn, port := time.Now(), freePort(t)
	s.at("alice", "sallyport tcp-inlet create --from "+port+" --via db")
	works(t, "who signed in", port)
	open, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	says := func() error {
		_ = open.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := open.Write([]byte("ping")); err != nil {
			return err
		}
		_, err := io.ReadFull(open, make([]byte, 4))
		return err
	}
	if err := says(); err != nil {
		t.Fatal(err)
	}
	for says() == nil && time.Since(signedIn) < 3*time.Minute {
		time.Sleep(200 * time.Millisecond)
	}
	took := time.Since(signedIn)
	if took < 50*time.Second || took > 2*time.Minute {
		t.Errorf("the open connection of who signed in for a minute ended after %v", took)
	}
	t.Logf("a sign-in of 1 minute: the open connection ended after %.1f s", took.Seconds())
	refused(t, "the sign-in has ended", port)
	if o := s.signIn(issuer, "alice", "test-user@localhost", "allowed"); o.code != 0 {
		t.Fatalf("again: exit code %d\n%s", o.code, o.stdout)
	}
	eventuallyExchange(t, "signed in again", port)
}

// TestTrustSignIn: a person signs in with a real provider of OpenID Connect and gets a credential with what the provider says; who denies, who lacks a
// claim, who is blocked and who is a member otherwise does not.
func TestTrustSignIn(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	issuer := oidcProvider(t)
	s := newShell(t)
	if err := os.WriteFile(filepath.Join(s.dir, "secret"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	port, relay := freePort(t), freePort(t)
	s.at("authority", fmt.Sprintf(`sallyport identity create admin > admin.id
		sallyport authority create --project-identifier partners -t 127.0.0.1:%s --trusted-identities "{\"$(cat admin.id)\": {\"ockam-role\": \"enroller\"}}" \
			--oidc-issuer %s --oidc-client-id sallyport --oidc-client-secret-file secret --oidc-scope email --oidc-scope profile \
			--oidc-claim email --oidc-claim sub=person --oidc-require email_verified=true
		sallyport identity show authority-partners --full --encoding hex > history`, port, issuer))
	s.at("relay", fmt.Sprintf(`sallyport project create partners --relay-only --relay-port %s --authority-identity "$(cat history)" \
		--authority-route /ip4/127.0.0.1/tcp/%s/service/api > partners.json`, relay, port))
	s.at("authority", "sallyport project import --project-file partners.json")

	enroll := func(machine, user, action string) outcome { return s.signIn(issuer, machine, user, action) }
	// Places of one source are free again after 10 s.
	rest := func() { time.Sleep(10500 * time.Millisecond) }

	began := time.Now()
	o := enroll("alice", "test-user@localhost", "allowed")
	if o.code != 0 || !strings.Contains(o.stdout, `"email": "test-user@zitadel.ch"`) || !strings.Contains(o.stdout, `"person": "id1"`) {
		t.Fatalf("signed in: exit code %d\n%s", o.code, o.stdout)
	}
	t.Logf("signed in after %.1f s", time.Since(began).Seconds())
	// At once again it is refused; a busy machine may come to it after the rest, when it is not.
	o = enroll("alice", "test-user@localhost", "allowed")
	if took := time.Since(began); o.code == 0 && took < 10*time.Second || o.code != 0 && !strings.Contains(o.stdout, "Too many sign-ins") {
		t.Errorf("at once again, after %v: exit code %d\n%s", took, o.code, o.stdout)
	}
	// Who signed in uses a portal whose outlet asks for what the provider said.
	inlet := freePort(t)
	s.at("authority", "sallyport project ticket --identity admin --relay db > bank.ticket")
	s.at("bank", "sallyport project enroll bank.ticket; sallyport tcp-outlet create --to "+echoServer(t, "0")+
		` --allow '(= subject.email "test-user@zitadel.ch")'; sallyport relay create db`)
	s.at("alice", "sallyport tcp-inlet create --from "+inlet+" --via db")
	works(t, "who signed in", inlet)

	rest()
	if o := enroll("mallory", "test-user@localhost", "denied"); o.code == 0 || !strings.Contains(o.stdout, "did not sign in") {
		t.Errorf("denied: exit code %d\n%s", o.code, o.stdout)
	}
	alice := strings.TrimSpace(s.at("alice", "sallyport identity show"))
	s.at("authority", "sallyport project-member block --identity admin "+alice)
	eventually(t, "the end of a blocked member's connections", func() bool { return exchange(inlet) != nil }) // the node hears of it a moment later
	refused(t, "blocked", inlet)
	rest()
	if o := enroll("alias", "test-user@localhost", "allowed"); o.code == 0 || !strings.Contains(o.stdout, "blocked") {
		t.Errorf("a person that is blocked, with another identity: exit code %d\n%s", o.code, o.stdout)
	}
	rest()
	if o := enroll("bank", "test-user2", "allowed"); o.code == 0 || !strings.Contains(o.stdout, "member without signing in") {
		t.Errorf("a member with a ticket: exit code %d\n%s", o.code, o.stdout)
	}
	trail := s.at("authority", "sallyport authority audit --identity admin --output json")
	for _, event := range []string{`"signed_in"`, `"sign_in_refused"`, `"reason":"blocked"`, `"reason":"already_member"`} {
		if !strings.Contains(strings.ReplaceAll(trail, ": ", ":"), event) {
			t.Errorf("the trail does not have %s", event)
		}
	}
	// Nothing but the authority has the secret, and it is in no command line and no log.
	for _, pattern := range []string{"authority/nodes/*/stdout*.log", "alice/nodes/*/stdout*.log"} {
		logs, _ := filepath.Glob(filepath.Join(s.dir, pattern))
		for _, path := range logs {
			if text, _ := os.ReadFile(path); strings.Contains(string(text), "id_token") || strings.Contains(string(text), "eyJ") {
				t.Errorf("%s has a token", path)
			}
		}
	}
	// What cannot be is said before anything is made.
	for line, says := range map[string]string{
		"--oidc-issuer http://login.example.com --oidc-client-id x": "https",
		"--oidc-client-id x":                      "--oidc-issuer",
		"--oidc-issuer https://login.example.com": "--oidc-client-id",
		"--oidc-issuer https://x --oidc-client-id x --oidc-claim groups=ockam-role":       "ockam-role",
		"--oidc-issuer https://x --oidc-client-id x --oidc-client-secret-file nosuchfile": "nosuchfile",
		"--oidc-issuer https://x --oidc-client-id x --oidc-lifetime 1s":                   "--oidc-lifetime",
		"--oidc-issuer https://x --oidc-client-id x --oidc-require email":                 "--oidc-require",
	} {
		if text := s.refusedAt("nobody", "sallyport authority create --project-identifier p --trusted-identities '{}' "+line); !strings.Contains(text, says) {
			t.Errorf("%s: %s", line, text)
		}
	}
}
