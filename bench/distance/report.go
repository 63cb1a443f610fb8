package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// row is one figure of one load in one scenario, on each path: a value for each run.
type row struct {
	Scenario, Load, Metric, Unit string
	LowerIsBetter                bool
	Values                       map[string][]float64
}

// table collects rows in the order in which they come.
type table struct {
	Paths []string
	Rows  []*row
}

func (t *table) add(sc scenario, what, metric, unit string, lower bool, path string, v float64) {
	k := slices.IndexFunc(t.Rows, func(r *row) bool { return r.Scenario == sc.name && r.Load == what && r.Metric == metric })
	if k < 0 {
		t.Rows = append(t.Rows, &row{sc.name, what, metric, unit, lower, map[string][]float64{}})
		k = len(t.Rows) - 1
	}
	t.Rows[k].Values[path] = append(t.Rows[k].Values[path], v)
}

// addFigures adds what a load came to.
func (t *table) addFigures(sc scenario, what, path string, f figures) {
	for _, m := range []struct {
		name, unit string
		lower      bool
		v          float64
	}{
		{"down", "Mbit/s", false, f.Down}, {"up", "Mbit/s", false, f.Up},
		{"half rate after", "ms", true, f.Half}, {"first 10 MB after", "ms", true, f.Early}, {"fairness", "", false, f.Fair},
		{"request p50", "ms", true, f.P50}, {"request p99", "ms", true, f.P99}, {"first answer", "ms", true, f.First},
		{"sent again", "segments", true, f.Resent}, {"memory", "MiB", true, f.Memory}, {"clients and wire", "CPUs", true, f.Wire},
	} {
		if m.v != 0 && (m.name != "fairness" || m.v != 1) {
			t.add(sc, what, m.name, m.unit, m.lower, path, m.v)
		}
	}
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Clone(list)
	slices.Sort(list)
	if k := len(list) / 2; len(list)%2 == 1 {
		return list[k]
	} else {
		return (list[k-1] + list[k]) / 2
	}
}

// ratio compares ours with another path; above 1 is better, whatever the metric.
func (r *row) ratio(other string) (float64, bool) {
	a, b := median(r.Values[pathOurs]), median(r.Values[other])
	if a == 0 || b == 0 {
		return 0, false
	}
	if r.LowerIsBetter {
		a, b = b, a
	}
	return a / b, true
}

// markdown writes the table: medians, and how many times better ours is than the others.
func (t *table) markdown(w io.Writer) {
	head := []string{"round trip", "load", "figure"}
	head = append(head, t.Paths...)
	for _, p := range t.Paths {
		if p != pathOurs && slices.Contains(t.Paths, pathOurs) {
			head = append(head, "against "+p)
		}
	}
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, r := range t.Rows {
		cells := []string{r.Scenario, r.Load, strings.TrimSuffix(r.Metric+", "+r.Unit, ", ")}
		for _, p := range t.Paths {
			cells = append(cells, number(median(r.Values[p])))
		}
		for _, p := range t.Paths {
			if p != pathOurs && slices.Contains(t.Paths, pathOurs) {
				text := "-"
				if v, ok := r.ratio(p); ok && r.Metric != "clients and wire" {
					text = fmt.Sprintf("%.2f", v)
				}
				cells = append(cells, text)
			}
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | "))
	}
}

func number(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
