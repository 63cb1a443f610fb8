package routing

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]Address{
		"echo":             {0, "echo"},
		"0#echo":           {0, "echo"},
		"1#127.0.0.1:4000": {TCP, "127.0.0.1:4000"},
		"255#":             {255, ""},
		"":                 {0, ""},
	} {
		if a, err := ParseAddress(text); err != nil || a != want {
			t.Errorf("%q: %v, %v", text, a, err)
		}
	}
	for _, text := range []string{"256#a", "x#a", "#a", "-1#a", "1#2#3", "1.5#a"} {
		if a, err := ParseAddress(text); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v, %v", text, a, err)
		}
	}
	if _, err := ParseRoute("a => 1#b => 2#3#4"); !errors.Is(err, ErrAddress) {
		t.Errorf("route with a bad address: %v", err)
	}
}

// TestRouteOperations holds a Route against a slice of addresses.
func TestRouteOperations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, o := genRoute().Draw(t, "route"), genRoute().Draw(t, "other")
		list, other := r.Addresses(), o.Addresses()
		if len(list) != r.Len() {
			t.Fatalf("%d addresses, Len %d", len(list), r.Len())
		}
		if !NewRoute(list...).Equal(r) || !r.Clone().Equal(r) {
			t.Fatal("not equal to its copy")
		}
		if got := r.Concat(o).Addresses(); !slices.Equal(got, slices.Concat(list, other)) {
			t.Fatalf("Concat: %v", got)
		}
		if r.Equal(o) != slices.Equal(list, other) {
			t.Fatal("Equal is wrong")
		}
		if len(list) == 0 {
			if r.WithoutFirst().Len() != 0 || r.WithoutLast().Len() != 0 {
				t.Fatal("an empty route does not stay empty")
			}
			return
		}
		last := len(list) - 1
		if r.First() != list[0] || r.Last() != list[last] {
			t.Fatalf("First %v, Last %v", r.First(), r.Last())
		}
		if !slices.Equal(r.WithoutFirst().Addresses(), list[1:]) || !slices.Equal(r.WithoutLast().Addresses(), list[:last]) {
			t.Fatal("WithoutFirst or WithoutLast is wrong")
		}
		w := list[0].Wire()
		if w.Address() != list[0] || w.Text() != list[0].Value || !RouteOf(w).Equal(NewRoute(list[0])) {
			t.Fatal("wire form is wrong")
		}
	})
}
