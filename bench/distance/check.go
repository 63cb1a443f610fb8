package main

import (
	"errors"
	"fmt"
)

// checkedRatio is how much of the plain chain's throughput ours must have in a short run. The machine is shared, and a single run
// varies, so it only shows what has gone badly wrong.
const checkedRatio = 0.5

// check fails where ours is far behind the plain chain.
func (t *table) check() error {
	var errs []error
	seen := 0
	for _, r := range t.Rows {
		if r.Metric != "down" && r.Metric != "up" {
			continue
		}
		v, ok := r.ratio(pathPlain)
		if !ok {
			errs = append(errs, fmt.Errorf("%s, %s: not measured", r.Scenario, r.Load))
			continue
		}
		seen++
		if v < checkedRatio {
			errs = append(errs, fmt.Errorf("%s, %s: %.2f of the plain chain, at least %.2f expected", r.Scenario, r.Load, v, checkedRatio))
		}
	}
	if seen == 0 {
		errs = append(errs, errors.New("nothing was compared"))
	}
	return errors.Join(errs...)
}
