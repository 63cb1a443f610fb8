package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// block is a fenced block of a document.
type block struct {
	file     string
	line     int
	heading  string // the section that it is in
	language string
	text     string
	notRun   string // why a reader's machine could run it and a test does not
}

var (
	markPattern    = regexp.MustCompile(`^<!-- not run: (.+) -->$`)
	promptPattern  = regexp.MustCompile(`^([a-z]+)\$ (.*)$`)
	fileNameInYAML = regexp.MustCompile(`^# (\S+\.yaml)\n`)
)

// blocksOf finds the fenced blocks of a document. A line `<!-- not run: WHY -->` before a block says that it is not for a test.
func blocksOf(t *testing.T, file string) []block {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []block
	var open *block
	heading, mark := "", ""
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case open != nil && line == "```":
			list, open = append(list, *open), nil
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			open = &block{file: filepath.Base(file), line: i + 1, heading: heading, language: line[3:], notRun: mark}
			mark = ""
		case strings.HasPrefix(line, "#"):
			heading, mark = strings.TrimLeft(line, "# "), ""
		case markPattern.MatchString(line):
			mark = markPattern.FindStringSubmatch(line)[1]
		case strings.TrimSpace(line) != "":
			mark = ""
		}
	}
	if open != nil {
		t.Errorf("%s:%d: the block does not end", file, open.line)
	}
	return list
}

// story is what a section of the README needs before its first block, and whether a query passes through port 15432 after its last one.
type story struct {
	before string // lines with prompts
	query  bool
}

var stories = map[string]story{
	"On four machines": {query: true},
	"Who may use what": {query: true, before: `
bank$ sallyport tcp-outlet delete outlet --yes
analysis$ sallyport tcp-inlet delete --all --yes
`},
	// The story from its start, told in files.
	"Configuration file": {query: true, before: `
bank$ sallyport reset --yes
analysis$ sallyport reset --yes
relay$ sallyport reset --yes
authority$ sallyport reset --yes
relay$ sallyport project create partners --host relay.example.com
relay$ sallyport project ticket --relay postgres > bank.ticket
relay$ sallyport project ticket --attribute company=analysis > analysis.ticket
`},
}

