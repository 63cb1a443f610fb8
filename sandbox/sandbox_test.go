package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestConfine runs the test program again, confined, and lets it try what it may and what it may not.
func TestConfine(t *testing.T) {
	if dir := os.Getenv("SALLYPORT_TEST_SANDBOX"); dir != "" {
		confined(t, dir)
		return
	}
	dir := t.TempDir()
	for _, d := range []string{"mine", "other"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "other", "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestConfine$", "-test.v")
	cmd.Env = append(os.Environ(), "SALLYPORT_TEST_SANDBOX="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, "not in force") {
			t.Log(line)
		}
	}
}

func confined(t *testing.T, dir string) {
	inForce, err := Confine([]string{filepath.Join(dir, "mine"), filepath.Join(dir, "none")})
	if err != nil {
		t.Fatal(err)
	}
	mine, other := filepath.Join(dir, "mine"), filepath.Join(dir, "other")
	if err := os.WriteFile(filepath.Join(mine, "a"), nil, 0o600); err != nil {
		t.Error(err)
	}
	if err := os.Rename(filepath.Join(mine, "a"), filepath.Join(mine, "b")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(other, "file")); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
	} else {
		ln.Close()
	}
	if out, err := exec.Command("/bin/sh", "-c", "echo $((6*7))").Output(); err != nil || strings.TrimSpace(string(out)) != "42" {
		t.Errorf("a program that it starts: %q, %v", out, err)
	}
	if !strings.Contains(inForce, "landlock") {
		fmt.Println("landlock is not in force here")
	} else {
		for _, path := range []string{filepath.Join(other, "new"), filepath.Join(other, "file"), filepath.Join(dir, "new")} {
			if err := os.WriteFile(path, nil, 0o600); !errors.Is(err, os.ErrPermission) {
				t.Errorf("%s was written: %v", path, err)
			}
		}
		if err := os.Remove(filepath.Join(other, "file")); !errors.Is(err, os.ErrPermission) {
			t.Errorf("removed: %v", err)
		}
	}
	if !strings.Contains(inForce, "seccomp") {
		fmt.Println("seccomp is not in force here")
		return
	}
	done := make(chan error)
	go func() { done <- unix.PtraceAttach(os.Getppid()) }() // on whatever thread
	if err := <-done; !errors.Is(err, unix.EPERM) {
		t.Errorf("ptrace: %v", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWUSER); !errors.Is(err, unix.EPERM) {
		t.Errorf("unshare: %v", err)
	}
}
