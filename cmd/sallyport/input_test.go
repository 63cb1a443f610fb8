package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unicode/utf16"
)

// TestTicketsAndFilesFromAnywhere: a ticket, a configuration, a project and a credential are read from whatever can be read.
func TestTicketsAndFilesFromAnywhere(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	s := newShell(t)
	s.must(fmt.Sprintf(`sallyport project create partners --authority-port %s --relay-port %s
		sallyport project ticket --identity admin --usage-count 50 > ticket
		fold -w 76 ticket > folded
		sed 's/$/\r/' folded > crlf
		printf '\357\273\277' > bom; cat crlf >> bom`, freePort(t), freePort(t)))
	ticket := strings.TrimSpace(s.must("cat ticket"))
	for _, how := range []string{
		"sallyport project enroll folded", "sallyport project enroll crlf", "sallyport project enroll bom",
		`sallyport project enroll "$(cat folded)"`,
		"sallyport project enroll /dev/stdin < bom",
		"cat ticket | sallyport project enroll /dev/stdin",
		"mkfifo pipe; cat folded > pipe & sallyport project enroll pipe",
		"exec 5< crlf; sallyport project enroll /dev/fd/5",
		"sallyport project enroll - < folded",
		"sed 's/^/> /' folded | sallyport project enroll -",
	} {
		if o := s.run(how); o.code != 0 {
			t.Errorf("%s: exit code %d\n%s%s", how, o.code, o.stdout, o.stderr)
		}
	}
	bash := func(line string) { // <(...) is not in every sh
		t.Helper()
		if o := s.runWith(t, "", nil, "-c", "exec bash -c "+"'"+line+"'"); o.code != 0 {
			t.Errorf("%s: exit code %d\n%s%s", line, o.code, o.stdout, o.stderr)
		}
	}
	bash("sallyport project enroll <(cat folded)")
	// A pipe is read once, whatever the ticket is needed for.
	bash("sallyport identity create i2 && sallyport node create n3 --identity i2 --enrollment-ticket <(cat folded)")
	bash("sallyport identity create i3 && sallyport node create n4 --identity i3 --enrollment-ticket - < folded")
	bash("sallyport identity create i4 && cat folded | ENROLLMENT_TICKET=/dev/stdin sallyport node create n5 --identity i4")
	bash(`for i in 6 7 8; do sallyport identity create i$i; done; printf "name: b\$N\nidentity: i\$N\nticket: \$TICKET\n" > bank.yaml
		N=16 TICKET=$(cat folded) sallyport node create bank.yaml --variable N=6`)
	bash(`sallyport node create bank.yaml --variable N=7 --variable "TICKET=$(cat crlf)"`)
	bash(`printf "identity: i8\nticket: \$TICKET\nnodes: [b8]\n" > part.yaml; TICKET=$(cat folded) sallyport run part.yaml`)
	bash("sallyport identity create i5 && sallyport node create <(printf \"name: n6\\nidentity: i5\\nticket-file: $PWD/pipe5\\n\") & mkfifo pipe5; cat folded > pipe5; wait $!")
	bash(`echo "name: n7" | sallyport node create -`)
	if o := s.run("sallyport node create n8 --enrollment-ticket - < /dev/null"); o.code == 0 || strings.Contains(o.stderr, " : ") || !strings.Contains(o.stderr, "standard input brings is not a ticket") {
		t.Errorf("an empty ticket: exit code %d, %s", o.code, o.stderr)
	}
	// What sshd gives as standard input is a socket, which cannot be opened again.
	ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	here, there := os.NewFile(uintptr(ends[0]), "here"), os.NewFile(uintptr(ends[1]), "there")
	defer there.Close()
	if _, err := here.WriteString(ticket); err != nil { // it fits a socket's memory
		t.Fatal(err)
	}
	here.Close()
	cmd := exec.Command(s.path, "-c", s.script("exec sallyport project enroll /dev/stdin"))
	cmd.Dir, cmd.Env, cmd.Stdin = s.dir, s.env, there
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("from a socket: %v: %s", err, out)
	}
	bash(`sallyport node create <(echo "name: piped")`)
	bash(`sallyport node create n2 --configuration "$(echo "tcp-outlet: {o: {to: 5}}")"`)
	bash(`sallyport run <(echo "nodes: [ran]")`)
	bash(`sallyport project import --project-file <(sallyport project show partners --output json)`)
	bash(`mkfifo later; (sleep 0.1; echo "name: fifo" > later) & sallyport node create later`)
	if list := s.must("sallyport node list --jq '.[].node_name'"); !strings.Contains(list, "piped") || !strings.Contains(list, "ran") || !strings.Contains(list, "fifo") || !strings.Contains(list, "b6") || !strings.Contains(list, "b7") || !strings.Contains(list, "b8") {
		t.Errorf("nodes: %s", list)
	}
	// The ticket is in no command line of what runs.
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		if line, _ := os.ReadFile(path); strings.Contains(string(line), ticket) { // of a process that has ended nothing is read
			t.Errorf("the ticket stands in a command line: %.40q", line)
		}
	}
	// A directory of a node's name is no configuration.
	s.must("mkdir n9; sallyport node create n9")
}

func TestDecodeText(t *testing.T) {
	const text = "name: größe 🚪\n"
	var le, be []byte
	for _, u := range utf16.Encode([]rune(text)) {
		le, be = append(le, byte(u), byte(u>>8)), append(be, byte(u>>8), byte(u))
	}
	for name, b := range map[string][]byte{
		"UTF-8": []byte(text), "with a mark": append([]byte("\xef\xbb\xbf"), text...), "UTF-16": append([]byte("\xff\xfe"), le...), "big-endian": append([]byte("\xfe\xff"), be...),
		"half a unit": append(append([]byte("\xff\xfe"), le...), 1),
	} {
		if got := decodeText(b); got != text {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestNamesAreNotCapitalised: a message begins with a capital letter, a file's or a flag's name does not.
func TestNamesAreNotCapitalised(t *testing.T) {
	for in, want := range map[string]string{
		"there is no default node":             "There is no default node",
		"bank.yaml:2: tcp-outlet: no":          "bank.yaml:2: tcp-outlet: no",
		"bank:2: tcp-outlet: no":               "bank:2: tcp-outlet: no",
		"bank: line 2, column 1: no":           "bank: line 2, column 1: no",
		"node.json is broken":                  "node.json is broken",
		"n1 is not running":                    "n1 is not running",
		"db/outlet is taken":                   "db/outlet is taken",
		"localhost:5432: connection refused":   "localhost:5432: connection refused",
		"tcp-inlet: it is not supported":       "tcp-inlet: it is not supported",
		"'ticket' is not a ticket":             "'ticket' is not a ticket",
		"":                                     "",
		"größe: no":                            "größe: no",
		"the argument '--x' cannot be used":    "The argument '--x' cannot be used",
		"interrupted":                          "Interrupted",
		"it's late":                            "It's late",
		"Already a sentence":                   "Already a sentence",
		"open /x: no such file":                "Open /x: no such file",
		"my_file could not be read: open x: y": "my_file could not be read: open x: y",
	} {
		if got := sentence(in); got != want {
			t.Errorf("%q becomes %q", in, got)
		}
	}
}
