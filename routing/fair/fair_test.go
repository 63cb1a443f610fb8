package fair

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"testing"
	"time"
)

// TestSharesAreFair takes places at random and checks that nobody who holds less than its part loses one.
func TestSharesAreFair(t *testing.T) {
	pick := func(n int64) int {
		k, _ := rand.Int(rand.Reader, big.NewInt(n))
		return int(k.Int64())
	}
	s := NewShares[Source](100)
	var places []*Place[Source]
	held := map[string]int{}
	for range 20_000 {
		// The first host takes as much as it can, over many connections and routes.
		from := Source{"greedy", fmt.Sprint(pick(40)), fmt.Sprint(pick(1000))}
		if pick(50) == 0 {
			from = Source{fmt.Sprint("modest ", pick(5)), "connection", fmt.Sprint(pick(3))}
		}
		if k := pick(400); k < len(places) && k%4 == 0 {
			p := places[k]
			if !p.left {
				held[p.value[0]]--
			}
			if held := !p.left; s.Leave(p) != held || s.Leave(p) {
				t.Fatal("a place is left twice")
			}
			places = append(places[:k], places[k+1:]...)
			continue
		}
		before, sources := s.Held(), len(s.root.parts)
		p, oldest, evicted := s.Take(from, from)
		if evicted != (before == 100) {
			t.Fatalf("evicted %v with %d places taken", evicted, before)
		}
		held[from[0]]++
		if evicted {
			held[oldest[0]]--
			if held[oldest[0]]+2 < 100/(sources+1) {
				t.Fatalf("%v lost a place to %v with %d of 100, %d sources", oldest, from, held[oldest[0]]+1, sources)
			}
		}
		places = append(places, p)
		if n := s.Held(); n > 100 {
			t.Fatalf("%d places", n)
		}
	}
	for _, p := range places {
		s.Leave(p)
	}
	if s.Held() != 0 || len(s.root.parts) != 0 {
		t.Errorf("%d places and %d sources are left", s.Held(), len(s.root.parts))
	}
}

// TestOldestGoesFirst: of one source, and among equals.
func TestOldestGoesFirst(t *testing.T) {
	s := NewShares[int](3)
	for i := range 3 {
		s.Take(Source{"a", "b", fmt.Sprint(i)}, i)
	}
	for i := 3; i < 10; i++ {
		_, oldest, evicted := s.Take(Source{"a", "b", fmt.Sprint(i)}, i)
		if !evicted || oldest != i-3 {
			t.Errorf("%d took the place of %d", i, oldest)
		}
	}
}

// TestTurns: a source with many jobs costs another one the time of one.
// TestWhoHasToGo: one that has more than the newcomer's source would have, or is behind the same connection; between those that have as much, nobody is said to have more.
func TestWhoHasToGo(t *testing.T) {
	s := NewShares[string](4)
	next := func(from Source, waiting int, want string) {
		t.Helper()
		oldest, more, free := s.Next(from, waiting)
		if got := fmt.Sprintf("%s %v %v", oldest, more, free); got != want {
			t.Errorf("%v: %s, want %s", from, got, want)
		}
	}
	next(Source{"a", "1"}, 3, " false true")
	next(Source{"a", "1"}, 4, " false false") // others wait for all of them
	for _, connection := range []string{"1", "2", "3"} {
		s.Take(Source{"a", connection}, connection)
	}
	next(Source{"a", "4"}, 0, " false true")
	next(Source{"a", "4"}, 1, "1 false false")
	p, _, _ := s.Take(Source{"a", "4"}, "4")
	next(Source{"a", "5"}, 0, "1 false false")
	next(Source{"a", "2", "x"}, 0, "1 false false")
	next(Source{"b", "1"}, 0, "1 true false") // from another machine
	s.Leave(p)
	s.Take(Source{"a", "3", "made up"}, "3'")
	next(Source{"a", "5"}, 0, "3 true false")
	next(Source{"a", "3", "made up too"}, 0, "3 true false")
	next(Source{"a", "1"}, 0, "3 false false")
}

func TestTurns(t *testing.T) {
	const each = 100
	w := NewTurns(1)
	let, all := make(chan struct{}), make(chan int, 2*each+1)
	w.Do(Source{"greedy"}, func() { <-let })
	for i := range each {
		w.Do(Source{"greedy"}, func() { all <- i })
	}
	w.Do(Source{"modest"}, func() { all <- -1 })
	close(let)
	var order []int
	for range each + 1 {
		order = append(order, <-all)
	}
	if order[0] != -1 && order[1] != -1 {
		t.Errorf("the other source's turn came after %v", order[:5])
	}
	next := 0
	for _, k := range order {
		if k >= 0 && k != next {
			t.Fatalf("a source's jobs change places: %v", order)
		} else if k >= 0 {
			next++
		}
	}
	for end := time.Now().Add(90 * time.Second); !w.Idle(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a worker is left")
		}
	}
}
