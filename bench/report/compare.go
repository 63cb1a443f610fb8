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

// Compare lists what two results have in common: medians, spreads, the change, and whether it exceeds the noise.
func Compare(a, b *Result) string {
	var out strings.Builder
	if a.Machine != b.Machine {
		fmt.Fprintf(&out, "Of two machines, so figures are not to be compared, only ratios:\n  A: %s\n  B: %s\n\n", a.Machine, b.Machine)
	}
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "measured\tpath\tunit\tA\trange\tB\trange\tchange\t\t\n")
	lines := 0
	line := func(what, path string, m Metric, va, vb []float64) {
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
			line(m.Title, p, m, a.Samples[m.Key][p], b.Samples[m.Key][p])
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
					line(sb.Title+", "+sb.X.setting(x)+", "+m.Title, p, m, a.Sections[i].values(p, x, m.Key), sb.values(p, x, m.Key))
				}
			}
		}
	}
	_ = w.Flush() // into memory
	if lines == 0 {
		return out.String() + "The two have nothing in common.\n"
	}
	fmt.Fprintf(&out, "\nbetter, worse: no run of one is within the range of the other, with %d runs or more of each; ~: they meet.\n", leastRuns)
	return out.String()
}

func span(v []float64) string {
	low, high := slices.Min(v), slices.Max(v)
	if low == high || math.IsNaN(low) {
		return ""
	}
	return Number(low) + ".." + Number(high)
}
