package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// row is one attack.
type row struct {
	name     string
	number   int    // in the list of what could once be done; 0 for what stands beside it
	attack   string // what is done
	promised string // what must be so
	long     bool   // left out of a short run
	// stage says which nodes there are. alone: the attack ends nodes or leaves them otherwise than they were, so no other row has this stage.
	stage stageOptions
	alone bool
	// pause is the longest time that the neighbour may wait for an answer; default 2 s. Negative: the neighbour's nodes are attacked, and
	// it is not measured.
	pause time.Duration
	// loss is how much of its stream the neighbour may lose, in percent; 0 does not bound it, since attacks take processors from everybody.
	loss float64
	// proof names the tests of a row that can't be seen from outside: it has no run.
	proof string
	run   func(ctx context.Context, s *stage) (seen string, err error)
}

// result is what came of a row.
type result struct {
	row
	seen      string
	err       error
	neighbour report
	memory    []string
	took      time.Duration
}

func (r result) verdict() string {
	switch {
	case r.err != nil:
		return "BROKEN: " + r.err.Error()
	case r.run == nil && r.proof != "":
		return "shown by " + r.proof
	}
	return "held: " + r.seen
}

// raceSlower is how much longer a neighbour may wait where nodes have the race detector.
const raceSlower = 10

// errSlow is in the errors of what took longer than it may, and of nothing else.
var errSlow = errors.New("too slow")

// slowTries is how often a row that is too slow is performed at most.
const slowTries = 3

// perform sets the stage, lets the neighbour run, attacks, and looks.
func (u *suite) perform(ctx context.Context, r row) (res result) {
	if r.pause == 0 {
		r.pause = 2 * time.Second
	}
	if u.race { // it looks for races, not at time; nor at memory, of which the detector takes several times as much
		r.pause, r.loss = r.pause*raceSlower, 0
	}
	res.row = r
	if r.run == nil {
		return res
	}
	began := time.Now()
	defer func() { res.took = time.Since(began) }()
	ctx, cancel := context.WithTimeout(ctx, 6*time.Minute)
	defer cancel()
	s, err := u.stageFor(ctx, r)
	if err != nil {
		res.err = fmt.Errorf("stage: %w", err)
		return res
	}
	defer func() {
		if s != u.shared {
			s.close()
		} else if res.err != nil { // what is left of it is no measure for others
			s.close()
			u.shared = nil
		}
	}()
	s.forgetPeaks()
	before := s.goroutines()
	n := newNeighbour(s)
	defer n.stop()
	if r.pause >= 0 {
		if res.err = n.begin(ctx); res.err != nil {
			return res
		}
	}
	res.seen, res.err = r.run(ctx, s)
	res.neighbour = n.stop()
	res.memory = s.memory()
	if res.err == nil && r.pause >= 0 {
		res.err = res.neighbour.fault(r)
	}
	if res.err == nil {
		res.err = s.sane()
	} else if race := s.races(); race != nil { // also of a row that did not hold for another reason
		res.err = errors.Join(race, res.err)
	}
	if res.err == nil && !u.short && !r.alone {
		res.err = s.settled(ctx, before)
	}
	return res
}

// stageFor returns the stage of a row: the one of many rows, or its own.
func (u *suite) stageFor(ctx context.Context, r row) (*stage, error) {
	if r.alone || !r.stage.plain() {
		return newStage(ctx, u, r.stage)
	}
	if u.shared == nil {
		s, err := newStage(ctx, u, r.stage)
		if err != nil {
			return nil, err
		}
		u.shared = s
	}
	return u.shared, nil
}

// soak attacks one stage in all ways that leave it as it was, in random order, while one neighbour is at work all the time, and looks
// whether the nodes are afterwards what they were.
func (u *suite) soak(ctx context.Context, list []row, during time.Duration) (res result) {
	res.row = row{
		name: "soak", attack: fmt.Sprintf("all attacks that leave the nodes alive, in random order, for %v", during),
		promised: "one neighbour has no error all the time, memory and goroutines are back at the end", pause: 5 * time.Second,
	}
	began := time.Now()
	defer func() { res.took = time.Since(began) }()
	var some []row
	for _, r := range list {
		if r.run != nil && !r.alone && r.stage.plain() && r.pause >= 0 {
			some = append(some, r)
			res.pause = max(res.pause, r.pause)
		}
	}
	if len(some) == 0 {
		return res
	}
	s, err := newStage(ctx, u, stageOptions{})
	if err != nil {
		res.err = fmt.Errorf("stage: %w", err)
		return res
	}
	defer s.close()
	before, rss := s.goroutines(), s.rss("relay", "VmRSS")
	n := newNeighbour(s)
	defer n.stop()
	if res.err = n.begin(ctx); res.err != nil {
		return res
	}
	attacks := 0
	for time.Since(began) < during && ctx.Err() == nil {
		r := some[rand.IntN(len(some))]
		seen, err := r.run(ctx, s)
		fmt.Fprintf(os.Stderr, "soak %v: %s: %s\n", time.Since(began).Round(time.Second), r.name, seen)
		attacks++
		if err != nil {
			res.err = fmt.Errorf("%s: %w", r.name, err)
			break
		}
	}
	res.neighbour = n.stop()
	res.memory = s.memory()
	res.seen = fmt.Sprintf("%d attacks", attacks)
	if res.err == nil {
		res.err = res.neighbour.fault(res.row)
	}
	if res.err == nil {
		res.err = s.sane()
	}
	if res.err == nil {
		res.err = s.settled(ctx, before)
	}
	if now := s.rss("relay", "VmRSS"); res.err == nil && now > rss+96<<20 {
		res.err = fmt.Errorf("the relay had %d MB before and %d MB after", rss>>20, now>>20)
	}
	return res
}
