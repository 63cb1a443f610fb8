package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// loses ends a machine's node as a power cut does, and takes its state directory away.
func (s *shell) loses(machine, node string) {
	s.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(s.at(machine, "sallyport node show "+node+" --jq .pid")))
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the end of "+node, func() bool { return syscall.Kill(pid, 0) != nil })
	if err := os.RemoveAll(filepath.Join(s.dir, machine)); err != nil {
		s.t.Fatal(err)
	}
}

// TestTrustBackup: an authority is backed up while members come, its machine is lost, and it goes on elsewhere: its members and its trail are there, nobody
// gets in with a ticket that may have been used since, and whom it deletes is cut off as before. Then the same with a member's node.
func TestTrustBackup(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	status := s.apart()
	writeSecret(t, filepath.Join(s.dir, "key"), strings.Repeat("k", 32))
	s.at("authority", "sallyport project ticket --relay postgres > bank.ticket; sallyport project ticket > analysis.ticket; sallyport project ticket > late.ticket")
	target, port := echoServer(t, "0"), freePort(t)
	s.at("bank", "sallyport project enroll bank.ticket; sallyport tcp-outlet create --to "+target+"; sallyport relay create postgres")
	s.at("analysis", "sallyport project enroll analysis.ticket; sallyport tcp-inlet create --from "+port+" --via postgres")
	works(t, "before", port)

	// Members come while the backup is made: each has a ticket, and is a member before the next begins.
	var came atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if o := s.run(fmt.Sprintf("sallyport project ticket > load.ticket && SALLYPORT_HOME=%s/load%d sallyport project enroll load.ticket", s.dir, n),
				"SALLYPORT_HOME="+filepath.Join(s.dir, "authority")); o.code != 0 {
				t.Errorf("a member does not get in: %s", o.stderr)
				return
			}
			came.Add(1)
		}
	}()
	eventually(t, "a member", func() bool { return came.Load() > 0 })
	before := came.Load()
	began := time.Now()
	s.at("authority", "sallyport backup authority.backup --key-file key")
	took := time.Since(began)
	eventually(t, "another member", func() bool { return came.Load() > before })
	close(stop)
	<-done
	s.at("authority", "sallyport project-member list --jq length > /dev/null")
	s.loses("authority", "authority-partners")

	began = time.Now()
	for _, line := range strings.Split(s.at("moved", "sallyport restore authority.backup --key-file key --jq .tickets_revoked"), "\n") {
		if strings.Contains(line, `"authority-partners.db": 0`) {
			t.Error("tickets stay good")
		}
	}
	s.at("moved", "sallyport node start authority-partners")
	t.Logf("backup of a running authority took %.2f s, restore and start %.2f s (%d members came meanwhile)", took.Seconds(), time.Since(began).Seconds(), came.Load())
	s.at("moved", "sallyport authority audit verify")
	if text := s.at("moved", "sallyport authority audit"); !strings.Contains(text, "authority_restored") || !strings.Contains(text, "member_added") {
		t.Errorf("the trail says\n%s", text)
	}
	var members int
	if _, err := fmt.Sscan(s.at("moved", "sallyport project-member list --jq length"), &members); err != nil || int64(members) < 3+before {
		t.Errorf("%d members, %d had come before the backup: %v", members, before, err)
	}
	eventually(t, "the relay's authority", func() bool {
		return strings.Contains(get(t, http.DefaultClient, "http://"+status+"/metrics", nil), `sallyport_authority_reachable{state="up"} 1`)
	})
	works(t, "with the authority elsewhere", port)
	if text := s.refusedAt("late", "sallyport project enroll late.ticket"); !strings.Contains(text, "ticket") {
		t.Errorf("an old ticket: %s", text)
	}
	s.at("moved", "sallyport project ticket > new.ticket")
	second := freePort(t)
	s.at("new", "sallyport project enroll new.ticket; sallyport tcp-inlet create --from "+second+" --via postgres")
	works(t, "a new member", second)

	// The bank's box moves too.
	s.at("bank", "sallyport backup bank.backup --node $(sallyport node show --jq .name | tr -d '\"') --key-file key")
	name := strings.Trim(strings.TrimSpace(s.at("bank", "sallyport node show --jq .name")), `"`)
	s.loses("bank", name)
	s.at("bank2", "sallyport restore bank.backup --key-file key; sallyport node start "+name)
	works(t, "the bank elsewhere", port)

	s.at("moved", "sallyport project-member delete --yes "+strings.TrimSpace(s.at("analysis", "sallyport identity show")))
	eventually(t, "the end of a deleted member's connections", func() bool { return exchange(port) != nil })
	refused(t, "deleted after the restore", port)
	works(t, "another member stays", second)
}

