package main

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCLIWatchdog: a node in the foreground tells systemd that it is ready, and again and again that its loops answer; a process that stands still
// says nothing.
func TestCLIWatchdog(t *testing.T) {
	t.Parallel()
	p := ours(t)
	p.must(t, "node", "create", "n1")
	p.must(t, "node", "stop", "n1")
	socket := filepath.Join(p.dir, "notify")
	server, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	cmd := exec.Command(p.path, "node", "start", "n1", "--foreground")
	cmd.Env = append(append([]string{}, p.env...), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=600000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	hear := func(within time.Duration) string {
		b := make([]byte, 1000)
		_ = server.SetReadDeadline(time.Now().Add(within))
		n, _ := server.Read(b)
		return string(b[:n])
	}
	ready, pings := false, 0
	for end := time.Now().Add(90 * time.Second); (!ready || pings < 3) && time.Now().Before(end); {
		switch text := hear(10 * time.Second); {
		case strings.HasPrefix(text, "READY=1"):
			ready = true
		case text == "WATCHDOG=1":
			pings++
		}
	}
	if !ready || pings < 3 {
		t.Fatalf("ready %v, %d pings", ready, pings)
	}
	_ = cmd.Process.Signal(syscall.SIGSTOP)
	for hear(2*time.Second) != "" { // what was sent before
	}
	_ = cmd.Process.Signal(syscall.SIGCONT)
	if hear(10*time.Second) == "" {
		t.Error("no ping after it went on")
	}
}
