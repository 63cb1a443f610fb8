package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal runs a command line on a terminal and types an answer after each prompt that it waits for.
func (p *program) terminal(t *testing.T, answers [][2]string, args ...string) outcome {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.path, args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var mu sync.Mutex
	var seen bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			mu.Lock()
			seen.Write(b[:n])
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	from := 0
	for _, a := range answers {
		eventually(t, "the prompt "+a[0], func() bool {
			mu.Lock()
			defer mu.Unlock()
			at := strings.Index(seen.String()[from:], a[0])
			if at >= 0 {
				from += at + len(a[0])
			}
			return at >= 0
		})
		time.Sleep(200 * time.Millisecond) // the prompt is shown just before the echo is turned off
		if _, err := master.WriteString(a[1] + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	select { // a node in the background may hold nothing of the terminal
	case <-done:
	case <-ctx.Done():
		t.Error("the terminal stays open")
	}
	mu.Lock()
	defer mu.Unlock()
	return outcome{cmd.ProcessState.ExitCode(), seen.String(), ""}
}

func writeSecret(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// oneLineOf fails unless a command line fails with one line of error that has all words, and a hint.
func (p *program) oneLineOf(t *testing.T, words []string, args ...string) {
	t.Helper()
	o := p.runWith(t, "", nil, args...)
	lines := strings.Split(strings.TrimSpace(o.stderr), "\n")
	if o.code == 0 || o.stdout != "" || len(lines) > 2 {
		t.Errorf("%q: exit code %d\n%s%s", args, o.code, o.stdout, o.stderr)
	}
	for _, w := range words {
		if !strings.Contains(o.stderr, w) {
			t.Errorf("%q: nothing of %q in\n%s", args, w, o.stderr)
		}
	}
}

// TestTrustKeysFiles: encrypted vaults, whatever opens them, through a node's start and restart; what is wrong is one line.
func TestTrustKeysFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	key := writeSecret(t, p.dir+"/key", strings.Repeat("k", 32))
	pass := writeSecret(t, p.dir+"/pass", "correct horse\n")
	p.must(t, "vault", "create", "keyed", "--key-file", key)
	p.must(t, "vault", "create", "worded", "--passphrase-file", "pass")
	works := func(name string) {
		t.Helper()
		if out := p.must(t, "message", "send", "hi", "--to", "/node/"+name+"/secure/api/service/uppercase", "--identity", name); out != "HI" {
			t.Errorf("%q", out)
		}
	}
	for _, name := range []string{"keyed", "worded"} {
		p.must(t, "identity", "create", name, "--vault", name)
		p.must(t, "node", "create", name, "--identity", name)
		works(name)
		p.must(t, "node", "stop", name)
		p.must(t, "node", "start", name)
		works(name)
	}
	// No file of the state directory holds a secret in clear: a plain one has 32 bytes.
	err := filepath.WalkDir(p.dir+"/state/vaults", func(path string, d os.DirEntry, err error) error {
		if info, _ := d.Info(); err == nil && !d.IsDir() && info.Size() == 32 {
			t.Errorf("%s is not encrypted", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if out := p.must(t, "vault", "show", "worded", "--jq", ".vault.opened_by"); !strings.Contains(out, "/pass") {
		t.Errorf("it is not told what opens it:\n%s", out)
	}

	// A running node goes on whatever becomes of the file; it cannot start again.
	writeSecret(t, pass, "incorrect horse\n")
	works("keyed")
	p.must(t, "node", "stop", "worded")
	p.oneLineOf(t, []string{"passphrase of vault worded", "/pass", "wrong"}, "node", "start", "worded")
	p.oneLineOf(t, []string{"passphrase of vault worded", "wrong"}, "identity", "create", "another", "--vault", "worded")
	if out := p.must(t, "identity", "list"); strings.Contains(out, "another") {
		t.Errorf("half of an identity is left:\n%s", out)
	}
	if err := os.Chmod(pass, 0o644); err != nil {
		t.Fatal(err)
	}
	p.oneLineOf(t, []string{"others have access", "chmod 600"}, "node", "start", "worded")
	if err := os.Remove(pass); err != nil {
		t.Fatal(err)
	}
	p.oneLineOf(t, []string{"/pass", "no such file"}, "node", "start", "worded")
	writeSecret(t, pass, "correct horse\n")
	p.must(t, "node", "start", "worded")

	p.oneLineOf(t, []string{"32 random bytes"}, "vault", "create", "weak", "--key-file", pass)
	p.oneLineOf(t, []string{"is empty"}, "vault", "create", "weak", "--passphrase-file", writeSecret(t, p.dir+"/empty", "\n"))
	p.oneLineOf(t, []string{"no terminal"}, "vault", "create", "weak", "--passphrase")
	p.oneLineOf(t, []string{"LoadCredential"}, "vault", "create", "weak", "--credential", "c")
	p.fails(t, "not found", "vault", "show", "weak")
	if _, err := os.Stat(p.dir + "/state/vaults/weak"); err == nil {
		t.Error("a vault that could not be made left a directory")
	}

	// The default vault, in clear so far, is encrypted while a node uses it, with a credential of systemd; then it gets another key.
	p.must(t, "identity", "create", "plain", "--vault", "open")
	p.must(t, "node", "create", "plain", "--identity", "plain")
	credentials := p.dir + "/credentials"
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	writeSecret(t, credentials+"/sp", "from systemd")
	if o := p.runWith(t, "", []string{"CREDENTIALS_DIRECTORY=" + credentials}, "vault", "encrypt", "open", "--credential", "sp"); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	works("keyed")
	p.must(t, "node", "stop", "plain")
	p.oneLineOf(t, []string{`systemd credential "sp"`, "LoadCredential=sp:"}, "node", "start", "plain")
	if o := p.runWith(t, "", []string{"CREDENTIALS_DIRECTORY=" + credentials}, "node", "start", "plain"); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	if o := p.runWith(t, "", []string{"CREDENTIALS_DIRECTORY=" + credentials}, "vault", "encrypt", "open", "--key-file", key); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	p.must(t, "node", "stop", "plain")
	p.must(t, "node", "start", "plain")
	works("plain")
}

// TestTrustKeysPrompt: a passphrase that is nowhere but in a head. It is asked for at a terminal, once for a command, and a node in the background
// gets it from the command that starts it.
func TestTrustKeysPrompt(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	o := p.terminal(t, [][2]string{{"new passphrase: ", "one two"}, {"once more: ", "three"}}, "vault", "create", "v", "--passphrase")
	if o.code == 0 || !strings.Contains(o.stdout, "differ") {
		t.Errorf("%+v", o)
	}
	o = p.terminal(t, [][2]string{{"new passphrase: ", "one two"}, {"once more: ", "one two"}}, "vault", "create", "v", "--passphrase")
	if o.code != 0 || strings.Contains(o.stdout, "one two") {
		t.Fatalf("%+v", o)
	}
	ask := "passphrase of vault v: "
	if o = p.terminal(t, [][2]string{{ask, "wrong"}, {ask, "one two"}}, "identity", "create", "i", "--vault", "v"); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	if o = p.terminal(t, [][2]string{{ask, "a"}, {ask, "b"}, {ask, "c"}}, "identity", "create", "i2", "--vault", "v"); o.code == 0 || !strings.Contains(o.stdout, "is wrong") {
		t.Errorf("%+v", o)
	}
	if o = p.terminal(t, [][2]string{{ask, "one two"}}, "node", "create", "n", "--identity", "i"); o.code != 0 {
		t.Fatalf("%+v", o)
	}
	p.must(t, "node", "stop", "n")
	p.oneLineOf(t, []string{"vault v needs its passphrase", "no terminal"}, "node", "start", "n")
	if o = p.terminal(t, [][2]string{{ask, "one two"}}, "node", "start", "n"); o.code != 0 {
		t.Fatalf("%+v", o)
	}
}

// eventually waits for what comes by itself.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}
