package packaging

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDist: what is released is the same bytes from another directory, has its checksums and the list of what is in it, and the programs for other
// processors run the story under qemu-user.
func TestDist(t *testing.T) {
	if os.Getenv("DIST_TEST") == "" {
		t.Skip("DIST_TEST is not set: make test-operate builds for four platforms twice, which takes minutes")
	}
	dir := t.TempDir()
	var made [2]string
	names := []string{"here", "elsewhere"}
	copyTree(t, filepath.Join(dir, names[0], "tree"))
	if out, err := exec.Command("cp", "-r", filepath.Join(dir, names[0]), filepath.Join(dir, names[1])).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for n, name := range names {
		tree := filepath.Join(dir, name, "tree")
		made[n] = filepath.Join(dir, name, "dist")
		if out, err := exec.Command("make", "-C", tree, "dist", "REVISION=test", "DIST="+made[n]).CombinedOutput(); err != nil {
			t.Fatalf("make dist: %v: %s", err, out)
		}
	}
	entries, err := os.ReadDir(made[0])
	if err != nil {
		t.Fatal(err)
	}
	sums := read(filepath.Join(made[0], "SHA256SUMS"))
	var programs []string
	for _, e := range entries {
		a, b := []byte(read(filepath.Join(made[0], e.Name()))), []byte(read(filepath.Join(made[1], e.Name())))
		if len(a) == 0 || !bytes.Equal(a, b) {
			t.Errorf("%s: other bytes in another directory", e.Name())
		}
		sum := sha256.Sum256(a)
		if e.Name() != "SHA256SUMS" && !strings.Contains(sums, hex.EncodeToString(sum[:])+"  "+e.Name()+"\n") {
			t.Errorf("%s: its checksum is not in SHA256SUMS", e.Name())
		}
		if strings.HasSuffix(e.Name(), ".cdx.json") {
			continue
		}
		if e.Name() != "SHA256SUMS" {
			programs = append(programs, filepath.Join(made[0], e.Name()))
		}
	}
	if len(programs) != 4 {
		t.Fatalf("programs %v", programs)
	}
	for _, p := range programs {
		var bom struct {
			Format     string `json:"bomFormat"`
			Components []struct{ Name, Version string }
		}
		if err := json.Unmarshal([]byte(read(p+".cdx.json")), &bom); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, c := range bom.Components {
			found = found || c.Name == "golang.org/x/crypto" && strings.HasPrefix(c.Version, "v0.")
		}
		if bom.Format != "CycloneDX" || !found {
			t.Errorf("%s.cdx.json: format %q, %d components, golang.org/x/crypto is among them: %v", p, bom.Format, len(bom.Components), found)
		}
	}
	across := filepath.Join(dir, "across")
	cmd := exec.Command("make", "-C", filepath.Join(dir, "here", "tree"), "install", "REVISION=test", "DESTDIR="+across)
	cmd.Env = append(os.Environ(), "GOARCH=riscv64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("GOARCH=riscv64 make install: %v: %s", err, out)
	}
	program, err := elf.Open(filepath.Join(across, "usr/bin/sallyport"))
	if err != nil {
		t.Fatal(err)
	}
	if program.Machine != elf.EM_RISCV {
		t.Errorf("GOARCH=riscv64 make install: the program is for %v", program.Machine)
	}
	_ = program.Close()
	if page := read(filepath.Join(across, "usr/share/man/man1/sallyport.1.gz")); len(page) == 0 {
		t.Error("GOARCH=riscv64 make install: no manual page")
	}
	t.Logf("%d programs, %d files, the same bytes from two directories", len(programs), len(entries))
	for platform, name := range map[string]string{"armv7": "arm", "arm64": "aarch64", "riscv64": "riscv64"} {
		t.Run("qemu-"+platform, func(t *testing.T) {
			qemu, err := exec.LookPath("qemu-" + name)
			if err != nil {
				t.Skipf("qemu-%s (package qemu-user) is not installed", name)
			}
			matches, _ := filepath.Glob(filepath.Join(made[0], "*-linux-"+platform))
			echo, err := filepath.Abs("testdata/echo.py")
			if err != nil || len(matches) != 1 {
				t.Fatal(matches, err)
			}
			shows(t, exec.Command("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
				"sh", "testdata/qemu.sh", matches[0], qemu, echo), 3)
		})
	}
}

// copyTree copies what is, or would be, in the repository.
func copyTree(t *testing.T, to string) {
	t.Helper()
	out, err := exec.Command("sh", "-ec", `mkdir -p "$0"; cd ..; git ls-files -co --exclude-standard -z | tar --null --ignore-failed-read -T - -c | tar -x -C "$0"`, to).CombinedOutput()
	if err != nil {
		t.Fatalf("a copy of the tree: %v: %s", err, out)
	}
}
