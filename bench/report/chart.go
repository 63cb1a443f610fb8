package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"
)

// Sizes of a chart, in units of its view box.
const (
	chartW     = 540
	chartH     = 300
	chartLeft  = 62
	chartRight = 14
	chartTop   = 46
	chartFoot  = 46
)

// scale maps values of an axis to a part of a length.
type scale struct {
	log      bool
	from, to float64
	ticks    []float64
}

func (s scale) at(v float64) float64 {
	if s.log {
		return (math.Log(v) - math.Log(s.from)) / (math.Log(s.to) - math.Log(s.from))
	}
	return (v - s.from) / (s.to - s.from)
}

// wide is from which ratio of the largest to the smallest value on an axis is logarithmic.
const wide = 15

// valueScale is a scale for values of zero and more: linear from zero, or logarithmic where the values differ much.
func valueScale(values []float64) scale {
	most, least := 0.0, math.Inf(1)
	for _, v := range values {
		most = max(most, v)
		if v > 0 {
			least = min(least, v)
		}
	}
	if most <= 0 {
		return scale{to: 1, ticks: []float64{0, 1}}
	}
	if most/least > wide {
		return logScale(least, most)
	}
	step := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if most/(step*m) <= 5 {
			step *= m
			break
		}
	}
	s := scale{to: step * math.Ceil(most/step-1e-9)}
	for i := 0; float64(i)*step <= s.to*1.0001; i++ {
		s.ticks = append(s.ticks, float64(i)*step)
	}
	return s
}

// logScale has ticks at 1, 2 and 5 times powers of ten, or at these alone where that would be many.
func logScale(least, most float64) scale {
	steps := []float64{1, 2, 5}
	if most/least > 1000 {
		steps = []float64{1}
	}
	s := scale{log: true}
	for e := math.Floor(math.Log10(least)) - 1; e <= math.Log10(most)+1; e++ {
		for _, m := range steps {
			v := m * math.Pow(10, e)
			s.ticks = append(s.ticks, v)
		}
	}
	first, last := 0, len(s.ticks)-1
	for first+1 < len(s.ticks) && s.ticks[first+1] <= least {
		first++
	}
	for last-1 > first && s.ticks[last-1] >= most {
		last--
	}
	s.ticks = s.ticks[first : last+1]
	s.from, s.to = s.ticks[0], s.ticks[len(s.ticks)-1]
	return s
}

// settingScale is a scale whose ticks are the settings of a sweep.
func settingScale(x []float64, logarithmic bool) scale {
	s := scale{log: logarithmic && x[0] > 0, from: x[0], to: x[len(x)-1], ticks: x}
	if s.from == s.to {
		s.from, s.to = s.from*0.5, s.to*1.5+1
		s.log = false
	}
	return s
}

// short formats a tick: 1500 is 1.5k.
func short(v float64) string {
	for _, u := range []struct {
		of     float64
		suffix string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(v) >= u.of {
			return trim(v/u.of) + u.suffix
		}
	}
	return trim(v)
}

// brief formats a figure with three significant digits and a factor: 22516 is 22.5k.
func brief(v float64) string {
	switch {
	case v >= 999_500:
		return Number(v/1e6) + "M"
	case v >= 10_000:
		return Number(v/1e3) + "k"
	}
	return Number(v)
}

func trim(v float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.4g", v), ".0")
}

// setting formats a value of the axis that is varied.
func (a Axis) setting(v float64) string {
	if a.Unit == "B" {
		switch {
		case v >= 1<<20:
			return trim(v/(1<<20)) + " MiB"
		case v >= 1<<10:
			return trim(v/(1<<10)) + " KiB"
		}
		return trim(v) + " B"
	}
	return short(v)
}

// pathClass is the class of a path's colour in the style sheet. What is not known there has one of the others.
func pathClass(path string, paths []string) string {
	switch path {
	case "ours", "plain", "direct", "tls", "ssh", "reference", "ours-1ch":
		return "p-" + path
	}
	n := 0
	for _, p := range paths {
		if p == path {
			break
		}
		if pathClass(p, nil) == "p-0" {
			n++
		}
	}
	if paths == nil {
		return "p-0"
	}
	return fmt.Sprintf("p-%d", n%5)
}

func (s *Section) paths() (list []string) {
	for _, p := range s.Points {
		if !slices.Contains(list, p.Path) {
			list = append(list, p.Path)
		}
	}
	return list
}

