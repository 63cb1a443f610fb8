package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPolicyRowWants(t *testing.T) {
	no := false
	for _, c := range []struct {
		row           policyRow
		on            program
		allow, parses bool
	}{
		{policyRow{Expect: "allow"}, testOurs, true, true},
		{policyRow{Expect: "deny"}, testRef, false, true},
		{policyRow{Expect: "deny", Parses: &no}, testOurs, false, false},
		{policyRow{Expect: "deny", Reference: "allow"}, testOurs, false, true},
		{policyRow{Expect: "deny", Reference: "allow"}, testRef, true, true},
	} {
		if allow, parses := c.row.wants(c.on); allow != c.allow || parses != c.parses {
			t.Errorf("%+v on %s: %v, %v", c.row, c.on.name, allow, parses)
		}
	}
}

func TestPeerKey(t *testing.T) {
	no := false
	a := policyRow{Attributes: map[string]string{"a": "1", "b": "2"}}
	b := policyRow{Attributes: map[string]string{"b": "2", "a": "1"}}
	if a.peerKey() != b.peerKey() {
		t.Error("the order of attributes matters")
	}
	if (&policyRow{Attributes: map[string]string{"a": `1","b"="2`}}).peerKey() == a.peerKey() {
		t.Error("quotes are not kept apart")
	}
	if (&policyRow{}).peerKey() == "" {
		t.Error("a peer without attributes has no credential")
	}
	for _, r := range []policyRow{{Authority: &no}, {HasCredential: &no}} {
		if r.peerKey() != "" {
			t.Errorf("%+v gets a credential", r)
		}
	}
}

func TestLoadPolicies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rows.json")
	line := `{"name":"n","expression":"(and)","expect":"deny"}`
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"rows":[` + strings.TrimSuffix(strings.Repeat(line+",", 100), ",") + `]}`)
	if rows, err := loadPolicies(path); err != nil || len(rows) != 100 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	for _, bad := range []string{`{"rows":[` + line + `]}`, `[`} {
		write(bad)
		if _, err := loadPolicies(path); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

func TestSummarize(t *testing.T) {
	cases := []*policyCase{{policyRow: policyRow{Name: "good"}}, {policyRow: policyRow{Name: "bad", Expression: "x"}, failure: "denied"}}
	if err := summarize(cases[:1], 0); err != nil {
		t.Error(err)
	}
	if err := summarize(cases, time.Second); err == nil || !strings.Contains(err.Error(), `1 of 2 after 1s: bad "x": denied`) {
		t.Errorf("got %v", err)
	}
}
