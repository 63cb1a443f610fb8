package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sallyport/node/admin"
)

// away takes a file or a directory away, and returns what puts it back.
func away(t *testing.T, path string) (back func()) {
	t.Helper()
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Rename(path+".away", path); err != nil {
			t.Fatal(err)
		}
	}
}

// upgradeRefused expects that a node goes on as it was when it is to be upgraded, in the same process, and that the command says why.
func (p *program) upgradeRefused(t *testing.T, node string, why ...string) {
	t.Helper()
	pid := p.must(t, "node", "show", node, "--jq", ".pid")
	out := p.runWith(t, "", nil, "node", "upgrade", node, "--drain", "0s")
	for _, words := range append(why, "goes on as it was") {
		if out.code == 0 || !strings.Contains(out.stderr, words) {
			t.Errorf("%s: exit code %d, nothing of %q in\n%s%s", node, out.code, words, out.stdout, out.stderr)
		}
	}
	if now := p.must(t, "node", "show", node, "--jq", ".pid"); now != pid {
		t.Fatalf("%s: process %s is now %s: %s", node, pid, now, out.stderr)
	}
}

// upgraded expects that a node can be upgraded.
func (p *program) upgraded(t *testing.T, node string) {
	t.Helper()
	if out := p.runWith(t, "", nil, "node", "upgrade", node, "--drain", "0s"); out.code != 0 {
		t.Fatalf("%s: exit code %d, %s", node, out.code, out.stderr)
	}
}

