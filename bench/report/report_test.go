package report

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// hostile is text that would break out of an attribute, an element or a script.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(2)> ' & </pre> {{.}}`

// sample is a result with all that a report shows.
func sample() *Result {
	r := &Result{When: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC), Machine: "a machine " + hostile, Load: "0.10", Arguments: []string{"--runs", "3", hostile},
		Versions: map[string]string{"haproxy": "2.6 " + hostile}, Paths: []string{"plain", "ours", "other" + hostile}, About: map[string]string{"ours": hostile},
		Metrics: []Metric{{Key: "up", Title: "bulk up " + hostile, Unit: "Gbit/s" + hostile, Higher: true, Goal: hostile}, {Key: "ping", Title: "PING", Unit: "ms"}},
		Samples: map[string]map[string][]float64{"up": {"plain": {5, 6, 7}, "ours": {6, 6.5, 7.5}, "other" + hostile: {1}}, "ping": {"plain": {0.1}, "ours": {0.2}}},
		Skipped: map[string]string{"tls": hostile}, Errors: []string{hostile}}
	s := r.Section(Section{Key: "sizes", Title: "Sizes " + hostile, Note: hostile, X: Axis{Title: "message " + hostile, Unit: "B", Log: true}, Y: []Metric{{Key: "p50", Title: "p50", Unit: "ms"}, {Key: "none", Title: "never measured", Unit: "ms"}}})
	for _, x := range []float64{64, 1024, 1 << 20} {
		s.Add("plain", x, map[string]float64{"p50": x / 1e4, "none": math.NaN()})
		s.Add("plain", x, map[string]float64{"p50": x / 0.9e4})
		s.Add("ours", x, map[string]float64{"p50": x / 2e4})
	}
	return r
}

// elements counts what a page holds, and returns all of its text.
func elements(t *testing.T, page []byte) (count map[string]int, text string) {
	t.Helper()
	count = map[string]int{}
	var b strings.Builder
	z := html.NewTokenizer(bytes.NewReader(page))
	depth := []string{}
	void := map[string]bool{"meta": true, "br": true, "img": true, "link": true}
	for {
		switch z.Next() {
		case html.ErrorToken:
			if z.Err() != io.EOF {
				t.Fatal(z.Err())
			}
			if len(depth) > 0 {
				t.Errorf("not closed: %v", depth)
			}
			return count, b.String()
		case html.StartTagToken:
			tok := z.Token()
			count[tok.Data]++
			if !void[tok.Data] {
				depth = append(depth, tok.Data)
			}
			for _, a := range tok.Attr {
				if strings.HasPrefix(a.Key, "on") || (a.Key == "href" || a.Key == "src") && !strings.HasPrefix(a.Val, "#") {
					t.Errorf("%s has %s=%q", tok.Data, a.Key, a.Val)
				}
			}
		case html.SelfClosingTagToken:
			tok := z.Token()
			count[tok.Data]++
		case html.EndTagToken:
			tok := z.Token()
			if len(depth) == 0 || depth[len(depth)-1] != tok.Data {
				t.Fatalf("</%s> ends %v", tok.Data, depth)
			}
			depth = depth[:len(depth)-1]
		case html.TextToken:
			b.WriteString(string(z.Text()))
		}
	}
}

