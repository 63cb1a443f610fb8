package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"sallyport/bench/report"
	"sallyport/internal/wholefile"
)

// result is all that was measured; its report.Result is what the JSON file holds.
type result struct {
	report.Result
}

func newResult(args []string) *result {
	return &result{report.Result{
		When:      time.Now().UTC().Truncate(time.Second),
		Machine:   machine(),
		Arguments: args,
		Samples:   map[string]map[string][]float64{},
		Skipped:   map[string]string{},
	}}
}

// machine describes where this ran: the processor, the cores, the kernel.
func machine() string {
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				cpu = strings.TrimSpace(v)
				break
			}
		}
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		kernel = []byte("unknown")
	}
	return fmt.Sprintf("%s, %d cores, Linux %s", cpu, runtime.NumCPU(), strings.TrimSpace(string(kernel)))
}

func (r *result) add(path string, s sample) {
	for key, v := range s {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		if r.Samples[key] == nil {
			r.Samples[key] = map[string][]float64{}
		}
		r.Samples[key][path] = append(r.Samples[key][path], v)
	}
}

func (r *result) figures() figures { return r.Medians }

// measured reports whether there is any figure.
func (r *result) measured() bool { return len(r.Samples)+len(r.Sections) > 0 }

// after returns the runs of a file, nil for none, with those of r added, and medians of all. Neither is changed.
func (r *result) after(earlier []byte) (*result, error) {
	all := &result{r.Result}
	if earlier != nil {
		before, err := report.Parse(earlier)
		if err != nil {
			return nil, err
		}
		if err := before.Merge(&r.Result); err != nil {
			return nil, err
		}
		all = &result{*before}
	}
	all.finish()
	return all, nil
}

// finish computes the medians, and says what the figures are.
func (r *result) finish() {
	r.Medians, r.Metrics = figures{}, nil
	for key, byPath := range r.Samples {
		r.Medians[key] = map[string]float64{}
		for path, v := range byPath {
			r.Medians[key][path] = median(v)
		}
	}
	for _, m := range metrics {
		if len(r.Samples[m.key]) > 0 {
			r.Metrics = append(r.Metrics, report.Metric{Key: m.key, Title: m.title, Unit: m.unit, Higher: m.higher, Goal: m.goalText()})
		}
	}
}

// String lists the values in the order of the table.
func (s sample) String() string {
	var parts []string
	for _, m := range metrics {
		if v, ok := s[m.key]; ok {
			parts = append(parts, fmt.Sprintf("%s %s %s", m.key, number(v), m.unit))
		}
	}
	return strings.Join(parts, ", ")
}

func number(v float64) string { return report.Number(v) }

// table is the aligned text: medians of all paths, then the ratios of ours and
// the goals.
func (r *result) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	cells := []string{"metric", "unit"}
	cells = append(cells, r.Paths...)
	cells = append(cells, "ours/plain", "ours/reference", "limit", "goal", "")
	fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
	for _, m := range metrics {
		if len(r.Medians[m.key]) == 0 {
			continue
		}
		cells := []string{m.title, m.unit}
		for _, p := range r.Paths {
			cells = append(cells, number(r.figures().get(m.key, p)))
		}
		ours := r.figures().get(m.key, pathOurs)
		limit, v := r.figures().judge(m, pathOurs)
		cells = append(cells,
			number(ratio(ours, r.figures().get(m.key, pathPlain))),
			number(ratio(ours, r.figures().base(m, pathRef))),
			number(limit), m.goalText(), v.String())
		fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
	}
	w.Flush() // into memory: cannot fail
	text := report.AlignFirst(b.String())
	if len(r.Errors) > 0 {
		text += "\nFailed measurements:\n  " + strings.Join(r.Errors, "\n  ") + "\n"
	}
	for _, what := range slices.Sorted(maps.Keys(r.Skipped)) {
		text += "Skipped " + what + ": " + r.Skipped[what] + "\n"
	}
	return text
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'))
}

// writeFile makes a file or replaces it; whoever reads it finds what it had before or all of b. What is no file, as /dev/stdout, is written to.
func writeFile(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return os.WriteFile(path, b, 0o644)
	}
	return wholefile.Write(path, filepath.Base(path)+".*", 0o644, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}
