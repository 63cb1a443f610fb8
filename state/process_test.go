package state

import (
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