// TestCLIDocs: the commands in the documents work as they stand, one after the other. The machines of the story are state
// directories that share nothing but the network and the tickets.
func TestCLIDocs(t *testing.T) {
	if testing.Short() {
		t.Skip("plays the story of the README with a database")
	}
	t.Parallel()
	root := filepath.Join("..", "..")
	files, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	for _, file := range append([]string{filepath.Join(root, "README.md"), filepath.Join(root, "ARCHITECTURE.md")}, files...) {
		blocks = append(blocks, blocksOf(t, file)...)
	}
	if !alone(t, "4000", "4001", "5432", "15432", "24000", "24001", "25432") {
		return
	}
	s := newShell(t)
	db := newDatabase(t, s.dir)
	s.env = append(s.env, "PGUSER=analyst", "PGDATABASE=postgres", "PGCONNECT_TIMEOUT=10")
	d := &reader{shell: s, db: db}
	ran, query := 0, false
	for i, b := range blocks {
		if i > 0 && b.heading != blocks[i-1].heading && query {
			db.query(t, s, blocks[i-1].heading)
			query = false
		}
		if i == 0 || b.heading != blocks[i-1].heading {
			d.console(stories[b.heading].before, b)
			query = stories[b.heading].query
		}
		switch {
		case b.notRun != "":
			t.Logf("%s:%d is not run: %s", b.file, b.line, b.notRun)
		case b.language == "yaml":
			if name := fileNameInYAML.FindStringSubmatch(b.text); name != nil {
				if err := os.WriteFile(filepath.Join(s.dir, name[1]), []byte(b.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		case b.language == "sh":
			d.check(b, b.text, s.run("set -e\n"+b.text))
			ran++
		case b.language == "console":
			d.console(b.text, b)
			ran++
		}
	}
	if query {
		db.query(t, s, blocks[len(blocks)-1].heading)
	}
	if ran < 5 {
		t.Errorf("only %d blocks were run: are they marked as they should be?", ran)
	}
}

// reader does what a document says.
type reader struct {
	*shell
	db *database
}

// console runs lines with prompts, each in the state directory of the machine that the prompt names.
func (d *reader) console(text string, b block) {
	d.t.Helper()
	for line := range strings.Lines(strings.TrimLeft(text, "\n")) {
		m := promptPattern.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			d.t.Fatalf("%s:%d: %q does not say where it is typed", b.file, b.line, line)
		}
		if strings.HasPrefix(m[2], "psql ") && !d.db.real() {
			continue
		}
		d.check(b, line, d.run(m[2], "SALLYPORT_HOME="+filepath.Join(d.dir, m[1])))
	}
}

// check makes sure that commands succeeded and that what they made is up.
func (d *reader) check(b block, text string, o outcome) {
	d.t.Helper()
	if o.code != 0 || strings.Contains(o.stdout+o.stderr, "Down") {
		d.t.Fatalf("%s:%d: %s\nexit code %d\n%s%s", b.file, b.line, text, o.code, o.stdout, o.stderr)
	}
}

// database is what the bank has at port 5432: PostgreSQL where it is installed, else something that answers with what it was sent.
type database struct{ psql string }

func (d *database) real() bool { return d.psql != "" }

// query asks the database a question through the inlet.
func (d *database) query(t *testing.T, s *shell, section string) {
	t.Helper()
	if !d.real() {
		works(t, section, "15432")
		return
	}
	if got := strings.TrimSpace(s.must(`psql -h 127.0.0.1 -p 15432 -At -c 'select 6 * 7'`)); got != "42" {
		t.Errorf("%s: the database says %q", section, got)
	}
}

func newDatabase(t *testing.T, dir string) *database {
	t.Helper()
	psql, initdb, owner := programs()
	if initdb == "" {
		t.Log("PostgreSQL is not installed: something else answers at port 5432, and psql is not run")
		echoServer(t, "5432")
		return &database{}
	}
	// PostgreSQL does not run as root; its user may pass through to its own directory.
	home := filepath.Join(dir, "postgres")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if owner != nil {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(home, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(filepath.Dir(initdb), name), args...)
		cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=" + home}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Pdeathsig: syscall.SIGQUIT}
		return cmd
	}
	data := filepath.Join(home, "data")
	if out, err := run("initdb", "-D", data, "-U", "analyst", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := run("postgres", "-D", data, "-p", "5432", "-k", home, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT)
		_ = server.Wait()
	})
	var out []byte
	var err error
	for deadline := time.Now().Add(90 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if out, err = exec.Command(psql, "-h", "127.0.0.1", "-p", "5432", "-U", "analyst", "-d", "postgres", "-c", "select 1").CombinedOutput(); err == nil {
			return &database{psql: psql}
		}
	}
	t.Fatalf("PostgreSQL does not start: %v\n%s", err, out)
	return nil
}

// programs finds PostgreSQL's programs, and for root the user that the server runs as; nothing if one of them is missing.
func programs() (psql, initdb string, owner *syscall.Credential) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		return "", "", nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		return "", "", nil
	}
	initdb = found[len(found)-1]
	if os.Getuid() != 0 {
		return psql, initdb, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return "", "", nil
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	if mapping, err := os.ReadFile("/proc/self/uid_map"); err == nil && len(strings.Fields(string(mapping))) == 3 {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(string(mapping), &inside, &outside, &count); err == nil && uid >= inside+count {
			return "", "", nil // a user of this name is nobody in this namespace
		}
	}
	return psql, initdb, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

var (
	testName = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`")
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(`)
)

// TestPromisesAreTested: each promise of docs/security.md names what shows it, and every test that a document names is there.
func TestPromisesAreTested(t *testing.T) {
	there := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(documents, "../../SECURITY.md", "../../README.md", "../../ARCHITECTURE.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testName.FindAllSubmatch(text, -1) {
			if !there[string(m[1])] {
				t.Errorf("%s names %s, and there is no such test", path, m[1])
			}
		}
	}
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, promised, _ := strings.Cut(string(text), "## What is promised\n")
	promised, _, _ = strings.Cut(promised, "\n## ")
	promises := strings.Split(promised, "\n* **")[1:]
	for _, p := range promises {
		if !testName.MatchString(p) && !strings.Contains(p, "`make ") {
			t.Errorf("what shows this? %s", p)
		}
	}
	if len(promises) < 20 {
		t.Errorf("%d promises", len(promises))
	}
}
