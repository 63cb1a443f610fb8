package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sallyport/state"
)

// TestSameNode: a record is written again when it would differ, except for what the node finds out later.
func TestSameNode(t *testing.T) {
	t.Parallel()
	old := state.Node{Name: "n", Identifier: "I1", TCPListener: "127.0.0.1:4000", CreatedAt: time.Now(), Process: state.Process{PID: 7, StartTime: 9},
		Options: state.NodeOptions{TCPListenerAddress: "127.0.0.1:0"}, IsDefault: true, Configuration: &state.Configuration{Paths: []string{"/x"}}}
	fresh := func(change func(*state.Node)) state.Node {
		n := state.Node{Name: "n", Identifier: "I1", TCPListener: "127.0.0.1:0", Process: old.Process, Options: old.Options}
		change(&n)
		return n
	}
	if !sameNode(old, fresh(func(*state.Node) {})) {
		t.Error("nothing has changed")
	}
	for what, change := range map[string]func(*state.Node){
		"identity": func(n *state.Node) { n.Identifier = "I2" },
		"process":  func(n *state.Node) { n.Process.PID++ },
		"options":  func(n *state.Node) { n.Options.TCPListenerAddress = "0.0.0.0:0" },
		"socket":   func(n *state.Node) { n.AdminSocket = "/elsewhere" },
	} {
		if sameNode(old, fresh(change)) {
			t.Errorf("another %s is taken for the same", what)
		}
	}
}

// TestKilledNodeIsNotRunning: the process of a node that was killed is waited for, and one that runs and does not answer counts as the node.
func TestKilledNodeIsNotRunning(t *testing.T) {
	t.Parallel()
	other := exec.Command("sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	process, err := state.FindProcess(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	r := state.Node{Name: "n", Process: process, AdminSocket: filepath.Join(t.TempDir(), "none")}
	given, cancel := context.WithCancel(t.Context())
	cancel()
	if !stillRuns(given, r) {
		t.Error("its process is there")
	}
	ended := make(chan bool, 1)
	go func() { ended <- stillRuns(t.Context(), r) }()
	_ = other.Process.Kill()
	if <-ended {
		t.Error("its process was killed")
	}
	_ = other.Wait()
}
