package exposition

import (
	"strings"
	"testing"
	"time"

	"sallyport/internal/histogram"
)

// TestText: values are written in the order of names and labels, with what has a meaning in the format escaped, and a histogram's buckets add up.
func TestText(t *testing.T) {
	h := histogram.New([]time.Duration{time.Millisecond, time.Second})
	for _, d := range []time.Duration{time.Microsecond, 500 * time.Millisecond, time.Hour} {
		h.Observe(d, [16]byte{1}, time.Now())
	}
	var text Text
	many := &Metric{Name: "b_total", Help: "A \\ and\na line.", Labels: []string{"z", "a"}}
	text.Value(many, Counter, 1e21, "one", "two")
	text.Value(many, Counter, 2, "a \"b\"", "a\\\n\xff")
	text.Value(&Metric{Name: "a", Help: "First."}, Gauge, -0.5)
	text.Histogram(&Metric{Name: "c", Help: "Times.", Labels: []string{"kind"}}, h, "x")
	var b strings.Builder
	n, err := text.WriteTo(&b)
	want := `# HELP a First.
# TYPE a gauge
a -0.5
# HELP b_total A \\ and\na line.
# TYPE b_total counter
b_total{a="a\\\n` + "\uFFFD" + `",z="a \"b\""} 2
b_total{a="two",z="one"} 1e+21
# HELP c Times.
# TYPE c histogram
c_bucket{kind="x",le="0.001"} 1
c_bucket{kind="x",le="1"} 2
c_bucket{kind="x",le="+Inf"} 3
c_sum{kind="x"} 3600.500001
c_count{kind="x"} 3
`
	if err != nil || n != int64(b.Len()) || b.String() != want {
		t.Errorf("%d, %v:\n%s", n, err, b.String())
	}
}
