package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestUnits: systemd reads every unit without a complaint, rates it as little exposed, and is asked to watch each node.
func TestUnits(t *testing.T) {
	units, err := filepath.Glob("../systemd/*.service")
	if err != nil || len(units) != 4 {
		t.Fatalf("%v, %v", units, err)
	}
	analyze, missing := exec.LookPath("systemd-analyze")
	dir := t.TempDir()
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		for _, want := range []string{"Type=notify", "WatchdogSec=", "Restart=always", "MemoryMax=", "TasksMax=", "NoNewPrivileges=yes", "PrivateMounts=yes"} {
			if !strings.Contains(text, "\n"+want) {
				t.Errorf("%s lacks %s", unit, want)
			}
		}
		if missing != nil {
			continue
		}
		// An instance whose program is there.
		at := filepath.Join(dir, strings.Replace(filepath.Base(unit), "@", "@x", 1))
		if err := os.WriteFile(at, []byte(strings.ReplaceAll(text, "/usr/bin/sallyport", "/bin/true")), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", at).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v: %s", unit, err, out)
		}
		out, err := exec.Command(analyze, "security", "--offline=true", at).CombinedOutput()
		level := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
		if err != nil || level == nil {
			t.Errorf("%s: %v: %s", unit, err, out)
			continue
		}
		if v, err := strconv.ParseFloat(string(level[1]), 64); err != nil || v > 1.5 {
			t.Errorf("%s: exposure %s", unit, level[1])
		}
	}
	if missing != nil {
		t.Skip("systemd-analyze is not installed: units are not verified")
	}
}

// TestScripts: the shell reads the maintainer scripts, which leave a node alone that runs while the package is upgraded.
func TestScripts(t *testing.T) {
	for _, name := range []string{"postinstall.sh", "preremove.sh", "postremove.sh"} {
		if out, err := exec.Command("sh", "-n", name).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	for args, want := range map[string]bool{"upgrade 0.3.0": true, "1": true} {
		cmd := exec.Command("sh", append([]string{"preremove.sh"}, strings.Fields(args)...)...)
		cmd.Env = []string{"PATH=/nonexistent"} // whatever it called would fail
		if out, err := cmd.CombinedOutput(); (err == nil) != want {
			t.Errorf("preremove %s: %v: %s", args, err, out)
		}
	}
}
