package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// scriptPrelude precedes each script of testdata/scripts. The scripts are written for the reference: they call `ockam`.
const scriptPrelude = `set -eu -o pipefail
# talk sends a line to an inlet and says whether it came back; it waits for that. silent says whether nothing came back.
once() {
	( exec 3<>"/dev/tcp/127.0.0.1/$1" && printf '%s\n' "$2" >&3 && read -r -t "$3" line <&3 && [ "$line" = "$2" ] ) 2>/dev/null
}
talk() {
	for _ in $(seq 40); do
		if once "$1" "$2" 2; then echo "$2: answered"; return; fi
		sleep 0.2
	done
	echo "$2: NO ANSWER"
}
silent() { if once "$1" "$2" 1; then echo "$2: ANSWERED"; else echo "$2: no answer"; fi }
until_open() {
	for _ in $(seq 1200); do if ( exec 3<>"/dev/tcp/127.0.0.1/$1" ) 2>/dev/null; then return; fi; sleep 0.05; done
	echo "nobody listens at $1"
}
until_printed() { # it runs a moment before it says so
	for _ in $(seq 600); do if [ -s "$1" ]; then return; fi; sleep 0.1; done
	echo "nothing is printed to $1"
}
until_running() {
	for _ in $(seq 600); do if ockam node show "$1" --jq .status 2>/dev/null | grep -q running; then return; fi; sleep 0.1; done
	echo "$1 does not run"
}
`

// runScript runs a script of testdata/scripts with a program in the place of ockam, and returns what it printed.
func runScript(t *testing.T, p *program, text string) string {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	bin := filepath.Join(p.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(p.path, filepath.Join(bin, "ockam")); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.FileServer(http.Dir(p.dir))) // what the script writes can be fetched from $WEB
	t.Cleanup(web.Close)
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "ECHO=" + echoServer(t, "0"), "WEB=" + web.URL, "QUIET=false"}
	for _, name := range strings.Fields("P1 P2 P3 P4 P9") {
		env = append(env, name+"="+freePort(t))
	}
	script := &program{path: bash, dir: p.dir, env: append(p.env, env...), patience: 3 * time.Minute}
	o := script.runWith(t, "", nil, "-c", scriptPrelude+text)
	if o.code != 0 {
		t.Errorf("exit code %d\n%s\n%s", o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// TestCLIScripts: scripts as users of the reference have them print the same here, line by line. What the reference printed is recorded
// beside each script. It is asked again, which takes a minute, with -update or when the variable REFERENCE names it.
func TestCLIScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	files, err := filepath.Glob("testdata/scripts/*.sh")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	parallel(t, files, func(t *testing.T, file string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		recorded := strings.TrimSuffix(file, ".sh") + ".printed"
		want, err := os.ReadFile(recorded)
		if err != nil && !*update {
			t.Fatal(err)
		}
		if path := reference(); path != "" && (*update || os.Getenv("REFERENCE") != "") {
			theirs := runScript(t, newProgram(t, path), string(text))
			if *update {
				want = []byte(theirs)
				if err := os.WriteFile(recorded, want, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if theirs != string(want) {
				t.Errorf("the reference prints\n%s\nand not, as recorded,\n%s", theirs, want)
			}
		}
		if here := runScript(t, ours(t), string(text)); here != string(want) {
			t.Errorf("it prints\n%s\nand not\n%s", here, want)
		}
	})
}
