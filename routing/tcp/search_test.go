package tcp

import (
	"testing"
	"time"

	"sallyport/dataplane"
)

// TestSearch: the search for a rate begins anew when BBR has found more all the time while something waited, nothing waits in the line, and it was worth it the last time.
func TestSearch(t *testing.T) {
	const trip = 25 * time.Millisecond
	now := time.Unix(1000, 0)
	at := func(rate uint64) dataplane.BBR { return dataplane.BBR{Rate: rate, RTT: trip, Least: trip} }
	// looked has BBR find rates, one in each look, and returns after which of them it begins anew; -1 for none.
	looked := func(s *search, list ...dataplane.BBR) int {
		for k, b := range list {
			if !s.due(s.next) || s.due(s.next.Add(-1)) {
				t.Error("it is not due when it says")
			}
			if now = now.Add(searchRounds * b.Least); now.Before(s.next) {
				now = s.next
			}
			if s.look(b, true, now) {
				return k
			}
		}
		return -1
	}
	begins, queue, short := at(2000), at(2000), at(2000)
	begins.Begins = true
	queue.RTT = trip*5/4 + searchQueue + 1
	short.RTT, short.Least = searchShort-1, searchShort-1
	for _, c := range []struct {
		name string
		list []dataplane.BBR
		want int
	}{
		{"it finds more", []dataplane.BBR{at(1000), at(1125)}, 1},
		{"next to nothing more", []dataplane.BBR{at(1000), at(1124), at(1200)}, -1},
		{"less", []dataplane.BBR{at(1000), at(900), at(1000)}, -1},
		{"the first look", []dataplane.BBR{at(1000)}, -1},
		{"it has just begun", []dataplane.BBR{at(1000), begins, at(3000)}, -1},
		{"something waits in the line", []dataplane.BBR{at(1000), queue}, -1},
		{"a short path", []dataplane.BBR{short, at(3000)}, -1},
	} {
		if got := looked(&search{}, c.list...); got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}

	var s search
	looked(&s, at(1000))
	now = now.Add(searchRounds*trip + 1)
	if s.look(at(2000), true, now.Add(searchRounds*trip)) {
		t.Error("it begins anew though nothing waited in between")
	}
	if s.look(dataplane.BBR{}, false, now); s.due(now.Add(searchNever - 1)) {
		t.Error("a connection without BBR is looked at again soon")
	}

	s = search{}
	if looked(&s, at(1000), at(2000)) != 1 || looked(&s, begins, at(8000), at(9000)) != 2 {
		t.Error("it has found much more, and does not begin anew again")
	}
	forgot := search{}
	looked(&forgot, at(8000))
	now = now.Add(time.Minute)
	if forgot.look(at(4000), true, now) {
		t.Error("it has half of what it found before, and begins anew at once")
	}
	now = now.Add(time.Minute)
	late := at(3999)
	late.RTT = time.Second // of what went before
	if !forgot.look(late, true, now) {
		t.Error("it has forgotten what it found before, and does not begin anew")
	}
	looked(&forgot, at(3000))
	now = now.Add(time.Minute)
	if forgot.look(at(1600), true, now) {
		t.Error("it goes by what was found before the line became slower")
	}

	rest := time.Duration(0)
	for range 10 {
		if looked(&s, at(9000), at(9000)) != -1 { // nothing came of it
			t.Fatal("it begins anew where nothing more is found")
		}
		waited, rate := now, uint64(9000)
		for { // more is found all the time
			rate = rate * 9 / 8
			if looked(&s, at(rate)) == 0 {
				break
			}
		}
		if waits := now.Sub(waited); waits < rest || waits > searchRestMost+2*searchRounds*trip {
			t.Errorf("nothing came of it, and it rests for %v, before for %v", waits, rest)
		} else {
			rest = waits - 2*searchRounds*trip
		}
		s.before = rate * 2
	}
	if rest < searchRestMost/2 {
		t.Errorf("nothing comes of it, and it begins anew after %v", rest)
	}
}
