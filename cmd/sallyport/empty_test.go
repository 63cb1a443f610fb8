package main

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEmptyWords: what a script gives as "$NAME" or "$TICKET" when that is not set, and a file that was cut off to nothing, are mistakes: no node with a
// made-up name, none that is no member, none without what its file had, nothing that the default stands for, and no node is made.
func TestEmptyWords(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	p := ours(t)
	for name, text := range map[string]string{"empty.yaml": "", "blank.yaml": " \n\t\r\n", "mark.yaml": "\xef\xbb\xbf\n"} {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ticket := "ENROLLMENT_TICKET="
	for _, c := range []struct {
		env    []string
		stdin  string
		words  []string
		code   int // 0 stands for 70
		reason string
	}{
		{words: []string{"node", "create", ""}, reason: "NAME_OR_CONFIGURATION is empty"},
		{words: []string{"node", "create", "", "--foreground"}, reason: "is empty"},
		{words: []string{"node", "delete", "", "--yes"}, reason: "NODE is empty"},
		{words: []string{"node", "stop", ""}, reason: "is empty"},
		{words: []string{"node", "start", ""}, reason: "is empty"},
		{words: []string{"node", "show", ""}, reason: "is empty"},
		{words: []string{"node", "logs", ""}, reason: "is empty"},
		{words: []string{"node", "default", ""}, reason: "is empty"},
		{words: []string{"identity", "create", ""}, reason: "is empty"},
		{words: []string{"identity", "delete", "", "--yes"}, reason: "is empty"},
		{words: []string{"vault", "create", ""}, reason: "is empty"},
		{words: []string{"relay", "delete", "", "--yes"}, reason: "is empty"},
		{words: []string{"policy", "delete", "", "--yes"}, reason: "is empty"},
		{words: []string{"tcp-inlet", "create", "", "--to", "/service/x"}, reason: "is empty"},
		{words: []string{"project", "enroll", ""}, reason: "TICKET is empty"},
		{words: []string{"flow-control", "add-consumer", "", "/service/x"}, reason: "FLOW_CONTROL_ID is empty"},
		{words: []string{"tcp-outlet", "create", "--at", "", "--to", "5"}, code: 64, reason: "'--at'"},
		{words: []string{"tcp-outlet", "create", "--at=", "--to", "5"}, code: 64, reason: "'--at'"},
		{words: []string{"tcp-outlet", "create", "--from", "", "--to", "5"}, code: 64, reason: "'--from'"},
		{words: []string{"tcp-outlet", "list", "--at", ""}, code: 64, reason: "'--at'"},
		{words: []string{"message", "send", "hi", "--to", ""}, code: 64, reason: "'--to'"},
		{words: []string{"message", "send", "hi", "--to", "/service/echo", "--from", ""}, code: 64, reason: "'--from'"},
		{words: []string{"node", "create", "n1", "--identity", ""}, code: 64, reason: "'--identity'"},
		{words: []string{"node", "create", "n1", "--tcp-listener-address", ""}, code: 64, reason: "'--tcp-listener-address'"},
		{words: []string{"identity", "create", "i", "--vault", ""}, code: 64, reason: "'--vault'"},
		{words: []string{"node", "create", "n1", "--enrollment-ticket", ""}, code: 64, reason: "'--enrollment-ticket'"},
		{words: []string{"node", "create", "name: n1", "--enrollment-ticket="}, code: 64, reason: "'--enrollment-ticket'"},
		{words: []string{"policy", "create", "--resource", "", "--allow", "a"}, code: 64, reason: "'--resource'"},
		{env: []string{ticket}, words: []string{"node", "create", "n1"}, reason: "ticket in ENROLLMENT_TICKET is empty"},
		{env: []string{ticket}, words: []string{"node", "create", "--foreground"}, reason: "ticket in ENROLLMENT_TICKET is empty"},
		{env: []string{ticket}, words: []string{"node", "create", "name: n1"}, reason: "ticket in ENROLLMENT_TICKET is empty"},
		{words: []string{"node", "create", "empty.yaml"}, reason: "empty.yaml: the configuration is empty"},
		{words: []string{"node", "create", "blank.yaml"}, reason: "blank.yaml: the configuration is empty"},
		{words: []string{"node", "create", "mark.yaml"}, reason: "mark.yaml: the configuration is empty"},
		{words: []string{"node", "create", "/dev/null"}, reason: "/dev/null: the configuration is empty"},
		{words: []string{"node", "create", "-"}, reason: "tandard input: the configuration is empty"},
		{words: []string{"node", "create", "/dev/stdin"}, stdin: "\n", reason: "tandard input: the configuration is empty"},
		{words: []string{"apply", "empty.yaml"}, reason: "empty.yaml: the configuration is empty"},
		{words: []string{"apply", "--check", "-"}, reason: "tandard input: the configuration is empty"},
	} {
		o := p.runWith(t, c.stdin, c.env, c.words...)
		if o.code != cmp.Or(c.code, 70) || !strings.Contains(o.stdout+o.stderr, c.reason) { // a usage error is printed where help is
			t.Errorf("%v %q: exit code %d, %q %q", c.env, c.words, o.code, o.stdout, o.stderr)
		}
	}
	if o := p.runWith(t, "", nil, "message", "send", "", "--to", "/service/echo"); o.code != 0 {
		t.Errorf("an empty message: exit code %d, %q", o.code, o.stderr)
	}
	for _, verb := range []string{"__complete", "__completeNoDesc"} { // what a shell asks after a blank
		if o := p.runWith(t, "", nil, verb, "node", ""); o.code != 0 || !strings.Contains(o.stdout, "create") {
			t.Errorf("%s: exit code %d, %q, %q", verb, o.code, o.stdout, o.stderr)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, "state", "nodes", "*")); len(left) > 0 {
		t.Errorf("made: %v", left)
	}
}
