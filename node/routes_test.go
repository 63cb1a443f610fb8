package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/routing/multiaddr"
	"sallyport/routing/secure"
)

// TestSpread: keys are spread evenly over the routes, each has an order of its own that is always the same, and those that a route's end does not concern keep theirs.
func TestSpread(t *testing.T) {
	var routes []multiaddr.Addr
	for i := range 3 {
		a, err := multiaddr.Parse(fmt.Sprintf("/dnsaddr/relay%d/tcp/4001/service/api", i))
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, a)
	}
	text := func(list []multiaddr.Addr) (out []string) {
		for _, a := range list {
			out = append(out, a.String())
		}
		return out
	}
	first, orders := map[string]int{}, map[string]bool{}
	const keys = 3000
	for i := range keys {
		key := fmt.Sprint("name", i)
		order := text(spread(routes, key))
		if len(order) != 3 || !slices.Equal(order, text(spread([]multiaddr.Addr{routes[2], routes[0], routes[1]}, key))) {
			t.Fatalf("%s: %v depends on the order of the list", key, order)
		}
		first[order[0]]++
		orders[fmt.Sprint(order)] = true
		without := text(spread(routes[:2], key))
		if rest := slices.DeleteFunc(slices.Clone(order), func(s string) bool { return s == routes[2].String() }); !slices.Equal(rest, without) {
			t.Fatalf("%s: %v without the third, %v with it", key, without, order)
		}
	}
	for route, n := range first {
		if n < keys/4 || n > keys*5/12 {
			t.Errorf("%s is the first of %d of %d", route, n, keys)
		}
	}
	if len(orders) != 6 {
		t.Errorf("%d orders", len(orders))
	}
}

// TestWhereAbsent: a node that does not have a name has the next one tried at once, and the session hears of it when none has it.
func TestWhereAbsent(t *testing.T) {
	var said []error
	ctx := context.WithValue(t.Context(), reportKey{}, func(err error) { said = append(said, err) })
	hurry, ctx := whereAbsent(ctx, 2)
	report := ctx.Value(reportKey{}).(func(error))
	report(fmt.Errorf("at one: %w", secure.ErrAbsent))
	if len(said) != 0 || len(hurry) != 1 {
		t.Errorf("one of two: %v, %d", said, len(hurry))
	}
	report(fmt.Errorf("at two: %w", secure.ErrAbsent))
	if len(said) != 1 || !errors.Is(said[0], secure.ErrAbsent) {
		t.Errorf("both: %v", said)
	}
	if hurry, _ := whereAbsent(t.Context(), 2); hurry != nil {
		t.Error("nobody is told")
	}
}

// TestUntilTold: who was busy when it was asked where the others are is asked again, with longer pauses, and not for ever; where the path ends before the answer the next one is asked at once.
func TestUntilTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		n := &Node{ctx: ctx}
		var at []time.Duration
		began, lost := time.Now(), 0
		asks := func(answered int) func() bool {
			at, began = nil, time.Now()
			return func() bool {
				at = append(at, time.Since(began))
				return len(at) == answered
			}
		}
		n.untilTold(nil, asks(3), func() { lost++ })
		if want := []time.Duration{0, routesAgain, 4 * routesAgain}; !slices.Equal(at, want) {
			t.Errorf("asked at %v, want %v", at, want)
		}
		n.untilTold(nil, asks(0), func() { lost++ })
		if last := at[len(at)-1]; len(at) < 4 || last > routesInterval {
			t.Errorf("without an answer it is asked at %v", at)
		}
		if lost != 0 {
			t.Error("a path was lost")
		}
		done := make(chan struct{})
		close(done)
		n.untilTold(done, asks(0), func() { lost++ })
		if len(at) != 1 || lost != 1 {
			t.Errorf("the path has ended: asked at %v, lost %d times", at, lost)
		}
		cancel()
		n.untilTold(nil, asks(0), func() { lost++ })
		if len(at) != 1 || lost != 1 {
			t.Errorf("the node has ended: asked at %v, lost %d times", at, lost)
		}
	})
}
