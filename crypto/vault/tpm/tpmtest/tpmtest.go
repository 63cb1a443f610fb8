// Package tpmtest starts a TPM in software for tests.
package tpmtest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Start starts swtpm for a test, which is skipped where that is not installed, and returns the TPM's socket. stop ends it before the test does.
func Start(t testing.TB) (socket string, stop func()) {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("swtpm is not installed: apt-get install swtpm (make test-trust does)")
	}
	dir, err := os.MkdirTemp("", "tpm") // the name of a Unix socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl",
		"--flags", "not-need-init,startup-clear")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil { // the file is there before anybody listens
			_ = c.Close()
			return socket, stop
		}
		if time.Now().After(end) {
			t.Fatal("swtpm does not start")
		}
	}
}