// settings are the values of the axis that is varied, ascending.
func (s *Section) settings() (list []float64) {
	for _, p := range s.Points {
		list = append(list, p.X)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (s *Section) values(path string, x float64, key string) []float64 {
	for _, p := range s.Points {
		if p.Path == path && p.X == x {
			return p.Values[key]
		}
	}
	return nil
}

// chart draws one measure of a section: a line for each path through its medians, and what the runs spread over as a bar.
func (s *Section) chart(m Metric, all []string) template.HTML {
	var values []float64
	for _, p := range s.Points {
		values = append(values, p.Values[m.Key]...)
	}
	x := s.settings()
	if len(values) == 0 || len(x) == 0 {
		return ""
	}
	ys, xs := valueScale(values), settingScale(x, s.X.Log)
	const w, h = chartW - chartLeft - chartRight, chartH - chartTop - chartFoot
	px := func(v float64) float64 { return chartLeft + xs.at(v)*w }
	py := func(v float64) float64 {
		if ys.log {
			v = max(v, ys.from)
		}
		return chartTop + (1-ys.at(v))*h
	}
	var b strings.Builder
	better := "less is better"
	if m.Higher {
		better = "more is better"
	}
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, chartW, chartH, html.EscapeString(s.Title+": "+m.Title))
	text(&b, chartLeft, 18, "ct", "start", m.Title)
	note := m.Unit + ", " + better
	if ys.log {
		note += ", logarithmic"
	}
	text(&b, chartLeft, 34, "cn", "start", note)
	for _, t := range ys.ticks {
		y := py(t)
		fmt.Fprintf(&b, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`, chartLeft, y, chartW-chartRight, y)
		text(&b, chartLeft-8, y+4, "tick", "end", short(t))
	}
	last := math.Inf(-1)
	for _, t := range xs.ticks {
		at := px(t)
		fmt.Fprintf(&b, `<line class="axis" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`, at, chartTop+h, at, chartTop+h+4)
		label := s.X.setting(t)
		if half := float64(len(label)) * 3.4; at-half > last+6 { // labels must not touch
			text(&b, at, chartTop+h+18, "tick", "middle", label)
			last = at + half
		}
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%d"/>`, chartLeft, chartTop+h, chartW-chartRight, chartTop+h)
	title := s.X.Title
	if s.X.Unit != "" && s.X.Unit != "B" {
		title += ", " + s.X.Unit
	}
	text(&b, chartLeft+w/2, chartH-8, "cn", "middle", title)
	// Ours last, so that it lies on top.
	order := slices.Clone(s.paths())
	slices.SortStableFunc(order, func(a, c string) int { return rank(a) - rank(c) })
	for _, path := range order {
		class := pathClass(path, all)
		var line []string
		var marks strings.Builder
		for _, v := range x {
			runs := s.values(path, v, m.Key)
			if len(runs) == 0 {
				continue
			}
			mid := Median(runs)
			if ys.log && mid <= 0 {
				continue
			}
			line = append(line, fmt.Sprintf("%.1f,%.1f", px(v), py(mid)))
			if low, high := slices.Min(runs), slices.Max(runs); high > low {
				fmt.Fprintf(&marks, `<line class="spread %s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, px(v), py(low), px(v), py(high))
			}
			fmt.Fprintf(&marks, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="3"><title>%s</title></circle>`, class, px(v), py(mid),
				html.EscapeString(fmt.Sprintf("%s, %s: %s %s", path, s.X.setting(v), Number(mid), m.Unit)))
		}
		if len(line) > 1 {
			fmt.Fprintf(&b, `<polyline class="line %s" points="%s"/>`, class, strings.Join(line, " "))
		}
		b.WriteString(marks.String())
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // every text in it is escaped
}

func rank(path string) int {
	switch {
	case path == "ours":
		return 2
	case strings.HasPrefix(path, "ours"):
		return 1
	}
	return 0
}

func text(b *strings.Builder, x, y float64, class, anchor, s string) {
	fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, class, x, y, anchor, html.EscapeString(s))
}

// Sizes of a bar chart.
const (
	barsW      = 540
	barStep    = 22
	barH       = 14
	barsTop    = 48
	barsLabel  = 142
	barsNumber = 140
)

// bars draws one metric: a bar for each path with the median, a line over what the runs spread over, and the figures.
func (r *Result) bars(m Metric) template.HTML {
	var paths []string
	most := 0.0
	for _, p := range r.Paths {
		if v := r.Samples[m.Key][p]; len(v) > 0 {
			paths = append(paths, p)
			most = max(most, slices.Max(v))
		}
	}
	if most <= 0 {
		return ""
	}
	var b strings.Builder
	height := barsTop + barStep*len(paths) + 6
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, barsW, height, html.EscapeString(m.Title))
	text(&b, 0, 18, "ct", "start", m.Title)
	note := m.Unit + ", less is better"
	switch {
	case m.Higher:
		note = m.Unit + ", more is better"
	case m.Unit == "":
		note = "" // of an older result, which does not say
	}
	if m.Goal != "" {
		note += "; goal: " + m.Goal
	}
	text(&b, 0, 34, "cn", "start", note)
	const length = barsW - barsLabel - barsNumber
	for n, p := range paths {
		v := r.Samples[m.Key][p]
		y := float64(barsTop + n*barStep)
		class := "label"
		if strings.HasPrefix(p, "ours") {
			class += " strong"
		}
		text(&b, barsLabel-8, y+11.5, class, "end", p)
		at := func(v float64) float64 { return barsLabel + v/most*length }
		fmt.Fprintf(&b, `<rect class="bar %s" x="%d" y="%.1f" width="%.1f" height="%d" rx="2"/>`, pathClass(p, r.Paths), barsLabel, y, max(at(Median(v))-barsLabel, 0.5), barH)
		low, high := slices.Min(v), slices.Max(v)
		figure := brief(Median(v))
		if high > low {
			fmt.Fprintf(&b, `<line class="whisker" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, at(low), y+barH/2, at(high), y+barH/2)
			text(&b, barsW, y+11.5, "cn", "end", brief(low)+"–"+brief(high))
		}
		text(&b, barsW-84, y+11.5, class, "end", figure)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) // every text in it is escaped
}
