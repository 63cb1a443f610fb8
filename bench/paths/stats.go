package main

import (
	"math"
	"slices"

	"sallyport/bench/report"
)

func median(values []float64) float64 { return report.Median(values) }

// percentile is the smallest value that at least p per cent of the values do not
// exceed; NaN without values.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	i := int(math.Ceil(p/100*float64(len(v)))) - 1
	return v[min(max(i, 0), len(v)-1)]
}

// ratio is a/b, or NaN if either is missing or b is zero.
func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}
