package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func metricOf(t *testing.T, key string) metric {
	t.Helper()
	i := slices.IndexFunc(metrics, func(m metric) bool { return m.key == key })
	if i < 0 {
		t.Fatalf("no metric %q", key)
	}
	return metrics[i]
}

func TestJudge(t *testing.T) {
	tests := []struct {
		name, key string
		values    map[string]float64
		limit     float64
		want      verdict
	}{
		{"plain decides", "up", map[string]float64{pathOurs: 7, pathRef: 3, pathRefOpen: 2, pathPlain: 6.7}, 6.7, met},
		{"reference decides", "up", map[string]float64{pathOurs: 6.9, pathRef: 3, pathRefOpen: 3.5, pathPlain: 6.7}, 7, missed},
		{"exactly reached", "up", map[string]float64{pathOurs: 7, pathRef: 3.5, pathPlain: 1}, 7, met},
		{"half known, met", "up", map[string]float64{pathOurs: 7, pathPlain: 6}, 6, unknown},
		{"half known, missed", "up", map[string]float64{pathOurs: 5, pathPlain: 6}, 6, missed},
		{"ours unknown", "up", map[string]float64{pathRef: 3, pathPlain: 6}, 6, unknown},
		{"less is better", "ping", map[string]float64{pathOurs: 0.2, pathRef: 0.6, pathRefOpen: 0.5, pathPlain: 0.19}, 0.209, met},
		{"better of the references", "cpu_up", map[string]float64{pathOurs: 2.1, pathRef: 5, pathRefOpen: 4}, 2, missed},
		{"absolute, reached", "cmd_list", map[string]float64{pathOurs: 25}, 25, met},
		{"absolute, above", "cmd_list", map[string]float64{pathOurs: 25.1}, 25, missed},
		{"must be undercut", "stall_loss", map[string]float64{pathOurs: 5}, 5, missed},
		{"undercut", "stall_loss", map[string]float64{pathOurs: 4.9}, 5, met},
		{"no goal", "p99_alone", map[string]float64{pathOurs: 1}, math.NaN(), noGoal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			limit, v := figures{tt.key: tt.values}.judge(metricOf(t, tt.key), pathOurs)
			same := math.Abs(limit-tt.limit) < 1e-9 || math.IsNaN(limit) && math.IsNaN(tt.limit)
			if v != tt.want || !same {
				t.Errorf("got %v %q, want %v %q", limit, v, tt.limit, tt.want)
			}
		})
	}
}

func TestGoalText(t *testing.T) {
	for key, want := range map[string]string{
		"up":         ">= max(2 x reference, 1 x plain)",
		"ping":       "<= min(0.55 x reference, 1.1 x plain)",
		"conns":      ">= 6 x reference",
		"stall_loss": "< 5",
		"p99_alone":  "",
	} {
		if got := metricOf(t, key).goalText(); got != want {
			t.Errorf("%s: got %q, want %q", key, got, want)
		}
	}
}

func TestStallLoss(t *testing.T) {
	for _, tt := range []struct{ before, during, after, want float64 }{
		{100, 90, 80, 0},     // the machine slowed down, no loss
		{100, 45, 80, 50},    // half of the mean
		{100, 0, 100, 100},   // everything
		{100, 50, 10, 50},    // never recovered: only before counts
		{100, 120, 100, 0},   // faster is no loss
		{100, 100, 100.1, 0}, // noise
	} {
		got, err := stallLoss(tt.before, tt.during, tt.after)
		if err != nil || math.Abs(got-tt.want) > 0.1 {
			t.Errorf("%+v: got %v, %v", tt, got, err)
		}
	}
	if _, err := stallLoss(0, 1, 1); err == nil {
		t.Error("accepted a path that carries nothing")
	}
}

