package main

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCLIActivated: a node uses the sockets that a service manager has opened for it (LISTEN_FDS), for its own listener and for an inlet, which can be made
// again there although the manager listens all the time.
func TestCLIActivated(t *testing.T) {
	t.Parallel()
	p := ours(t)
	var files []*os.File
	var addresses []string
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() // as the manager does, this process listens all the time
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, addresses = append(files, f), append(addresses, ln.Addr().String())
	}
	var log strings.Builder
	// The variable names the process that the shell becomes.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" node create n1 --foreground --tcp-listener-address "$1"`, p.path, addresses[0])
	cmd.Env = append(append([]string{}, p.env...), "LISTEN_FDS=2")
	cmd.ExtraFiles = files
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // a job in the background may ignore SIGINT
		<-ended
		if !strings.Contains(log.String(), addresses[1]) {
			t.Errorf("the log says nothing of %s: %s", addresses[1], log.String())
		}
	}()
	for end := time.Now().Add(90 * time.Second); p.runWith(t, "", nil, "node", "ready", "n1").code != 0; time.Sleep(100 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the node ended: %v: %s", err, log.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatal("the node is not ready")
		}
	}
	p.must(t, "tcp-outlet", "create", "--at", "n1", "--to", addresses[0])
	for range 2 {
		p.must(t, "tcp-inlet", "create", "in", "--at", "n1", "--from", addresses[1], "--to", "/secure/api/service/outlet", "--no-connection-wait")
		c, err := net.Dial("tcp", addresses[1])
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		p.must(t, "tcp-inlet", "delete", "in", "--at", "n1", "--yes")
	}
}
