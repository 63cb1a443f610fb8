package main

import (
	"slices"
	"testing"
)

var (
	testOurs = program{name: "ours", path: "/o"}
	testRef  = program{name: "reference", path: "/r", quirks: true}
)

func TestCombinationsAreAllAndDistinct(t *testing.T) {
	all := combinations(testOurs, testRef)
	if len(all) != 16 {
		t.Fatalf("%d combinations, want 16", len(all))
	}
	seen := map[string]bool{}
	count := [4]int{}
	for i, c := range all {
		if c.number != i+1 {
			t.Errorf("combination %d has number %d", i+1, c.number)
		}
		if seen[c.seats.String()] {
			t.Errorf("%s occurs twice", c.seats)
		}
		seen[c.seats.String()] = true
		for n, p := range []program{c.seats.authority, c.seats.relay, c.seats.outlet, c.seats.inlet} {
			if p == testOurs {
				count[n]++
			}
		}
		if c.seats.admin != c.seats.authority {
			t.Errorf("%s: the admin runs %s", c.seats, c.seats.admin.name)
		}
	}
	if count != [4]int{8, 8, 8, 8} {
		t.Errorf("ours sits %v times in the seats, want 8 in each", count)
	}
	if first, last := all[0].seats.String(), all[15].seats.String(); first != "RRRR" || last != "OOOO" {
		t.Errorf("from %s to %s", first, last)
	}
	if got := all[4].seats.String(); got != "RORR" {
		t.Errorf("number 5 is %s, want RORR", got)
	}
}

func TestOrientations(t *testing.T) {
	got := orientations(testOurs, testRef)
	if len(got) != 2 || got[0].String() != "ours->reference" || got[1].String() != "reference->ours" {
		t.Errorf("got %v", got)
	}
}

func TestParseNumbers(t *testing.T) {
	for _, c := range []struct {
		text string
		want []int
	}{
		{"3", []int{3}},
		{"1,16", []int{1, 16}},
		{"2-4, 4-5", []int{2, 3, 4, 5}},
		{"", nil}, {"0", nil}, {"17", nil}, {"5-3", nil}, {"x", nil}, {"1,", nil},
	} {
		got, err := parseNumbers(c.text, 16)
		if (err != nil) != (c.want == nil) {
			t.Errorf("%q: error %v", c.text, err)
			continue
		}
		for n := range 18 {
			if err == nil && got[n] != slices.Contains(c.want, n) {
				t.Errorf("%q: %d is %v", c.text, n, got[n])
			}
		}
	}
}
