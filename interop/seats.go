package main

import (
	"fmt"
	"strings"
)

// program is one of the two implementations under test.
type program struct {
	name string // "ours" or "reference"
	path string // executable
	// quirks: decides as the reference does where ours differs on purpose. True
	// for "ours" too when the driver is tried with the reference on both sides.
	quirks bool
}

// letter is the one-letter form used in names of combinations.
func (p program) letter() string { return strings.ToUpper(p.name[:1]) }

// seats says which program plays which part of the story.
type seats struct {
	authority, relay, outlet, inlet program
	// admin creates the tickets. It usually is the authority's program.
	admin program
}

// String names the seats in their fixed order: authority, relay, outlet, inlet.
func (s seats) String() string {
	return s.authority.letter() + s.relay.letter() + s.outlet.letter() + s.inlet.letter()
}

// combination is one of the sixteen ways to fill the four seats.
type combination struct {
	number int // 1 to 16
	seats  seats
}

// combinations lists all ways to give the four seats to two programs, from
// "reference everywhere" (1) to "ours everywhere" (16). The inlet changes
// fastest, so that neighbours differ in few seats.
func combinations(ours, reference program) []combination {
	pick := func(n, bit int) program {
		if n>>bit&1 == 1 {
			return ours
		}
		return reference
	}
	all := make([]combination, 0, 16)
	for n := range 16 {
		s := seats{authority: pick(n, 3), relay: pick(n, 2), outlet: pick(n, 1), inlet: pick(n, 0)}
		s.admin = s.authority
		all = append(all, combination{number: n + 1, seats: s})
	}
	return all
}

// orientation is the pair of programs of a further row: a is the one that the
// row is about, b the one on the other end.
type orientation struct{ a, b program }

// String is the form printed in the table.
func (o orientation) String() string { return o.a.name + "->" + o.b.name }

// orientations gives both directions.
func orientations(ours, reference program) []orientation {
	return []orientation{{ours, reference}, {reference, ours}}
}

// parseNumbers reads a list such as "3", "1,4" or "1-4,16" of numbers from 1 to limit.
func parseNumbers(text string, limit int) (map[int]bool, error) {
	chosen := map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		from, to := 0, 0
		if _, err := fmt.Sscanf(part, "%d-%d", &from, &to); err != nil {
			if _, err := fmt.Sscanf(part, "%d", &from); err != nil {
				return nil, fmt.Errorf("%q is not a number or a range", part)
			}
			to = from
		}
		if from < 1 || to > limit || from > to {
			return nil, fmt.Errorf("%q is outside 1-%d", part, limit)
		}
		for n := from; n <= to; n++ {
			chosen[n] = true
		}
	}
	return chosen, nil
}