// TestNodeUpgradeNeeds: a node is not upgraded while something that its start needs is not as it was. With that in place again it is.
func TestNodeUpgradeNeeds(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	p := ours(t)
	at := func(name string) string { return filepath.Join(p.dir, name) }
	writeCertificate(t, at("ca.pem"), at("ca.key"))
	writeCertificate(t, at("chain.pem"), at("key.pem"))
	writeSecret(t, at("token"), "a-word-of-more-than-sixteen\n")
	writeSecret(t, at("secret"), "what the provider knows\n")
	if err := os.Mkdir(at("records"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.must(t, "node", "create", "n", "--status-token", "token", "--tls-ca", "ca.pem", "--listener", "wss://127.0.0.1:"+freePort(t), "--tls-certificate", "chain.pem", "--tls-key", "key.pem",
		"--records", "records/r.jsonl")
	p.must(t, "authority", "create", "--project-identifier", "p", "--trusted-identities", "{}", "--tcp-listener-address", "127.0.0.1:"+freePort(t), "--oidc-issuer", "https://127.0.0.1:1",
		"--oidc-client-id", "x", "--oidc-client-secret-file", "secret")
	for _, c := range []struct{ node, path string }{
		{"n", "token"}, {"n", "ca.pem"}, {"n", "chain.pem"}, {"n", "key.pem"}, {"n", "records"}, {"authority-p", "secret"}, {"authority-p", "state/authority-p.db"},
	} {
		back := away(t, at(c.path))
		p.upgradeRefused(t, c.node, c.path)
		back()
	}
	back := away(t, at("chain.pem"))
	if err := os.WriteFile(at("chain.pem"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.upgradeRefused(t, "n", "chain.pem")
	back()
	p.upgraded(t, "n")
	p.upgraded(t, "authority-p")
}

// TestNodeUpgradePassphrase: a node whose vault a person has opened is not upgraded when what that person typed opens the vault no more.
func TestNodeUpgradePassphrase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	p := ours(t)
	const ask, fresh, again = "passphrase of vault lk: ", "new passphrase: ", "once more: "
	type answers = [][2]string
	terminal := func(a answers, args ...string) {
		t.Helper()
		if o := p.terminal(t, a, args...); o.code != 0 {
			t.Fatalf("%q: %+v", args, o)
		}
	}
	terminal(answers{{fresh, "one two"}, {again, "one two"}}, "vault", "create", "lk", "--passphrase")
	terminal(answers{{ask, "one two"}}, "identity", "create", "i", "--vault", "lk")
	terminal(answers{{ask, "one two"}}, "node", "create", "n", "--identity", "i")
	p.upgraded(t, "n")
	terminal(answers{{ask, "one two"}, {fresh, "three"}, {again, "three"}}, "vault", "encrypt", "lk", "--passphrase")
	p.upgradeRefused(t, "n", "passphrase of vault lk is wrong")
	terminal(answers{{ask, "three"}, {fresh, "one two"}, {again, "one two"}}, "vault", "encrypt", "lk", "--passphrase")
	p.upgraded(t, "n")
	if logs := p.must(t, "node", "logs", "n"); logs != "" {
		if b, err := os.ReadFile(logs); err != nil || strings.Contains(string(b), "one two") {
			t.Errorf("the passphrase is in the log: %v", err)
		}
	}
}

// TestNodeUpgradePIN: a node with its keys in a token, whose PIN a person has typed, is not upgraded while the token or the program that loads its module is away. What an
// upgrade leaves of that program ends.
func TestNodeUpgradePIN(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	p := ours(t)
	tokens, ask := softToken(t, p), "PIN of vault typed: "
	for _, args := range [][]string{{"vault", "create", "typed", "--pkcs11", "pkcs11:token=bank?module-name=softhsm2"}, {"identity", "create", "t", "--vault", "typed"}, {"node", "create", "n", "--identity", "t"}} {
		if o := p.terminal(t, [][2]string{{ask, "1234"}}, args...); o.code != 0 {
			t.Fatalf("%q: %+v", args, o)
		}
	}
	path, _ := strings.CutPrefix(p.env[len(p.env)-1], "PATH=")
	bin, _, _ := strings.Cut(path, ":")
	back := away(t, filepath.Join(bin, "sallyport-pkcs11"))
	p.upgradeRefused(t, "n", "sallyport-pkcs11 is not installed")
	back()
	back = away(t, tokens)
	p.upgradeRefused(t, "n", "keys are away")
	back()
	pid := p.must(t, "node", "show", "n", "--jq", ".pid")
	for range 2 {
		p.upgraded(t, "n")
	}
	var left []string
	eventually(t, "no process is left that nobody waits for", func() bool {
		left = childrenIn(t, pid, 'Z')
		return len(left) == 0
	})
}

// childrenIn lists the children of a process that are in a state (proc(5)).
func childrenIn(t *testing.T, pid string, state byte) (list []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[0][0] == state && f[1] == pid {
			list = append(list, file)
		}
	}
	return list
}

// TestNodeUpgradeSymlink: a node that was started through a symbolic link goes on, at SIGUSR2, in the program that the link leads to by then, also after an upgrade by command.
func TestNodeUpgradeSymlink(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	s := newShell(t)
	s.must(`
		for v in v1 v2 v3; do mkdir $v; cp "$(command -v sallyport)" $v/sallyport; done
		ln -s v1 cur
		cur/sallyport node create n`)
	pid := s.pid("n")
	runs := func(version string) {
		t.Helper()
		eventually(t, "the node runs "+version, func() bool {
			exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
			return err == nil && exe == filepath.Join(s.dir, version, "sallyport") && strings.Contains(s.run("sallyport node upgrade --last n --jq .state").stdout, "done")
		})
	}
	s.must("ln -sfn v2 cur")
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	runs("v2")
	s.must("cur/sallyport node upgrade n; ln -sfn v3 cur")
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	runs("v3")
}

// TestNodeStopDrainRefused: a time that is none stops nothing.
func TestNodeStopDrainRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nodes")
	}
	t.Parallel()
	p := ours(t)
	p.must(t, "node", "create", "n")
	for _, drain := range []string{"-1s", "2h", "soon"} {
		if out := p.runWith(t, "", nil, "node", "stop", "n", "--drain", drain); out.code == 0 || !strings.Contains(out.stdout+out.stderr, "drain") {
			t.Errorf("--drain %s: %+v", drain, out)
		}
		if out := p.must(t, "node", "list", "--jq", ".[].status.status"); !strings.Contains(out, "running") {
			t.Fatalf("--drain %s has stopped it: %s", drain, out)
		}
	}
}

// TestUpgradeText: what was carried and then reset did not go on.
func TestUpgradeText(t *testing.T) {
	got := upgradeText("n", admin.Upgrade{State: admin.UpgradeDone, From: "1", To: "2", PauseMS: 33, BackMS: 161, Connections: 40, Reset: map[string]int{"held for too long": 1, "refused by policy": 2},
		Left: map[string]int{"TLS ends at this node": 1}})
	const want = "upgraded node n from 1 to 2: stopped for 33 ms, 40 connections went on after 161 ms\n  1 was reset: held for too long\n  2 were reset: refused by policy\n" +
		"  reset: 1 connection: TLS ends at this node"
	if got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
