package main

import "testing"

// TestBenched: what pgbench prints is read, also where a busy machine left it no time, or time for less than one transaction in a second.
func TestBenched(t *testing.T) {
	const head = "pgbench (15.18)\nduration: 2 s\nnumber of transactions actually processed: "
	for out, want := range map[string]struct {
		rate string
		none bool
		good bool
	}{
		head + "2412\nnumber of failed transactions: 0 (0.000%)\nlatency average = 3.3 ms\ntps = 1207.1 (without initial connection time)": {"1207 tps", false, true},
		head + "4\nnumber of failed transactions: 0 (0.000%)\nlatency average = 6000.0 ms\ntps = 0.66 (without initial connection time)":   {"0 tps", false, true},
		head + "0\nnumber of failed transactions: 0 (NaN%)":                                                 {"", true, false},
		head + "7\nnumber of failed transactions: 1 (12.500%)\ntps = 3.5 (without initial connection time)": {"", false, false},
		"pgbench: error: connection refused":                                                                {"", false, false},
	} {
		if rate, none, err := benched(out); rate != want.rate || none != want.none || (err == nil) != want.good {
			t.Errorf("%q: %q, %v, %v", out, rate, none, err)
		}
	}
}
