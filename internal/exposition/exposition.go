// Package exposition is between what a node counts and who asks for it: metrics have a name, a help and labels, and their values go to a Sink. Text is
// one that writes them as Prometheus reads them, for programs without Prometheus' library.
package exposition

import (
	"bufio"
	"io"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	"sallyport/internal/histogram"
)

// Metric says what a metric is.
type Metric struct {
	Name, Help string
	// Labels are the names of its labels, in the order in which their values are given.
	Labels []string
}

// Kind is how a value behaves, in the words of the format.
type Kind string

// The kinds of values.
const (
	Gauge   Kind = "gauge"
	Counter Kind = "counter"
)

// Sink takes the values of metrics. A combination of a metric and labels is given once.
type Sink interface {
	Value(m *Metric, k Kind, v float64, labels ...string)
	Histogram(m *Metric, h *histogram.Histogram, labels ...string)
}

// ContentType is that of what Text writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Text gathers values and writes them in the text format. The zero value is empty.
type Text struct{ families map[string]*family }

type family struct {
	help  string
	kind  string
	lines []line
}

// line is one value, or all lines of a histogram, which have an order of their own.
type line struct{ labels, text string }

func (t *Text) add(m *Metric, kind, labels, text string) {
	if t.families == nil {
		t.families = map[string]*family{}
	}
	f := t.families[m.Name]
	if f == nil {
		f = &family{help: m.Help, kind: kind}
		t.families[m.Name] = f
	}
	f.lines = append(f.lines, line{labels, text})
}

// Value implements Sink.
func (t *Text) Value(m *Metric, k Kind, v float64, labels ...string) {
	l := pairs(m.Labels, labels)
	t.add(m, string(k), l, m.Name+braced(l)+" "+number(v)+"\n")
}

// Histogram implements Sink. Exemplars are not in this format.
func (t *Text) Histogram(m *Metric, h *histogram.Histogram, labels ...string) {
	count, sum, buckets := h.Counts()
	l := pairs(m.Labels, labels)
	var b strings.Builder
	bucket := func(le string, n uint64) {
		with := l
		if with != "" {
			with += ","
		}
		b.WriteString(m.Name + "_bucket" + braced(with+`le="`+le+`"`) + " " + strconv.FormatUint(n, 10) + "\n")
	}
	for _, le := range slices.Sorted(maps.Keys(buckets)) {
		bucket(number(le), buckets[le])
	}
	bucket("+Inf", count)
	b.WriteString(m.Name + "_sum" + braced(l) + " " + number(sum) + "\n")
	b.WriteString(m.Name + "_count" + braced(l) + " " + strconv.FormatUint(count, 10) + "\n")
	t.add(m, "histogram", l, b.String())
}

// WriteTo writes all that was gathered, in the order of names and labels.
func (t *Text) WriteTo(w io.Writer) (int64, error) {
	b := bufio.NewWriter(w)
	n := int64(0)
	put := func(parts ...string) {
		for _, s := range parts {
			k, _ := b.WriteString(s) // Flush tells
			n += int64(k)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.families)) {
		f := t.families[name]
		sort.SliceStable(f.lines, func(i, j int) bool { return f.lines[i].labels < f.lines[j].labels })
		put("# HELP ", name, " ", helpEscapes.Replace(f.help), "\n# TYPE ", name, " ", f.kind, "\n")
		for _, l := range f.lines {
			put(l.text)
		}
	}
	return n, b.Flush()
}

var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	valueEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// pairs writes labels in the order of their names.
func pairs(names, values []string) string {
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(i, j int) bool { return names[order[i]] < names[order[j]] })
	var b strings.Builder
	for _, i := range order {
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(names[i] + `="` + valueEscapes.Replace(strings.ToValidUTF8(values[i], "\uFFFD")) + `"`)
	}
	return b.String()
}

func braced(labels string) string {
	if labels == "" {
		return ""
	}
	return "{" + labels + "}"
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
