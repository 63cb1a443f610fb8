package load

import (
	"context"
	"fmt"
	"time"
)

// Search says what counts as kept up with.
type Search struct {
	Within time.Duration // bound of the 99th percentile; 0 is 100 ms
	Steps  int           // how many rates are tried after the closed loop; 0 is 5
	// Tried is told of each rate that was tried.
	Tried func(r *Result, keptUp bool)
}

// moreSteps is how many further steps there are while nothing was kept up with: down to a 128th of a closed loop's rate or so.
const moreSteps = 5

// keepsUp is the least part of what was due that must be answered in time.
const keepsUp = 0.98

// Capacity finds the highest rate that is kept up with: 98 % of the requests answered in time, none failed, the 99th percentile within the bound. A closed loop
// with all connections tells what to look below; the rest is bisection, so the figure is exact to 1/2^Steps of that.
func Capacity(ctx context.Context, o Options, s Search) (float64, error) {
	if s.Within <= 0 {
		s.Within = 100 * time.Millisecond
	}
	if s.Steps <= 0 {
		s.Steps = 5
	}
	closed := o
	closed.Rate = 0
	r, err := Run(ctx, closed)
	if err != nil {
		return 0, err
	}
	if r.Answered == 0 {
		return 0, fmt.Errorf("%w: not one request was answered: %s", errTooSlow, r.FirstError)
	}
	// Beyond what a closed loop reaches there is nothing: a sixteenth is for luck.
	low, high := 0.0, r.Achieved*17/16
	// A rate that was not kept up with gets a second chance: the machine may have had a slow spell. While nothing was kept up with, there are more steps.
	for i := 0; i < s.Steps || low == 0 && i < s.Steps+moreSteps; i++ {
		o.Rate = (low + high) / 2
		if i == 0 {
			o.Rate = r.Achieved * 3 / 4
		}
		kept := false
		for range 2 {
			t, err := Run(ctx, o)
			if err != nil {
				return 0, err
			}
			kept = t.keptUp(s.Within)
			if s.Tried != nil {
				s.Tried(t, kept)
			}
			if kept {
				break
			}
		}
		if kept {
			low = o.Rate
		} else {
			high = o.Rate
		}
	}
	if low == 0 {
		return 0, fmt.Errorf("%w: the least that was tried is %.0f for each second, a closed loop reached %.0f", errTooSlow, high, r.Achieved)
	}
	return low, nil
}

func (r *Result) keptUp(within time.Duration) bool {
	return r.Failed == 0 && r.Unanswered == 0 && r.Achieved >= keepsUp*r.Offered && r.Latency.P99 <= float64(within)/float64(time.Millisecond)
}
