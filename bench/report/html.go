package report

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"
)

//go:embed report.html
var page string

// view is what the page shows.
type view struct {
	*Result
	Command string
	Runs    int
	Rows    []row
	Bars    []template.HTML
	Parts   []part
	Legend  []legend
	Tools   [][2]string
	Kinds   [][2]string
	Left    [][2]string
	JSON    string
}

// row is a metric in the table.
type row struct {
	Metric
	Cells []cell
}

type cell struct {
	Value, Spread string
	Best, Ours    bool
}

type legend struct{ Path, Class string }

// part is a section of the page.
type part struct {
	*Section
	Legend []legend
	Charts []template.HTML
	Head   []string
	Rows   [][]string
}

// HTML makes one page without anything from outside: plots, tables, the machine, the versions, the command, and the result itself as JSON. Whatever the result says is
// escaped.
func HTML(r *Result) ([]byte, error) {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return nil, err
	}
	raw, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return nil, err
	}
	v := &view{Result: r, Command: "bench/paths " + strings.Join(r.Arguments, " "), Tools: pairs(r.Versions), Kinds: pairs(r.About), Left: pairs(r.Skipped), JSON: string(raw)}
	for _, byPath := range r.Samples {
		for _, runs := range byPath {
			v.Runs = max(v.Runs, len(runs))
		}
	}
	for _, p := range r.Paths {
		v.Legend = append(v.Legend, legend{p, pathClass(p, r.Paths)})
	}
	for _, m := range r.metrics() {
		if b := r.bars(m); b != "" {
			v.Bars = append(v.Bars, b)
		}
		v.Rows = append(v.Rows, r.row(m))
	}
	for _, s := range r.Sections {
		v.Parts = append(v.Parts, r.part(s))
	}
	var b bytes.Buffer
	if err := t.Execute(&b, v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func pairs(m map[string]string) (list [][2]string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, [2]string{k, m[k]})
	}
	return list
}

// metrics are those of the result; a result of an older program does not say what its figures are.
func (r *Result) metrics() []Metric {
	list := slices.Clone(r.Metrics)
	for _, key := range slices.Sorted(maps.Keys(r.Samples)) {
		if !slices.ContainsFunc(list, func(m Metric) bool { return m.Key == key }) {
			list = append(list, Metric{Key: key, Title: key})
		}
	}
	return list
}

func (r *Result) row(m Metric) row {
	w := row{Metric: m}
	best := math.NaN()
	for _, p := range r.Paths {
		v := Median(r.Samples[m.Key][p])
		if p != "direct" && !math.IsNaN(v) && (math.IsNaN(best) || m.Higher && v > best || !m.Higher && v < best) {
			best = v
		}
	}
	for _, p := range r.Paths {
		runs := r.Samples[m.Key][p]
		c := cell{Value: brief(Median(runs)), Ours: p == "ours"}
		c.Best = len(runs) > 0 && p != "direct" && Median(runs) == best
		if len(runs) > 1 {
			c.Spread = brief(slices.Min(runs)) + "–" + brief(slices.Max(runs))
		}
		w.Cells = append(w.Cells, c)
	}
	return w
}

func (r *Result) part(s *Section) part {
	p := part{Section: s, Head: []string{s.X.Title}}
	for _, path := range s.paths() {
		p.Legend = append(p.Legend, legend{path, pathClass(path, r.Paths)})
	}
	p.Head = append(p.Head, "path")
	for _, m := range s.Y {
		if c := s.chart(m, r.Paths); c != "" {
			p.Charts = append(p.Charts, c)
			p.Head = append(p.Head, m.Title+", "+m.Unit)
		}
	}
	for _, x := range s.settings() {
		for _, path := range s.paths() {
			line := []string{s.X.setting(x), path}
			some := false
			for _, m := range s.Y {
				if !s.measured(m.Key) {
					continue
				}
				v := s.values(path, x, m.Key)
				some = some || len(v) > 0
				line = append(line, brief(Median(v)))
			}
			if some {
				p.Rows = append(p.Rows, line)
			}
		}
	}
	return p
}

func (s *Section) measured(key string) bool {
	return slices.ContainsFunc(s.Points, func(p *Point) bool { return len(p.Values[key]) > 0 })
}
