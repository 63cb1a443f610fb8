package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrintTableAligns(t *testing.T) {
	var out strings.Builder
	printTable(&out, [][]string{{"name", "result"}, {"Grüße", "pass"}, {"x", "FAIL of everything"}})
	want := "name   result\n" +
		"-------------------------\n" +
		"Grüße  pass\n" +
		"x      FAIL of everything\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestPrintCombinations(t *testing.T) {
	var out strings.Builder
	printCombinations(&out, []comboResult{
		{Number: 1, Seats: [4]string{"ours", "ours", "reference", "ours"}, Passed: true, Seconds: 9.25,
			Checks: []check{{Name: "setup", Passed: true, Seconds: 2}, {Name: "psql", Passed: true, Seconds: 0.04}}},
		{Number: 2, Seats: [4]string{"ours", "ours", "ours", "ours"},
			Checks: []check{{Name: "setup", Passed: true}, {Name: "psql", Reason: "no answer"}, {Name: "tpcb", Reason: "later"}}},
	})
	text := out.String()
	for _, want := range []string{
		"1  ours       ours   reference  ours   2.0s   0.0s  -       -     -       -         9.2s   pass\n",
		"2  ours       ours   ours       ours   0.0s   FAIL  -       FAIL  -       -         0.0s   FAIL psql: no answer\n",
		"\n1 of 2\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestPrintRows(t *testing.T) {
	var out strings.Builder
	printRows(&out, []rowResult{
		{"kills", "ours->reference", check{Name: "relay killed", Passed: true, Seconds: 1.26, Note: "after 1s"}},
		{"kills", "reference->ours", check{Name: "relay killed", Seconds: 60, Reason: "still open"}},
	})
	text := out.String()
	for _, want := range []string{"relay killed  1.3      pass (after 1s)\n", "relay killed  60.0     FAIL still open\n", "\n1 of 2 further checks\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestReport(t *testing.T) {
	r := report{
		Combinations: []comboResult{{Number: 1, Passed: true}, {Number: 2}},
		Rows:         []rowResult{{Group: "g", check: check{Name: "n", Passed: true, Note: "note"}}, {check: check{Reason: "r"}}},
	}
	if r.failed() != 2 {
		t.Errorf("%d failed, want 2", r.failed())
	}
	path := filepath.Join(t.TempDir(), "report.json")
	if err := r.writeJSON(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if back.failed() != 2 || back.Rows[0].Name != "n" || back.Rows[0].Group != "g" {
		t.Errorf("read back %+v", back)
	}
}