// TestHTML: the page is well-formed, takes nothing from outside and runs nothing, whatever the result says; it shows every figure, and the result itself.
func TestHTML(t *testing.T) {
	r := sample()
	page, err := HTML(r)
	if err != nil {
		t.Fatal(err)
	}
	count, text := elements(t, page)
	if count["script"]+count["img"]+count["link"]+count["iframe"] > 0 || count["svg"] != 3 || count["polyline"] != 2 || count["table"] != 4 {
		t.Errorf("%v", count)
	}
	if bytes.Contains(page, []byte("<script>alert")) || regexp.MustCompile(`url\(|@import|https?://`).Match(page) {
		t.Error("something from outside, or what was to be escaped")
	}
	for _, want := range []string{"6.50", "6.00–7.50", "64 B", "1 KiB", "1 MiB", "29 November 2026", "less is better, logarithmic"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Count(html.UnescapeString(text), hostile) < 10 {
		t.Errorf("the text is there %d times", strings.Count(html.UnescapeString(text), hostile))
	}
	raw := regexp.MustCompile(`(?s)<pre id="json">(.*?)</pre>`).FindSubmatch(page)
	if raw == nil {
		t.Fatal("no JSON")
	}
	file := filepath.Join(t.TempDir(), "a.json")
	if err := os.WriteFile(file, []byte(html.UnescapeString(string(raw[1]))), 0o600); err != nil {
		t.Fatal(err)
	}
	back, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := HTML(back)
	if err != nil || !bytes.Equal(page, again) {
		t.Errorf("the page made of the page's JSON is another one (%v)", err)
	}
}

// TestReadRefuses: what is no result is refused with what is wrong.
func TestReadRefuses(t *testing.T) {
	for text, want := range map[string]string{"": "not a benchmark's result", "[]": "not a benchmark's result", `{"paths": ["a"]}`: "nothing that was measured"} {
		file := filepath.Join(t.TempDir(), "x.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, file := range []string{"testdata/older.json", "../results/medium.json"} {
		r, err := Read(file)
		if err != nil {
			t.Fatal(err)
		}
		if page, err := HTML(r); err != nil {
			t.Errorf("%s: %v", file, err)
		} else {
			elements(t, page)
		}
	}
}

// TestCompare: a difference counts only if no run of one is within the range of the other, and there are runs enough.
func TestCompare(t *testing.T) {
	for _, k := range []struct {
		a, b   []float64
		higher bool
		want   Verdict
	}{
		{[]float64{1, 2, 3}, []float64{4, 5, 6}, true, Better},
		{[]float64{1, 2, 3}, []float64{4, 5, 6}, false, Worse},
		{[]float64{4, 5, 6}, []float64{1, 2, 3}, true, Worse},
		{[]float64{4, 5, 6}, []float64{1, 2, 3}, false, Better},
		{[]float64{1, 2, 4}, []float64{3, 5, 6}, true, Noise},
		{[]float64{1, 1, 1}, []float64{1, 1, 1}, true, Noise},
		{[]float64{1, 2}, []float64{4, 5, 6}, true, FewRuns},
	} {
		if got := judge(k.a, k.b, k.higher); got != k.want {
			t.Errorf("%v %v %v: %s, want %s", k.a, k.b, k.higher, got, k.want)
		}
	}
	a, b := sample(), sample()
	b.Samples["up"]["ours"] = []float64{9, 9.1, 9.2}
	text := Compare(a, b)
	if !regexp.MustCompile(`ours .* 6.50 .* 9.10 +9.00..9.20 +\+40.0 % +better`).MatchString(text) || !strings.Contains(text, "few runs") || strings.Contains(text, "two machines") {
		t.Error(text)
	}
	b.Machine = "another"
	a.Samples["up"]["plain"], b.Samples["up"]["plain"] = []float64{2, 2, 2}, []float64{1, 2, 4} // 6.50 / 2 and 9.10 / 2
	if text := Compare(a, b); !strings.Contains(text, "two machines") || !regexp.MustCompile(`ours +x plain +3.25 .* 4.55 +4.50..4.60 +\+40.0 % +better`).MatchString(text) {
		t.Error(text)
	}
	delete(b.Samples["up"], "plain")
	if text := Compare(a, b); strings.Contains(text, "bulk up") {
		t.Error("a figure without anything to be divided by is compared:", text)
	}
	if text := Compare(a, &Result{Machine: a.Machine}); !strings.Contains(text, "nothing in common") {
		t.Error(text)
	}
}

// TestScales: axes hold their values, have ticks that ascend, few enough to read.
func TestScales(t *testing.T) {
	for _, values := range [][]float64{{0}, {1}, {0.013}, {3, 4, 5}, {999, 1000}, {0.1, 50}, {1e-3, 1e6}, {0, 100, 1}, {7, 7}, {1, 15.1}} {
		s := valueScale(values)
		if len(s.ticks) < 2 || len(s.ticks) > 12 {
			t.Errorf("%v: ticks %v", values, s.ticks)
		}
		for i, tick := range s.ticks {
			if i > 0 && tick <= s.ticks[i-1] {
				t.Errorf("%v: ticks %v", values, s.ticks)
			}
			if at := s.at(tick); at < -1e-9 || at > 1+1e-9 {
				t.Errorf("%v: tick %v at %v", values, tick, at)
			}
		}
		for _, v := range values {
			if v > 0 && (s.at(v) < -1e-9 || s.at(v) > 1+1e-9) {
				t.Errorf("%v: %v at %v of %+v", values, v, s.at(v), s)
			}
		}
	}
}

// TestSection: figures of several runs gather at one point, what is not a number is left out, and JSON keeps them.
func TestSection(t *testing.T) {
	r := sample()
	if r.Section(Section{Key: "sizes"}) != r.Sections[0] || len(r.Sections) != 1 {
		t.Error("a section was made twice")
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if v := back.Sections[0].values("plain", 1024, "p50"); len(v) != 2 {
		t.Errorf("%v", v)
	}
	if v := back.Sections[0].values("plain", 1024, "none"); len(v) != 0 {
		t.Errorf("%v", v)
	}
}

// TestMerge: runs of two results stand beside each other; those of another machine or version are refused.
func TestMerge(t *testing.T) {
	a, b := sample(), sample()
	if err := a.Merge(b); err != nil {
		t.Fatal(err)
	}
	if v := a.Samples["up"]["ours"]; len(v) != 6 || a.Medians["up"]["ours"] != 6.5 || len(a.Sections) != 1 || len(a.Sections[0].values("plain", 64, "p50")) != 4 || len(a.Paths) != 3 {
		t.Errorf("%v %v", v, a.Sections[0].Points)
	}
	var empty Result
	empty.Machine = b.Machine
	if err := empty.Merge(b); err != nil || len(empty.Samples) != 2 || len(empty.Metrics) != 2 {
		t.Errorf("%+v %v", empty, err)
	}
	b.Versions["haproxy"] = "3"
	if err := a.Merge(b); err == nil || !strings.Contains(err.Error(), "two versions of haproxy") {
		t.Error(err)
	}
	b.Machine = "another"
	if err := a.Merge(b); err == nil || !strings.Contains(err.Error(), "two machines") {
		t.Error(err)
	}
}
