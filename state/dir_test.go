package state

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/node/resource"
)

func TestDefaultPath(t *testing.T) {
	t.Setenv("HOME", "/home/x")
	t.Setenv("OCKAM_HOME", "")
	t.Setenv("SALLYPORT_HOME", "")
	check := func(want string) {
		t.Helper()
		if got, err := DefaultPath(); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	check("/home/x/.sallyport")
	t.Setenv("OCKAM_HOME", "/a")
	check("/a")
	t.Setenv("SALLYPORT_HOME", "/b/")
	check("/b")
	t.Setenv("SALLYPORT_HOME", "")
	t.Setenv("OCKAM_HOME", "")
	t.Setenv("HOME", "")
	_, err := DefaultPath()
	wantError(t, err, nil, "set SALLYPORT_HOME")
}

func TestOpen(t *testing.T) {
	base := t.TempDir()
	path := filepath.Join(base, "a", "b")
	d, err := Open(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o700 || d.Path() != path {
		t.Errorf("mode %o, path %s", info.Mode().Perm(), d.Path())
	}
	if list, err := os.ReadDir(path); err != nil || len(list) != 0 {
		t.Errorf("opening wrote %v, %v", list, err)
	}
	for _, mode := range []fs.FileMode{0o770, 0o702, 0o777} {
		must(t, os.Chmod(path, mode))
		_, err := Open(path)
		wantError(t, err, ErrUnsafe, "can be written to by others (mode 0", "chmod go-w "+path)
	}
	must(t, os.Chmod(path, 0o755))
	_, err = Open(path)
	must(t, err)
	file := filepath.Join(base, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	_, err = Open(file)
	wantError(t, err, ErrUnsafe, file+" is not a directory")
	if os.Geteuid() == 0 {
		must(t, os.Chown(path, 65534, 65534))
		_, err = Open(path)
		wantError(t, err, ErrUnsafe, "belongs to user 65534, this program runs as user 0")
	}
}

// Everything that is written is for the owner only, whatever the umask.
func TestPermissions(t *testing.T) {
	d := open(t)
	withIdentity(t, d, "", 1)
	_, err := d.CreateNode(t.Context(), Node{Name: "n1"})
	must(t, err)
	must(t, d.SaveResources(t.Context(), "n1", nil))
	must(t, d.PutCredential(t.Context(), Credential{Scope: "x"}))
	files := 0
	must(t, filepath.WalkDir(d.Path(), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return nil
	}))
	if files < 8 {
		t.Errorf("only %d files", files)
	}
}

func process(t *testing.T, d *Dir, what string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "SALLYPORT_STATE_TEST="+d.Path()+"|"+what)
	return cmd
}

// No change is lost when processes and goroutines write at once, and readers never see half a file.
func TestConcurrentProcesses(t *testing.T) {
	d := open(t)
	_, err := d.CreateNode(t.Context(), Node{Name: "n1"})
	must(t, err)
	const processes, goroutines = 3, 2
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	readers.Go(func() {
		for seen := 0; ; {
			r, err := d.Resources("n1")
			if err != nil || len(r) < seen {
				t.Errorf("read %d services after %d, %v", len(r), seen, err)
				return
			}
			seen = len(r)
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	for range processes {
		writers.Go(func() {
			if out, err := process(t, d, "write").CombinedOutput(); err != nil {
				t.Errorf("writer: %v: %s", err, out)
			}
		})
	}
	for range goroutines {
		writers.Go(func() {
			if err := writeNames(d.Path()); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	r, err := d.Resources("n1")
	must(t, err)
	if want := (processes + goroutines) * 20; len(r) != want {
		t.Errorf("%d changes survived of %d", len(r), want)
	}
}

// A process that is killed in the middle of a change leaves the old content and no lock; until then others wait no longer than told.
func TestCrash(t *testing.T) {
	d := open(t)
	before := withIdentity(t, d, "", 1)
	cmd := process(t, d, "hold")
	_, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "holding\n" {
		t.Fatal(line, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err = d.SetDefaultIdentity(ctx, DefaultName)
	wantError(t, err, ErrLocked, "another process holds "+d.file("lock"), "deadline exceeded")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("not a deadline error")
	}
	if got, err := d.NamedIdentity(""); err != nil || got != before {
		t.Errorf("while locked: %v, %v", got, err)
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if got, err := d.NamedIdentity(""); err != nil || got != before {
		t.Errorf("after the crash: %v, %v", got, err)
	}
	must(t, d.RenameIdentity(t.Context(), DefaultName, "renamed"))
	if _, err := os.Stat(tempName(d.file("identities.json"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file stays: %v", err)
	}
}

func TestWriteFailureKeepsOld(t *testing.T) {
	d := open(t)
	path := d.file("f")
	must(t, writeFile(path, []byte("old")))
	// A directory in place of the temporary file makes the write fail.
	must(t, os.Mkdir(tempName(path), 0o700))
	if err := writeFile(path, []byte("new")); err == nil {
		t.Error("no error")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
	// A planted link must not redirect the write.
	_ = os.Remove(tempName(path))
	target := d.file("target")
	must(t, os.Symlink(target, tempName(path)))
	if err := writeFile(path, []byte("new")); err == nil {
		t.Error("followed a link")
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("wrote through a link")
	}
}

func TestBrokenFile(t *testing.T) {
	d := open(t)
	withIdentity(t, d, "", 1)
	path := d.file("identities.json")
	for _, content := range []string{"", "{", `{"identities":[]}`, `{"version":1,"identities":7}`, "[]", "\x00\xff"} {
		must(t, os.WriteFile(path, []byte(content), 0o600))
		_, err := d.NamedIdentity("")
		wantError(t, err, ErrBroken, path+" is broken: ", "a copy is in "+path+".broken-", "repair or remove the file")
		var broken *BrokenFileError
		if !errors.As(err, &broken) {
			t.Fatalf("%T", err)
		}
		// Changes are refused, too: the file is neither replaced nor removed.
		wantError(t, d.SetDefaultIdentity(t.Context(), DefaultName), ErrBroken)
		for _, p := range []string{path, broken.Copy} {
			if data, err := os.ReadFile(p); err != nil || string(data) != content {
				t.Errorf("%s: %q, %v", p, data, err)
			}
		}
	}
	must(t, os.WriteFile(path, []byte(`{"version":2,"later":true}`), 0o600))
	_, err := d.Identities()
	wantError(t, err, ErrNewer, path, "version 2, this one knows 1")
	must(t, os.Truncate(path, maxFile+1))
	_, err = d.Identities()
	wantError(t, err, nil, "larger than")
}

func TestBrokenResources(t *testing.T) {
	d := open(t)
	_, err := d.CreateNode(t.Context(), Node{Name: "n1"})
	must(t, err)
	path := d.file("nodes", "n1", "resources.json")
	must(t, os.WriteFile(path, []byte("{]"), 0o600))
	add := func(r []resource.Stored) ([]resource.Stored, error) { return append(r, hop("r")), nil }
	wantError(t, d.UpdateResources(t.Context(), "n1", add), ErrBroken, path)
	must(t, d.SaveResources(t.Context(), "n1", []resource.Stored{hop("r")}))
	if r, err := d.Resources("n1"); err != nil || len(r) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	copies, err := filepath.Glob(path + ".broken-*")
	must(t, err)
	if len(copies) != 1 {
		t.Fatalf("copies %v", copies)
	}
	if data, err := os.ReadFile(copies[0]); err != nil || string(data) != "{]" {
		t.Errorf("copy %q, %v", data, err)
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "A-b_9", "größe", strings.Repeat("x", 128)} {
		must(t, CheckName("node", name))
	}
	for _, name := range []string{"", ".", "..", "a/b", "a b", "a.b", "\n", "a\x00", "\xff", strings.Repeat("x", 129)} {
		wantError(t, CheckName("node", name), ErrName, "node")
	}
	wantError(t, CheckName("vault", "a b"), ErrName, `invalid name: vault "a b": only letters, digits, '_' and '-' are allowed`)
}

func TestReset(t *testing.T) {
	d := open(t)
	withIdentity(t, d, "", 1)
	outside := filepath.Join(t.TempDir(), "keys")
	_, err := d.CreateVault(t.Context(), "elsewhere", outside, VaultHome{}, nil)
	must(t, err)
	must(t, os.WriteFile(d.file("vaults", "default", "key"), nil, 0o600))
	_, err = d.CreateNode(t.Context(), Node{Name: "n1"})
	must(t, err)
	must(t, d.SaveResources(t.Context(), "n1", nil))
	must(t, d.PutCredential(t.Context(), Credential{Scope: "s"}))
	must(t, os.MkdirAll(d.file("nodes", "foreign"), 0o700))
	unknown := d.file("database.sqlite3")
	must(t, os.WriteFile(unknown, []byte("not ours"), 0o600))
	me, err := CurrentProcess()
	must(t, err)
	must(t, d.UpdateNode(t.Context(), "n1", func(n *Node) error { n.Process = me; return nil }))
	_, err = d.Reset(t.Context())
	wantError(t, err, ErrInUse, "in use by running node \"n1\"")
	must(t, d.NodeStopped(t.Context(), "n1", me))
	left, err := d.Reset(t.Context())
	must(t, err)
	if len(left) != 2 || left[0] != outside || left[1] != unknown {
		t.Errorf("left %v", left)
	}
	var names []string
	must(t, filepath.WalkDir(d.Path(), func(path string, _ fs.DirEntry, err error) error {
		names = append(names, strings.TrimPrefix(path, d.Path()))
		return err
	}))
	if got := strings.Join(names, " "); got != " /database.sqlite3" {
		t.Errorf("left over: %s", got)
	}
	must(t, os.Remove(unknown))
	// An empty one goes away, and comes back when it is needed.
	if _, err := d.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory: %v", err)
	}
	withIdentity(t, d, "", 1)
}

func TestSocketPath(t *testing.T) {
	d := open(t)
	got, err := d.SocketPath("n1")
	must(t, err)
	if got != d.file("nodes", "n1", "admin.sock") {
		t.Error(got)
	}
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	long := strings.Repeat("n", 108)
	got, err = d.SocketPath(long)
	must(t, err)
	if len(got) > maxSocketPath || filepath.Dir(got) != filepath.Join(run, "sallyport") {
		t.Error(got)
	}
	again, err := d.SocketPath(long)
	must(t, err)
	other, err := d.SocketPath(long + "x")
	must(t, err)
	if again != got || other == got {
		t.Error("the short name must depend on the long one alone")
	}
	must(t, os.Chmod(filepath.Dir(got), 0o755))
	_, err = d.SocketPath(long)
	wantError(t, err, ErrUnsafe, "admin socket of node", "can be used by others (mode 0755)", "chmod go-rwx")
	must(t, os.Remove(filepath.Dir(got)))
	must(t, os.Symlink(t.TempDir(), filepath.Dir(got)))
	_, err = d.SocketPath(long)
	wantError(t, err, ErrUnsafe, "not a directory")
	t.Setenv("XDG_RUNTIME_DIR", strings.Repeat("/long", 30))
	got, err = d.SocketPath(long)
	must(t, err)
	if !strings.HasPrefix(got, "/tmp/sallyport-") || len(got) > maxSocketPath {
		t.Error(got)
	}
	_ = os.Remove(filepath.Dir(got)) // stays if a node uses it
	_, err = d.SocketPath("../x")
	wantError(t, err, ErrName)
}

func TestParseStat(t *testing.T) {
	line := "42 (a) b (c)) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20"
	got, err := parseStat([]byte(line))
	if got != (stat{start: 777, state: 'Z', threads: 17}) || err != nil {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", ")", "1 (x) S 1 2", strings.Replace(line, "777", "x", 1)} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestProcessStatus(t *testing.T) {
	me, err := CurrentProcess()
	must(t, err)
	if me.Status() != Running || me.PID != os.Getpid() || me.StartTime == 0 || me.Boot == "" {
		t.Errorf("%+v is %s", me, me.Status())
	}
	for name, p := range map[string]Process{
		"none": {}, "recycled number": {PID: me.PID, StartTime: me.StartTime - 1, Boot: me.Boot}, "other boot": {PID: me.PID, StartTime: me.StartTime, Boot: "x"},
	} {
		if got := p.Status(); got != Stopped {
			t.Errorf("%s: %s", name, got)
		}
	}
	cmd := exec.Command("/bin/cat")
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	child, err := FindProcess(cmd.Process.Pid)
	must(t, err)
	if child.Status() != Running {
		t.Errorf("child: %s", child.Status())
	}
	must(t, in.Close())
	for range 20_000 { // until it has ended and nobody has waited for it
		if child.Status() == Zombie {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if child.Status() != Zombie {
		t.Errorf("ended child: %s", child.Status())
	}
	must(t, cmd.Wait())
	if child.Status() != Stopped {
		t.Errorf("reaped child: %s", child.Status())
	}
	_, err = FindProcess(child.PID)
	wantError(t, err, fs.ErrNotExist)
}

func BenchmarkOpenAndRead(b *testing.B) {
	d := open(b)
	for i := range 8 {
		withIdentity(b, d, "", i)
	}
	for b.Loop() {
		d, err := Open(d.Path())
		must(b, err)
		_, err = d.NamedIdentity("")
		must(b, err)
	}
}

func TestKeepCopyOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	a, b := keepCopy(path, []byte("x")), keepCopy(path, []byte("x"))
	if a == "" || a != b || a == keepCopy(path, []byte("y")) {
		t.Errorf("%q %q", a, b)
	}
	if data, err := os.ReadFile(a); err != nil || !bytes.Equal(data, []byte("x")) {
		t.Errorf("%q %v", data, err)
	}
}
