package main

import (
	"context"
	"fmt"
	"time"
)

// comboTimeout bounds everything in one combination.
const comboTimeout = 60 * time.Second

// runCombinations runs the chosen ones of the sixteen, one after the other, so
// that their numbers can be compared.
func (d *driver) runCombinations(ctx context.Context, chosen map[int]bool) {
	for _, c := range combinations(d.ours, d.reference) {
		if !chosen[c.number] || ctx.Err() != nil {
			continue
		}
		r := d.runCombination(ctx, c)
		d.result.Combinations = append(d.result.Combinations, r)
		word := "pass"
		if !r.Passed {
			word = "FAIL " + firstReason(r.Checks)
		}
		fmt.Printf("%2d %s  %5.1fs  %s\n", c.number, c.seats, r.Seconds, word)
	}
}

func (d *driver) runCombination(ctx context.Context, c combination) comboResult {
	ctx, cancel := context.WithTimeout(ctx, comboTimeout)
	defer cancel()
	s := c.seats
	r := comboResult{Number: c.number, Seats: [4]string{s.authority.name, s.relay.name, s.outlet.name, s.inlet.name}}
	begin := time.Now()
	r.Checks = d.tellStory(ctx, s)
	r.Seconds = time.Since(begin).Seconds()
	r.Passed = firstReason(r.Checks) == ""
	return r
}

// tellStory sets up the story and uses its portals for real. When the set-up
// fails nothing else is tried; the other checks do not depend on each other.
func (d *driver) tellStory(ctx context.Context, s seats) []check {
	st, err := newStory(d.procs, d.root, s, storyOptions{pgPort: d.pg.port, xferTarget: d.xfer.address()})
	if err != nil {
		return []check{{Name: "setup", Reason: err.Error()}}
	}
	defer st.close(d.keep)
	checks := []check{measure("setup", func() (string, error) { return "", st.start(ctx) })}
	if !checks[0].Passed {
		return checks
	}
	length, size := 5*time.Second, int64(256<<20)
	if d.quick {
		length, size = 2*time.Second, 16<<20
	}
	for _, test := range []struct {
		name string
		run  func() (string, error)
	}{
		{"psql", func() (string, error) { return "", d.pg.query(ctx, st.pgInlet) }},
		{"select", func() (string, error) { return d.pg.bench(ctx, st.pgInlet, length, true) }},
		{"tpcb", func() (string, error) { return d.pg.bench(ctx, st.pgInlet, length, false) }},
		{"upload", func() (string, error) { return transfer(ctx, st.xferInlet, modeUpload, size) }},
		{"download", func() (string, error) { return transfer(ctx, st.xferInlet, modeDownload, size) }},
	} {
		checks = append(checks, measure(test.name, test.run))
	}
	return checks
}
