package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// leastRuns is how many runs each side needs for a difference to be told from noise. With three on either side ranges that do not meet come about by
// chance once in ten (2 of 6!/(3!3!) orders), with five once in 126.
const leastRuns = 3

// Verdict on a figure in two results.
type Verdict string

const (
	Better  Verdict = "better"
	Worse   Verdict = "worse"
	Noise   Verdict = "~"        // the ranges of the runs meet
	FewRuns Verdict = "few runs" // not enough runs to say
)

// judge compares the runs of a figure.
func judge(a, b []float64, higher bool) Verdict {
	if len(a) < leastRuns || len(b) < leastRuns {
		return FewRuns
	}
	above, below := slices.Min(b) > slices.Max(a), slices.Max(b) < slices.Min(a)
	switch {
	case above && higher, below && !higher:
		return Better
	case above, below:
		return Worse
	}
	return Noise
}

// yardstick is the path whose figures say what a machine can do: three proxies that only pass bytes on.
const yardstick = "plain"

// Compare lists what two results have in common: medians, spreads, the change, and whether it exceeds the noise. Of two machines these are ratios to the median of
// the yardstick in the same result, since figures do not travel.
func Compare(a, b *Result) string {
	var out strings.Builder
	ratios := a.Machine != b.Machine
	if ratios {
		fmt.Fprintf(&out, "Of two machines, so each figure is divided by that of the path %s in its own result:\n  A: %s\n  B: %s\n\n", yardstick, a.Machine, b.Machine)
	}
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "measured\tpath\tunit\tA\trange\tB\trange\tchange\t\t\n")
	lines := 0
	line := func(what, path string, m Metric, va, vb, unitA, unitB []float64) {
		if ratios {
			m.Unit = "x " + yardstick
			va, vb = divided(va, Median(unitA)), divided(vb, Median(unitB))
		}
		if len(va) == 0 || len(vb) == 0 {
			return
		}
		lines++
		change := "-"
		if before := Median(va); before != 0 {
			change = fmt.Sprintf("%+.1f %%", 100*(Median(vb)/before-1))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", what, path, m.Unit, Number(Median(va)), span(va), Number(Median(vb)), span(vb), change, judge(va, vb, m.Higher))
	}
	for _, m := range b.metrics() {
		for _, p := range b.Paths {
			line(m.Title, p, m, a.Samples[m.Key][p], b.Samples[m.Key][p], a.Samples[m.Key][yardstick], b.Samples[m.Key][yardstick])
		}
	}
	for _, sb := range b.Sections {
		i := slices.IndexFunc(a.Sections, func(s *Section) bool { return s.Key == sb.Key })
		if i < 0 {
			continue
		}
		for _, m := range sb.Y {
			for _, p := range sb.paths() {
				for _, x := range sb.settings() {
					line(sb.Title+", "+sb.X.setting(x)+", "+m.Title, p, m, a.Sections[i].values(p, x, m.Key), sb.values(p, x, m.Key),
						a.Sections[i].values(yardstick, x, m.Key), sb.values(yardstick, x, m.Key))
				}
			}
		}
	}
	_ = w.Flush() // into memory
	if lines == 0 {
		return out.String() + "The two have nothing in common.\n"
	}
	text := out.String()
	out.Reset()
	out.WriteString(AlignFirst(text))
	fmt.Fprintf(&out, "\nbetter, worse: no run of one is within the range of the other, with %d runs or more of each; ~: they meet.\n", leastRuns)
	return out.String()
}

// divided returns the parts of v by a figure that is not 0 or missing; none otherwise.
func divided(v []float64, by float64) []float64 {
	if math.IsNaN(by) || by == 0 {
		return nil
	}
	parts := make([]float64, len(v))
	for i := range v {
		parts[i] = v[i] / by
	}
	return parts
}

// AlignFirst moves the text of the first column, which tabwriter aligned to the right
// like all others, to the left.
func AlignFirst(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		trimmed := strings.TrimLeft(line, " ")
		pad := len(line) - len(trimmed)
		// The first cell ends where two spaces follow it.
		if end := strings.Index(trimmed, "  "); end >= 0 {
			lines[i] = strings.TrimRight(trimmed[:end]+strings.Repeat(" ", pad)+trimmed[end:], " ")
		}
	}
	return strings.Join(lines, "\n")
}

func span(v []float64) string {
	low, high := slices.Min(v), slices.Max(v)
	if low == high || math.IsNaN(low) {
		return ""
	}
	return Number(low) + ".." + Number(high)
}
