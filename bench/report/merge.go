package report

import (
	"fmt"
	"slices"
	"strings"
)

// Mergeable says why the runs of r and b are not to be merged: they are not of one machine, or not of the same versions.
func (r *Result) Mergeable(b *Result) error {
	if r.Machine != b.Machine {
		return fmt.Errorf("results of two machines are not to be merged: %s, and %s", r.Machine, b.Machine)
	}
	for name, v := range b.Versions {
		if have, ok := r.Versions[name]; ok && have != v {
			return fmt.Errorf("results of two versions of %s are not to be merged: %s, and %s", name, have, v)
		}
	}
	return nil
}

// Merge adds the runs of b to those in r, if they are Mergeable.
func (r *Result) Merge(b *Result) error {
	if err := r.Mergeable(b); err != nil {
		return err
	}
	for name, v := range b.Versions {
		if r.Versions == nil {
			r.Versions = map[string]string{}
		}
		r.Versions[name] = v
	}
	for _, p := range b.Paths {
		if !slices.Contains(r.Paths, p) {
			r.Paths = append(r.Paths, p)
		}
	}
	for p, text := range b.About {
		if r.About == nil {
			r.About = map[string]string{}
		}
		r.About[p] = text
	}
	for _, m := range b.Metrics {
		if !slices.ContainsFunc(r.Metrics, func(have Metric) bool { return have.Key == m.Key }) {
			r.Metrics = append(r.Metrics, m)
		}
	}
	if r.Samples == nil {
		r.Samples = map[string]map[string][]float64{}
	}
	if r.Medians == nil {
		r.Medians = map[string]map[string]float64{}
	}
	for key, byPath := range b.Samples {
		if r.Samples[key] == nil {
			r.Samples[key] = map[string][]float64{}
		}
		if r.Medians[key] == nil {
			r.Medians[key] = map[string]float64{}
		}
		for path, v := range byPath {
			r.Samples[key][path] = append(r.Samples[key][path], v...)
			r.Medians[key][path] = Median(r.Samples[key][path])
		}
	}
	for _, s := range b.Sections {
		to := r.Section(Section{Key: s.Key, Title: s.Title, Note: s.Note, X: s.X, Y: s.Y})
		for _, p := range s.Points {
			at := to.point(p.Path, p.X)
			for key, v := range p.Values {
				at.Values[key] = append(at.Values[key], v...)
			}
		}
	}
	for what, why := range b.Skipped {
		if r.Skipped == nil {
			r.Skipped = map[string]string{}
		}
		r.Skipped[what] = why
	}
	r.Errors = append(r.Errors, b.Errors...)
	r.Load = strings.TrimPrefix(r.Load+"; "+b.Load, "; ")
	if args := strings.Join(b.Arguments, " "); args != strings.Join(r.Arguments, " ") {
		r.Arguments = append(append(r.Arguments, "; and"), b.Arguments...)
	}
	return nil
}