// TestTrustBackupFaults: what is wrong with a backup is one line, and nothing is half restored.
func TestTrustBackupFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	key := writeSecret(t, p.dir+"/key", strings.Repeat("k", 32))
	other := writeSecret(t, p.dir+"/other", strings.Repeat("x", 32))
	word := writeSecret(t, p.dir+"/word", "passphrase\n")
	file := p.dir + "/box.backup"
	p.must(t, "vault", "create", "locked", "--key-file", key)
	p.must(t, "identity", "create", "i", "--vault", "locked")
	p.must(t, "node", "create", "n", "--identity", "i")
	o := p.runWith(t, "", nil, "backup", file, "--key-file", key)
	if o.code != 0 || !strings.Contains(o.stderr, "not in the backup: the key file that opens vault \"locked\" ("+key+")") {
		t.Fatalf("%+v", o)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	p.oneLineOf(t, []string{"exists", "--force"}, "backup", file, "--key-file", key)
	p.oneLineOf(t, []string{"no terminal", "--passphrase-file"}, "backup", p.dir+"/b")
	p.oneLineOf(t, []string{"nosuch"}, "backup", p.dir+"/b", "--node", "nosuch", "--key-file", key)
	p.oneLineOf(t, []string{"is empty"}, "backup", p.dir+"/b", "--key-file", writeSecret(t, p.dir+"/empty", ""))
	if left, err := filepath.Glob(p.dir + "/.b*"); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := func(name string, content []byte) string {
		return writeSecret(t, filepath.Join(p.dir, name), string(content))
	}
	flipped := append([]byte(nil), whole...)
	flipped[len(flipped)-100] ^= 1
	elsewhere := ours(t)
	elsewhere.oneLineOf(t, []string{"wrong passphrase or key", "nothing was restored"}, "restore", file, "--key-file", other)
	elsewhere.oneLineOf(t, []string{"made with a key file, not a passphrase"}, "restore", file, "--passphrase-file", word)
	elsewhere.oneLineOf(t, []string{"cut short or changed", "nothing was restored"}, "restore", bad("cut", whole[:len(whole)-100]), "--key-file", key)
	elsewhere.oneLineOf(t, []string{"cut short or changed", "nothing was restored"}, "restore", bad("flipped", flipped), "--key-file", key)
	elsewhere.oneLineOf(t, []string{"later version", "the version that made it"}, "restore", bad("later", []byte(strings.Replace(string(whole), "backup 1", "backup 7", 1))), "--key-file", key)
	elsewhere.oneLineOf(t, []string{"not a backup"}, "restore", bad("other", []byte("{}\n")), "--key-file", key)
	elsewhere.oneLineOf(t, []string{"no such file"}, "restore", p.dir+"/nosuch", "--key-file", key)
	if list, err := os.ReadDir(elsewhere.dir + "/state"); err == nil && len(list) > 1 {
		t.Errorf("something was restored: %v", list)
	}
	elsewhere.must(t, "restore", file, "--key-file", key, "--check")
	if _, err := os.Stat(elsewhere.dir + "/state/identities.json"); err == nil {
		t.Error("a check restores")
	}
	elsewhere.must(t, "restore", file, "--key-file", key)
	elsewhere.oneLineOf(t, []string{"state already", "--force"}, "restore", file, "--key-file", key)
	elsewhere.must(t, "node", "start", "n")
	elsewhere.oneLineOf(t, []string{"running", "node stop n"}, "restore", file, "--key-file", key, "--force")
	elsewhere.must(t, "node", "stop", "n")
	elsewhere.must(t, "restore", file, "--key-file", key, "--force")
	if a, b := p.must(t, "identity", "show", "i"), elsewhere.must(t, "identity", "show", "i"); a != b {
		t.Errorf("%s became %s", a, b)
	}
	p.must(t, "backup", p.dir+"/word.backup", "--passphrase-file", word)
	elsewhere.must(t, "restore", p.dir+"/word.backup", "--passphrase-file", word, "--check")
	elsewhere.oneLineOf(t, []string{"wrong passphrase"}, "restore", p.dir+"/word.backup", "--passphrase-file", bad("wrong", []byte("passphrase1\n")))
}
