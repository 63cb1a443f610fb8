package main

import (
	"errors"
	"testing"
	"time"
)

// TestOnlySlowIsTriedAgain: what a busy machine may be to blame for is told apart from what it may not.
func TestOnlySlowIsTriedAgain(t *testing.T) {
	of := row{pause: time.Second, loss: 10}
	good := report{before: 100, during: 95, longest: time.Second, bytes: 1, took: time.Minute}
	for name, c := range map[string]struct {
		spoil       func(*report)
		fault, slow bool
	}{
		"good":          {func(*report) {}, false, false},
		"a long wait":   {func(r *report) { r.longest++ }, true, true},
		"loss":          {func(r *report) { r.during = 80 }, true, true},
		"an error":      {func(r *report) { r.errors, r.firstError, r.longest = 1, errors.New("reset"), time.Hour }, true, false},
		"nothing comes": {func(r *report) { r.bytes = 0 }, true, false},
	} {
		r := good
		c.spoil(&r)
		if err := r.fault(of); (err != nil) != c.fault || errors.Is(err, errSlow) != c.slow {
			t.Errorf("%s: %v", name, err)
		}
	}
}