func TestCompareWithRecord(t *testing.T) {
	want := map[string]float64{"up": 0.9, "cpu_up": 1.2, "conns": 0.3}
	for _, tt := range []struct {
		name string
		got  map[string]float64
		bad  string // in the error; empty = no error
	}{
		{"same", map[string]float64{"up": 0.9, "cpu_up": 1.2, "conns": 0.3}, ""},
		{"a little worse", map[string]float64{"up": 0.61, "cpu_up": 1.79, "conns": 0.21}, ""},
		{"better", map[string]float64{"up": 9, "cpu_up": 0.1, "conns": 3}, ""},
		{"rate fell", map[string]float64{"up": 0.59, "cpu_up": 1.2, "conns": 0.3}, "up: "},
		{"cost rose", map[string]float64{"up": 0.9, "cpu_up": 1.81, "conns": 0.3}, "cpu_up: "},
		{"missing", map[string]float64{"up": 0.9, "cpu_up": 1.2}, "conns: not measured"},
	} {
		t.Run(tt.name, func(t *testing.T) { checkErr(t, compare(want, tt.got), tt.bad) })
	}
	checkErr(t, compare(map[string]float64{"rss_idle": 1}, want), "no metric to check")
}

func testResult() *result {
	r := newResult([]string{"-x"})
	r.When = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.Machine = "a <machine> & more"
	r.Paths = []string{pathPlain, pathRef, pathOurs}
	for _, v := range []float64{6, 7, 8} {
		r.add(pathPlain, sample{"up": v, "ping": v / 10})
		r.add(pathRef, sample{"up": v / 2, "ping": v / 5, "stall_loss": math.NaN()})
		r.add(pathOurs, sample{"up": v * 1.2, "ping": v / 5})
	}
	r.Skipped["tls"] = "stunnel is missing: install the package stunnel4"
	r.Errors = []string{"run 1, reference, conns: it failed"}
	r.finish()
	return r
}

func TestTable(t *testing.T) {
	got := testResult().table()
	lines := strings.Split(got, "\n")
	var fields []string
	for _, want := range []string{"bulk up, 1 stream  Gbit/s 7.00 3.50 8.40 1.20 2.40 7.00 >= max(2 x reference, 1 x plain) met",
		"PING p50, 1 client  ms 0.700 1.40 1.40 2.00 1.00 0.770 <= min(0.55 x reference, 1.1 x plain) MISSED"} {
		found := slices.ContainsFunc(lines, func(l string) bool {
			fields = strings.Fields(l)
			return slices.Equal(fields, strings.Fields(want))
		})
		if !found {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
	for _, want := range []string{"it failed", "install the package stunnel4"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	// Aligned: the units stand below each other.
	if i := strings.Index(lines[0], "unit"); i < 0 || lines[1][i-2:i+4] != "Gbit/s" {
		t.Errorf("not aligned:\n%s", got)
	}
	if strings.Contains(got, "stalled") {
		t.Error("a value that is no number made a row")
	}
}

func TestDeliver(t *testing.T) {
	dir := t.TempDir()
	r := testResult()
	o := &options{json: filepath.Join(dir, "sub", "r.json"), svg: filepath.Join(dir, "r.svg"), record: filepath.Join(dir, "rec.json")}
	if err := r.deliver(o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	var back result
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back.Samples["up"][pathPlain], []float64{6, 7, 8}) || back.figures().get("up", pathOurs) != 7*1.2 {
		t.Errorf("samples or medians lost: %s", b)
	}
	if err := r.checkFile(o.record); err != nil {
		t.Errorf("the recorded run fails its own check: %v", err)
	}
	for i := range r.Samples["up"][pathOurs] {
		r.Samples["up"][pathOurs][i] /= 2
	}
	if err := r.checkFile(o.record); err == nil {
		t.Error("half the throughput passes the check")
	}
	if err := r.deliver(&options{short: true}); err == nil {
		t.Error("a short run with failed measurements passes")
	}
	if err := (&result{}).writeRecord(filepath.Join(dir, "x")); err == nil {
		t.Error("an empty run was recorded")
	}
}

func TestSVG(t *testing.T) {
	r := testResult()
	text := r.svg()
	dec := xml.NewDecoder(strings.NewReader(text))
	count := map[string]int{}
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v", err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			class := ""
			for _, a := range e.Attr {
				if a.Name.Local == "class" {
					class = a.Value
				}
			}
			count[e.Name.Local+" "+class]++
		}
	}
	// Two metrics with three paths each, and a limit in each.
	for what, want := range map[string]int{"rect panel": 2, "rect ours": 2, "rect ref": 2, "rect other": 2, "line limit": 2} {
		if count[what] != want {
			t.Errorf("%d of %q, want %d", count[what], what, want)
		}
	}
	if !strings.Contains(text, "prefers-color-scheme: dark") || !strings.Contains(text, "8.40") {
		t.Error("no dark style or no figure")
	}
}
