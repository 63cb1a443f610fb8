package state

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestStatEnded: a process counts as ended when its last thread has, not when its first one has: until then it holds its ports.
func TestStatEnded(t *testing.T) {
	line := func(state, threads string) string {
		return "12 (sally (port) Z 1) " + state + " 1 12 12 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 " + threads + " 0 777 1 1 " + strings.Repeat("0 ", 20)
	}
	for _, c := range []struct {
		state, threads string
		ended          bool
	}{{"S", "9", false}, {"R", "1", false}, {"Z", "9", false}, {"Z", "2", false}, {"Z", "1", true}, {"X", "0", true}, {"D", "1", false}} {
		s, err := parseStat([]byte(line(c.state, c.threads)))
		must(t, err)
		if s.ended() != c.ended || s.start != 777 {
			t.Errorf("state %s, %s threads: ended %v, start %d", c.state, c.threads, s.ended(), s.start)
		}
	}
	for _, bad := range []string{"", "12 (x) Z 1", line("ZZ", "1"), line("Z", "one")} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestNodeBehindItsSocket: a node whose process is there, and is shown otherwise than its record says or not at all, is known by its socket; another process
// that has its number now is not.
func TestNodeBehindItsSocket(t *testing.T) {
	me, err := CurrentProcess()
	must(t, err)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	must(t, err)
	seen := me
	seen.StartTime++
	n := Node{Name: "n", AdminSocket: socket, Process: seen}
	if s := n.Status(); s != Running {
		t.Errorf("it listens at its socket: %s", s)
	}
	other := n
	other.Process.Boot = "before"
	if s := other.Status(); s != Stopped {
		t.Errorf("of another boot: %s", s)
	}
	other = n
	other.Process.PID = os.Getppid()
	if s := other.Status(); s != Stopped {
		t.Errorf("another process listens there: %s", s)
	}
	must(t, l.Close())
	if s := n.Status(); s != Stopped {
		t.Errorf("nobody listens: %s", s)
	}
}
