package fair

import (
	"fmt"
	"testing"
	"time"
)

// TestRate: one source gets all while it is alone, and keeps nobody out who comes later; whatever it says is behind it, all together stay within
// three times the rate; another second is another one.
func TestRate(t *testing.T) {
	now := time.Unix(1, 0)
	r := NewRate(100)
	r.now = func() time.Time { return now }
	take := func(n int, from func(int) Source) (got int) {
		for i := range n {
			if r.Take(from(i)) {
				got++
			}
		}
		return got
	}
	same := func(s ...string) func(int) Source {
		return func(int) (from Source) { copy(from[:], s); return from }
	}
	if n := take(1000, same("greedy", "1")); n != 40 {
		t.Errorf("alone it got %d of 100", n)
	}
	if n := take(1000, func(i int) Source { return Source{"relay", "c", fmt.Sprint(i)} }); n < 40 || n > 80 {
		t.Errorf("those behind one relay got %d of 100", n)
	}
	if n := take(20, same("modest", "1")); n != 20 {
		t.Errorf("who came later got %d of 20", n)
	}
	if n := take(20, same("greedy", "2")); n == 20 {
		t.Error("another connection of the same machine doubles what it gets")
	}
	if n := take(1000, same("modest", "1")); n > 20 {
		t.Errorf("then it got %d more; a third of 100 is for it", n)
	}
	now = now.Add(time.Second)
	if r.Used() < 100 || r.Used() > 200 {
		t.Errorf("%d were admitted", r.Used())
	}
	all := take(5000, func(i int) Source { return Source{"greedy", fmt.Sprint(i), fmt.Sprint(i)} })
	all += take(5000, func(i int) Source { return Source{"relay", "c", fmt.Sprint(i)} })
	if all > 300 {
		t.Errorf("%d of 100 with sources that are made up", all)
	}
	for i := range 5 { // behind one relay, beside one that floods
		if !r.Take(Source{"late", "c", fmt.Sprint(i)}) {
			t.Error("who comes last is kept out")
		}
	}
	now = now.Add(time.Minute)
	if r.Used() != 0 || !r.Take(Source{"greedy"}) {
		t.Error("a minute later nothing is free")
	}
}
