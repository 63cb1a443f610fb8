package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
)

// record is what --record writes and --check reads: the ratio ours/plain of every
// checked metric. Ratios are compared, not figures, since they change less from
// machine to machine; and each path's best run, since a slow spell of the machine makes
// one path worse and none better.
type record struct {
	Machine string             `json:"machine"`
	Ratios  map[string]float64 `json:"ours_to_plain"`
}

func (r *result) ratios() record {
	rec := record{Machine: r.Machine, Ratios: map[string]float64{}}
	for _, m := range metrics {
		v := ratio(m.best(r.Samples[m.key][pathOurs]), m.best(r.Samples[m.key][pathPlain]))
		if m.check && !math.IsNaN(v) && v > 0 {
			rec.Ratios[m.key] = v
		}
	}
	return rec
}

// best is the best of the values; NaN without any.
func (m metric) best(values []float64) float64 {
	switch {
	case len(values) == 0:
		return math.NaN()
	case m.higher:
		return slices.Max(values)
	}
	return slices.Min(values)
}

// writeRecord refuses to record less than a run that can be checked.
func (r *result) writeRecord(path string) error {
	rec := r.ratios()
	if len(rec.Ratios) == 0 {
		return errors.New("nothing to record: neither ours nor plain was measured")
	}
	return writeJSON(path, rec)
}

// tolerance is how much worse a ratio may be than the recorded one.
const tolerance = 1.0 / 3

func (r *result) checkFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var want record
	if err := json.Unmarshal(b, &want); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return compare(want.Ratios, r.ratios().Ratios)
}

// compare returns an error that names every metric whose ratio became worse by
// more than a third, or was recorded and is not there now.
func compare(want, got map[string]float64) error {
	var bad []string
	checked := 0
	for _, m := range metrics {
		old, ok := want[m.key]
		if !ok || !m.check {
			continue
		}
		checked++
		now, ok := got[m.key]
		switch {
		case !ok:
			bad = append(bad, m.key+": not measured")
		case m.higher && now < old*(1-tolerance), !m.higher && now > old/(1-tolerance):
			bad = append(bad, fmt.Sprintf("%s: ours/plain is %s, recorded was %s", m.key, number(now), number(old)))
		}
	}
	if checked == 0 {
		return errors.New("the recorded file holds no metric to check")
	}
	if len(bad) > 0 {
		return fmt.Errorf("worse by more than a third:\n  %s", strings.Join(bad, "\n  "))
	}
	return nil
}
