// Package report holds what a benchmark measured, as JSON, and makes of it one HTML file to read and a comparison with another run.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// Result is all that was measured. Its JSON is what reports are made of, and nothing else.
type Result struct {
	When      time.Time                       `json:"when"`
	Machine   string                          `json:"machine"`
	Load      string                          `json:"load,omitempty"` // of the machine at the beginning and at the end, before and after the measurements
	Arguments []string                        `json:"arguments"`
	Versions  map[string]string               `json:"versions,omitempty"` // what each program says that it is
	Paths     []string                        `json:"paths"`
	About     map[string]string               `json:"about,omitempty"` // path -> what it is made of
	Metrics   []Metric                        `json:"metrics,omitempty"`
	Samples   map[string]map[string][]float64 `json:"samples"` // metric -> path -> one value a run
	Medians   map[string]map[string]float64   `json:"medians"`
	Sections  []*Section                      `json:"sections,omitempty"`
	Skipped   map[string]string               `json:"skipped,omitempty"`
	Errors    []string                        `json:"errors,omitempty"`
}

// Metric is what a figure is.
type Metric struct {
	Key    string `json:"key"`
	Title  string `json:"title"`
	Unit   string `json:"unit"`
	Higher bool   `json:"higher,omitempty"` // higher is better
	Goal   string `json:"goal,omitempty"`
}

// Section is a sweep: figures over something that was varied.
type Section struct {
	Key    string   `json:"key"`
	Title  string   `json:"title"`
	Note   string   `json:"note,omitempty"` // how it was measured, how to read it
	X      Axis     `json:"x"`
	Y      []Metric `json:"y"`
	Points []*Point `json:"points"`
}

// Axis is what is varied.
type Axis struct {
	Title string `json:"title"`
	Unit  string `json:"unit,omitempty"`
	Log   bool   `json:"log,omitempty"` // steps are factors
}

// Point is one setting on one path.
type Point struct {
	Path   string               `json:"path"`
	X      float64              `json:"x"`
	Values map[string][]float64 `json:"values"` // metric -> one value a run
}

// Section returns the section with the key of s, which is s itself if there was none.
func (r *Result) Section(s Section) *Section {
	for _, have := range r.Sections {
		if have.Key == s.Key {
			return have
		}
	}
	r.Sections = append(r.Sections, &s)
	return &s
}

// Add adds one run's figures. What is not a number is left out.
func (s *Section) Add(path string, x float64, values map[string]float64) {
	p := s.point(path, x)
	for key, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			p.Values[key] = append(p.Values[key], v)
		}
	}
}

// point returns the point of a path at x, which it makes if need be.
func (s *Section) point(path string, x float64) *Point {
	for _, p := range s.Points {
		if p.Path == path && p.X == x {
			return p
		}
	}
	p := &Point{Path: path, X: x, Values: map[string][]float64{}}
	s.Points = append(s.Points, p)
	return p
}

// Median of the values; NaN without any. The values are not changed.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return (v[m-1] + v[m]) / 2
}

// Number formats a figure with three significant digits, or "-" for none.
func Number(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	switch a := math.Abs(v); {
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// Read reads a result from a file, at most 256 MiB.
func Read(file string) (*Result, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.Size() > 256<<20 {
		return nil, fmt.Errorf("%s: %d bytes are more than a result has", file, st.Size())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// Parse reads a result from its JSON.
func Parse(b []byte) (*Result, error) {
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("not a benchmark's result: %w", err)
	}
	if len(r.Paths) == 0 || len(r.Samples)+len(r.Sections) == 0 {
		return nil, errors.New("not a benchmark's result: it has no paths, or nothing that was measured")
	}
	return &r, nil
}
